"""Consoles of few letters, pipes without a reader, a full disk, no output: none gives a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import streams
from labkit.outcomes import Outcome
from labkit.streams import accept_any_text

TRAIN = """
from torch import nn
import labkit
pictures = labkit.shapes10(size=50)
labkit.finetune(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), pictures, pictures, epochs=1)
"""
PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "LANG": "C"}


def console(encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)


@pytest.mark.parametrize(
    ("encoding", "errors", "shown"),
    [
        ("cp1252", "strict", b"  ? it is 3\xb7"),
        ("ascii", "surrogateescape", b"  ? it is 3?"),
        ("utf-8", "strict", "  ✓ it is 3·".encode()),
    ],
)
def test_a_letter_that_a_console_lacks_is_a_question_mark(
    monkeypatch: pytest.MonkeyPatch, encoding: str, errors: str, shown: bytes
) -> None:
    stream = console(encoding, errors)
    monkeypatch.setattr(sys, "stdout", stream)
    accept_any_text()
    print(Outcome("it is 3·", "passed", 1.0).lines(with_points=False), end="", flush=True)
    assert stream.buffer.getvalue() == shown


def test_a_notebooks_own_output_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    accept_any_text()


def test_a_closed_output_takes_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with streams.forgiving_output():
        print("nobody reads this")
        sys.stdout.close()
        monkeypatch.setattr(sys, "stdout", io.StringIO())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.parametrize("command", ["data --status | true", "data --status >&-", "submit | true"])
def test_a_command_whose_output_nobody_takes_has_no_traceback(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m labkit {command}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_output_that_is_full_is_a_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "labkit", "data", "--status"],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("labkit: a file or this command's output cannot be used (No space left")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX locale")
def test_a_script_trains_on_a_console_of_few_letters(tmp_path: Path, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        cwd=tmp_path, env={**os.environ, **PLAIN, "PYTHONPATH": str(repository)}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"epoch  1/1 ? train loss" in done.stdout
