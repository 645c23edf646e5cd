"""Refuses a student's processes what takes memory that nobody could count: a filter of system calls.

Pages of a file without a place (memfd, a shared mapping without a file, System V's segments) stay when no
process maps or holds them, so no look at the processes finds them. Nothing in the lab needs them: Python's
and torch's multiprocessing use files in /dev/shm, which is small. The rest is for `memory_watch` to count.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # places in what a filter is shown
_X32 = 0x40000000  # from here on numbers are those of x86-64's second ABI

_SHARED_WITHOUT_A_FILE = 0x21  # MAP_SHARED and MAP_ANONYMOUS
_NEW_USER = 0x10000000  # in a user namespace of its own a process could have sockets that are not counted
_SOL_SOCKET, _SNDBUF, _SNDBUFFORCE = 1, 7, 32
_SET_DUMPABLE = 4  # a process that hides its files in /proc cannot be asked what it has

Instruction = tuple[int, int, int, int]  # code, how many to skip if true, if false, a constant


@dataclass(frozen=True)
class Machine:
    """Numbers of system calls on one architecture.

    refused: whatever their arguments. The others: with some arguments.
    """

    audit: int
    refused: dict[str, int]
    mmap: int
    setsockopt: int
    clone: int
    prctl: int


_EVERYWHERE = {
    "memfd_secret": 447, "io_uring_setup": 425, "clone3": 435,
    "landlock_create_ruleset": 444,  # rules without number in a ruleset that a descriptor holds
}  # fmt: skip
MACHINES = {
    "x86_64": Machine(
        audit=0xC000003E,
        refused=_EVERYWHERE | {
            "memfd_create": 319, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240,
            "vmsplice": 278,  # a pipe can then hold pages of 2 MiB that nobody maps
            "inotify_init": 253, "inotify_init1": 294, "fanotify_init": 300,
            "unshare": 272, "setns": 308, "io_setup": 206,
        },
        mmap=9, setsockopt=54, clone=56, prctl=157,
    ),
    "aarch64": Machine(
        audit=0xC00000B7,
        refused=_EVERYWHERE | {
            "memfd_create": 279, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180,
            "vmsplice": 75, "inotify_init1": 26, "fanotify_init": 262,
            "unshare": 97, "setns": 268, "io_setup": 0,
        },
        mmap=222, setsockopt=208, clone=220, prctl=167,
    ),
}  # fmt: skip


def refuse_hidden_memory() -> None:
    """For this process and all that it starts, for good. OSError where the system cannot do that."""
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little":
        raise OSError("no filter of system calls for this system")
    program = filter_for(machine)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("a process may gain rights here")

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    told = Program(len(program), ctypes.addressof(code))
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(told), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def filter_for(machine: Machine) -> list[Instruction]:
    """The filter, for the kernel's small machine (classic BPF)."""
    missing, forbidden = _refuse(errno.ENOSYS), _refuse(errno.EPERM)
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.audit),
        missing,  # calls of another architecture have other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        missing,
    ]
    for number in machine.refused.values():
        program += [(_EQUAL, 0, 1, number), missing]
    program += [
        (_EQUAL, 0, 5, machine.mmap),
        _argument(3),
        (_AND, 0, 0, _SHARED_WITHOUT_A_FILE),
        (_EQUAL, 0, 1, _SHARED_WITHOUT_A_FILE),
        forbidden,
        _allow(),
        (_EQUAL, 0, 7, machine.setsockopt),
        _argument(1),
        (_EQUAL, 0, 4, _SOL_SOCKET),
        _argument(2),
        (_EQUAL, 1, 0, _SNDBUF),
        (_EQUAL, 0, 1, _SNDBUFFORCE),
        forbidden,
        _allow(),
        (_EQUAL, 0, 4, machine.clone),
        _argument(0),
        (_ANY_BIT, 0, 1, _NEW_USER),
        forbidden,
        _allow(),
        (_EQUAL, 0, 4, machine.prctl),
        _argument(0),
        (_EQUAL, 0, 1, _SET_DUMPABLE),
        forbidden,
        _allow(),
        _allow(),
    ]
    return program


def _argument(place: int) -> Instruction:
    """Load the low half of an argument: all that is asked about stands there."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * place)


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, _REFUSE | number)


def _allow() -> Instruction:
    return (_RETURN, 0, 0, _ALLOW)
