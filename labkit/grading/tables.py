"""What the grading commands print: tables, in the terminal's width."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from labkit.grading.marks import Marks, Result
from labkit.grading.reference import Run


def grades_table(results: list[Result], assignment: str) -> Table:
    """A row for each student: points by notebook, the automatic total, points that wait for a human.

    A last row says what there is to reach. Eight notebooks fit into 80 columns.
    """
    notebooks = sorted({name for result in results for name in result.marks})
    most = {name: marks.possible for result in results for name, marks in result.marks.items()}
    table = Table(title=f"{assignment}: {len(results)} submissions", box=box.SIMPLE)
    table.add_column("student")
    for name in notebooks:
        table.add_column(name.partition("_")[0] if name[:1].isdigit() else name, justify="right")
    table.add_column("auto", justify="right")
    table.add_column("to mark", justify="right")
    for result in results:
        cells = [_cell(result.marks.get(name), most[name]) for name in notebooks]
        table.add_row(result.student, *cells, f"{result.got:g}", f"{result.outstanding:g}")
    table.add_section()
    possible = (_points(points, points) for _, points in sorted(most.items()))
    table.add_row("out of", *possible, f"{sum(most.values()):g}")
    return table


def print_class(console: Console, course: Path, assignment: str, results: list[Result]) -> None:
    """A graded class: the grades, what the instructor should know of whom, and where the rest lies."""
    console.print(grades_table(results, assignment))
    for result in results:
        for note in result.notes:
            console.print(f"{result.student}: {note}")
    if any(result.attempts for result in results):
        console.print("worth a look (no points were taken for it):")
        for result in results:
            for attempt in result.attempts:
                console.print(f"{result.student}: {attempt}")
    console.print(f"feedback pages      {shown(course)}/feedback/<student>/{assignment}/*.html")
    console.print(f"gradebook           {shown(course)}/gradebook.db")
    console.print(f"tables              {shown(course)}/exports/{assignment}/*.csv")


def print_moved(console: Console, results: list[Result]) -> None:
    """Whose points by code are others than before."""
    moved = [result for result in results if result.moved]
    console.print(f"{len(moved)} of {len(results)} scores moved")
    table = Table(box=box.SIMPLE)
    for heading in ("student", "before", "now", "by"):
        table.add_column(heading, justify="left" if heading == "student" else "right")
    for result in moved:
        before = result.before or 0.0
        table.add_row(result.student, f"{before:g}", f"{result.got:g}", f"{result.got - before:+g}")
    if moved:
        console.print(table)


def runs_table(runs: list[Run]) -> Table:
    """A row for each notebook of the reference solution: seconds and points."""
    table = Table(title="the reference solution, profile quick", box=box.SIMPLE)
    for heading in ("notebook", "seconds", "points", "notes"):
        table.add_column(heading, justify="left" if heading in ("notebook", "notes") else "right")
    for run in runs:
        table.add_row(run.name, f"{run.seconds:.0f}", f"{run.points:g}/{run.possible:g}", run.trouble or "")
    points, possible = sum(run.points for run in runs), sum(run.possible for run in runs)
    table.add_row("together", f"{sum(run.seconds for run in runs):.0f}", f"{points:g}/{possible:g}", "")
    return table


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _cell(marks: Marks | None, possible: float) -> str:
    if marks is None:
        return "?"
    return "not graded" if marks.got is None else _points(marks.got, possible)


def _points(got: float, possible: float) -> str:
    return f"{got:g}" if possible else "-"
