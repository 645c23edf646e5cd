"""A level is entered as it was announced, or nothing of a student's runs: each step refused in turn."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from labkit.grading import keeper, worker
from labkit.grading.bubblewrap import readable_paths
from labkit.grading.channel import Channel
from labkit.grading.levels import STEPS, Level, possible_steps
from labkit.grading.sandbox import IsolationError, Limits
from labkit.grading.student import Student
from tests.border.outer import refuse_call

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for what Linux offers")
LIMITS = Limits(disk=2**20)
Keeper = Callable[[Level, Callable[[], object]], str]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keeper]:
    """keep(level, first) -> the socket of a keeper that did `first`, and serves one notebook at this level."""
    children = []

    def start(level: Level, first: Callable[[], object]) -> str:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "keeper"))
            listener.listen()
            pid = os.fork()
            if pid == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a refusal leaves a traceback in the log
                worker.run = _tell  # type: ignore[assignment]
                try:
                    first()
                    keeper.keep(listener.accept()[0], level, readable_paths([]), None)
                finally:
                    os._exit(0)
        children.append(pid)
        return str(tmp_path / "keeper")

    yield start
    for pid in children:
        os.waitpid(pid, 0)


def _tell(control: socket.socket, tests: Sequence[socket.socket]) -> None:
    """In the place of a student's notebook: what this process is held to."""
    tried = {}
    for what, action in (
        ("file", lambda: Path("/etc/passwd").read_text()),
        ("socket", lambda: socket.socket(socket.AF_INET)),
        ("disk", lambda: Path("file").write_bytes(bytes(LIMITS.disk + 1))),
    ):
        try:
            action()
            tried[what] = "done"
        except OSError as error:
            tried[what] = errno.errorcode[error.errno or 0]
    tried["parent"] = str(os.getppid())
    Channel(control).send(tried)


@pytest.fixture(scope="module")
def level() -> Level:
    """All steps that can be entered here, without bubblewrap."""
    steps = possible_steps()
    for step in STEPS:
        if step not in steps:
            pytest.skip(f"no {step} here")
    return Level(False, True, True, True)


@pytest.mark.parametrize(
    ("call", "reason", "step"),
    [
        ("unshare", errno.EPERM, "namespaces: Operation not permitted"),
        ("unshare", errno.ENOSPC, "namespaces: No space left on device"),
        ("mount", errno.EACCES, "disks in memory: Permission denied"),
        ("keyctl", errno.EDQUOT, "session keyring: Disk quota exceeded"),
        ("landlock_restrict_self", errno.EPERM, "landlock: Operation not permitted"),
        ("seccomp", errno.EPERM, "system-call filter: Operation not permitted"),
    ],
)
def test_a_step_that_is_refused_ends_the_notebook(
    call: str, reason: int, step: str, level: Level, keep: Keeper
) -> None:
    where = keep(level, lambda: refuse_call(call, reason))
    with pytest.raises(IsolationError, match=re.escape(f"as this run announced ({step})")):
        Student(where, 1, LIMITS)


def test_where_nothing_is_refused_it_runs_with_every_step_taken(level: Level, keep: Keeper) -> None:
    student = Student(keep(level, lambda: None), 1, LIMITS)
    header, _ = student.control.receive()
    student.stop()
    header.pop("sizes")
    assert header == {"file": "EACCES", "socket": "EPERM", "disk": "EFBIG", "parent": "1"}


@pytest.mark.parametrize(("call", "reason"), [("keyctl", errno.ENOSYS), ("keyctl", errno.EPERM)])
def test_keyrings_that_nobody_has_are_no_reason_to_stop(
    call: str, reason: int, level: Level, keep: Keeper
) -> None:
    Student(keep(level, lambda: refuse_call(call, reason)), 1, LIMITS).stop()


SENTENCE = """
import sys
from labkit.grading import levels
from tests.border.outer import refuse_call
for call in sys.argv[1:]:
    refuse_call(call)
print(levels.level().sentence)
"""


@pytest.mark.parametrize(
    ("calls", "has", "gap"),
    [
        ((), "system-call filter, limits", None),
        (("seccomp",), "limits; ", "make every system call"),
        (("unshare", "mount"), "landlock, system-call filter, limits", None),
    ],
)
def test_the_sentence_says_what_was_tried_and_worked(
    calls: tuple[str, ...], has: str, gap: str | None, level: Level
) -> None:
    command = [sys.executable, "-c", SENTENCE, *calls]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert has in said
    assert ("system-call filter" in said) is ("seccomp" not in calls)
    assert ("make every system call" in said) is (gap is not None)
    assert ("namespaces" in said) is ("unshare" not in calls)
