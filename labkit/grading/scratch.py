"""Folders for a while, and the end of those that killed runs have left.

A folder is locked for as long as its process lives, however that ends; so whoever can lock it knows that
nobody needs it any more. Two kinds are not made here: an engine's answers on its sockets while it lives, and
a student's belongs to a process of an engine.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labkit.grading.files import remove

OURS = re.compile(r"labkit-(?P<kind>release|collect|run|kernel|jupyter|engine|student)-[a-z0-9_]{8}")
STUDENTS = "/tmp"  # noqa: S108 (where a student's process makes its folder, whatever TMPDIR says)
NOBODY = 65534  # who runs students' code for root
YOUNG = 2.0  # seconds within which an engine may not listen yet
STARTING = 60.0  # and within which it may have no socket yet
ZYGOTE = "labkit.grading."  # in the command line of each process that makes a student's folder


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """A folder inside the `with` block, `labkit-<kind>-...`; `sweep` removes it if this process is killed."""
    path, lock = _locked_folder(f"labkit-{kind}-")
    try:
        yield path
    finally:
        with suppress(OSError):
            remove(path)
        if lock is not None:
            os.close(lock)


def sweep() -> None:
    """Remove what runs that have ended left among the system's temporary files. It never fails."""
    if sys.platform == "win32":
        return
    places = {Path(tempfile.gettempdir()), Path(STUDENTS)}
    found = [path for place in places for path in _own_folders(place)]
    students = [path for path in found if _kind_of(path) == "student"]
    engines = [path for path in found if _kind_of(path) == "engine"]
    alive = [path for path in engines if _answers(path)]
    for path in found:
        if path in students or path in alive:
            continue
        with suppress(OSError):
            remove(path) if path in engines else _remove_if_free(path)
    for path in students if not alive else []:
        with suppress(OSError):
            if not _may_be_in_use(path.lstat().st_ctime):
                remove(path)


def _locked_folder(prefix: str) -> tuple[Path, int | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        if sys.platform == "win32":
            return path, None
        with suppress(FileNotFoundError, BlockingIOError):  # somebody who sweeps was faster
            lock = _lock(path)
            if path.exists():
                return path, lock
            os.close(lock)


def _lock(path: Path) -> int:
    """Raises BlockingIOError if another process has locked the folder."""
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_free(path: Path) -> None:
    descriptor = _lock(path)
    try:
        remove(path)
    finally:
        os.close(descriptor)


def _own_folders(place: Path) -> list[Path]:
    """The lab's folders there that belong to this user, or to the nobody who runs students' code for root."""
    found, as_root = [], os.getuid() == 0
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            match = OURS.fullmatch(entry.name)
            if match is None or not entry.is_dir(follow_symlinks=False):
                continue
            owners = {os.getuid(), NOBODY if as_root and match["kind"] == "student" else os.getuid()}
            if entry.stat(follow_symlinks=False).st_uid in owners:
                found.append(Path(entry.path))
    return found


def _kind_of(path: Path) -> str:
    match = OURS.fullmatch(path.name)
    return match["kind"] if match is not None else ""


def _answers(engine: Path) -> bool:
    """Whether an engine's folder is in use: a process listens on a socket in it, or may be about to."""
    try:
        age = time.time() - engine.stat().st_mtime
        sockets = [path for path in sorted(engine.iterdir()) if stat.S_ISSOCK(path.lstat().st_mode)]
    except OSError:  # it may have gone; else nobody knows
        return True
    return age < (YOUNG if sockets else STARTING) or any(map(_listens, sockets))


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:  # nobody knows
            return True
    return True


def _may_be_in_use(since: float) -> bool:
    """Whether a process of an engine lives that is older than a folder of that time."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.create_time() <= since + YOUNG and any(ZYGOTE in word for word in process.cmdline()):
                return True
    return False
