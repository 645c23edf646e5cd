"""Sends frames through a reader, in a process of its own, and keeps each that it did not take as it should.

A frame follows from the reader, the seed and its number alone, so that each can be made again.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

WARM = 50  # frames before memory is looked at: until then torch gets ready
MOST_FAULTS = 10  # after that a run ends
DONE, OWN_FAULT = 70, 71  # exit statuses that no reader has
NUMBER, TAKEN, REFUSED, SLOWEST, SLOWEST_NUMBER, MEMORY = range(6)


class Broken(Exception):  # noqa: N818 (it says what a reader is)
    """A reader gave what it does not promise."""


def expect(sound: object, what: str) -> None:
    """Raise Broken if it is not."""
    if not sound:
        raise Broken(what)


@dataclass(frozen=True)
class Reader:
    """Something that reads bytes which a student's code may have written.

    frame: such bytes. read: returns, or raises one of `refuses`; Broken if what it gave is not as promised.
    """

    name: str
    frame: Callable[[Random], bytes]
    read: Callable[[bytes], object]
    refuses: tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Bounds:
    """What a frame may cost. seconds: of processor time; hang: on the clock; memory: bytes, and for each byte
    of the frame (JSON takes 3 bytes to make a list of 64)."""

    seconds: float = 1.0
    hang: float = 300.0
    memory: int = 128 * 2**20
    memory_a_byte: int = 40


@dataclass(frozen=True)
class Fault:
    number: int
    what: str
    kept: Path


@dataclass(frozen=True)
class Run:
    """What came of it. taken, refused: frames; slowest: (seconds, number); memory: bytes at most beyond the
    start."""

    frames: int
    taken: int
    refused: int
    seconds: float
    slowest: tuple[float, int]
    memory: int
    faults: tuple[Fault, ...]


def frame_of(reader: Reader, seed: int, number: int) -> bytes:
    return reader.frame(Random(f"{reader.name} {seed} {number}"))


def run(reader: Reader, seed: int, frames: int, folder: Path, bounds: Bounds | None = None) -> Run:
    """Send that many frames; those at fault are kept in `folder`, each beside a text that says why."""
    begin, first = time.monotonic(), 0
    tally = memoryview(mmap.mmap(-1, 8 * 6)).cast("q")
    sys.stdout.flush()
    while first < frames and len(_faults(reader, folder)) < MOST_FAULTS:
        pid = os.fork()
        if pid == 0:
            status = OWN_FAULT
            try:
                _send(reader, seed, range(first, frames), tally, folder, bounds or Bounds())
                status = DONE
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if ended == DONE:
            break
        if ended == OWN_FAULT:
            raise RuntimeError(f"the fuzzer itself failed at frame {tally[NUMBER]} of {reader.name!r}")
        why = "it did not come to an end" if ended == -signal.SIGALRM else f"its process ended ({ended})"
        _keep(reader, tally[NUMBER], frame_of(reader, seed, tally[NUMBER]), why, folder)
        first = tally[NUMBER] + 1
    return Run(
        tally[NUMBER] + 1,
        tally[TAKEN],
        tally[REFUSED],
        time.monotonic() - begin,
        (tally[SLOWEST] / 1e9, tally[SLOWEST_NUMBER]),
        tally[MEMORY],
        tuple(_faults(reader, folder)),
    )


def _send(
    reader: Reader, seed: int, numbers: range, tally: memoryview[int], folder: Path, bounds: Bounds
) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, whatever it is busy with
    gc.freeze()  # what was imported takes a tenth of a second to look through, and is none of the frame's
    start, faults = 0, 0
    for number in numbers:
        tally[NUMBER] = number
        frame = frame_of(reader, seed, number)
        if number == numbers.start + WARM:
            start = _most_memory()
        before = _most_memory()
        signal.setitimer(signal.ITIMER_REAL, bounds.hang)
        begin = time.process_time_ns()
        fault = ""
        try:
            reader.read(frame)
            tally[TAKEN] += 1
        except reader.refuses:
            tally[REFUSED] += 1
        except Exception:
            fault = traceback.format_exc()
        took = time.process_time_ns() - begin
        signal.setitimer(signal.ITIMER_REAL, 0)
        if took > tally[SLOWEST]:
            tally[SLOWEST], tally[SLOWEST_NUMBER] = took, number
        more = after - start if start and (after := _most_memory()) > before else 0
        tally[MEMORY] = max(tally[MEMORY], more)
        if took > 1e9 * bounds.seconds:
            fault = fault or f"it took {took / 1e9:.1f} seconds of processor time"
        if more > bounds.memory + bounds.memory_a_byte * len(frame):
            fault = fault or f"it took {more >> 20} MiB of memory, for a frame of {len(frame)} bytes"
        if fault:
            _keep(reader, number, frame, fault, folder)
            faults += 1
            if faults == MOST_FAULTS:
                return


def _most_memory() -> int:
    """The most that this process has held, in bytes; one that was forked begins with what it had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _keep(reader: Reader, number: int, frame: bytes, why: str, folder: Path) -> None:
    kept = folder / f"{reader.name}-{number}.frame"
    kept.write_bytes(frame)
    kept.with_suffix(".txt").write_text(why, encoding="utf-8", errors="replace")


def _faults(reader: Reader, folder: Path) -> list[Fault]:
    """Those that lie in the folder."""
    found = [
        Fault(int(text.stem.rpartition("-")[2]), text.read_text(encoding="utf-8"), text.with_suffix(".frame"))
        for text in folder.glob(f"{reader.name}-*.txt")
    ]
    return sorted(found, key=lambda fault: fault.number)
