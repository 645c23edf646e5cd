"""A million frames through everything that reads what a student's code may have written.

    python benchmarks/fuzz.py                                  # an hour of two cores
    python benchmarks/fuzz.py --seed 7 --only plain --frame 12 # makes one frame again and reads it

Frames are honest messages and notebooks, changed by chance: `tests/border/fuzzing`. A reader may take one or
refuse it with its own error. Anything else, more than a second, or too much memory is a fault, and the frame
is kept. Prints the figures and writes them to `results/fuzz.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from labkit.reproducible import environment  # noqa: E402
from tests.border.fuzzing.readers import readers  # noqa: E402
from tests.border.fuzzing.run import Bounds, Run, frame_of, run  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "fuzz.json"
SHARES = {"calls": 1, "notebook": 1}  # of the frames; fewer of those that take ten times as long
OTHERS = 4


def shared_out(frames: int, names: list[str]) -> dict[str, int]:
    """How many of the frames each reader gets: all of them together are `frames`."""
    shares = {name: SHARES.get(name, OTHERS) for name in names}
    given = {name: frames * share // sum(shares.values()) for name, share in shares.items()}
    given[names[0]] += frames - sum(given.values())  # what is left over
    return given


def figures(one: Run) -> dict[str, Any]:
    seconds, number = one.slowest
    return {
        "frames": one.frames,
        "taken": one.taken,
        "refused": one.refused,
        "faults": len(one.faults),
        "slowest_seconds": round(seconds, 3),
        "slowest_frame": number,
        "memory_mib": round(one.memory / 2**20, 1),
    }


def sentence(result: dict[str, Any]) -> str:
    """A record in words, for a page."""
    readers = result["readers"].values()
    taken, refused = (sum(one[key] for one in readers) for key in ("taken", "refused"))
    slowest, memory = (max(one[key] for one in readers) for key in ("slowest_seconds", "memory_mib"))
    sent = f"{result['frames']:,} frames (seed {result['seed']}) were sent"
    came = f"{taken:,} taken, {refused:,} refused, {result['faults']} faults"
    cost = f"{slowest:.2f} s of processor time, and the most memory that a reader took was {memory:.0f} MiB"
    return f"{sent}: {came}. The slowest took {cost}."


def report(name: str, one: Run) -> None:
    told = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in figures(one).items())
    print(f"{name} in {one.seconds:,.0f} s: {told}", flush=True)
    for fault in one.faults:
        print(f"  frame {fault.number}, {fault.kept}: {fault.what.strip().splitlines()[-1]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the reader with this name")
    parser.add_argument("--frame", type=int, help="make this frame of --only's again, and read it")
    parser.add_argument("--jobs", type=int, default=2, help="readers at a time")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    every = [one for one in readers() if arguments.only in (None, one.name)]
    if not every:
        parser.error(f"there is no reader {arguments.only!r}")
    if arguments.frame is not None:
        print(every[0].read(frame_of(every[0], arguments.seed, arguments.frame)))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="labkit-fuzz-"))
    print(f"seed {arguments.seed}; frames at fault are kept in {folder}", flush=True)
    given = shared_out(arguments.frames, [one.name for one in every])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        running = {pool.submit(run, one, arguments.seed, given[one.name], folder): one.name for one in every}
        runs = {}
        for future in as_completed(running):
            runs[running[future]] = future.result()
            report(running[future], future.result())
    result = {
        "frames": sum(one.frames for one in runs.values()),
        "faults": sum(len(one.faults) for one in runs.values()),
        "seed": arguments.seed,
        "bounds": asdict(Bounds()),
        "readers": {one.name: figures(runs[one.name]) for one in every},
        "environment": environment("cpu"),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{sentence(result)}\nwritten to {arguments.out}")
    return min(1, result["faults"])


if __name__ == "__main__":
    sys.exit(main())
