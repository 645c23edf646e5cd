"""One run over a class: makes the jobs, and puts each student's results away when they are complete.

Whatever goes wrong with one student is a note of that student; nobody else's work waits or suffers.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from labkit.files import write_atomically
from labkit.grading.asked import questions, with_questions
from labkit.grading.attempts import attempts_in
from labkit.grading.autograded import (
    Autograded,
    autograded,
    drop_autograded,
    read_autograded,
    read_timestamp,
    write_autograded,
    write_timestamp,
)
from labkit.grading.feedback import write_feedback
from labkit.grading.files import is_plain
from labkit.grading.gradebook import GradebookWriter, NotebookGrades
from labkit.grading.marks import Marks, Result
from labkit.grading.submission import (
    Assignment,
    Submission,
    cells_of,
    job_of,
    marked_by_hand,
    read_submission,
)
from labkit.grading.unchanged import Record, Records
from labkit.grading.verdicts import Graded, Job

LOST = ("timeout", "out of memory", "crashed", "error")  # kinds of verdicts that the instructor hears of
Say = Callable[[str], object]


class ClassRun:
    """A run. notebook: only this one. force: unchanged ones, too. done: hears of each finished student."""

    def __init__(
        self,
        course: Path,
        assignment: str,
        lab: Assignment,
        book: GradebookWriter,
        done: Say,
        notebook: str | None = None,
        force: bool = False,
    ) -> None:
        self._course, self._assignment, self._lab, self._book = course, assignment, lab, book
        self._done, self._notebook, self._force = done, notebook, force
        self._records = Records(course, assignment, lab.source)
        self._reference = lab.texts()
        self._environment = _environment()
        self._waiting: dict[str, _Waiting] = {}
        self._graded: dict[str, int] = {}
        self._broken: dict[str, str] = {}  # student -> what the instructor is told

    def jobs(self, students: list[str]) -> Iterator[tuple[tuple[str, str], Job]]:
        """A job for each notebook that has to be graded."""
        for student in students:
            record = self._records.read(student)
            try:
                now = self._records.fingerprints(student)
            except Exception:  # nobody else is to suffer for whatever this is
                self._broke(student)
                continue
            names = [name for name in now if self._force or record.fingerprints.get(name) != now[name]]
            if self._notebook is not None:
                names = [name for name in names if name == self._notebook]
            if not names:
                self._refresh(student, record)
                self._done(student)
                continue
            folder = self._course / "submitted" / student / self._assignment
            try:
                submission = read_submission(student, folder, self._lab.released)
            except Exception:
                self._broke(student)
                continue
            waiting = _Waiting(submission, record, now, names)
            self._waiting[student] = waiting
            readable = [name for name in names if name in submission.notebooks]
            waiting.left = set(readable)
            if not readable:
                self._finish(student)
            for name in readable:
                yield (student, name), job_of(name, submission, self._lab, self._reference)

    def take(self, student: str, name: str, graded: Graded) -> None:
        """Keep a notebook's result; with the last one, the student is done."""
        waiting = self._waiting[student]
        cells = cells_of(name, waiting.submission, self._lab)
        by_hand = marked_by_hand(self._lab.source[name])
        waiting.graded[name] = with_questions(graded, waiting.submission.answers[name], cells, by_hand)
        waiting.left.discard(name)
        if not waiting.left:
            self._finish(student)

    def marks(self, student: str) -> dict[str, Marks]:
        """What the gradebook says, by notebook."""
        return {
            name: Marks(
                got=sum(cell.auto or 0.0 for key, cell in grades.cells.items() if self._by_code(name, key)),
                possible=sum(cell.possible for key, cell in grades.cells.items() if self._by_code(name, key)),
                outstanding=grades.outstanding,
            )
            for name, grades in sorted(self._book.grades(student).items())
        }

    def result(self, student: str, before: dict[str, Marks]) -> Result:
        """The student's marks now, and all that is known."""
        record = self._records.read(student)
        marks = self.marks(student)
        for name in record.not_graded:
            marks[name] = replace(marks[name], got=None)
        notes = [self._broken[student]] if student in self._broken else record.lines()
        was = sum(one.got or 0.0 for one in before.values()) if before else None
        result = Result(student, marks, notes, record.suspicions(), was, self._graded.get(student, 0))
        if result.moved:
            result.notes.append(f"{result.before:g} points by code before, {result.got:g} now")
        return result

    def _by_code(self, name: str, grade_id: str) -> bool:
        return self._book.sources[name].cells[grade_id].cell_type == "code"

    def _finish(self, student: str) -> None:
        waiting = self._waiting.pop(student)
        try:
            self._put_away(student, waiting)
        except Exception:
            self._broke(student)
            return
        self._graded[student] = len(waiting.graded)
        self._done(student)

    def _put_away(self, student: str, waiting: _Waiting) -> None:
        submission, record, names = waiting.submission, waiting.record, waiting.names
        submitted = self._course / "submitted" / student / self._assignment
        timestamp = read_timestamp(submitted)
        unreadable = {name: why for name, why in submission.not_graded.items() if name in names}
        missing = [name for name in submission.missing if name in names]
        mended = {name: submission.notebooks[name] for name in waiting.graded}
        self._book.write(student, waiting.graded, mended, unreadable, missing, timestamp)
        for name in names:
            if name in waiting.graded:
                notes = tuple(submission.notes[name])
                one = autograded(mended[name], waiting.graded[name], self._book.sources[name], notes)
                write_autograded(self._course, self._assignment, student, one)
            else:
                drop_autograded(self._course, self._assignment, student, name)
        write_timestamp(self._course, self._assignment, student, timestamp)
        for name in names:
            self._remember(record, name, waiting)
        record.environment = self._environment
        record.general = submission.general + [f"missing {name}" for name in submission.missing]
        if timestamp is None and is_plain(submitted / "timestamp.txt"):
            record.general.append("timestamp.txt does not say a time: when it was handed in is not known")
        record.files = submission.files
        self._write_pages(student, record)

    def _remember(self, record: Record, name: str, waiting: _Waiting) -> None:
        submission, graded = waiting.submission, waiting.graded.get(name)
        record.fingerprints[name] = waiting.now[name]
        record.notes[name] = list(submission.notes.get(name, []))
        record.attempts[name] = []
        record.not_graded.pop(name, None)
        if name in submission.not_graded:
            record.not_graded[name] = submission.not_graded[name]
        if graded is None:
            return
        record.notes[name] += questions(graded)
        for verdict in graded.verdicts:
            if verdict.kind in LOST and not verdict.asks:
                record.notes[name].append(f"{verdict.cell}: {verdict.kind}: {verdict.sentence}")
        sources = {
            cell.id: cell.source
            for cell in cells_of(name, submission, self._lab)
            if cell.kind in ("answer", "own")
        }
        record.seconds[name] = round(graded.seconds, 1)
        record.attempts[name] = [*graded.attempts, *attempts_in(sources | submission.modules(name))]
        if not graded.complete:
            record.fingerprints.pop(name)  # so that it is tried again

    def _refresh(self, student: str, record: Record) -> None:
        """Nothing to grade; but a human may have given points or written a comment meanwhile."""
        if record.by_hand != _by_hand(self._book.grades(student)):
            self._write_pages(student, record)

    def _write_pages(self, student: str, record: Record) -> None:
        grades = self._book.grades(student)
        pages: list[Autograded] = []
        for name in self._lab.source:
            one = read_autograded(self._course, self._assignment, student, name)
            if one is not None and name not in record.not_graded:
                pages.append(one)
        write_feedback(
            self._course, self._assignment, student, pages, grades, record.not_graded, record.general
        )
        record.by_hand = _by_hand(grades)
        self._records.write(student, record)

    def _broke(self, student: str) -> None:
        """Something that should not happen: it is told, and costs nobody else."""
        log = self._course / "logs" / f"{student}.log"
        text, error = traceback.format_exc(), sys.exc_info()[1]
        what = "grading broke off"
        if isinstance(error, OSError) and error.filename is not None:
            what = f"not graded: {error.filename} cannot be read ({error.strerror})"
        try:
            write_atomically(log, lambda part: part.write_text(text, "utf-8", "backslashreplace"))
            self._broken[student] = f"{what}, see {log.relative_to(self._course)}"
        except OSError as refused:
            self._broken[student] = (
                f"{what}; {log.relative_to(self._course)} cannot be written ({refused.strerror})"
            )
        self._done(student)


@dataclass
class _Waiting:
    """A student some of whose notebooks are being graded."""

    submission: Submission
    record: Record
    now: dict[str, str]
    names: list[str]
    left: set[str] = field(default_factory=set)
    graded: dict[str, Graded] = field(default_factory=dict)


def _by_hand(grades: dict[str, NotebookGrades]) -> str:
    """Changes when a human's points or comments do."""
    given = [
        (name, key, cell.manual, cell.extra, cell.waits, one.comments.get(key), one.penalty)
        for name, one in sorted(grades.items())
        for key, cell in sorted(one.cells.items())
    ]
    said = [(name, sorted(one.comments.items())) for name, one in sorted(grades.items())]
    return hashlib.sha256(repr((given, said)).encode()).hexdigest()


def _environment() -> dict[str, str]:
    """What grading may depend on; asked without importing torch, which this process has no use for."""
    packages = {name: version(name) for name in ("torch", "numpy")}
    return {
        "python": platform.python_version(),
        **packages,
        "system": f"{platform.system()} {platform.machine()}",
    }
