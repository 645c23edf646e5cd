"""`make demo`: the whole way from the source notebooks to a graded class, in a folder of its own.

Builds the release, runs the reference solution of every notebook, hands in for four invented students,
grades them, and says where to look. Nothing is downloaded and nothing outside the folder is written.
"""

from __future__ import annotations

import os
import shutil
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbconvert import HTMLExporter
from nbformat import NotebookNode
from rich.console import Console

from labkit.errors import LabError
from labkit.grading.grade import Options, grade_class
from labkit.grading.reference import Run, run_notebooks
from labkit.grading.release import release
from labkit.grading.samples import make_class
from labkit.grading.sources import leavings, source_notebooks
from labkit.grading.tables import print_class, print_line, runs_table, shown

MARK = ".labkit-demo"  # in a folder that we made, and may empty again


def demo(course: Path, folder: Path, assignment: str = "compression", jobs: int | None = None) -> None:
    """Show the whole lab on a copy of `course/source`; everything lands in `folder`."""
    console = Console(highlight=False)
    jobs = jobs or os.cpu_count() or 1
    start = time.perf_counter()
    _fresh(folder)
    notebooks = source_notebooks(course, assignment)
    copy = folder / "course" / "source" / assignment
    shutil.copytree(course / "source" / assignment, copy, ignore=leavings)

    with _step(console, f"release: {len(notebooks)} notebooks without solutions and hidden tests"):
        released = release(folder / "course", assignment)
    with _step(console, "the reference solution of every notebook, experiments too"):
        runs = run_notebooks(copy, jobs, lambda run: print_line(console, _line(run)))
        pictures = sum(_save(run, folder) for run in runs)
    console.print(runs_table(runs))
    with _step(console, "four students hand in; grading them"):
        students = make_class(
            folder / "course", assignment, released[0].parent, {run.name: run.notebook for run in runs}
        )
        results = grade_class(
            folder / "course",
            assignment,
            Options(jobs),
            done=lambda name: print_line(console, f"  {name} is graded"),
            say=lambda line: print_line(console, line),
        )
    print_class(console, folder / "course", assignment, results)
    print_line(console, f"released notebooks  {shown(released[0].parent)}")
    print_line(console, f"reference pages     {shown(folder)}/reference/*.html")
    print_line(console, f"pictures            {shown(folder)}/pictures/*.png ({pictures})")
    console.print(f"{len(students)} students graded, {time.perf_counter() - start:.0f} s in all")
    if short := [run for run in runs if run.trouble or run.points < run.possible]:
        lines = [f"{run.name}: {run.points:g}/{run.possible:g} {run.trouble or ''}" for run in short]
        raise LabError("the reference solution does not reach every point:\n" + "\n".join(lines))


def _fresh(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise LabError(f"{folder} is not empty and not from an earlier demo: name another, --folder FOLDER")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    start = time.perf_counter()
    console.print(f"[bold]{what}[/]")
    yield
    console.print(f"  {time.perf_counter() - start:.0f} s")


def _line(run: Run) -> str:
    done = f"  {run.name}: {run.seconds:.0f} s, {run.points:g}/{run.possible:g} points"
    return f"{done}, {run.trouble}" if run.trouble else done


def _save(run: Run, folder: Path) -> int:
    """Write a run notebook as a page, and its pictures as files; returns how many pictures."""
    page = folder / "reference" / f"{run.name}.html"
    page.parent.mkdir(exist_ok=True)
    body, _ = HTMLExporter(template_name="lab").from_notebook_node(run.notebook)
    page.write_text(body, encoding="utf-8")
    number = 0
    for number, png in enumerate(_pictures(run.notebook), start=1):
        path = folder / "pictures" / f"{run.name}-{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b64decode(png))
    return number


def _pictures(nb: NotebookNode) -> Iterator[str]:
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                yield png
