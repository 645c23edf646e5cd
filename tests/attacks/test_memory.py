"""Memory of a student's processes: every kind is refused, or seen by the watch; whole notebooks at the end.

Each kind of hidden memory is taken without the filter, too: that works, and the watch sees nothing of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from labkit.grading import bubblewrap, levels, memory_watch
from labkit.grading.memory_watch import Watch, family

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for what Linux offers")

MB = 10**6
MOST = 150 * MB
LOOKS = 20
START = """\
import array, ctypes, mmap, os, signal, socket, sys, threading, time
from labkit.grading.hidden_memory import refuse_hidden_memory
if {refused}:
    refuse_hidden_memory()
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]
def checked(number):
    if number in (-1, 2**64 - 1):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return number
def fill(memory):
    for place in range(0, len(memory), 4096):
        memory[place] = 1
    return memory
def here():
    print("taken", flush=True)
    time.sleep(600)
SIZE = {size}
try:
{code}
except OSError as error:
    print("refused", error.errno, flush=True)
"""
# none of them is mapped and touched, or in a descriptor, in the end
HIDDEN = {
    "files without a place, in flight": """
for _ in range(SIZE // (20 * 10**6)):
    file = os.memfd_create("x")
    os.write(file, bytes(20 * 10**6))
    ends = socket.socketpair()
    ends[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
    os.close(file)
    globals().setdefault("kept", []).append(ends)
here()
""",
    "files without a place, closed and mapped": """
for _ in range(SIZE // (20 * 10**6)):
    file = os.memfd_create("x")
    os.write(file, bytes(20 * 10**6))
    checked(libc.mmap(None, 4096, 3, 1, file, 0))
    os.close(file)
here()
""",
    "a shared mapping, of which a page is left": """
memory = checked(libc.mmap(None, SIZE, 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, -1, 0))
ctypes.memset(memory, 1, SIZE)
libc.munmap(ctypes.c_void_p(memory + 4096), ctypes.c_size_t(SIZE - 4096))
here()
""",
    "System V's segments": """
number = checked(libc.shmget(0, ctypes.c_size_t(SIZE), 0o1600))
place = checked(libc.shmat(number, None, 0))
libc.shmctl(number, 0, None)
ctypes.memset(place, 1, SIZE)
checked(libc.mmap(place + 4096, SIZE - 4096, 0, 0x32, -1, 0))
here()
""",
    "System V's queues": """
queue = checked(libc.msgget(0, 0o1600))
checked(libc.msgsnd(queue, ctypes.byref(ctypes.create_string_buffer(b"1" * 5000)), ctypes.c_size_t(4000), 0))
libc.msgctl(queue, 0, None)
here()
""",
    "System V's semaphores": """
sets = checked(libc.semget(0, 30_000, 0o1600))
libc.semctl(sets, 0, 0)
here()
""",
    "pages that only a pipe holds": """
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
libc.vmsplice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
memory = libc.mmap(None, 2**22, 3, 0x22, -1, 0)
ctypes.memset(memory, 1, 2**22)
checked(libc.vmsplice(os.pipe()[1], ctypes.byref(Vector(memory, 4096)), 1, 0))
here()
""",
}
SEEN = {
    "its own pages": "memory = fill(bytearray(SIZE))\nhere()",
    "pages of a process whose first thread has ended": """
def work():
    memory = fill(bytearray(SIZE))
    here()
threading.Thread(target=work).start()
libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
""",
    "pages of many processes": """
ours, theirs = os.pipe()
for number in range(16):
    if os.fork() == 0:
        memory = fill(bytearray(SIZE // 16))
        os.write(theirs, b"x")
        time.sleep(600)
    os.read(ours, 1)
here()
""",
    "pages of an orphan": """
if os.fork() == 0:
    if os.fork() == 0:
        memory = fill(bytearray(SIZE))
        here()
    os._exit(0)
time.sleep(600)
""",
    "pages that copies of a process have changed": """
ours, theirs = os.pipe()
memory = fill(bytearray(SIZE // 16))
for number in range(15):
    if os.fork() == 0:
        fill(memory)
        os.write(theirs, b"x")
        time.sleep(600)
    os.read(ours, 1)
here()
""",
    "page tables": """
place = checked(libc.mmap(None, SIZE // 4096 * 2**21, 1, 0x4022, -1, 0))
for number in range(SIZE // 4096):
    ctypes.string_at(place + number * 2**21, 1)  # page 0 for everyone, but a table for each
here()
""",
    "mappings": """
for number in range(min(60_000, SIZE // 400)):
    checked(libc.mmap(None, 4096, 1 + number % 2 * 2, 0x22, -1, 0))
for number in range(SIZE // 400 // 60_000):
    if os.fork() == 0:
        time.sleep(600)
here()
""",
    "messages that nobody has read": """
for _ in range(SIZE // 400_000):
    ends = socket.socketpair()
    ends[0].setblocking(False)
    try:
        while True:
            ends[0].send(bytes(10_000))
    except BlockingIOError:
        globals().setdefault("kept", []).append(ends)
here()
""",
    "messages in connections that nobody has accepted": """
listener = socket.socket(socket.AF_UNIX)
listener.bind(b"\\0labkit-test-" + os.urandom(8).hex().encode())
listener.listen(SIZE // 400_000 + 1)
for _ in range(SIZE // 400_000):
    one = socket.socket(socket.AF_UNIX)
    one.connect(listener.getsockname())
    one.setblocking(False)
    try:
        while True:
            one.send(bytes(10_000))
    except BlockingIOError:
        one.close()
here()
""",
}


def program(code: str, size: int, refused: bool) -> str:
    """Python that takes so much memory, says "taken" and keeps it, or says "refused" and why."""
    indented = "\n".join(f"    {line}" for line in code.strip().splitlines())
    return START.format(refused=refused, size=size, code=indented)


@contextmanager
def taking(code: str, size: int, refused: bool = True) -> Iterator[tuple[Watch, str]]:
    """A process that takes so much memory and keeps it: (a watch that has begun before it, what it says)."""
    text = program(code, size, refused)
    adopting = (
        "from labkit.grading import kernel_calls as calls; import os, sys;"
        "calls.adopt_orphans(); calls.die_with_parent(); sys.stdin.readline();"
        "pid = os.fork();\n"
        f"if pid == 0: os.execv(sys.executable, [sys.executable, '-c', {text!r}])\n"
        "while True:\n    os.waitpid(-1, 0)"
    )
    command = [sys.executable, "-c", adopting]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        watch = Watch(first.pid, MOST)
        first.stdin.write("go\n")
        first.stdin.flush()
        try:
            yield watch, first.stdout.readline().strip()
        finally:
            places = list(family(first.pid))
            for place in reversed(places):
                with suppress(ProcessLookupError):
                    os.kill(int(place.split("/")[2]), signal.SIGKILL)
            first.wait()
            while any(Path(place).exists() for place in places):  # their sockets are counted here, too
                time.sleep(0.01)


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_no_process_shows_is_refused(kind: str) -> None:
    with taking(HIDDEN[kind], 2 * MOST) as (watch, said):
        assert said in ("refused 38", "refused 1")
        assert not watch.exceeded()


@pytest.mark.parametrize("kind", HIDDEN)
def test_without_the_filter_it_can_be_taken_and_is_not_seen(kind: str) -> None:
    with taking(HIDDEN[kind], 2 * MOST, refused=False) as (watch, said):
        assert said == "taken"
        assert not watch.exceeded()


@pytest.mark.parametrize("kind", SEEN)
def test_what_can_be_taken_is_seen(kind: str) -> None:
    with taking(SEEN[kind], 2 * MOST) as (watch, said):
        assert said == "taken"
        assert any(watch.exceeded() for _ in range(LOOKS))


@pytest.mark.parametrize("kind", SEEN)
def test_less_than_the_limit_is_left_alone(kind: str) -> None:
    with taking(SEEN[kind], MOST // 8) as (watch, said):
        assert said == "taken"
        assert not any(watch.exceeded() for _ in range(LOOKS))


def test_a_process_cannot_hide_its_files_in_proc() -> None:
    code = "checked(libc.prctl(4, 0, 0, 0, 0))\nhere()"
    with taking(code, 0) as (_, said):
        assert said == "refused 1"
    with taking(code, 0, refused=False) as (_, said):
        assert said == "taken"


@pytest.mark.parametrize("kind", ["pages of an orphan", "pages of a process whose first thread has ended"])
def test_a_kernel_without_lists_of_children_is_watched_too(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_watch, "_tells_children", lambda: False)
    with taking(SEEN[kind], 2 * MOST) as (watch, said):
        assert said == "taken"
        assert watch.exceeded()


def test_what_is_stopped_to_be_asked_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_watch, "IN_THE_OPEN", -1.0)
    code = "memory = fill(bytearray(SIZE))\nif os.fork():\n    here()\nwhile True:\n    pass"
    with taking(code, 2 * MOST) as (watch, said):
        assert said == "taken"
        assert watch.exceeded()
        states = [
            Path(place, "stat").read_text().rpartition(")")[2].split()[0] for place in family(watch._first)
        ]
        assert len(states) == 3
        assert "T" not in states


def test_copies_that_share_their_pages_count_once() -> None:
    code = "memory = fill(bytearray(SIZE))\nfor _ in range(20):\n    if os.fork() == 0:\n        time.sleep(600)\nhere()"
    with taking(code, MOST // 2) as (watch, said):
        assert said == "taken"
        shown = family(watch._first)
        assert sum(shown.values()) > MOST
        assert not any(watch.exceeded() for _ in range(LOOKS))
        assert len(family(watch._first)) == len(shown), "asking has ended none of them"


FILLS = """
import os, sys
wrote = []
for place in ("/tmp", "/dev/shm", "/"):
    done = 0
    try:
        for number in range(30):
            with open(os.path.join(place, str(number)), "wb") as file:
                done += file.write(bytes(10**6))
    except OSError:
        pass
    wrote.append(done // 10**6)
print(wrote)
"""


def test_disks_in_memory_are_small_and_nothing_else_can_be_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not levels.level().bubblewrap:
        pytest.skip("no bubblewrap here")
    if bubblewrap._bubblewrap_version() < (0, 7):
        pytest.skip("this bubblewrap cannot limit a disk in memory")
    monkeypatch.setattr(bubblewrap, "ALL_DISKS", 20 * 2**20)
    command = bubblewrap.bubblewrap([sys.executable, "-c", FILLS], bubblewrap.readable_paths([]))
    unlimited = [word for word in command if word not in ("--size", str(20 * 2**20), "--remount-ro")]
    unlimited.remove("/")  # what was to be read-only
    small, large = (
        subprocess.run(one, capture_output=True, text=True, check=True).stdout for one in (command, unlimited)
    )
    assert small.strip() == "[20, 20, 0]"
    assert large.strip() == "[30, 30, 30]"
