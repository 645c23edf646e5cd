"""The system-call filter that a student's process enters before it runs any of their code.

A filter is a small program for the kernel (classic BPF), run at every system call. It is made and entered
here without a library, so that it is there wherever Linux is, on x86-64 and aarch64. What a lab needs is
allowed by name. What would open a way out, reach another process or outlast its own is refused with EPERM.
A call that is not named here, a newer kernel's say, gets ENOSYS, on which programs fall back to older ones.

`tests/border/calls/` says for every number of both machines what becomes of it, and a test holds it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

ALLOW, KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000  # the latter: with an errno in its low 16 bits

# name:number, or name:x86-64/aarch64 where they differ
_ALLOWED = """
    accept:43/202 accept4:288/242 access:21/- alarm:37/- arch_prctl:158/- bind:49/200 brk:12/214
    cachestat:451 capget:125/90 capset:126/91 chdir:80/49 chmod:90/- chown:92/- clock_getres:229/114
    clock_gettime:228/113 clock_nanosleep:230/115 close:3/57 close_range:436 connect:42/203
    copy_file_range:326/285 creat:85/- dup:32/23 dup2:33/- dup3:292/24 epoll_create:213/-
    epoll_create1:291/20 epoll_ctl:233/21 epoll_pwait:281/22 epoll_pwait2:441 epoll_wait:232/- eventfd:284/-
    eventfd2:290/19 execve:59/221 execveat:322/281 exit:60/93 exit_group:231/94 faccessat:269/48
    faccessat2:439 fadvise64:221/223 fallocate:285/47 fchdir:81/50 fchmod:91/52 fchmodat:268/53
    fchmodat2:452 fchown:93/55 fchownat:260/54 fcntl:72/25 fdatasync:75/83 fgetxattr:193/10
    flistxattr:196/13 flock:73/32 fork:57/- fstat:5/80 fstatfs:138/44 fsync:74/82 ftruncate:77/46
    futex:202/98 futex_requeue:456 futex_wait:455 futex_waitv:449 futex_wake:454 futimesat:261/-
    get_mempolicy:239/236 get_robust_list:274/100 getcpu:309/168 getcwd:79/17 getdents:78/-
    getdents64:217/61 getegid:108/177 geteuid:107/175 getgid:104/176 getgroups:115/158 getitimer:36/102
    getpeername:52/205 getpgid:121/155 getpgrp:111/- getpid:39/172 getppid:110/173 getpriority:140/141
    getrandom:318/278 getresgid:120/150 getresuid:118/148 getrlimit:97/163 getrusage:98/165 getsid:124/156
    getsockname:51/204 getsockopt:55/209 gettid:186/178 gettimeofday:96/169 getuid:102/174 getxattr:191/8
    getxattrat:464 ioctl:16/29 ioprio_get:252/31 ioprio_set:251/30 kill:62/129 lchown:94/- lgetxattr:192/9
    link:86/- linkat:265/37 listen:50/201 listxattr:194/11 listxattrat:465 llistxattr:195/12 lseek:8/62
    lstat:6/- madvise:28/233 map_shadow_stack:453 mbind:237/235 membarrier:324/283 memfd_create:319/279
    mincore:27/232 mkdir:83/- mkdirat:258/34 mknod:133/- mknodat:259/33 mlock:149/228 mlock2:325/284
    mlockall:151/230 mmap:9/222 mprotect:10/226 mremap:25/216 mseal:462 msync:26/227 munlock:150/229
    munlockall:152/231 munmap:11/215 nanosleep:35/101 newfstatat:262/79 open:2/- openat:257/56 openat2:437
    pause:34/- pidfd_open:434 pidfd_send_signal:424 pipe:22/- pipe2:293/59 pkey_alloc:330/289
    pkey_free:331/290 pkey_mprotect:329/288 poll:7/- ppoll:271/73 pread64:17/67 preadv:295/69
    preadv2:327/286 pselect6:270/72 pwrite64:18/68 pwritev:296/70 pwritev2:328/287 read:0/63
    readahead:187/213 readlink:89/- readlinkat:267/78 readv:19/65 recvfrom:45/207 recvmmsg:299/243
    recvmsg:47/212 rename:82/- renameat:264/38 renameat2:316/276 restart_syscall:219/128 rmdir:84/-
    rseq:334/293 rt_sigaction:13/134 rt_sigpending:127/136 rt_sigprocmask:14/135 rt_sigqueueinfo:129/138
    rt_sigreturn:15/139 rt_sigsuspend:130/133 rt_sigtimedwait:128/137 rt_tgsigqueueinfo:297/240
    sched_get_priority_max:146/125 sched_get_priority_min:147/126 sched_getaffinity:204/123
    sched_getattr:315/275 sched_getparam:143/121 sched_getscheduler:145/120 sched_rr_get_interval:148/127
    sched_setaffinity:203/122 sched_setattr:314/274 sched_setparam:142/118 sched_setscheduler:144/119
    sched_yield:24/124 select:23/- sendfile:40/71 sendmmsg:307/269 sendmsg:46/211 sendto:44/206
    set_mempolicy:238/237 set_robust_list:273/99 set_tid_address:218/96 setfsgid:123/152 setfsuid:122/151
    setgid:106/144 setgroups:116/159 setitimer:38/103 setpgid:109/154 setpriority:141/140 setregid:114/143
    setresgid:119/149 setresuid:117/147 setreuid:113/145 setrlimit:160/164 setsid:112/157 setsockopt:54/208
    setuid:105/146 shmat:30/196 shmctl:31/195 shmdt:67/197 shmget:29/194 shutdown:48/210 sigaltstack:131/132
    signalfd:282/- signalfd4:289/74 splice:275/76 stat:4/- statfs:137/43 statx:332/291 symlink:88/-
    symlinkat:266/36 sync:162/81 sync_file_range:277/84 syncfs:306/267 sysinfo:99/179 tee:276/77
    tgkill:234/131 time:201/- timer_create:222/107 timer_delete:226/111 timer_getoverrun:225/109
    timer_gettime:224/108 timer_settime:223/110 timerfd_create:283/85 timerfd_gettime:287/87
    timerfd_settime:286/86 times:100/153 tkill:200/130 truncate:76/45 umask:95/166 uname:63/160 unlink:87/-
    unlinkat:263/35 utime:132/- utimensat:280/88 utimes:235/- vfork:58/- vmsplice:278/75 wait4:61/260
    waitid:247/95 write:1/64 writev:20/66
"""

# allowed or refused by an argument, see _RULES
_CONDITIONAL = """
    socket:41/198 socketpair:53/199 clone:56/220 personality:135/92 prctl:157/167 prlimit64:302/261
"""

# the kernel's own programs, rings and filters, which have had most of its holes; memory that no process shows
_KERNEL = """
    bpf:321/280 fanotify_init:300/262 fanotify_mark:301/263 io_cancel:210/3 io_destroy:207/1
    io_getevents:208/4 io_pgetevents:333/292 io_setup:206/0 io_submit:209/2 io_uring_enter:426
    io_uring_register:427 io_uring_setup:425 ioperm:173/- iopl:172/- landlock_add_rule:445
    landlock_create_ruleset:444 landlock_restrict_self:446 lookup_dcookie:212/18 lsm_set_self_attr:460
    memfd_secret:447 modify_ldt:154/- perf_event_open:298/241 seccomp:317/277 syslog:103/116
    userfaultfd:323/282 vhangup:153/58
"""
_KEYS = """
    add_key:248/217 keyctl:250/219 request_key:249/218
"""
_OTHER_PROCESSES = """
    kcmp:312/272 migrate_pages:256/238 move_pages:279/239 pidfd_getfd:438 process_madvise:440
    process_mrelease:448 process_vm_readv:310/270 process_vm_writev:311/271 ptrace:101/117
"""
# mounting, roots, and files by a handle that no path and no landlock stands before
_MOUNTS = """
    acct:163/89 chroot:161/51 fsconfig:431 fsmount:432 fsopen:430 fspick:433 mount:165/40 mount_setattr:442
    move_mount:429 name_to_handle_at:303/264 open_by_handle_at:304/265 open_tree:428 open_tree_attr:467
    pivot_root:155/41 quotactl:179/60 quotactl_fd:443 swapoff:168/225 swapon:167/224 umount2:166/39
"""
_NAMESPACES = """
    setns:308/268 unshare:272/97
"""
# landlock keeps nobody from changing a file's attributes, or from watching it
_ATTRIBUTES = """
    file_setattr:469 fremovexattr:199/16 fsetxattr:190/7 inotify_add_watch:254/27 inotify_init:253/-
    inotify_init1:294/26 inotify_rm_watch:255/28 lremovexattr:198/15 lsetxattr:189/6 removexattr:197/14
    removexattrat:466 setxattr:188/5 setxattrat:463
"""
_MACHINE = """
    adjtimex:159/171 clock_adjtime:305/266 clock_settime:227/112 delete_module:176/106 finit_module:313/273
    init_module:175/105 kexec_file_load:320/294 kexec_load:246/104 reboot:169/142 setdomainname:171/162
    sethostname:170/161 settimeofday:164/170
"""
# System V's and POSIX's queues and semaphores: they stay when their process ends, for the next to find
_QUEUES = """
    mq_getsetattr:245/185 mq_notify:244/184 mq_open:240/180 mq_timedreceive:243/183 mq_timedsend:242/182
    mq_unlink:241/181 msgctl:71/187 msgget:68/186 msgrcv:70/188 msgsnd:69/189 semctl:66/191 semget:64/190
    semop:65/193 semtimedop:220/192
"""
_REFUSED = (_KERNEL, _KEYS, _OTHER_PROCESSES, _MOUNTS, _NAMESPACES, _ATTRIBUTES, _MACHINE, _QUEUES)


@dataclass(frozen=True)
class Machine:
    """A processor's system calls: the kernel's word for them, and which of the numbers above are its own."""

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}


class Instruction(NamedTuple):
    """One of a filter: the operation, how many to skip if its comparison holds or not, its operand."""

    code: int
    then: int
    otherwise: int
    operand: int


Block = tuple[Instruction, ...]

_LOAD, _RETURN, _JUMP = 0x20, 0x06, 0x05
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45
# where the kernel puts a call's number, its machine, and its first argument: the low half of it, which is all
# that the calls below look at (each takes an int, and clone has no flag above)
_NUMBER, _AUDIT, _ARGUMENT = 0, 4, 16
_MOST_SKIPPED = 255

_AF_UNIX = 1
_PR_SET_SECCOMP = 22
_ASK_PERSONALITY = 0xFFFFFFFF
# CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET; CLONE_NEWTIME has no place in clone's flags
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1


def refuse(number: int) -> int:
    """The filter's answer that makes a call fail with this errno."""
    return _REFUSE | number


def answer(value: int) -> Block:
    """The block that ends with this answer."""
    return (Instruction(_RETURN, 0, 0, value),)


def only(*values: int) -> Block:
    """Allow a call whose first argument is one of these."""
    last = len(values)
    return _by_argument(Instruction(_EQUAL, last - place, 0, value) for place, value in enumerate(values))


def anything_but(value: int) -> Block:
    """Allow a call whose first argument is not this."""
    return _by_argument([Instruction(_EQUAL, 0, 1, value)])


def without(bits: int) -> Block:
    """Allow a call whose first argument has none of these bits."""
    return _by_argument([Instruction(_ANY_BIT, 0, 1, bits)])


def _by_argument(comparisons: Iterable[Instruction]) -> Block:
    """Compare the first argument. After the comparisons come two answers: one refuses, the next allows."""
    return (_load(_ARGUMENT), *comparisons, *answer(refuse(errno.EPERM)), *answer(ALLOW))


def _load(place: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, place)


_RULES = {
    "socket": only(_AF_UNIX),
    "socketpair": only(_AF_UNIX),
    "clone": without(_NEW_NAMESPACES),
    "personality": only(0, _ASK_PERSONALITY),
    "prctl": anything_but(_PR_SET_SECCOMP),
    "prlimit64": only(0),  # one's own limits
}


def program(machine: Machine) -> Block:
    """The whole filter for a machine."""
    blocks = {
        **dict.fromkeys(_numbers(_ALLOWED, machine).values(), answer(ALLOW)),
        **{number: _RULES[name] for name, number in _numbers(_CONDITIONAL, machine).items()},
    }
    for text in _REFUSED:
        blocks |= dict.fromkeys(_numbers(text, machine).values(), answer(refuse(errno.EPERM)))
    unknown = answer(refuse(errno.ENOSYS))
    ranges = [(0, blocks.get(0, unknown))]
    for number in range(1, max(blocks) + 2):
        block = blocks.get(number, unknown)
        if block != ranges[-1][1]:
            ranges.append((number, block))
    foreign = (_load(_AUDIT), Instruction(_EQUAL, 1, 0, machine.audit), *answer(KILL))
    return (*foreign, _load(_NUMBER), *_search(ranges))


def available() -> bool:
    """Whether there is a filter for this system's calls. Whether it can be entered is another question."""
    return sys.platform == "linux" and sys.byteorder == "little" and os.uname().machine in MACHINES


def enter() -> None:
    """From here on this process, and every process that it starts, is held to the filter.

    OSError where the kernel refuses or where there is no filter for this machine.
    """
    if not available():
        raise OSError(errno.ENOSYS, "no system-call filter for this machine")
    machine = MACHINES[os.uname().machine]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program(machine))
    kept = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    given = Program(len(code) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    number = _numbers(_KERNEL, machine)["seccomp"]
    result = libc.prctl(_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(
        ctypes.c_long(number), ctypes.c_long(_SET_FILTER), ctypes.c_long(_ALL_THREADS), ctypes.byref(given)
    )
    if result:  # above zero: a thread that would not follow
        reason = ctypes.get_errno() if result < 0 else errno.EBUSY
        raise OSError(reason, os.strerror(reason))


def _numbers(text: str, machine: Machine) -> dict[str, int]:
    """Name -> number, of those calls that the machine has."""
    found = {}
    for word in text.split():
        name, _, numbers = word.partition(":")
        number = numbers.split("/")[-1 if machine.column else 0]
        if number != "-":
            found[name] = int(number)
    return found


def _search(ranges: list[tuple[int, Block]]) -> Block:
    """Find the last range that begins at or below the number: eight comparisons instead of hundreds."""
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    below, above = _search(ranges[:half]), _search(ranges[half:])
    if len(below) <= _MOST_SKIPPED:
        return (Instruction(_AT_LEAST, len(below), 0, ranges[half][0]), *below, *above)
    far = Instruction(_JUMP, 0, 0, len(below))
    return (Instruction(_AT_LEAST, 0, 1, ranges[half][0]), far, *below, *above)
