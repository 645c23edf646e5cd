"""The system-call filter: what becomes of every number, read from the program, and of some in a real kernel."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from labkit.grading import seccomp
from labkit.grading.seccomp import ALLOW, KILL, MACHINES, Instruction, program, refuse
from tests.attacks.probes import I386

TABLES = Path(__file__).parent / "calls"
EPERM, ENOSYS = refuse(errno.EPERM), refuse(errno.ENOSYS)
ANSWERS = {"allowed": ALLOW, "EPERM": EPERM, "ENOSYS": ENOSYS}
X32 = 0x40000000  # this bit in a number of x86-64 asks for the same call with pointers of 32 bits
FOREIGN = (0x40000003, 0x40000028, 0xC00000F3, 0)  # i386, 32-bit ARM, RISC-V, nothing
# x86's way back from a probe: newer kernels hold no filter before these, and end whoever else makes them
PROBES = ("uretprobe", "uprobe")
FIRST_ARGUMENTS = (0, 1, 2, 0x10000000, 0xFFFFFFFF, 2**64 - 1)

# what only some arguments are refused: call -> (first argument, whether it is allowed)
NEW = {
    "CLONE_NEWNS": 0x20000, "CLONE_NEWCGROUP": 0x2000000, "CLONE_NEWUTS": 0x4000000, "CLONE_NEWIPC": 0x8000000,
    "CLONE_NEWUSER": 0x10000000, "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000,
}  # fmt: skip
THREAD, FORK, VFORK = 0x3D0F00, 0x1200011, 0x4111  # as glibc asks for them
FAMILIES = [(1, True), *((family, False) for family in (0, *range(2, 64), 2**31, 2**32 - 1))]
# the kernel reads an int: what is above its 32 bits is nothing that it sees
FAMILIES += [(1 | 1 << 32, True), (2 | 1 << 32, False), (16 | 1 << 63, False)]
CONDITIONS: dict[str, list[tuple[int, bool]]] = {
    "socket": FAMILIES,
    "socketpair": FAMILIES,
    "clone": [
        *((flags, True) for flags in (0, 17, THREAD, FORK, VFORK)),
        *((flag, False) for flag in NEW.values()),
        *((flag | 17 | 1 << 32, False) for flag in NEW.values()),
        (sum(NEW.values()), False),
    ],
    "personality": [(0, True), (0xFFFFFFFF, True), (0x40000, False), (8, False), (0x1 << 32 | 8, False)],
    "prlimit64": [(0, True), (1, False), (0xFFFFFFFF, False), (1 << 32, True)],
    "prctl": [(22, False), (22 | 1 << 32, False), *((option, True) for option in (1, 4, 15, 16, 36, 38, 59))],
}


def golden(machine: str) -> list[tuple[int, str, str]]:
    """(number, name or -, what becomes of it), a line each."""
    lines = (TABLES / f"{machine}.txt").read_text().splitlines()
    return [(int(number), name, fate) for number, name, fate in map(str.split, lines)]


def answer_of(code: Sequence[Instruction], audit: int, number: int, argument: int = 0) -> int:
    """Run the program as the kernel does, on one call; AssertionError for what the kernel would not load."""
    data = {0: number, 4: audit, 16: argument & 0xFFFFFFFF, 20: argument >> 32}
    place = accumulator = 0
    while True:
        assert place < len(code), "it runs past its end"
        step = code[place]
        place += 1
        match step.code:
            case 0x20:  # load a word
                accumulator = data[step.operand]
            case 0x06:  # return
                return step.operand
            case 0x05:  # jump
                place += step.operand
            case 0x15 | 0x35 | 0x45:  # equal, at least, any bit
                holds = {
                    0x15: accumulator == step.operand,
                    0x35: accumulator >= step.operand,
                    0x45: bool(accumulator & step.operand),
                }[step.code]
                place += step.then if holds else step.otherwise
            case _:
                raise AssertionError(f"no such operation: {step.code:#x}")


@pytest.mark.parametrize("machine", MACHINES)
class TestTheProgram:
    def test_every_number_gets_what_the_table_says(self, machine: str) -> None:
        code, audit = program(MACHINES[machine]), MACHINES[machine].audit
        for number, name, fate in golden(machine):
            if fate == "conditional":
                continue
            for argument in FIRST_ARGUMENTS:
                got = answer_of(code, audit, number, argument)
                assert got == ANSWERS[fate], (number, name, fate, hex(got))

    def test_conditions_look_at_the_first_argument(self, machine: str) -> None:
        code, audit = program(MACHINES[machine]), MACHINES[machine].audit
        conditional = {name: number for number, name, fate in golden(machine) if fate == "conditional"}
        assert set(conditional) == set(CONDITIONS)
        for name, number in conditional.items():
            for argument, allowed in CONDITIONS[name]:
                got = answer_of(code, audit, number, argument)
                assert got == (ALLOW if allowed else EPERM), (name, hex(argument), hex(got))

    def test_what_the_table_does_not_know_is_not_there(self, machine: str) -> None:
        code, audit = program(MACHINES[machine]), MACHINES[machine].audit
        known = len(golden(machine))
        for number in [*range(known, 1100), 2**31 - 1, 2**31, 2**32 - 1, *range(X32, X32 + 600)]:
            for argument in FIRST_ARGUMENTS:
                assert answer_of(code, audit, number, argument) == ENOSYS, hex(number)

    def test_another_machines_calls_end_the_process(self, machine: str) -> None:
        others = [one.audit for name, one in MACHINES.items() if name != machine]
        for audit in (*FOREIGN, *others):
            for number in (*range(600), X32):
                assert answer_of(program(MACHINES[machine]), audit, number) == KILL, (hex(audit), number)

    def test_the_kernel_would_load_it(self, machine: str) -> None:
        code = program(MACHINES[machine])
        assert len(code) <= 4096
        for step in code:
            assert 0 <= step.then < 256
            assert 0 <= step.otherwise < 256
            assert 0 <= step.operand < 2**32


def test_the_tables_have_every_number_once_and_agree_with_one_another() -> None:
    fates: dict[str, set[str]] = {}
    for machine in MACHINES:
        lines = golden(machine)
        assert [number for number, _, _ in lines] == list(range(len(lines)))
        names = [name for _, name, _ in lines if name != "-"]
        assert len(names) == len(set(names))
        assert all(fate == "ENOSYS" for _, name, fate in lines if name == "-")
        for _, name, fate in lines:
            fates.setdefault(name, set()).add(fate)
    assert [name for name, fate in fates.items() if len(fate) > 1] == []


def test_from_424_on_both_machines_number_their_calls_alike() -> None:
    """The kernel's own rule for new calls: a number copied wrongly shows here."""
    x86, arm = (golden(machine)[424:] for machine in ("x86_64", "aarch64"))
    assert x86 == arm


# ---- in a real kernel

EVERY_REFUSED = """
import ctypes, json, sys
from labkit.grading import seccomp
libc = ctypes.CDLL(None, use_errno=True)
nothing = [ctypes.c_long(-1)] * 6
seccomp.enter()
found = {}
for number in json.loads(sys.argv[1]):
    result = libc.syscall(ctypes.c_long(number), *nothing)
    found[number] = ctypes.get_errno() if result == -1 else 0
print(json.dumps(found))
"""


@pytest.fixture
def table() -> Iterator[list[tuple[int, str, str]]]:
    """This machine's."""
    if not seccomp.available():
        pytest.skip("no system-call filter here")
    yield golden(os.uname().machine)


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process and a session of its own: what a call does there, it does to nobody else."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)


def test_the_kernel_refuses_every_call_that_the_table_refuses(table: list[tuple[int, str, str]]) -> None:
    numbers = {
        number: fate for number, name, fate in table if fate in ("EPERM", "ENOSYS") and name not in PROBES
    }
    done = python(EVERY_REFUSED, json.dumps(list(numbers)))
    assert done.returncode == 0, done.stderr
    found = {int(number): errno.errorcode.get(value) for number, value in json.loads(done.stdout).items()}
    assert found == numbers


def test_the_filter_holds_threads_that_were_there_before_and_programs_started_after(
    table: list[tuple[int, str, str]],
) -> None:
    code = """
import socket, subprocess, sys, threading
from labkit.grading import seccomp
go, said = threading.Event(), []
def tries():
    go.wait()
    try:
        socket.socket(socket.AF_INET)
    except PermissionError:
        said.append("thread")
thread = threading.Thread(target=tries)
thread.start()
seccomp.enter()
go.set()
thread.join()
program = "import socket; socket.socketpair(); socket.socket(socket.AF_INET)"
done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
print(*said, done.stderr.splitlines()[-1])
"""
    assert python(code).stdout.split(":")[0] == "thread PermissionError"


def test_a_filter_cannot_be_left_or_laid_over(table: list[tuple[int, str, str]]) -> None:
    code = """
from labkit.grading import seccomp
seccomp.enter()
try:
    seccomp.enter()
except OSError as error:
    print(error.strerror)
"""
    assert python(code).stdout == "Operation not permitted\n"


def test_the_calls_of_i386_end_the_process(table: list[tuple[int, str, str]]) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("without the sandbox this call fails too: it is one of x86's")
    if python(I386).stdout != "ANSWERED True\n":
        pytest.skip("without the sandbox this call fails too: a kernel without i386's")
    done = python("from labkit.grading import seccomp\nseccomp.enter()\n" + I386)
    assert done.returncode == -31, done  # SIGSYS
