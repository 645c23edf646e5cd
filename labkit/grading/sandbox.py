"""What a process gives up before it runs, or looks at, what a student wrote.

Always: limits on time, memory, files and processes, an empty folder, no environment, no rights of root. Where
Linux has them: namespaces (own processes, no network, a small disk in memory, a root with Python in it and
nothing else), landlock (no file but Python's own) and filters of system calls. What a system has of these is
found out in `levels`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.grading import hidden_memory, kernel_calls, own_root, seccomp

if TYPE_CHECKING:
    from labkit.grading.levels import Level

NOBODY = 65534
SHARED_MEMORY = Path("/dev/shm")  # multiprocessing, and so a DataLoader's workers, keep their locks there
# not /dev/zero: pages of a shared mapping of it are in nobody's count
DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
NOTHING = Path("/dev/null")
Places = tuple[Sequence[Path], Sequence[Path]]  # what can be read, what can be written
NAMESPACES = (
    kernel_calls.NEWUSER | kernel_calls.NEWPID | kernel_calls.NEWNET
    | kernel_calls.NEWIPC | kernel_calls.NEWNS | kernel_calls.NEWUTS
)  # fmt: skip


class IsolationError(Exception):
    """A step of the isolation that this run announced was refused: the sentence says which, and why."""


@dataclass(frozen=True)
class Limits:
    """What one student's notebook may use.

    memory: bytes beyond what the warm process has, of one process and of all together. processes: threads
    too. files: open at once. disk: bytes in its folder, and of one file.
    """

    cell_seconds: float = 30.0
    processor_seconds: int = 300
    memory: int = 2 * 2**30
    processes: int = 64
    files: int = 256
    disk: int = 64 * 2**20


def become_nobody() -> None:
    """Give up root for good, where nobody can read Python; nothing happens to an ordinary user."""
    if os.geteuid() == 0 and _everyone_may_enter(Path(os.__file__)):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with contextlib.suppress(OSError, AttributeError):
            kernel_calls.own_proc_files()


def stays_root() -> bool:
    """Whether `become_nobody` would change nothing for root: Python lies where nobody may not read."""
    return os.geteuid() == 0 and not _everyone_may_enter(Path(os.__file__))


def enter_namespaces(folder: Path, limits: Limits) -> list[Path]:
    """New namespaces for this process's children. Returns the places that are small disks of their own.

    IsolationError if any of it is refused.
    """
    with _announced("namespaces"):
        _enter_as_nobody(NAMESPACES)
    own = [place for place in (folder, SHARED_MEMORY) if place.is_dir()]
    with _announced("disks in memory"):
        for place in own:
            kernel_calls.mount_tmpfs(place, limits.disk // 2**20)
    return own


def enter_root(folder: Path, readable: Sequence[Path], writable: Sequence[Path]) -> None:
    """Leave the system's files behind, see `own_root.enter`. IsolationError if any of it is refused."""
    with _announced("a root of its own"):
        own_root.enter(folder, [*readable, *map(Path, DEVICES)], writable)


def _enter_as_nobody(namespaces: int) -> None:
    user, group = os.geteuid(), os.getegid()
    kernel_calls.unshare(namespaces)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        Path(f"/proc/self/{file}").write_text(text)


@dataclass(frozen=True)
class Confinement:
    """What the process that will run a student's code is held to.

    folder: its own, where it starts. root: what there is in a root of its own; landlock: what it may reach;
    None to go without. filtered: whether it enters the system-call filter. hides: whether it may have memory
    that none shows.
    """

    folder: Path
    limits: Limits
    root: Places | None
    landlock: Places | None
    filtered: bool
    hides: bool = False


def limit(held: Confinement) -> None:
    """What the student's process inherits from its parent. IsolationError if a step is refused."""
    limits = held.limits
    with contextlib.suppress(OSError):  # if memory ends in spite of all limits, this goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit_memory(limits.memory)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, limits.processor_seconds),
        (resource.RLIMIT_FSIZE, limits.disk),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_NPROC, limits.processes),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))
    if held.root is not None:
        enter_root(held.folder, *held.root)


def confine(held: Confinement) -> None:
    """The last steps, in the process that will run a student's code. IsolationError if one is refused."""
    os.chdir(held.folder)
    landlock = None
    if held.landlock is not None:
        readable, writable = held.landlock
        landlock = (readable, [*writable, NOTHING])
    _give_up(landlock, held.filtered, held.hides)


def confine_tests(level: Level, readable: Sequence[Path]) -> None:
    """The same for the process that runs the tests: it writes nothing, and reaches no network.

    It deals with what students' code gives back, and a fault of torch's there must find nothing to take.
    IsolationError if a step is refused.
    """
    if level.namespaces and not level.bubblewrap:  # which has done so for all of them
        with _announced("namespaces"):
            _enter_as_nobody(
                kernel_calls.NEWUSER | kernel_calls.NEWNET | kernel_calls.NEWIPC | kernel_calls.NEWNS
            )
            kernel_calls.mount_tmpfs(Path.cwd(), own_root.MEGABYTES)
        enter_root(Path.cwd(), readable, [])
    _give_up((readable, [NOTHING]) if level.landlock else None, level.seccomp, hides=True)


def _give_up(landlock: Places | None, filtered: bool, hides: bool) -> None:
    """What this process and all that it starts can never have back. See `Confinement`."""
    if sys.platform == "linux":
        with _announced("session keyring"):
            kernel_calls.no_new_privileges()
            kernel_calls.forget_keys()
        with _announced("capabilities"):
            kernel_calls.drop_capabilities()
    if landlock is not None:
        readable, writable = landlock
        with _announced("landlock"):
            kernel_calls.landlock([*readable, *map(Path, DEVICES)], writable)
    if not hides:
        with _announced("filter against hidden memory"):
            hidden_memory.refuse_hidden_memory()
    if filtered:  # last: it refuses the calls of the steps before
        with _announced("system-call filter"):
            seccomp.enter()


def limit_memory(more: int) -> None:
    """Let this process, and each that it starts, have so many bytes more than it has."""
    if grown := _virtual_size():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (grown + more, grown + more))


def environment() -> dict[str, str]:
    """All that a student's process finds in os.environ."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    return kept | threads | {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "IPYTHONDIR": "/tmp/ipython",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "CUDA_VISIBLE_DEVICES": "",  # the same arithmetic on every machine
        "LABKIT_PROFILE": "quick",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def _everyone_may_enter(file: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in file.resolve().parents)


def _virtual_size() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def _announced(step: str) -> Iterator[None]:
    """A step without which no student's code may run."""
    try:
        yield
    except (OSError, AttributeError) as error:
        why = getattr(error, "strerror", None) or error
        raise IsolationError(
            f"not graded: a student's code could not be isolated as this run announced ({step}: {why})"
        ) from error
