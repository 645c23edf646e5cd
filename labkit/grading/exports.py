"""The gradebook as files for other systems: grades.csv, Canvas and Moodle tables, Gradescope results.

They are written anew after each `labkit grade`, from the whole class's grades in the gradebook, whoever
was graded just now. The same grades give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook

from labkit.files import write_atomically
from labkit.grading.outputs import safe_text
from labkit.grading.settings import course_directory

FROM_PLATFORM = re.compile(r"(?P<who>.+)_(?P<id>\d+)")  # the names that `labkit collect` gives


@dataclass(frozen=True)
class Check:
    """A graded cell of a notebook. score: None if it has none yet. waits: for a human."""

    notebook: str
    name: str
    score: float | None
    possible: float
    waits: bool
    comment: str


@dataclass(frozen=True)
class Grades:
    """Everything that one student's submission earned."""

    student: str
    checks: tuple[Check, ...]

    @property
    def score(self) -> float:
        return sum(check.score or 0.0 for check in self.checks)

    @property
    def possible(self) -> float:
        return sum(check.possible for check in self.checks)

    @property
    def waiting(self) -> float:
        """Points that a human has still to give."""
        return sum(check.possible for check in self.checks if check.waits)

    def of_notebook(self, notebook: str) -> float | None:
        """None if nothing of it has a score."""
        scores = [check.score for check in self.checks if check.notebook == notebook]
        known = [score for score in scores if score is not None]
        return sum(known) if known else None


def write_exports(course: Path, assignment: str) -> Path:
    """Write `exports/<assignment>/` in the course folder; returns that folder."""
    grades = read_grades(course, assignment)
    folder = course / "exports" / assignment
    _write(folder / "grades.csv", grades_csv(grades))
    _write(folder / "canvas.csv", canvas_csv(grades, assignment))
    _write(folder / "moodle.csv", moodle_csv(grades))
    for one in grades:
        _write(folder / "gradescope" / one.student / "results.json", gradescope_json(one))
    return folder


def read_grades(course: Path, assignment: str) -> list[Grades]:
    """Every student with a submission, in the order of their names."""
    coursedir = course_directory(course, assignment)
    found = []
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        for submission in gradebook.assignment_submissions(assignment):
            checks = [
                _check(str(notebook.name), grade)
                for notebook in sorted(submission.notebooks, key=lambda notebook: str(notebook.name))
                for grade in sorted(notebook.grades, key=lambda grade: str(grade.cell.name))
            ]
            found.append(Grades(submission.student_id, tuple(checks)))
    return sorted(found, key=lambda one: one.student)


def grades_csv(grades: Sequence[Grades]) -> str:
    """A row for each student: points by notebook, their sum, what there was, and what waits for a human."""
    notebooks = sorted({check.notebook for one in grades for check in one.checks})
    rows: list[list[object]] = [["student", *notebooks, "total", "out of", "to mark"]]
    for one in grades:
        points = [one.of_notebook(notebook) for notebook in notebooks]
        cells = ["" if score is None else f"{score:g}" for score in points]
        rows.append([one.student, *cells, f"{one.score:g}", f"{one.possible:g}", f"{one.waiting:g}"])
    return _csv(rows)


def canvas_csv(grades: Sequence[Grades], assignment: str) -> str:
    """For Canvas' Grades > Import. Students from its own download are told by their Canvas number."""
    possible = max((one.possible for one in grades), default=0.0)
    rows: list[list[object]] = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment],
        ["    Points Possible", "", "", "", "", f"{possible:g}"],
    ]
    for one in grades:
        match = FROM_PLATFORM.fullmatch(one.student)
        who = [match["who"], match["id"], "", ""] if match else [one.student, "", "", one.student]
        rows.append([*who, "", f"{one.score:g}"])
    return _csv(rows)


def moodle_csv(grades: Sequence[Grades]) -> str:
    """For Moodle's grading worksheet. Students from its own download are told by their participant number."""
    rows: list[list[object]] = [["Identifier", "Full name", "Grade", "Maximum Grade"]]
    for one in grades:
        match = FROM_PLATFORM.fullmatch(one.student)
        who = [f"Participant {match['id']}", match["who"].replace("-", " ")] if match else [one.student, ""]
        rows.append([*who, f"{one.score:.2f}", f"{one.possible:.2f}"])
    return _csv(rows)


def gradescope_json(one: Grades) -> str:
    """What a Gradescope autograder leaves as results.json: a test for each graded cell."""
    tests: list[dict[str, Any]] = []
    for check in one.checks:
        told = "waits for a human" if check.waits else "not graded" if check.score is None else check.comment
        tests.append(
            {
                "name": f"{check.notebook}: {check.name}",
                "score": check.score or 0.0,
                "max_score": check.possible,
                "output": told,
                "visibility": "after_published" if check.waits else "visible",
            }
        )
    return json.dumps({"score": one.score, "tests": tests}, indent=1, ensure_ascii=False) + "\n"


def _check(notebook: str, grade: Any) -> Check:
    given = grade.manual_score if grade.manual_score is not None else grade.auto_score
    comments = [one.comment for one in grade.notebook.comments if one.cell.name == grade.cell.name]
    return Check(
        notebook=notebook,
        name=str(grade.cell.name),
        score=None if given is None else given + (grade.extra_credit or 0.0),
        possible=float(grade.max_score),
        waits=bool(grade.needs_manual_grade),
        comment=" ".join(text for text in comments if text),
    )


def _csv(rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([[_plain(cell) for cell in row] for row in rows])
    return buffer.getvalue()


def _plain(cell: object) -> object:
    """A name that a spreadsheet would take for a formula is quoted as text (CSV injection)."""
    if not isinstance(cell, str):
        return cell
    cell = safe_text(cell)  # first: a control character in front of a formula would hide it from us
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else cell


def _write(path: Path, text: str) -> None:
    # with a byte order mark, without which Excel reads UTF-8 as Latin-1
    encoding = "utf-8-sig" if path.suffix == ".csv" else "utf-8"
    # half of a surrogate pair becomes a question mark
    write_atomically(path, lambda part: part.write_bytes(text.encode(encoding, "replace")))
