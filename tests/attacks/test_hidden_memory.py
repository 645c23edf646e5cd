"""The filter of system calls, run here as the kernel would run it: for both architectures."""

from __future__ import annotations

import struct

import pytest

from labkit.grading import hidden_memory
from labkit.grading.hidden_memory import Machine


def answer(machine: Machine, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter says of a call: 0 for allowed, or the error's number."""
    seen = struct.pack(
        "<IIQ6Q",
        number,
        machine.audit if audit is None else audit,
        0,
        *arguments,
        *[0] * (6 - len(arguments)),
    )
    place = value = 0
    program = hidden_memory.filter_for(machine)
    while True:
        code, true, false, constant = program[place]
        place += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("<I", seen, constant)
            case 0x54:
                value &= constant
            case 0x06:
                return 0 if constant == 0x7FFF0000 else constant & 0xFFFF
            case _:
                holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}
                place += true if holds[code] else false


@pytest.mark.parametrize("name", hidden_memory.MACHINES)
def test_the_filter_looks_at_arguments(name: str) -> None:
    machine = hidden_memory.MACHINES[name]
    shared, private, fixed = 0x21, 0x22, 0x10
    assert answer(machine, machine.mmap, 0, 4096, 3, shared) == 1
    assert answer(machine, machine.mmap, 0, 4096, 3, shared | fixed | 2**40) == 1
    assert answer(machine, machine.mmap, 0, 4096, 3, private) == 0
    assert answer(machine, machine.mmap, 0, 4096, 3, 0x01) == 0, "a file's"
    assert answer(machine, machine.setsockopt, 5, 1, 7) == 1
    assert answer(machine, machine.setsockopt, 5, 1, 32) == 1
    assert answer(machine, machine.setsockopt, 5, 1, 8) == 0
    assert answer(machine, machine.setsockopt, 5, 6, 7) == 0
    assert answer(machine, machine.clone, 0x10000011) == 1
    assert answer(machine, machine.clone, 0x3D0F00) == 0, "a thread"
    assert answer(machine, machine.prctl, 4) == 1
    assert answer(machine, machine.prctl, 36) == 0


@pytest.mark.parametrize("name", hidden_memory.MACHINES)
def test_the_filter_refuses_a_list_of_calls_and_no_other(name: str) -> None:
    machine = hidden_memory.MACHINES[name]
    refused = {number for number in range(600) if answer(machine, number)}
    assert refused == set(machine.refused.values())
    assert all(answer(machine, number, audit=0x40000003) for number in range(600)), "i386"
    assert all(answer(machine, number + 2**30) for number in range(600)), "x32"
