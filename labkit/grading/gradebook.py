"""Grades into nbgrader's gradebook, by one process and through its own API.

What a human gave there, scores, extra credit and comments, is never touched: grading again only writes
what code found out, and asks the human to look once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import Comment, Grade, Gradebook, MissingEntry, SubmittedNotebook
from nbgrader.preprocessors import AssignLatePenalties
from nbgrader.utils import compute_checksum, is_grade, is_solution, parse_utc

from labkit.grading.autograded import Source, SourceCell, verdicts_by_grade_id
from labkit.grading.repair import grade_id_of
from labkit.grading.settings import course_directory, course_settings
from labkit.grading.verdicts import Graded, Verdict

NO_RESPONSE = "No response."  # nbgrader's words for an answer that was left as it was released


@dataclass(frozen=True)
class CellGrade:
    """What the gradebook holds of one graded cell. auto: by code; manual, extra: by a human."""

    possible: float
    auto: float | None = None
    manual: float | None = None
    extra: float = 0.0
    waits: bool = False

    @property
    def score(self) -> float:
        """As nbgrader counts it: what a human gave goes before what code found."""
        given = self.manual if self.manual is not None else self.auto
        return (given or 0.0) + (self.extra if given is not None else 0.0)

    @property
    def outstanding(self) -> float:
        """Points that a human has still to give; a score that is only to be looked at again is given."""
        return self.possible if self.waits and self.auto is None and self.manual is None else 0.0


@dataclass(frozen=True)
class NotebookGrades:
    """One student's grades of a notebook, by grade_id. comments: `No response.`, or a human's."""

    cells: Mapping[str, CellGrade] = field(default_factory=dict)
    comments: Mapping[str, str] = field(default_factory=dict)
    penalty: float = 0.0

    @property
    def score(self) -> float:
        return sum(cell.score for cell in self.cells.values()) - self.penalty

    @property
    def possible(self) -> float:
        return sum(cell.possible for cell in self.cells.values())

    @property
    def outstanding(self) -> float:
        return sum(cell.outstanding for cell in self.cells.values())


class GradebookWriter:
    """The gradebook of a course, open for one assignment; used by one thread.

    sources: the assignment's notebooks as nbgrader knows them; GenerateAssignment has put them there.
    """

    def __init__(self, course: Path, assignment: str) -> None:
        coursedir = course_directory(course, assignment)
        self.assignment = assignment
        self._gradebook = Gradebook(coursedir.db_url, coursedir.course_id)
        self._late = AssignLatePenalties(config=course_settings(course))
        self._late.init_plugin()
        # the assignment does not change while it is graded: asked for once, not for each student
        self.sources: dict[str, Source] = {}
        self._cells: dict[str, _Cell] = {}  # nbgrader's key of a graded or answer cell -> what it is
        self._read_assignment()

    def __enter__(self) -> GradebookWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gradebook.close()

    def write(
        self,
        student: str,
        graded: Mapping[str, Graded],
        mended: Mapping[str, NotebookNode],
        not_graded: Iterable[str] = (),
        missing: Iterable[str] = (),
        timestamp: datetime | None = None,
    ) -> None:
        """Write one student's results, all of them or none.

        graded, mended: by notebook. not_graded: handed in and unreadable: they get no score and wait for
        a human. missing: they get 0. A notebook that is nowhere among these stays as it is.
        """
        unreadable, absent = set(not_graded), set(missing)
        try:
            submission = self._submission(student, timestamp)
            late = submission.total_seconds_late
            for notebook in submission.notebooks:
                name = str(notebook.name)
                if name in graded:
                    verdicts = verdicts_by_grade_id(mended[name], graded[name])
                    self._score(notebook, _marked(mended[name]), verdicts)
                elif name in unreadable or name in absent:
                    self._score_all(notebook, None if name in unreadable else 0.0)
                else:
                    continue
                self._penalize(notebook, student, late)
            self._gradebook.db.commit()
        finally:
            self._gradebook.db.remove()  # undoes what was not committed, and forgets the student

    def grades(self, student: str) -> dict[str, NotebookGrades]:
        """What the gradebook says of a student, by notebook in which something is graded.

        Empty if it does not know the submission.
        """
        try:
            submission = self._gradebook.find_submission(self.assignment, student)
        except MissingEntry:
            return {}
        try:
            notebooks = list(submission.notebooks)
            grades, comments = self._of(Grade, *notebooks), self._of(Comment, *notebooks)
            found = {str(one.name): self._grades(one, grades, comments) for one in notebooks}
            return {name: one for name, one in found.items() if one.cells}
        finally:
            self._gradebook.db.remove()

    def _read_assignment(self) -> None:
        for notebook in self._gradebook.find_assignment(self.assignment).notebooks:
            cells = {
                str(cell.name): SourceCell(cell.source, cell.checksum, cell.cell_type, bool(cell.locked))
                for cell in notebook.source_cells
            }
            self.sources[str(notebook.name)] = Source(cells, json.loads(notebook.kernelspec or "{}"))
            for kind in (notebook.grade_cells, notebook.solution_cells, notebook.task_cells):
                for cell in kind:
                    self._cells[cell.id] = _Cell(str(cell.name), float(getattr(cell, "max_score", None) or 0))
        self._gradebook.db.remove()

    def _submission(self, student: str, timestamp: datetime | None) -> Any:
        # without a time nbgrader leaves the one that it knows
        when = {} if timestamp is None else {"timestamp": parse_utc(timestamp)}
        with suppress(MissingEntry):  # nearly always it is there: then nothing is committed before the end
            submission = self._gradebook.find_submission(self.assignment, student)
            for key, value in when.items():
                setattr(submission, key, value)
            return submission
        self._gradebook.update_or_create_student(student)
        # nbgrader asks the database for cells while it puts the submission together: too early to store it
        with self._gradebook.db.no_autoflush:
            return self._gradebook.update_or_create_submission(self.assignment, student, **when)

    def _score(
        self, notebook: Any, marked: Mapping[str, NotebookNode], verdicts: Mapping[str, Verdict]
    ) -> None:
        """As nbgrader's SaveAutoGrades, with a verdict in place of a test cell's outputs."""
        checksums = {name: cell.checksum for name, cell in self.sources[str(notebook.name)].cells.items()}
        unanswered = {name for name, cell in marked.items() if _unanswered(cell, checksums.get(name))}
        blank = {name for name in unanswered if name not in verdicts}  # of the others a human is asked
        for grade in self._of(Grade, notebook):
            name = self._cells[grade.cell_id].name
            verdict = verdicts.get(name)
            grade.auto_score = _auto_score(marked[name], verdict, name in blank)
            asks = verdict is not None and bool(verdict.asks)
            grade.needs_manual_grade = grade.auto_score is None or grade.manual_score is not None or asks
        for comment in self._of(Comment, notebook):
            comment.auto_comment = NO_RESPONSE if self._cells[comment.cell_id].name in blank else None

    def _score_all(self, notebook: Any, score: float | None) -> None:
        """A notebook that cannot be graded: every cell the same. Without a score, a human is asked."""
        for grade in self._of(Grade, notebook):
            grade.auto_score = score
            grade.needs_manual_grade = score is None
        for comment in self._of(Comment, notebook):
            comment.auto_comment = None

    def _penalize(self, notebook: Any, student: str, late: float) -> None:
        """As nbgrader's AssignLatePenalties, with its plugin; the default one takes nothing off."""
        notebook.late_submission_penalty = None
        if late <= 0:
            return
        self._gradebook.db.refresh(notebook)  # its score is a sum that the database makes
        penalty = self._late.plugin_inst.late_submission_penalty(student, notebook.score, late)
        if penalty is not None:
            notebook.late_submission_penalty = min(max(penalty, 0.0), notebook.score)

    def _grades(
        self, notebook: SubmittedNotebook, grades: Iterable[Grade], comments: Iterable[Comment]
    ) -> NotebookGrades:
        cells, texts = {}, {}
        for grade in (grade for grade in grades if grade.notebook_id == notebook.id):
            about = self._cells[grade.cell_id]
            cells[about.name] = CellGrade(
                possible=about.possible,
                auto=grade.auto_score,
                manual=grade.manual_score,
                extra=grade.extra_credit or 0.0,
                waits=bool(grade.needs_manual_grade),
            )
        for comment in (comment for comment in comments if comment.notebook_id == notebook.id):
            if text := comment.manual_comment or comment.auto_comment:
                texts[self._cells[comment.cell_id].name] = str(text)
        return NotebookGrades(cells, texts, notebook.late_submission_penalty or 0.0)

    def _of(self, kind: Any, *notebooks: Any) -> list[Any]:
        """The grades or comments of a student's notebooks, in one question to the database."""
        ids = [notebook.id for notebook in notebooks]
        found = self._gradebook.db.query(kind).filter(kind.notebook_id.in_(ids))
        return [one for one in found if one.cell_id in self._cells]


@dataclass(frozen=True)
class _Cell:
    name: str
    possible: float


def _marked(nb: NotebookNode) -> dict[str, NotebookNode]:
    return {name: cell for cell in nb.cells if (name := grade_id_of(cell)) is not None}


def _unanswered(cell: NotebookNode, checksum: str | None) -> bool:
    """Whether an answer is still what was released."""
    try:
        return bool(is_solution(cell)) and checksum is not None and compute_checksum(cell) == checksum
    except UnicodeEncodeError:  # half of a surrogate pair: no release holds one
        return False


def _auto_score(cell: NotebookNode, verdict: Verdict | None, blank: bool) -> float | None:
    """What code can say of a graded cell; None asks for a human."""
    if not is_grade(cell):  # a task: its grade is all by hand
        return None
    if verdict is not None and verdict.kind == "not graded":
        return None
    if is_solution(cell):  # an answer that a human grades
        return 0.0 if blank else None
    # a test cell without a verdict was not judged, which is no zero
    return float(verdict.points) if verdict is not None and cell.cell_type == "code" else None
