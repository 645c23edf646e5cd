"""The few Linux system calls behind the sandbox that Python has no function for.

Namespaces, mounts, capabilities, landlock, prctl.

Every function raises OSError where the kernel says no, and AttributeError or OSError on other systems.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

NEWNS, NEWUTS, NEWIPC = 0x00020000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _CLEAR_ALL = 23, 24, 47, 4
_CAPABILITIES_OF_64_BITS = 0x20080522
_PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 38, 36
_KEYCTL, _JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1
_MADV_HUGEPAGE, _MADV_COLLAPSE, _HUGE = 14, 25, 1 << 21
_MS_NOSUID_NODEV, _MS_REC_PRIVATE, _MNT_DETACH = 0x2 | 0x4, 0x4000 | 0x40000, 2
_MS_BIND, _MS_REC = 0x1000, 0x4000
_MOUNT_SETATTR, _RECURSIVE, _READ_ONLY_NOSUID = 442, 0x8000, 0x1 | 0x2

# landlock's system calls have these numbers on every architecture
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
# what each version of landlock can forbid: files, then refer, truncate, (network), ioctl
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NETWORK = 0b11  # bind and connect TCP, from version 4
_SCOPES = 0b11  # abstract sockets and signals, from version 6


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def unshare(flags: int) -> None:
    """Move this process (for NEWPID: its next child) into new namespaces."""
    _check(_libc().unshare(flags))


def mount_tmpfs(target: Path, megabytes: int) -> None:
    """A file system in memory over `target`, of this size at most; in our own mount namespace."""
    libc = _libc()
    _check(libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None))
    options = f"size={megabytes}m,nr_inodes=20000,mode=0700".encode()
    _check(libc.mount(b"tmpfs", str(target).encode(), b"tmpfs", _MS_NOSUID_NODEV, options))


def unmount(target: Path) -> None:
    """Take away what `mount_tmpfs` put there."""
    _check(_libc().umount2(str(target).encode(), _MNT_DETACH))


def bind(source: Path, target: Path, recursive: bool = False) -> None:
    """Have a file or a folder at another place too; recursive: with all that is mounted below it."""
    flags = _MS_BIND | (_MS_REC if recursive else 0)
    _check(_libc().mount(str(source).encode(), str(target).encode(), None, flags, None))


def make_read_only(place: Path) -> None:
    """Whatever is mounted at this place and below it, as it is seen from our mount namespace (Linux 5.12)."""

    class Attributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]

    wanted = Attributes(_READ_ONLY_NOSUID, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    path = str(place).encode()
    _check(_libc().syscall(_MOUNT_SETATTR, -1, path, _RECURSIVE, ctypes.byref(wanted), size))


def change_root(place: Path) -> None:
    """Make what is mounted at this place all that this process and its children can see."""
    os.chdir(place)
    _check(_libc().pivot_root(b".", b"."))  # the old root now lies over the new one
    _check(_libc().umount2(b".", _MNT_DETACH))
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every right of root, those in a user namespace too, and the right to be given one."""
    libc = _libc()
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)  # a kernel without them has none to clear
    number = 0
    while libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:  # up to the last one that it knows
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused to whoever has none
        number += 1
    header, nothing = struct.pack("=Ii", _CAPABILITIES_OF_64_BITS, 0), bytes(24)
    _check(libc.capset(header, nothing))


def gather_in_huge_pages() -> None:
    """Move this process's own memory into pages of 2 MiB where the kernel has them free (Linux 6.1).

    A fork then copies a few hundred entries instead of a hundred thousand.
    """
    libc = _libc()
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, *_, name = [*line.split(maxsplit=5), ""][:6]
        if rights != "rw-p" or name not in ("", "[heap]"):
            continue
        begin, end = (int(number, 16) for number in span.split("-"))
        begin, end = -(-begin // _HUGE) * _HUGE, end // _HUGE * _HUGE
        if begin < end and libc.madvise(begin, end - begin, _MADV_HUGEPAGE) == 0:
            for page in range(begin, end, _HUGE):
                libc.madvise(page, _HUGE, _MADV_COLLAPSE)  # one that stays as it is does no harm


def forget_keys() -> None:
    """Take an empty session keyring in place of the one that this process has inherited, with what is in it.

    Nothing happens where the kernel has no keyrings, or a filter around us that refuses them to everybody.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is not None and _libc().syscall(number, _JOIN_SESSION_KEYRING, None) < 0:
        reason = ctypes.get_errno()
        if reason not in (errno.ENOSYS, errno.EPERM):
            raise OSError(reason, os.strerror(reason))


def die_with_parent(signal: int = 9) -> None:
    """Get this signal when the thread that forked this process ends."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def no_new_privileges() -> None:
    """No program that is started from here on gains rights (setuid)."""
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def own_proc_files() -> None:
    """Give the files of /proc/self to the user that this process has become."""
    _check(_libc().prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def landlock_version() -> int:
    """The kernel's version of landlock; 0 if it has none."""
    try:
        return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _VERSION)))
    except (AttributeError, OSError):
        return 0


def landlock(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """From here on this process and its children reach only these files and folders, and no TCP.

    readable: to read and execute. writable: everything. What does not exist is passed over.
    """
    version = landlock_version()
    if not version:
        raise OSError("this kernel has no landlock")

    class Ruleset(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]

    class Beneath(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]

    files = _FILES[min(version, 5)]
    rules = Ruleset(files, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    libc = _libc()
    ruleset = _check(libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0))
    try:
        for paths, wanted in ((readable, _READ), (writable, files)):
            for path in paths:
                try:
                    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except OSError:
                    continue
                allowed = wanted & files & (-1 if path.is_dir() else _FILE_RIGHTS)
                rule = Beneath(allowed, place)
                _check(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
                os.close(place)
        no_new_privileges()
        _check(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
