"""Grade a class: students' code and tests in processes of their own, many notebooks at once.

`submitted/<student>/<assignment>/*.ipynb` -> `autograded/`, `feedback/` and `gradebook.db` in the same
course folder, all in nbgrader's own formats, so that its formgrader can open them for manual grading.
This process alone writes them; whatever goes wrong with one student is a note of that student.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nbgrader.converters import GenerateAssignment, NbGraderException

from labkit.checkpoints import write_atomically
from labkit.errors import LabError
from labkit.grading import schedule
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
from labkit.grading.engine import Engine
from labkit.grading.exports import write_exports
from labkit.grading.feedback import write_feedback
from labkit.grading.gradebook import GradebookWriter, NotebookGrades
from labkit.grading.intake import handed_in
from labkit.grading.release import check_source
from labkit.grading.settings import course_directory, course_settings, source_notebooks
from labkit.grading.submission import Assignment, Submission, cells_of, job_of, read_submission
from labkit.grading.unchanged import Record, Records
from labkit.grading.verdicts import Graded, Job
from labkit.reproducible import environment

LOST = ("timeout", "out of memory", "crashed", "error")  # kinds of verdicts that the instructor hears of


@dataclass(frozen=True)
class Marks:
    """Points of one notebook: by code (None if it could not be read), and how many wait for a human."""

    got: float | None
    possible: float
    outstanding: float


@dataclass(frozen=True)
class Result:
    """One student's marks by notebook, and what the instructor should know.

    attempts: what looks like an attempt to fool the grader. before: the points by code of an earlier
    grading, if there was one. graded: how many notebooks were graded just now.
    """

    student: str
    marks: dict[str, Marks]
    notes: list[str]
    attempts: list[str] = field(default_factory=list)
    before: float | None = None
    graded: int = 0

    @property
    def got(self) -> float:
        return sum(marks.got or 0.0 for marks in self.marks.values())

    @property
    def possible(self) -> float:
        return sum(marks.possible for marks in self.marks.values())

    @property
    def outstanding(self) -> float:
        return sum(marks.outstanding for marks in self.marks.values())

    @property
    def moved(self) -> bool:
        """Whether the points by code are others than before."""
        return self.before is not None and self.before != self.got


@dataclass(frozen=True)
class Options:
    """What of a class to grade, and where.

    student, notebook: only these. force: unchanged ones, too. cluster: the address of a Dask scheduler.
    """

    cores: int
    student: str | None = None
    notebook: str | None = None
    force: bool = False
    cluster: str | None = None


Say = Callable[[str], object]


def grade_class(
    course: Path,
    assignment: str,
    options: Options,
    done: Say | None = None,
    say: Say | None = None,
    engine: Engine | None = None,
) -> list[Result]:
    """Grade every submission of an assignment; in alphabetical order of students.

    A notebook that was graded before is not graded again unless the submission, its source or labkit has
    changed. done: called with a student's name as soon as that student is graded; say: with what should be
    read at the head of the run. engine: one that has been started. Raises LabError if nobody handed in.
    """
    students = submissions(course, assignment)
    if options.student is not None:
        if options.student not in students:
            raise LabError(
                f"{options.student} has handed in nothing: "
                f"there is no submitted/{options.student}/{assignment}"
            )
        students = [options.student]
    if not students:
        raise LabError(
            f"nobody has handed in {assignment}: there is no {course / 'submitted'}/<student>/{assignment}.\n"
            "Put each student's notebooks into such a folder and run this again."
        )
    with ExitStack() as stack:
        released = stack.enter_context(prepared_release(course, assignment))
        book = stack.enter_context(GradebookWriter(course, assignment))
        lab = Assignment.read(released, course / "source" / assignment)
        if options.notebook is not None and options.notebook not in lab.source:
            raise LabError(f"{assignment} has no notebook {options.notebook}: it has {', '.join(lab.source)}")
        run = _Run(course, assignment, lab, book, options, done or (lambda name: None))
        before = {name: run.marks(name) for name in students}
        jobs, say = run.jobs(students), say or (lambda line: None)
        if options.cluster is None:
            engine = engine or stack.enter_context(Engine([course]))
            results = schedule.grade_here(jobs, options.cores, engine, say)
        else:
            results = schedule.grade_on(options.cluster, jobs, say)
        for (student, name), graded in results:
            run.take(student, name, graded)
        write_exports(course, assignment)
        return [run.result(name, before[name]) for name in students]


def submissions(course: Path, assignment: str) -> list[str]:
    """The students who have handed in at least one file that could be a notebook, or a zip."""
    folders = (course / "submitted").glob(f"*/{assignment}")
    return sorted(folder.parent.name for folder in folders if handed_in(folder))


class _Run:
    """One run over a class: makes the jobs, and puts each student's results away when they are complete."""

    def __init__(
        self,
        course: Path,
        assignment: str,
        lab: Assignment,
        book: GradebookWriter,
        options: Options,
        done: Say,
    ) -> None:
        self._course, self._assignment, self._lab, self._book = course, assignment, lab, book
        self._options, self._done = options, done
        self._records = Records(course, assignment, lab.source)
        self._reference = lab.texts()
        self._environment = {key: str(value) for key, value in environment().items()}
        self._waiting: dict[str, _Waiting] = {}
        self._graded: dict[str, int] = {}
        self._broken: dict[str, str] = {}  # student -> what the instructor is told

    def jobs(self, students: list[str]) -> Iterator[tuple[tuple[str, str], Job]]:
        """A job for each notebook that has to be graded."""
        for student in students:
            record, now = self._records.read(student), self._records.fingerprints(student)
            names = [
                name for name in now if self._options.force or record.fingerprints.get(name) != now[name]
            ]
            if self._options.notebook is not None:
                names = [name for name in names if name == self._options.notebook]
            if not names:
                self._refresh(student, record)
                self._done(student)
                continue
            folder = self._course / "submitted" / student / self._assignment
            try:
                submission = read_submission(student, folder, self._lab.released)
            except Exception:  # nobody else is to suffer for whatever this is
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
        waiting.graded[name] = graded
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
        timestamp = read_timestamp(self._course / "submitted" / student / self._assignment)
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
        for verdict in graded.verdicts:
            if verdict.kind in LOST:
                record.notes[name].append(f"{verdict.cell}: {verdict.kind}: {verdict.sentence}")
        sources = {
            cell.id: cell.source
            for cell in cells_of(name, submission, self._lab)
            if cell.kind in ("answer", "own")
        }
        record.seconds[name] = round(graded.seconds, 1)
        record.attempts[name] = [*graded.attempts, *attempts_in(sources)]
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
        text = traceback.format_exc()
        write_atomically(log, lambda part: part.write_text(text, encoding="utf-8"))
        self._broken[student] = f"grading broke off, see {log.relative_to(self._course)}"
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


@contextmanager
def prepared_release(course: Path, assignment: str) -> Iterator[Path]:
    """Bring the gradebook's test cells up to the source; gives a folder with the release, for a while.

    The committed release is not touched.
    """
    for path in source_notebooks(course, assignment):
        check_source(path)
    log = logging.Logger("labkit.gradebook")
    errors: list[str] = []
    keep = logging.Handler(logging.ERROR)
    keep.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(keep)
    config = course_settings(course)
    config.BaseConverter.force = True
    with TemporaryDirectory(prefix="labkit-release-") as scratch:
        coursedir = course_directory(course, assignment, release_directory=scratch, log=log)
        try:
            GenerateAssignment(coursedir=coursedir, config=config, log=log).start()
        except NbGraderException as error:
            if any("there are submissions associated with it" in message for message in errors):
                raise LabError(
                    "the source has gained or lost graded cells since this class was first graded.\n"
                    f"To grade it anew, move {course / 'gradebook.db'} away and run this again."
                ) from None
            raise LabError("nbgrader cannot read the source:\n" + "\n".join(errors)) from error
        yield Path(scratch) / assignment
