"""A short run of the fuzzer, the same at each run; the long one is `benchmarks/fuzz.py`."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("nbgrader")

from tests.border.fuzzing.readers import readers
from tests.border.fuzzing.run import WARM, Bounds, Reader, frame_of, run

SEED = 16
# as many as take about a second
FRAMES = {"channel": 1200, "plain": 1200, "calls": 300, "answer": 1200, "end": 2000, "notebook": 500}
NEVER_REFUSES = ("end",)


@pytest.fixture(scope="module")
def every() -> dict[str, Reader]:
    return {reader.name: reader for reader in readers()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMES)
def test_a_reader_takes_a_frame_or_refuses_it_and_nothing_else(
    name: str, every: dict[str, Reader], tmp_path: Path
) -> None:
    done = run(every[name], SEED, FRAMES[name], tmp_path)
    assert done.faults == ()
    assert done.frames == FRAMES[name] == done.taken + done.refused
    assert done.taken > done.frames // 10  # frames get past the first check
    assert done.refused > done.frames // 20 or name in NEVER_REFUSES


def test_every_reader_is_sent_frames(every: dict[str, Reader]) -> None:
    assert every.keys() == FRAMES.keys()


# ---- the control: what is wrong with these is found

HELD: list[mmap.mmap] = []
SIZE = 64 * 2**20


def fails(frame: bytes) -> None:
    {}[frame]


def goes_too_deep(frame: bytes) -> None:
    goes_too_deep(frame)


def works_too_long(frame: bytes) -> None:
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass


def takes_memory(frame: bytes) -> None:
    mmap.mmap(-1, SIZE).write(bytes(SIZE))  # pages of its own, not what a heap had left


def keeps_memory(frame: bytes) -> None:
    HELD.append(mmap.mmap(-1, SIZE))
    HELD[-1].write(bytes(SIZE))


def waits_for_ever(frame: bytes) -> None:
    time.sleep(3600)


def dies(frame: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leaves(frame: bytes) -> None:
    os._exit(0)


BROKEN: dict[Callable[[bytes], None], str] = {
    fails: "KeyError", goes_too_deep: "RecursionError", works_too_long: "seconds of processor time",
    takes_memory: "MiB of memory", keeps_memory: "MiB of memory", waits_for_ever: "did not come to an end",
    dies: "its process ended (-9)", leaves: "its process ended (0)",
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.__name__)
def test_a_broken_reader_is_found_and_its_frame_kept(fault: Callable[[bytes], None], tmp_path: Path) -> None:
    def read(frame: bytes) -> None:
        if len(frame) > 200:
            raise ValueError("refused")
        if frame.startswith(b"\x07"):
            fault(frame)

    reader = Reader("broken", lambda chance: chance.randbytes(chance.randrange(1, 256)), read, (ValueError,))
    seconds = 0.1 if fault is works_too_long else 60.0
    bounds = Bounds(seconds=seconds, hang=1.0 if fault is waits_for_ever else 300.0, memory=32 * 2**20)
    done = run(reader, SEED, 600, tmp_path, bounds)
    expected = [n for n in range(600) if len(frame := frame_of(reader, SEED, n)) <= 200 and frame[0] == 7]
    assert expected[0] >= WARM
    found = next(one for one in done.faults if one.number == expected[0])
    assert BROKEN[fault] in found.what
    assert found.kept.read_bytes() == frame_of(reader, SEED, expected[0])


def test_a_frame_is_the_same_each_time_and_another_with_another_number(every: dict[str, Reader]) -> None:
    for reader in every.values():
        frames = [frame_of(reader, SEED, number) for number in range(20)]
        assert frames == [frame_of(reader, SEED, number) for number in range(20)]
        assert len(set(frames)) > 10 and frames != [frame_of(reader, SEED + 1, n) for n in range(20)]


def test_a_fault_of_the_fuzzers_own_is_none_of_a_readers(tmp_path: Path) -> None:
    def frame(chance: Random) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(RuntimeError, match="the fuzzer itself failed at frame 0"):
        run(Reader("own", frame, bytes, ()), SEED, 10, tmp_path)


@pytest.mark.parametrize("number", [16300, 24656, 27654])  # parameters whose names are no text
def test_what_the_long_run_found_is_refused(every: dict[str, Reader], number: int) -> None:
    reader = every["calls"]
    with pytest.raises(reader.refuses):
        reader.read(frame_of(reader, 1, number))
