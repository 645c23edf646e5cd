"""What a student's code gets at, at each level of isolation that this machine has.

    python benchmarks/attack_levels.py      # as root and as an ordinary user: a few minutes each

Prints a Markdown table: a row for each try, a column for each level, the first one without any sandbox.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from labkit.errors import LabError  # noqa: E402
from labkit.grading import levels  # noqa: E402
from labkit.grading.engine import Engine  # noqa: E402
from labkit.grading.levels import Level  # noqa: E402
from labkit.grading.sandbox import Limits  # noqa: E402
from tests.attacks import inside, probes, reaches  # noqa: E402
from tests.attacks.case import COURSE, GOOD  # noqa: E402
from tests.attacks.inside import Inside  # noqa: E402

LIMITS = Limits(cell_seconds=60.0, memory=2**29)
NOTEBOOKS = [*inside.HOGS, *inside.TOUCHES, *inside.BELIEVED]
Column = dict[str, str]


def possible() -> Iterator[Level]:
    """The strongest level of this machine, and each that is left where parts of it are missing."""
    here = levels.level()
    seen = set()
    for weaker in (
        here,
        replace(here, bubblewrap=False),
        replace(here, bubblewrap=False, namespaces=False),
        replace(here, namespaces=False, landlock=False, seccomp=False),
        replace(here, bubblewrap=False, landlock=False, seccomp=False),
        Level(False, False, False, False, memory=here.memory),
    ):
        if weaker not in seen:
            seen.add(weaker)
            yield weaker


def without(folder: Path) -> Column:
    """The same tries in a process of its own, with nothing around it."""

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout

    with reaches.instructors(folder) as script:
        reached = reaches.reached(run(script))
    return told(reached, run(probes.script()))


def at(level: Level, folder: Path) -> Column:
    """What this level leaves."""
    with Engine([COURSE], LIMITS, level) as engine:
        with reaches.instructors(folder) as script:
            reached = reaches.reached(shown(engine, script, folder / "reaches"))
        column = told(reached, shown(engine, probes.script(), folder / "probes"))
        for number, case in enumerate(NOTEBOOKS):
            engine.limits = replace(LIMITS, cell_seconds=case.seconds)
            graded = engine.grade(case.job(folder / str(number))[0])
            kinds = {one.kind for one in graded.verdicts} - {"passed", "partial", "failed"}
            said = ["own cell: " + last_line(graded.outputs.get("own-0", []))] if case.own else []
            column[case.name] = ", ".join([f"{graded.points:g} points", *sorted(kinds), *said])
    return column


def told(reached: set[str], printed: str) -> Column:
    """The rows of single tries. A probe has worked that ended as it does without a sandbox."""
    column = {reach.name: "yes" if reach.name in reached else "no" for reach in reaches.REACHES}
    found = probes.found(printed)
    works = [probe.name for probe in probes.PROBES if found.get(probe.name) in (probes.WORKS, *probe.works)]
    column[f"system calls, of {len(probes.PROBES)}"] = f"{len(works)}"
    return column


def shown(engine: Engine, cell: str, folder: Path) -> str:
    """What a student's own cell prints."""
    case = Inside("own cell", inside.PRUNING, {"prune-by-percentage": GOOD}, (5.0, 5.0), own=(cell,))
    outputs = engine.grade(case.job(folder)[0]).outputs["own-0"]
    return "".join(output.get("text", "") for output in outputs)


def last_line(outputs: list[dict[str, object]]) -> str:
    text = str(outputs[-1].get("text") or outputs[-1].get("evalue") or "") if outputs else ""
    return (text.strip().splitlines() or ["nothing"])[-1][:60]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    columns: dict[str, Column] = {}
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "none").mkdir()
        columns["without a sandbox"] = without(Path(scratch) / "none")
        for number, level in enumerate(possible()):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            name = level.sentence.partition(";")[0]
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                columns[name] = at(level, folder)
            except LabError as error:
                columns[name] = {"": str(error).splitlines()[0]}
    print(f"Linux {os.uname().release}, user {os.getuid()}.\n")
    print(f"| | {' | '.join(columns)} |")
    print("| --- |" + " --- |" * len(columns))
    for row in dict.fromkeys(row for column in columns.values() for row in column):
        print(f"| {row} | {' | '.join(column.get(row, '') for column in columns.values())} |")


if __name__ == "__main__":
    main()
