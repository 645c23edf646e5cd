"""A graded notebook as nbgrader keeps it: `autograded/<student>/<assignment>/<notebook>.ipynb`.

nbgrader's formgrader opens these for manual grading, and feedback pages are made from them. Test cells
hold the source's text, hidden part included, as in nbgrader's own; outputs are safe to look at.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.utils import parse_utc

from labkit.files import write_atomically
from labkit.grading.files import beginning
from labkit.grading.outputs import (
    Budget,
    Output,
    few,
    safe_attachments,
    safe_markdown,
    safe_outputs,
    stream,
)
from labkit.grading.repair import EXPERIMENT, grade_id_of
from labkit.grading.verdicts import Graded, Verdict
from labkit.outcomes import Outcome

TAGS = {"setup", "answer", "test", "question", EXPERIMENT}  # an own tag would become part of a page's HTML
NOTES_CELL = "labkit-mended"
OURS = "labkit"  # our part of the notebook's metadata: what a feedback page says and the cells do not


@dataclass(frozen=True)
class SourceCell:
    """What nbgrader's gradebook knows of a marked cell: its trusted text, and its checksum when released."""

    source: str
    checksum: str
    cell_type: str
    locked: bool


@dataclass(frozen=True)
class Source:
    """A notebook of the assignment in nbgrader's gradebook; cells by grade_id."""

    cells: Mapping[str, SourceCell]
    kernelspec: Mapping[str, str]


@dataclass(frozen=True)
class Autograded:
    """A graded notebook with its outputs. verdicts: by grade_id. notes: what was mended, a phrase each."""

    name: str
    notebook: NotebookNode
    verdicts: Mapping[str, Verdict]
    notes: tuple[str, ...] = ()


def autograded(
    mended: NotebookNode, graded: Graded, source: Source, notes: tuple[str, ...] = ()
) -> Autograded:
    """Put the results of grading into the mended notebook, which is not changed."""
    verdicts = verdicts_by_grade_id(mended, graded)
    nb: NotebookNode = nbformat.from_dict(mended)
    nb.cells = [cell for cell in nb.cells if cell.id != NOTES_CELL]
    ran, budget = 0, Budget()
    for cell in nb.cells:
        name = grade_id_of(cell)
        known = source.cells.get(name or "")
        if name is None:
            _tidy_own(cell)
        elif known is not None:  # else the source marks it without saying that it is anything
            _restore(cell, known)
        if "attachments" in cell:
            cell.attachments = nbformat.from_dict(safe_attachments(cell.attachments))
        if cell.cell_type != "code" and not (known is not None and known.locked):
            cell.source = safe_markdown(cell.source, cell.get("attachments", {}))
        if cell.cell_type == "code":
            kept = name is None and EXPERIMENT in cell.metadata.get("tags", [])
            outputs = cell.outputs if kept else _outputs(cell, graded, verdicts.get(name or ""))
            # what a student prints does not use up what the tests say: those are few and the source's
            shared = None if name in verdicts else budget
            cell.outputs = nbformat.from_dict(safe_outputs(outputs, shared))
            if not kept:
                ran += cell.id in graded.outputs
                cell.execution_count = ran if cell.id in graded.outputs else None
    if notes:
        nb.cells.insert(0, _notes_cell(notes))
    # none of the student's: a kernel's language, say, ends up in a page's HTML
    about = {"verdicts": {name: asdict(one) for name, one in verdicts.items()}, "notes": list(notes)}
    nb.metadata = nbformat.from_dict({"language_info": {"name": "python"}, OURS: about})
    if source.kernelspec:
        nb.metadata["kernelspec"] = nbformat.from_dict(source.kernelspec)
    return Autograded(graded.notebook, nb, verdicts, notes)


def verdicts_by_grade_id(nb: NotebookNode, graded: Graded) -> dict[str, Verdict]:
    """grade_id -> the verdict of that test cell; a verdict names its cell by grade_id or by cell id."""
    given = {verdict.cell: verdict for verdict in graded.verdicts}
    names = {name: cell.id for cell in nb.cells if (name := grade_id_of(cell)) is not None}
    found = {name: given.get(name) or given.get(cell_id) for name, cell_id in names.items()}
    return {name: verdict for name, verdict in found.items() if verdict is not None}


def path_of(course: Path, assignment: str, student: str, name: str) -> Path:
    return course / "autograded" / student / assignment / f"{name}.ipynb"


def write_autograded(course: Path, assignment: str, student: str, one: Autograded) -> Path:
    """Write the notebook where nbgrader looks for it."""
    path = path_of(course, assignment, student, one.name)
    # half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark
    text = (nbformat.writes(one.notebook) + "\n").encode("utf-8", "replace")
    write_atomically(path, lambda part: part.write_bytes(text))
    return path


def read_autograded(course: Path, assignment: str, student: str, name: str) -> Autograded | None:
    """What `write_autograded` wrote; None if there is nothing, or a notebook that others wrote."""
    try:
        nb = nbformat.read(path_of(course, assignment, student, name), 4)
    except FileNotFoundError:
        return None
    about = nb.metadata.get(OURS)
    if about is None:
        return None
    verdicts = {key: _verdict(record) for key, record in about["verdicts"].items()}
    return Autograded(name, nb, verdicts, tuple(about["notes"]))


def drop_autograded(course: Path, assignment: str, student: str, name: str) -> None:
    """Remove an earlier hand-in's notebook, so that nobody grades by hand what no longer counts."""
    path_of(course, assignment, student, name).unlink(missing_ok=True)


def read_timestamp(submitted: Path) -> datetime | None:
    """When a submission was handed in (UTC): nbgrader's `timestamp.txt` in its folder, if it makes sense."""
    try:
        text = beginning(submitted, "timestamp.txt", 200).strip()
        return parse_utc(text) if text else None
    except (ValueError, OverflowError):
        return None


def write_timestamp(course: Path, assignment: str, student: str, timestamp: datetime | None) -> None:
    """nbgrader tells by it whether an autograded submission is older than the one that lies there now."""
    path = course / "autograded" / student / assignment / "timestamp.txt"
    if timestamp is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, lambda part: part.write_text(f"{timestamp} UTC\n", encoding="utf-8"))


def _tidy_own(cell: NotebookNode) -> None:
    """A cell that the release does not mark: of its metadata only the kind stays."""
    tags = cell.metadata.get("tags")
    kept = [tag for tag in tags if tag in TAGS] if isinstance(tags, list) else []
    cell.metadata = nbformat.from_dict({"tags": kept} if kept else {})


def _restore(cell: NotebookNode, source: SourceCell) -> None:
    """As nbgrader's OverwriteCells leaves a marked cell; its metadata are the release's already."""
    cell.metadata["nbgrader"]["checksum"] = source.checksum
    cell.metadata["nbgrader"]["cell_type"] = source.cell_type
    if source.locked:
        cell.source = source.source


def _outputs(cell: NotebookNode, graded: Graded, verdict: Verdict | None) -> list[Output]:
    """What the cell gave when it ran; for a test of which nothing is there, what its verdict says."""
    if cell.id in graded.outputs or verdict is None:
        return graded.outputs.get(cell.id, [])
    lines = [outcome.lines(with_points=True) for outcome in verdict.checks]
    said = [f"{verdict.kind}: {verdict.sentence}" if verdict.sentence else verdict.kind, *lines]
    return [
        stream(verdict.printed + "\n".join(said) + "\n"),
        # the number that nbgrader takes for a cell's points
        {"output_type": "execute_result", "data": {"text/plain": repr(float(verdict.points))}},
    ]


def _notes_cell(notes: tuple[str, ...]) -> NotebookNode:
    """Says at the head of the notebook what was mended. A file's name in it is the student's choice."""
    lines = (f"- {safe_markdown(html.escape(note))}" for note in few(notes))
    text = "\n".join(["**Before grading, this notebook was mended.**", "", *lines])
    return nbformat.v4.new_markdown_cell(text, id=NOTES_CELL)


def _verdict(record: Mapping[str, Any]) -> Verdict:
    checks = tuple(Outcome(**check) for check in record["checks"])
    return Verdict(**{**record, "checks": checks})
