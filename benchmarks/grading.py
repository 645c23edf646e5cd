"""How fast a class is graded: `labkit grade` against stock `nbgrader autograde`, and against the bare cells.

    python benchmarks/grading.py                  # 20 submissions each way, twice: half an hour
    python benchmarks/grading.py --large 1000     # a large class, labkit only: submissions a minute, memory

Submissions are the release filled in with answers of `tests/lab`: each student's are others. The floor is the
same cells executed in processes forked from a warm one: no border, no sandbox, no gradebook, no pages. Each
side is a command, timed from its start (imports, warming up) to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import nbformat
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness import RESULTS  # noqa: E402

from labkit.grading.release import release  # noqa: E402
from labkit.grading.samples import fill_in  # noqa: E402
from labkit.reproducible import environment  # noqa: E402
from tests.lab import harness  # noqa: E402

ASSIGNMENT = "compression"
CORES = os.cpu_count() or 1


def make_class(course: Path, students: int, wrong_share: float = 0.3) -> None:
    """A course folder with so many submissions; the same for the same number."""
    shutil.copytree(ROOT / "notebooks" / "source", course / "source")
    release(course, ASSIGNMENT)
    released = {path.stem: path for path in (course / "release" / ASSIGNMENT).glob("*.ipynb")}
    source = {name: nbformat.read(course / "source" / ASSIGNMENT / f"{name}.ipynb", 4) for name in released}
    kinds = {
        graded.function: {
            kind: [one.source for one in harness.answers(graded.function) if one.kind == kind]
            for kind in ("right", "wrong")
        }
        for graded in harness.graded_functions()
    }
    for number in range(students):
        folder = course / "submitted" / f"student{number:04}" / ASSIGNMENT
        folder.mkdir(parents=True)
        for name, path in released.items():
            nb = nbformat.read(path, 4)
            fill_in(nb, source[name])
            for cell in nb.cells:
                answers = kinds.get(cell.metadata.get("nbgrader", {}).get("grade_id"))
                if answers is not None:
                    chosen = answers["wrong" if (number * 7 + len(name)) % 10 < 10 * wrong_share else "right"]
                    cell.source = chosen[number % len(chosen)]
            nbformat.write(nb, folder / path.name)


def part_of(course: Path, first: int, count: int, folder: Path) -> Path:
    """A course of its own with some of the students."""
    shutil.copytree(course / "source", folder / "source")
    shutil.copytree(course / "release", folder / "release")
    for student in sorted((course / "submitted").iterdir())[first : first + count]:
        shutil.copytree(student, folder / "submitted" / student.name)
    run_nbgrader(
        folder, "generate_assignment", ASSIGNMENT, "--force"
    )  # both find a gradebook, as in a course
    return folder


def nbgrader(course: Path) -> float:
    """Seconds of `nbgrader autograde`, with the repository's configuration."""
    start = time.perf_counter()
    run_nbgrader(course, "autograde", ASSIGNMENT)
    return time.perf_counter() - start


def run_nbgrader(course: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    env = {**os.environ, "LABKIT_COURSE": str(course)}
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)


def labkit(course: Path) -> float:
    """Seconds of `labkit grade`: starting up, the gradebook and the feedback pages among them."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "labkit", "grade", ASSIGNMENT, "--course", str(course)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def floor(course: Path) -> float:
    """Seconds of the bare cells, see `run_bare`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--bare", str(course)], check=True, capture_output=True)
    return time.perf_counter() - start


def run_bare(course: Path) -> None:
    """Answers and test cells of each notebook, in a process forked from this one; one a core at a time."""
    work = []
    for path in sorted((course / "submitted").glob(f"*/{ASSIGNMENT}/*.ipynb")):
        sources = {
            cell.metadata["nbgrader"]["grade_id"]: cell.source
            for cell in nbformat.read(path, 4).cells
            if cell.metadata.get("nbgrader", {}).get("solution") and cell.cell_type == "code"
        }
        answers = [graded for graded in harness.graded_functions() if graded.notebook == path.stem]
        if answers:
            tests = tuple(test for graded in answers for test in graded.tests)
            text = "\n\n".join(sources[graded.function] for graded in answers)
            work.append((harness.Graded(path.stem, answers[0].function, tests), text))
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda one: harness.grade(*one), work))


def compare(students: int, rounds: int) -> dict[str, object]:
    """Each round grades so many students' submissions, others than before, in all three ways, in turn."""
    seconds: dict[str, list[float]] = {"nbgrader": [], "labkit": [], "floor": []}
    with TemporaryDirectory() as scratch:
        make_class(Path(scratch) / "class", students * rounds)
        for number in range(rounds):
            for name, side in (("nbgrader", nbgrader), ("labkit", labkit), ("floor", floor)):
                folder = Path(scratch) / f"{name}{number}"
                took = side(part_of(Path(scratch) / "class", number * students, students, folder))
                seconds[name].append(took)
                print(f"round {number + 1}, {name}: {students} submissions in {took:.1f} s", flush=True)
    ratios = {
        "nbgrader / labkit": [a / b for a, b in zip(seconds["nbgrader"], seconds["labkit"], strict=True)],
        "labkit / floor": [a / b for a, b in zip(seconds["labkit"], seconds["floor"], strict=True)],
    }
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    return {"students": students, "rounds": rounds, "seconds": seconds, "ratios": ratios}


def large(students: int) -> dict[str, object]:
    """A large class: how fast, and how much memory all processes together take as it goes on."""
    with TemporaryDirectory() as scratch:
        course = Path(scratch) / "class"
        make_class(course, students)
        samples: list[tuple[float, int, float]] = []
        ended = Event()
        watcher = Thread(target=_watch, args=(course, samples, ended))
        watcher.start()
        try:
            seconds = labkit(course)
        finally:
            ended.set()
            watcher.join()
    quarters = [samples[len(samples) * i // 4 : len(samples) * (i + 1) // 4] for i in range(4)]
    memory = [max(mib for _, _, mib in quarter) for quarter in quarters if quarter]
    rate = 60 * students / seconds
    print(f"{students} submissions in {seconds:.0f} s: {rate:.0f} a minute")
    print("peak memory (MiB) in each quarter: " + ", ".join(f"{mib:.0f}" for mib in memory))
    return {"students": students, "seconds": seconds, "a minute": rate, "peak MiB": memory}


def _watch(course: Path, samples: list[tuple[float, int, float]], ended: Event) -> None:
    """(seconds, students done, MiB of all our processes) every two seconds; shared pages count once."""
    start = time.perf_counter()
    while not ended.wait(2):
        total = 0.0
        for process in psutil.Process().children(recursive=True):
            try:
                total += process.memory_full_info().pss / 2**20
            except psutil.Error:
                continue
        done = len(list((course / "graded").glob(f"{ASSIGNMENT}/*.json")))
        samples.append((time.perf_counter() - start, done, total))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--students", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--large", type=int, help="only this: a class of so many")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)  # the floor's side, on this course
    arguments = parser.parse_args()
    if arguments.bare:
        run_bare(arguments.bare)
        return
    if arguments.large:
        name, result = "grading-large", large(arguments.large)
    else:
        name, result = "grading", compare(arguments.students, arguments.rounds)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), "cores": CORES, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
