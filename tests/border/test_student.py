"""How a student's process ended: what the keeper says, and what a student's code may say in its name."""

from __future__ import annotations

import json
import socket

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.student import SAID, Student


def told(data: bytes) -> tuple[str, str]:
    """What is made of these bytes of the keeper's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        student = Student.__new__(Student)
        student._keeper = ours
        theirs.sendall(data)
        theirs.close()
        return student.why_gone()


@pytest.mark.parametrize("end", SAID, ids=str)
def test_an_end_has_its_kind_and_sentence(end: object) -> None:
    assert told(b"0\n" + json.dumps(end).encode() + b"\n") == SAID[end]


@pytest.mark.parametrize("status", [0, 1, 3, -15, 255])
def test_another_exit_status_is_a_crash_and_named(status: int) -> None:
    assert told(b"%d\n" % status) == ("crashed", f"its process ended (exit status {status})")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"[" * 60_000, b"[" * 60_000 + b"\n", b'"' + b"x" * 3000 + b'"\n', b'"a student\'s words"\n',
        b"9" * 5000 + b"\n", b"1" * 300 + b"\n", b"true\n", b"NaN\n", b"-1e999\n", b'{"memory": 1}\n', b'["memory"]\n',
        b"\xff\xfe\n", b'"\\ud800"\n',
    ],
    ids=lambda data: data[:20].decode("latin-1"),
)  # fmt: skip
def test_words_that_no_keeper_says_are_not_repeated(data: bytes) -> None:
    assert told(data) == ("crashed", "its process ended")
