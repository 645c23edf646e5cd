"""Measures sides in turn, round by round, each in a process of its own; prints and keeps what came out.

A side is a function that gets ready and returns its measures by name; a measure does the work once and
returns images per second. Processes of their own, because the allocator's settings are a process's; in
turn, because machines are noisy: a ratio compares neighbours of the same round.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

import labkit
from labkit.reproducible import environment

Measure = Callable[[], float]
Side = Callable[[], Mapping[str, Measure]]
Figure = tuple[str, str]
"""(side, measure)"""

RESULTS = Path(__file__).parent / "results"


def timed(work: Callable[[], object], images: int) -> float:
    """Images per second of `work`, the GPU's part included."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - started)


def _serve(side: Side, pipe: Connection) -> None:
    measures = side()
    for measure in measures.values():  # warm up
        measure()
    pipe.send(list(measures))
    while (name := pipe.recv()) is not None:
        pipe.send(measures[name]())
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # KiB to GiB


@dataclass
class Comparison:
    """Images per second of each (side, measure), one for each round; each side's peak memory in GiB."""

    speeds: dict[Figure, list[float]]
    memory: dict[str, float]

    def ratio(self, ours: Figure, theirs: Figure) -> list[float]:
        """Ours over theirs in each round."""
        return [a / b for a, b in zip(self.speeds[ours], self.speeds[theirs], strict=True)]

    def report(self, ratios: Sequence[tuple[Figure, Figure]]) -> None:
        print("\nimages/s, median (smallest to largest)")
        for (side, measure), values in self.speeds.items():
            print(f"  {measure:12} {side:36} {_spread(values, ',.0f')}")
        print("\nratios")
        for ours, theirs in ratios:
            print(f"  {_name(ours)} / {_name(theirs)}: {_spread(self.ratio(ours, theirs), '.2f')}")
        print("\npeak memory, GiB:", *(f"{side} {gib:.2f};" for side, gib in self.memory.items()))

    def write(self, file: Path, ratios: Sequence[tuple[Figure, Figure]], **about: object) -> None:
        """Keep everything, as JSON."""
        medians = {
            _name(figure): round(statistics.median(values), 1) for figure, values in self.speeds.items()
        }
        result = {
            **about,
            "environment": environment(labkit.default_device()),
            "median_images_per_second": medians,
            "median_ratios": {
                f"{_name(a)} / {_name(b)}": round(statistics.median(self.ratio(a, b)), 3) for a, b in ratios
            },
            "peak_memory_gib": {side: round(gib, 2) for side, gib in self.memory.items()},
            "images_per_second": {_name(f): [round(v, 1) for v in speed] for f, speed in self.speeds.items()},
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {file}")


def compare(sides: Mapping[str, Side], rounds: int) -> Comparison:
    """Start every side, then measure all of them `rounds` times in turn."""
    # from one process that has imported torch and has not yet used it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "torchvision", "labkit.training"])
    pipes: dict[str, Connection] = {}
    speeds: dict[Figure, list[float]] = {}
    for name, side in sides.items():
        pipes[name], theirs = context.Pipe()
        process = context.Process(target=_serve, args=(side, theirs))
        process.start()
        atexit.register(process.kill)  # where another side fails, or the user stops it all
        theirs.close()
        speeds |= {(name, measure): [] for measure in pipes[name].recv()}
        print(f"ready: {name}", flush=True)
    for number in range(rounds):
        for (name, measure), values in speeds.items():
            pipes[name].send(measure)
            values.append(pipes[name].recv())
        print(f"round {number + 1} of {rounds}", flush=True)
    memory = {}
    for name, pipe in pipes.items():
        pipe.send(None)
        memory[name] = pipe.recv()
    return Comparison(speeds, memory)


def _name(figure: Figure) -> str:
    side, measure = figure
    return f"{measure}: {side}"


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
