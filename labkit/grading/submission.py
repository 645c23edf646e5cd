"""What a student handed in -> notebooks on the release's own cells, ready to be graded, and jobs for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.cells import cells_in
from labkit.grading.beside import MOST_BYTES, MOST_FILES, beside
from labkit.grading.intake import is_graded, take_in
from labkit.grading.reading import Unreadable
from labkit.grading.repair import EXPERIMENT, defined_names, grade_id_of
from labkit.grading.verdicts import Cell, CellKind, Job
from labkit.written import Answer, is_untouched


@dataclass(frozen=True)
class Assignment:
    """The instructor's notebooks by name: as released, and the source with solutions and hidden tests.

    A notebook in which nothing is graded is optional: it is in `released` only.
    """

    released: Mapping[str, NotebookNode]
    source: Mapping[str, NotebookNode]

    @staticmethod
    def read(released: Path, source: Path) -> Assignment:
        """From two folders of notebooks."""
        graded = {name: nb for name, nb in _notebooks(source).items() if is_graded(nb)}
        return Assignment(_notebooks(released), graded)

    def texts(self) -> dict[str, str]:
        """What the source notebooks define, as JSON: no test, no experiment, no word."""
        return {
            name: json.dumps({"cells": [cell for cell in nb.cells if _defines(cell)]})
            for name, nb in self.source.items()
        }


@dataclass
class Submission:
    """A student's notebooks as grading sees them.

    notebooks: mended, by name; answers: what each one's answers are, by grade_id. notes: what was
    mended, a phrase each, by notebook; general: about its files. files: each of them with what became of
    it, a line each. not_graded: notebooks that cannot be read, or may be in a file that cannot be opened,
    and why. missing: those that are not there, and every file was looked into. beside: what is beside
    each notebook.
    """

    student: str
    notebooks: dict[str, NotebookNode] = field(default_factory=dict)
    answers: dict[str, Mapping[str, Answer]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    general: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    not_graded: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    beside: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @cached_property
    def texts(self) -> dict[str, str]:
        """The mended notebooks as JSON, without outputs: what a later notebook looks its functions up in."""
        return {name: json.dumps(_bare(nb)) for name, nb in self.notebooks.items()}

    def modules(self, name: str) -> dict[str, str]:
        """The student's own modules beside a notebook, whose code its cells may run."""
        files = self.beside.get(name, {})
        return {path: files[path].decode("utf-8", "replace") for path in files if path.endswith(".py")}


def read_submission(student: str, folder: Path, released: Mapping[str, NotebookNode]) -> Submission:
    """Find, read and mend everything under `folder` that is graded."""
    intake = take_in(folder, released)
    result = Submission(student, general=intake.account.lines(), files=intake.account.summary())
    for name in filter(lambda name: is_graded(released[name]), released):
        copy, elsewhere = intake.chosen.get(name), intake.account.why_not_missing(name)
        if copy is None:
            if elsewhere:  # no zero for what nobody has looked into
                result.not_graded[name] = f"it may be in what was not opened: {_few(elsewhere)}"
            else:
                result.missing.append(name)
            continue
        result.notes[name] = list(intake.notes[name])
        if isinstance(copy.mended, Unreadable):
            result.not_graded[name] = str(copy.mended)
        elif copy.emptiness == 2 and elsewhere:
            result.not_graded[name] = (
                f"it is as it was released, and answers may be in what was not opened: {_few(elsewhere)}"
            )
        else:
            result.notes[name] += copy.mended.notes
            result.notebooks[name], result.answers[name] = copy.mended.notebook, copy.mended.answers
            result.beside[name], left_out = beside(copy.file.where, intake.beside)
            if left_out:
                much = f"more than {MOST_FILES} files or {MOST_BYTES >> 20} MB"
                result.notes[name].append(f"beside it are {much}: its cells ran without {_few(left_out)}")
    return result


def job_of(name: str, submission: Submission, assignment: Assignment, reference: dict[str, str]) -> Job:
    """The job of grading one notebook of a submission. reference: `assignment.texts()`."""
    names = [
        one
        for cell in _marked(assignment.source[name]).values()
        if cell.cell_type == "code" and _kind(cell) == "answer"
        for one in sorted(defined_names(cell.source))
    ]
    siblings = {other: text for other, text in submission.texts.items() if other < name}
    earlier = {other: text for other, text in reference.items() if other < name}
    cells = cells_of(name, submission, assignment)
    return Job(name, cells, tuple(names), siblings, earlier, submission.beside.get(name, {}))


def cells_of(name: str, submission: Submission, assignment: Assignment) -> tuple[Cell, ...]:
    """The code cells of a mended notebook that run at grading time, in order.

    An answer that is still the stub comes first: it must not overwrite what the student has defined
    elsewhere.
    """
    trusted = _marked(assignment.source[name])
    released = {cell.name: cell for cell in cells_in(assignment.released[name].cells)}
    cells = [
        _cell(cell, trusted)
        for cell in submission.notebooks[name].cells
        if cell.cell_type == "code" and EXPERIMENT not in (cell.metadata.get("tags") or [])
    ]
    first = next((i for i, cell in enumerate(cells) if cell.kind == "answer"), 0)
    start = 1 + max((i for i, cell in enumerate(cells[:first]) if cell.kind == "setup"), default=first - 1)
    answers = (cell for cell in cells if cell.kind == "answer")
    stubs = [cell for cell in answers if is_untouched(cell.source, released[cell.grade_id].source)]
    return (*cells[:start], *stubs, *(cell for cell in cells[start:] if cell not in stubs))


def marked_by_hand(source: NotebookNode) -> dict[str, float]:
    """The points of each answer that a human marks, by grade_id."""
    return {
        name: float(cell.metadata["nbgrader"].get("points") or 0.0)
        for name, cell in _marked(source).items()
        if cell.metadata["nbgrader"].get("solution") and cell.metadata["nbgrader"].get("grade")
    }


def _cell(cell: NotebookNode, trusted: Mapping[str, NotebookNode]) -> Cell:
    grade_id = grade_id_of(cell)
    known = trusted.get(grade_id) if grade_id is not None else None
    if known is None:
        # the Colab cell is the release's own, and does nothing here
        return Cell(cell.id, "own", cell.source)
    kind = _kind(known)
    text = cell.source if kind == "answer" else known.source
    return Cell(cell.id, kind, text, grade_id, float(known.metadata["nbgrader"].get("points") or 0.0))


def _few(phrases: Sequence[str]) -> str:
    more = f"; and {len(phrases) - 2} more" if len(phrases) > 2 else ""
    return "; ".join(phrases[:2]) + more


def _marked(nb: NotebookNode) -> dict[str, NotebookNode]:
    return {grade_id: cell for cell in nb.cells if (grade_id := grade_id_of(cell)) is not None}


def _bare(nb: NotebookNode) -> NotebookNode:
    """The notebook without its cells' outputs."""
    return {**nb, "cells": [{**cell, "outputs": []} if "outputs" in cell else cell for cell in nb.cells]}


def _defines(cell: NotebookNode) -> bool:
    return (
        cell.cell_type == "code"
        and not cell.metadata.get("nbgrader", {}).get("grade")
        and EXPERIMENT not in (cell.metadata.get("tags") or [])
    )


def _kind(cell: NotebookNode) -> CellKind:
    marks = cell.metadata["nbgrader"]
    return "answer" if marks.get("solution") else "test" if marks.get("grade") else "setup"


def _notebooks(folder: Path) -> dict[str, NotebookNode]:
    return {path.stem: nbformat.read(path, 4) for path in sorted(folder.glob("*.ipynb"))}
