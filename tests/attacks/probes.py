"""One try at each way into the kernel that a lab does not need: refused in the sandbox, and only there.

Each probe is tried three times: in a process of its own without any sandbox, where it must work, or nothing
could be learned from a refusal; with nothing but the system-call filter, so that it is known what refuses it;
and in a student's cell.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TABLES = Path(__file__).resolve().parents[1] / "border" / "calls"
WORKS = 0


@dataclass(frozen=True)
class Probe:
    """A line or more of Python that raises OSError when the kernel says no.

    works: errors by which the kernel shows that it has looked at what was asked. refused: how the filter says
    no. everywhere: whether any Linux lets anybody do this, so that without the sandbox it must work.
    """

    name: str
    code: str
    works: tuple[int, ...] = ()
    refused: int = errno.EPERM
    everywhere: bool = False


NOWHERE = '"/labkit-no-such-place"'
PROBES = [
    Probe("IPv4", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", everywhere=True),
    Probe("IPv6", "socket.socket(socket.AF_INET6)"),
    Probe("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    Probe("packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    Probe("vsock", "socket.socket(40)"),
    Probe("the kernel's ciphers", "socket.socket(38, socket.SOCK_SEQPACKET)"),
    Probe("io_uring", 'call("io_uring_setup", 4, bytes(120))'),
    Probe("userfaultfd", 'call("userfaultfd", 1)'),
    Probe("bpf", 'call("bpf", 0, struct.pack("=IIII112x", 2, 4, 4, 1), 128)'),
    Probe("perf_event_open", 'call("perf_event_open", struct.pack("=II32xQ64x", 1, 112, 96), 0, -1, -1, 0)'),
    Probe("io_setup", 'call("io_setup", 1, bytes(8))'),
    Probe("fanotify_init", 'call("fanotify_init", 0, 0)'),
    Probe("memfd_secret", 'call("memfd_secret", 0)'),
    Probe("syslog", 'call("syslog", 10, 0, 0)'),
    Probe("seccomp", 'call("seccomp", 2, 0, struct.pack("=I", 0x7FFF0000))'),
    Probe("a filter by prctl", 'call("prctl", 22, 2, 0)', works=(errno.EFAULT,)),
    Probe("landlock", 'call("landlock_create_ruleset", 0, 0, 1)'),
    Probe("keyctl", 'call("keyctl", 0, -3, 0)'),
    Probe("add_key", 'call("add_key", b"user", b"labkit", b"x", 1, -2)'),
    Probe("request_key", 'call("request_key", b"user", b"labkit-none", 0, 0)', works=(errno.ENOKEY,)),
    Probe("ptrace", 'call("ptrace", 0, 0, 0, 0)', everywhere=True),
    Probe("process_vm_readv", 'call("process_vm_readv", me, vector, 1, vector, 1, 0)', everywhere=True),
    Probe("process_vm_writev", 'call("process_vm_writev", me, vector, 1, vector, 1, 0)', everywhere=True),
    Probe("kcmp", 'call("kcmp", me, me, 1, 0, 0)'),
    Probe("pidfd_getfd", 'call("pidfd_getfd", -1, 0, 0)', works=(errno.EBADF,)),
    Probe("process_madvise", 'call("process_madvise", -1, 0, 0, 21, 0)', works=(errno.EBADF,)),
    Probe("move_pages", 'call("move_pages", 0, 0, 0, 0, 0, 0)'),
    Probe("unshare", 'call("unshare", 0x10000000)'),
    Probe("setns", 'call("setns", -1, 0)', works=(errno.EBADF,)),
    Probe("clone into a user namespace", 'call("clone", 0x10000011, 0, 0, 0, 0) or os._exit(0)'),
    Probe("clone3", 'call("clone3", 0, 0)', works=(errno.EINVAL,), refused=errno.ENOSYS),
    Probe("mount", f'call("mount", 0, {NOWHERE}, 0, 0x20, 0)', works=(errno.ENOENT,)),
    Probe("umount2", f'call("umount2", {NOWHERE}, 0)', works=(errno.ENOENT,)),
    Probe("pivot_root", f'call("pivot_root", {NOWHERE}, {NOWHERE})', works=(errno.ENOENT,)),
    Probe("chroot", f'call("chroot", {NOWHERE})', works=(errno.ENOENT,)),
    Probe("open_tree", 'call("open_tree", -100, "/", 0)'),
    Probe("fsopen", 'call("fsopen", "tmpfs", 0)'),
    Probe("fspick", 'call("fspick", -100, "/", 0)'),
    Probe("move_mount", 'call("move_mount", -1, "x", -1, "x", 0)', works=(errno.EBADF,)),
    Probe("mount_setattr", f'call("mount_setattr", -100, {NOWHERE}, 0, bytes(32), 32)', works=(errno.ENOENT,)),
    Probe("name_to_handle_at", 'call("name_to_handle_at", -100, "/", bytes(8), bytes(8), 0)', works=(errno.EOVERFLOW,)),
    Probe("open_by_handle_at", 'call("open_by_handle_at", -1, bytes(8), 0)', works=(errno.EINVAL, errno.EBADF)),
    Probe("swapon", f'call("swapon", {NOWHERE}, 0)', works=(errno.ENOENT,)),
    Probe("acct", f'call("acct", {NOWHERE})', works=(errno.ENOENT,)),
    Probe("inotify", 'call("inotify_add_watch", call("inotify_init1", 0), "/", 2)'),
    Probe("limits of another process", 'call("prlimit64", os.getppid(), 7, 0, 0)'),
    Probe("personality", 'call("personality", 0x40000)'),
    Probe("setxattr", 'os.setxattr(open("labkit-probe", "w").name, "user.labkit", b"x")'),
    Probe("adjtimex", 'call("adjtimex", bytes(208))'),
    Probe("System V's queues", 'call("msgctl", call("msgget", 0, 0o600), 0, 0)'),
    Probe("System V's semaphores", 'call("semctl", call("semget", 0, 1, 0o600), 0, 0, 0)'),
    Probe("POSIX's queues", 'call("mq_open", "labkit", 0o102, 0o600, 0); call("mq_unlink", "labkit")'),
]  # fmt: skip

# mov eax, 20 (getpid in i386's numbers); int 0x80; ret
I386 = """\
import ctypes, mmap, os
memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
memory.write(bytes.fromhex("b814000000cd80c3"))
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
print("ANSWERED", function() == os.getpid())
"""

SCRIPT = """\
import ctypes, os, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
numbers = {numbers!r}
def call(name, *arguments):
    given = [ctypes.c_long(one) if isinstance(one, int) else ctypes.create_string_buffer(
        one.encode() + bytes(1) if isinstance(one, str) else one + bytes(1)) for one in arguments]
    result = libc.syscall(ctypes.c_long(numbers[name]), *given)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
for number, code in enumerate({codes!r}):
    pid = os.fork()
    if pid == 0:
        ended = 255
        try:
            place = ctypes.create_string_buffer(8)
            vector, me = struct.pack("QQ", ctypes.addressof(place), 8), os.getpid()
            exec(code)
            ended = 0
        except OSError as error:
            ended = error.errno
        finally:
            os._exit(ended)
    print("PROBE", number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def script(probes: Iterable[Probe] = PROBES) -> str:
    """Tries one after the other, each in a process that then ends: prints `PROBE number errno`."""
    lines = (TABLES / f"{os.uname().machine}.txt").read_text().splitlines()
    numbers = {name: int(number) for number, name, _ in map(str.split, lines)}
    return SCRIPT.format(numbers=numbers, codes=[probe.code for probe in probes])


def found(printed: str) -> dict[str, int]:
    """The name of each probe -> how it ended: 0, an errno, or minus the signal that ended it."""
    lines = [line.split() for line in printed.splitlines() if line.startswith("PROBE ")]
    return {PROBES[int(number)].name: int(ended) for _, number, ended in lines}
