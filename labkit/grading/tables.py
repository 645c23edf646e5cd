"""What the grading commands print: tables, in the terminal's width.

Names of files and pieces of code in it are the students'. They come as they are, without rich's markup,
and without anything that a terminal obeys.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from labkit.grading.marks import Marks, Result
from labkit.grading.outputs import few, safe_line
from labkit.grading.reference import Run

MOST_NAME = 100  # characters of a student's; `labkit collect` gives no longer ones


def print_line(console: Console, text: str) -> None:
    """Print a line that may hold what a student wrote."""
    console.print(Text(safe_line(text)))


def grades_table(results: list[Result], assignment: str) -> Table:
    """A row for each student: points by notebook, the automatic total, points that wait for a human.

    A last row says what there is to reach. Eight notebooks fit into 80 columns.
    """
    notebooks = sorted({name for result in results for name in result.marks})
    most = {name: marks.possible for result in results for name, marks in result.marks.items()}
    table = Table(title=escape(f"{assignment}: {len(results)} submissions"), box=box.SIMPLE)
    table.add_column("student")
    for name in notebooks:
        short = name.partition("_")[0] if name[:1].isdigit() else name
        table.add_column(_shown_name(short), justify="right")
    table.add_column("auto", justify="right")
    table.add_column("to mark", justify="right")
    for result in results:
        cells = [_cell(result.marks.get(name), most[name]) for name in notebooks]
        table.add_row(_shown_name(result.student), *cells, f"{result.got:g}", f"{result.outstanding:g}")
    table.add_section()
    possible = (_points(points, points) for _, points in sorted(most.items()))
    table.add_row("out of", *possible, f"{sum(most.values()):g}")
    return table


def print_class(console: Console, course: Path, assignment: str, results: list[Result]) -> None:
    """A graded class: the grades, what the instructor should know of whom, and where the rest lies."""
    console.print(grades_table(results, assignment))
    for result in results:
        _print_notes(console, result.student, result.notes)
    if any(result.attempts for result in results):
        print_line(console, "worth a look (no points were taken for it):")
        for result in results:
            _print_notes(console, result.student, result.attempts)
    print_line(console, f"feedback pages      {shown(course)}/feedback/<student>/{assignment}/*.html")
    print_line(console, f"gradebook           {shown(course)}/gradebook.db")
    print_line(console, f"tables              {shown(course)}/exports/{assignment}/*.csv")


def print_moved(console: Console, results: list[Result]) -> None:
    """Whose points by code are others than before."""
    moved = [result for result in results if result.moved]
    console.print(f"{len(moved)} of {len(results)} scores moved")
    table = Table(box=box.SIMPLE)
    for heading in ("student", "before", "now", "by"):
        table.add_column(heading, justify="left" if heading == "student" else "right")
    for result in moved:
        before = result.before or 0.0
        moved_by = f"{result.got - before:+g}"
        table.add_row(_shown_name(result.student), f"{before:g}", f"{result.got:g}", moved_by)
    if moved:
        console.print(table)


def runs_table(runs: list[Run]) -> Table:
    """A row for each notebook of the reference solution: seconds and points."""
    table = Table(title="the reference solution, profile quick", box=box.SIMPLE)
    for heading in ("notebook", "seconds", "points", "notes"):
        table.add_column(heading, justify="left" if heading in ("notebook", "notes") else "right")
    for run in runs:
        trouble = escape(safe_line(run.trouble or ""))
        points = f"{run.points:g}/{run.possible:g}"
        table.add_row(_shown_name(run.name), f"{run.seconds:.0f}", points, trouble)
    together = f"{sum(run.points for run in runs):g}/{sum(run.possible for run in runs):g}"
    table.add_row("together", f"{sum(run.seconds for run in runs):.0f}", together, "")
    return table


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _print_notes(console: Console, student: str, notes: Sequence[str]) -> None:
    for note in few(notes):
        print_line(console, f"{safe_line(student, MOST_NAME)}: {note}")


def _shown_name(name: str) -> str:
    """A name for a cell of a table, where text is read as markup."""
    return escape(safe_line(name, MOST_NAME))


def _cell(marks: Marks | None, possible: float) -> str:
    if marks is None:
        return "?"
    return "not graded" if marks.got is None else _points(marks.got, possible)


def _points(got: float, possible: float) -> str:
    return f"{got:g}" if possible else "-"
