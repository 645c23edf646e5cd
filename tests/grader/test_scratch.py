"""What is left among the system's temporary files: of a killed run nothing, after the next one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from labkit.grading import scratch as module
from labkit.grading.scratch import scratch_folder, sweep

pytestmark = pytest.mark.skipif(os.name != "posix", reason="this system cannot kill -9")

HOLD = """\
import sys, time
from labkit.grading.scratch import scratch_folder
with scratch_folder("collect") as folder:
    (folder / "ada").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary files, for this test alone: the real ones may be in use."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(module, "STUDENTS", str(tmp_path))
    before = set(_children())  # engines of other tests and of other people are none of this test's
    monkeypatch.setattr(psutil, "process_iter", lambda: [one for one in _children() if one not in before])
    return tmp_path


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def made(place: Path, name: str) -> Path:
    (place / name / "inside" / "more").mkdir(parents=True)
    return place / name


def as_old(path: Path, seconds: float = 3600.0) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def holding() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_there_for_a_while(place: Path) -> None:
    with scratch_folder("collect") as folder:
        assert folder.parent == place and folder.name.startswith("labkit-collect-")
        (folder / "in").mkdir()
        sweep()
        assert (folder / "in").exists()
    assert list(place.iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_what_is_in_use_stays() -> None:
    killed, left = holding()
    living, used = holding()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert left.exists()
        sweep()
        assert not left.exists() and (used / "ada").exists()
    finally:
        living.communicate("")
    assert not used.exists()


def test_only_our_own_folders_are_removed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = ("labkit-other-abcd1234", "labkit-run-abcd12345", "xlabkit-run-abcd1234", "labkit-run-ABCD!234")
    kept = {made(place, name) for name in names}
    elsewhere = made(tmp_path_factory.mktemp("else"), "kept")
    (place / "labkit-run-aaaa1234").symlink_to(elsewhere)
    (place / "labkit-run-bbbb1234").write_text("a file")
    gone = made(place, "labkit-run-cccc1234")
    (gone / "inside" / "link").symlink_to(elsewhere)
    sweep()
    assert set(place.iterdir()) == {
        *kept, place / "labkit-run-aaaa1234", place / "labkit-run-bbbb1234",
    }  # fmt: skip
    assert (elsewhere / "inside").exists()


def test_other_users_folders_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = made(place, "labkit-run-abcd1234")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    sweep()
    assert theirs.exists()


def test_an_engines_folder_is_in_use_while_somebody_listens_in_it(place: Path) -> None:
    engine = made(place, "labkit-engine-abcd1234")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(engine / "students"))
        listener.listen()
        as_old(engine)
        student = made(place, "labkit-student-abcd1234")
        sweep()
        assert engine.exists() and student.exists()
    as_old(engine)
    sweep()
    assert not engine.exists() and not student.exists()


def test_an_engine_that_is_starting_has_no_socket_yet(place: Path) -> None:
    engine = made(place, "labkit-engine-abcd1234")
    sweep()
    assert engine.exists()
    as_old(engine)
    sweep()
    assert not engine.exists()


def test_a_students_folder_stays_while_a_process_of_an_older_engine_lives(
    place: Path,
) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "labkit.grading.zygote"]
    zygote = subprocess.Popen(command, stdin=subprocess.PIPE)
    student = made(place, "labkit-student-abcd1234")
    try:
        assert psutil.Process(zygote.pid).is_running()
        sweep()
        assert student.exists()
    finally:
        zygote.communicate(b"")
    sweep()
    assert not student.exists()


def test_a_sweep_never_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(place, "labkit-run-abcd1234")

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "remove", refused)
    sweep()
    monkeypatch.setattr(module, "STUDENTS", "/no/such/folder")
    sweep()
