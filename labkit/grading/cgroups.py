"""Memory and processes of one notebook, held by the kernel: a control group (cgroup v2) for each.

Works where this process may make groups: as root, or where systemd has delegated that to the user, as it
does for what runs under `user@.service`. The engine makes a home; a keeper makes a group in it for its
notebook, and the student's first process enters that. What a group has taken (pages of its own, files in
memory, sockets' and pipes' buffers, page tables) is counted by the kernel, whoever still has hold of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "pids")
SECONDS_TO_REMOVE = 5.0
NAME = "labkit-"


@dataclass(frozen=True)
class Group:
    """One notebook's group, as two open files: they can be used after this process has become nobody."""

    entrance: int
    events: int

    @classmethod
    def make(cls, home: int, name: str, memory: int, processes: int) -> Group:
        """A group in the folder `home` (an open descriptor). memory: bytes. processes: threads too."""
        remove(home, name)  # of an earlier process with the same number
        os.mkdir(name, 0o755, dir_fd=home)
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=home)
        try:
            _write("memory.max", str(memory), folder)
            _write("memory.oom.group", "1", folder)
            _write("pids.max", str(processes), folder)
            with contextlib.suppress(FileNotFoundError):  # a kernel that does not count swap
                _write("memory.swap.max", "0", folder)
            entrance = os.open("cgroup.procs", os.O_WRONLY, dir_fd=folder)
            return cls(entrance, os.open("memory.events", os.O_RDONLY, dir_fd=folder))
        finally:
            os.close(folder)

    def enter(self) -> None:
        """Move this process into the group, and give up what could move it out again."""
        os.write(self.entrance, b"0")
        self.close()

    def ran_out(self) -> bool:
        """Whether the kernel ended the group because it needed more memory than it may have."""
        lines = os.pread(self.events, 4096, 0).decode().splitlines()
        counts = dict(line.split() for line in lines)
        return int(counts.get("oom_kill", 0)) > 0

    def close(self) -> None:
        """Close both files."""
        os.close(self.entrance)
        os.close(self.events)


@dataclass(frozen=True)
class Home:
    """The folder of all groups of one engine."""

    folder: Path
    descriptor: int

    @classmethod
    def make(cls) -> Home | None:
        """In the nearest place that lets us; None where there is none."""
        for place in _places():
            _remove_stale(place)
            folder = place / f"{NAME}{os.getpid()}-{secrets.token_hex(4)}"
            with contextlib.suppress(OSError):
                folder.mkdir(0o755)
                try:
                    _write(str(folder / "cgroup.subtree_control"), _switched_on())
                    return cls(folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
                except OSError:
                    folder.rmdir()
        return None

    def close(self) -> None:
        """End whatever still runs in a group, and remove all of them."""
        os.close(self.descriptor)
        _remove_tree(self.folder)


def remove(home: int, name: str) -> None:
    """Remove the group of that name once nothing runs in it; what cannot go yet goes with the home."""
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=home)


@contextlib.contextmanager
def trial() -> Iterator[Group | None]:
    """A group to try out whether a process can enter one; None where none can be made."""
    home = Home.make()
    if home is None:
        yield None
        return
    try:
        group = Group.make(home.descriptor, "trial", 2**28, 8)
    except OSError:
        yield None
    else:
        yield group
        group.close()
    finally:
        home.close()


def _places() -> Iterator[Path]:
    """The folders above our own group whose children can have limits, the nearest first.

    Our own is none of them: a group that has processes has no children with limits, except the root.
    """
    own = _own_group()
    if own is None:
        return
    top, inside = own
    for folder in [top / inside, *(top / inside).parents]:
        controls, offered = folder / "cgroup.subtree_control", folder / "cgroup.controllers"
        if not controls.exists():
            return
        if not (folder / "cgroup.type").exists() and _has(offered):  # the root of all groups
            with contextlib.suppress(OSError):
                _write(str(controls), _switched_on())
        if _has(controls):
            yield folder


def _own_group() -> tuple[Path, Path] | None:
    """(where cgroup v2 is mounted, this process's group below that)."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return None
    path = next((line[3:] for line in groups if line.startswith("0::")), None)
    for root, point, *rest in (words[3:] for words in mounts):
        if path and "cgroup2" in rest and Path(path).is_relative_to(root) and ".." not in path:
            return Path(point), Path(path).relative_to(root)
    return None


def _switched_on() -> str:
    return " ".join(f"+{name}" for name in CONTROLLERS)


def _has(file: Path) -> bool:
    try:
        return set(CONTROLLERS) <= set(file.read_text().split())
    except OSError:
        return False


def _write(name: str, text: str, folder: int | None = None) -> None:
    file = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _remove_stale(place: Path) -> None:
    """What an engine that was killed has left here."""
    for folder in place.glob(f"{NAME}*-*"):
        number = folder.name.removeprefix(NAME).partition("-")[0]
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    with contextlib.suppress(OSError):  # before Linux 5.14 there is no such file
        _write(str(folder / "cgroup.kill"), "1")
    end = time.monotonic() + SECONDS_TO_REMOVE
    while folder.exists() and time.monotonic() < end:
        for group in [*(path for path in folder.glob("*") if path.is_dir()), folder]:
            with contextlib.suppress(OSError):  # its last process has not quite ended
                group.rmdir()
        if folder.exists():
            time.sleep(0.02)
