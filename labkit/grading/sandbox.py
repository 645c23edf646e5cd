"""What holds a student's process: as much as this system offers, and a sentence for what it does not.

Always: a process of its own, limits on time, memory, files and processes, a time-out, an empty folder, no
environment. Where Linux has them: namespaces (own processes, no network, a small disk in memory), landlock
(no file but Python's own) and a filter of system calls. Where bubblewrap is installed, all students'
processes start in a system of their own in which nothing else exists.

A level is what was tried and worked. If a step of it is refused later, no code of that student's runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import site
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import labkit
from labkit.doctor import Finding
from labkit.grading import cgroups, hidden_memory, kernel_calls, seccomp

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
STEPS = ("namespaces", "landlock", "seccomp")  # of a level, in the order in which they are entered


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


Memory = Literal["held by the kernel", "watched", "watched in part"]


@dataclass(frozen=True)
class Level:
    """What this system offers."""

    bubblewrap: bool
    namespaces: bool
    landlock: bool
    seccomp: bool
    memory: Memory = field(default="watched", kw_only=True)

    @property
    def sentence(self) -> str:
        """One line for the head of a run."""
        has = [
            *(["bubblewrap"] if self.bubblewrap else []),
            *(["namespaces"] if self.namespaces else []),
            *(["landlock"] if self.landlock else []),
            *(["system-call filter"] if self.seccomp else []),
            "limits",
        ]
        return "; ".join([", ".join(has), f"memory {self.memory}", *([self.open] if self.open else [])])

    @property
    def open(self) -> str:
        """What a student's code could still do here; empty if nothing that matters."""
        gaps = []
        if not (self.bubblewrap or self.landlock):
            gaps.append("read and change every file that you can")
        if not (self.bubblewrap or self.namespaces or self.seccomp):
            gaps.append("open network connections")
        if not (self.bubblewrap or self.namespaces or self.landlock):
            gaps.append("stop your other programs")
        if self.landlock and not self.bubblewrap:
            gaps.append("change the modes and times of your files")
            gaps.append("connect to your unix sockets")
            if not self.namespaces:
                gaps.append("stop your other programs (before Linux 6.12)")
        if self.bubblewrap and not self.landlock:
            gaps.append("exchange files with another student's code")
            if not self.namespaces:
                gaps.append("stop it")
        if not self.seccomp:
            gaps.append("make every system call")
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
        if not self.seccomp and sys.platform == "linux":
            lines.append("a kernel with seccomp filters, on x86-64 or aarch64")
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
    """Try out what this system offers: where there is bubblewrap, inside of it."""
    inside = _steps_inside_bubblewrap()
    steps = possible_steps() if inside is None else inside
    hidden = inside is not None or "landlock" in steps
    return Level(inside is not None, *(step in steps for step in STEPS), memory=_memory(hidden))


def possible_steps() -> list[str]:
    """Those of STEPS that can be entered from here, each tried in a process that then ends."""
    tries: dict[str, Callable[[], object]] = {
        "namespaces": lambda: enter_namespaces(Path("/tmp"), Limits()),
        "landlock": lambda: kernel_calls.landlock([Path("/")], []),
        "seccomp": _enter_filter_and_see,
    }
    return [step for step in STEPS if _in_child(tries[step])]


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


def bubblewrap(command: Sequence[str], readable: Sequence[Path], becomes_nobody: bool = True) -> list[str]:
    """`command` in a system where only these paths exist, read only, without network.

    becomes_nobody: as root it keeps the right to, and no other.
    """
    identity = [] if os.geteuid() == 0 else ["--unshare-user"]  # root needs no user namespace of its own
    if becomes_nobody and os.geteuid() == 0:
        identity = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    above = sorted({folder for path in readable for folder in path.parents if folder.name})
    binds = [word for folder in above for word in ("--perms", "0755", "--dir", str(folder))]
    binds += [word for path in readable for word in ("--ro-bind-try", str(path), str(path))]
    return [
        shutil.which("bwrap") or "bwrap", *identity,
        "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
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


def enter_namespaces(folder: Path, limits: Limits) -> list[Path]:
    """New namespaces for this process's children. Returns the places that are small disks of their own.

    IsolationError if any of it is refused.
    """
    user, group = os.geteuid(), os.getegid()
    with _announced("namespaces"):
        kernel_calls.unshare(NAMESPACES)
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{NOBODY} {user} 1"),
            ("gid_map", f"{NOBODY} {group} 1"),
        ):
            Path(f"/proc/self/{file}").write_text(text)
    own = [place for place in (folder, SHARED_MEMORY) if place.is_dir()]
    with _announced("disks in memory"):
        for place in own:
            kernel_calls.mount_tmpfs(place, limits.disk // 2**20)
    return own


@dataclass(frozen=True)
class Confinement:
    """What the process that will run a student's code is held to.

    folder: its own, where it starts. landlock: what may be read and what may be written; None to go without.
    filtered: whether it enters the system-call filter. hides: whether it may have memory that none shows.
    """

    folder: Path
    landlock: tuple[Sequence[Path], Sequence[Path]] | None
    limits: Limits
    filtered: bool
    hides: bool = False


def confine(held: Confinement) -> None:
    """The last steps, in the process that will run a student's code. IsolationError if one is refused."""
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
    os.chdir(held.folder)
    with contextlib.suppress(OSError, AttributeError):
        kernel_calls.no_new_privileges()
    if sys.platform == "linux":
        with _announced("session keyring"):
            kernel_calls.forget_keys()
    if held.landlock is not None:
        readable, writable = held.landlock
        with _announced("landlock"):
            kernel_calls.landlock([*readable, *map(Path, DEVICES)], [*writable, Path("/dev/null")])
    if not held.hides:
        with _announced("filter against hidden memory"):
            hidden_memory.refuse_hidden_memory()
    if held.filtered:  # last: it refuses the calls of the steps before
        with _announced("system-call filter"):
            seccomp.enter()


def confine_tests(level: Level, readable: Sequence[Path]) -> None:
    """The same for the process that runs the tests: it writes nothing, and reaches no network.

    It deals with what students' code gives back, and a fault of torch's there must find nothing to take.
    IsolationError if a step is refused.
    """
    if sys.platform == "linux":
        with _announced("session keyring"):
            kernel_calls.no_new_privileges()
            kernel_calls.forget_keys()
    if level.namespaces and not level.bubblewrap:  # which has done so for all of them
        with _announced("namespaces"):
            kernel_calls.unshare(kernel_calls.NEWUSER | kernel_calls.NEWNET | kernel_calls.NEWIPC)
    if level.landlock:
        with _announced("landlock"):
            kernel_calls.landlock([*readable, *map(Path, DEVICES)], [Path("/dev/null")])
    if level.seccomp:
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


def _enter_filter_and_see() -> None:
    seccomp.enter()
    with contextlib.suppress(PermissionError), socket.socket(socket.AF_INET):
        raise OSError("the filter was entered, and refuses nothing")


def _steps_inside_bubblewrap() -> list[str] | None:
    """What works there; None if it is not installed or does not start."""
    if shutil.which("bwrap") is None:
        return None
    code = "from labkit.grading import sandbox; print(*sandbox.possible_steps())"
    places = [str(Path(labkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        bubblewrap([sys.executable, "-c", code], readable_paths([])),
        env=environment() | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split() if done.returncode == 0 else None


def _in_child(action: Callable[[], object]) -> bool:
    """Whether this works, tried in a process that then ends."""
    pid = os.fork()
    if pid == 0:
        try:
            become_nobody()
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
