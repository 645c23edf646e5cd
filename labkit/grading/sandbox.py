"""What holds a student's process: as much as this system offers, and a sentence for what it does not.

Always: a process of its own, limits on time, memory, files and processes, a time-out, an empty folder, no
environment. Where Linux has them: namespaces (own processes, no network, a small disk in memory) and landlock
(no file but Python's own). Where bubblewrap is installed, all students' processes start in a system of their
own in which nothing else exists.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import labkit
from labkit.doctor import Finding
from labkit.grading import cgroups, hidden_memory, kernel_calls

NOBODY = 65534
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/lib32",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/etc/fonts",
    "/etc/localtime",
)
ALL_DISKS = 2**29  # bytes: the places in bubblewrap's system that every student's code may write to
SHARED_MEMORY = Path("/dev/shm")  # multiprocessing, and so a DataLoader's workers, keep their locks there
# not /dev/zero: pages of a shared mapping of it are in nobody's count
DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
NAMESPACES = (
    kernel_calls.NEWUSER | kernel_calls.NEWPID | kernel_calls.NEWNET
    | kernel_calls.NEWIPC | kernel_calls.NEWNS | kernel_calls.NEWUTS
)  # fmt: skip


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


Memory = Literal["held by the kernel", "watched", "watched in part"]


@dataclass(frozen=True)
class Level:
    """What this system offers."""

    bubblewrap: bool
    namespaces: bool
    landlock: bool
    memory: Memory = "watched"

    @property
    def sentence(self) -> str:
        """One line for the head of a run."""
        has = [
            *(["bubblewrap"] if self.bubblewrap else []),
            *(["namespaces"] if self.namespaces else []),
            *(["landlock"] if self.landlock else []),
            "limits",
        ]
        return "; ".join([", ".join(has), f"memory {self.memory}", *([self.open] if self.open else [])])

    @property
    def open(self) -> str:
        """What a student's code could still do here; empty if nothing that matters."""
        gaps = []
        if not (self.bubblewrap or self.landlock):
            gaps.append("read and change every file that you can")
        if not (self.bubblewrap or self.namespaces):
            gaps.append("open network connections")
        if not (self.bubblewrap or self.namespaces or self.landlock):
            gaps.append("stop your other programs")
        if self.bubblewrap and not self.landlock:
            gaps.append("exchange files with another student's code")
            if not self.namespaces:
                gaps.append("stop it")
        if self.memory == "watched in part":
            gaps.append("take more memory than its limit")
        return "a student's code could " + " and ".join(gaps) + " (see labkit doctor)" if gaps else ""

    @property
    def advice(self) -> list[str]:
        """How to get the next level, a line each."""
        lines = []
        if not self.bubblewrap and sys.platform == "linux":
            lines.append("install bubblewrap (apt-get install bubblewrap, dnf install bubblewrap)")
        if not self.namespaces and sys.platform == "linux":
            lines.append(
                "allow user namespaces (sysctl user.max_user_namespaces, or Docker's --security-opt)"
            )
        if not self.landlock and sys.platform == "linux":
            lines.append("a kernel from 5.13 on, with landlock switched on")
        if self.memory == "watched in part" and sys.platform == "linux":
            lines.append(
                "a kernel with seccomp, or control groups (systemd-run --user --scope labkit grade ...)"
            )
        if sys.platform != "linux":
            lines.append("grade on Linux, or in a Linux container or virtual machine")
        return lines


def finding() -> Finding:
    """How far a student's code is held here, for `labkit doctor`."""
    here = level()
    advice = "; ".join(here.advice)
    return Finding("isolation of students' code", here.sentence, not here.open, advice)


def level() -> Level:
    """Try out what this system offers."""
    bubblewrap, landlock = _bubblewrap_works(), kernel_calls.landlock_version() > 0
    return Level(
        bubblewrap=bubblewrap,
        namespaces=_in_child(lambda: kernel_calls.unshare(NAMESPACES)),
        landlock=landlock,
        memory=_memory(hidden=bubblewrap or landlock),
    )


def _memory(hidden: bool) -> Memory:
    """How memory can be held here. hidden: whether a student's code cannot reach the files of its group."""
    if hidden:
        with cgroups.trial() as group:
            if group is not None and _in_child(group.enter):
                return "held by the kernel"
    return "watched" if _in_child(hidden_memory.refuse_hidden_memory) else "watched in part"


def readable_paths(hidden: Sequence[Path]) -> list[Path]:
    """What Python and labkit need to read. No folder that holds one of `hidden` is among them."""
    package = Path(labkit.__file__).parent
    wanted = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), *map(Path, SYSTEM)]
    wanted += [Path(path) for path in sysconfig.get_paths().values()]
    wanted += [Path(path) for path in [*site.getsitepackages(), site.getusersitepackages()]]
    wanted += [Path(path) for path in sys.path if path.endswith("-packages")]  # by PYTHONPATH
    secrets = [path.resolve() for path in hidden]
    result = [package, package.parent / "data" / "checkpoints"]
    for path in wanted:
        place = path.resolve()
        holds = any(secret.is_relative_to(place) for secret in secrets)
        if path.exists() and not holds and len(place.parts) > 1:
            result += [path, place]
    kept: list[Path] = []
    for path in sorted(set(result), key=lambda path: len(path.parts)):
        if path.exists() and not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def bubblewrap(command: Sequence[str], readable: Sequence[Path]) -> list[str]:
    """`command` in a system where only these paths exist, read only, without network."""
    # as root it needs no user namespace of its own, and keeps the right to become nobody
    identity = (
        ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if os.geteuid() == 0 else ["--unshare-user"]
    )
    above = sorted({folder for path in readable for folder in path.parents if folder.name})
    binds = [word for folder in above for word in ("--perms", "0755", "--dir", str(folder))]
    binds += [word for path in readable for word in ("--ro-bind-try", str(path), str(path))]
    return [
        "bwrap", *identity, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--die-with-parent", "--new-session", "--proc", "/proc", "--dev", "/dev",
        *_in_memory("/tmp"), *_in_memory(str(SHARED_MEMORY)), *binds,
        "--remount-ro", "/", "--chdir", "/", "--", *command,
    ]  # fmt: skip


def _in_memory(place: str) -> list[str]:
    """Where bubblewrap can, a small disk: what fills it takes memory that no process shows."""
    size = ["--size", str(ALL_DISKS)] if _bubblewrap_version() >= (0, 7) else []
    return ["--perms", "1777", *size, "--tmpfs", place]


@functools.cache
def _bubblewrap_version() -> tuple[int, ...]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        told = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
        return tuple(int(number) for number in told.split()[1].split("."))
    return ()


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


def enter_namespaces(folder: Path, limits: Limits) -> list[Path] | None:
    """New namespaces for this process's children: which places are their own small disks, None if refused."""
    user, group = os.geteuid(), os.getegid()
    try:
        kernel_calls.unshare(NAMESPACES)
    except (OSError, AttributeError):
        return None
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with contextlib.suppress(OSError):
            Path(f"/proc/self/{file}").write_text(text)
    own = []
    for place in (folder, SHARED_MEMORY):
        with contextlib.suppress(OSError):
            kernel_calls.mount_tmpfs(place, limits.disk // 2**20)
            own.append(place)
    return own


def confine(folder: Path, landlock: tuple[Sequence[Path], Sequence[Path]] | None, limits: Limits) -> None:
    """The last steps, in the process that will run a student's code: limits, landlock, the folder.

    landlock: what may be read and what may be written; None to go without.
    """
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
    os.chdir(folder)
    with contextlib.suppress(OSError, AttributeError):
        kernel_calls.no_new_privileges()
    if landlock is not None:
        readable, writable = landlock
        kernel_calls.landlock([*readable, *map(Path, DEVICES)], [*writable, Path("/dev/null")])


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


def _bubblewrap_works() -> bool:
    if shutil.which("bwrap") is None:
        return False
    command = bubblewrap([sys.executable, "-c", "pass"], readable_paths([]))
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _in_child(action: object) -> bool:
    """Whether this works, tried in a process that then ends."""
    pid = os.fork()
    if pid == 0:
        try:
            become_nobody()
            action()  # type: ignore[operator]
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
