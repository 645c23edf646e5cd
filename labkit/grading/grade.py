"""Grade a class with stock nbgrader: every student in a process of its own, a few at a time.

`submitted/<student>/<assignment>/*.ipynb` -> `autograded/`, `feedback/` and `gradebook.db` in the same
course folder, all in nbgrader's own formats, so that its formgrader can open them for manual grading.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import GenerateAssignment, NbGraderException

from labkit.errors import LabError
from labkit.grading.exports import write_exports
from labkit.grading.intake import handed_in
from labkit.grading.one_student import Report, in_own_process
from labkit.grading.release import check_source
from labkit.grading.settings import course_directory, course_settings, source_notebooks
from labkit.grading.unchanged import Graded

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext  # Windows has no ForkServerContext

NOTEBOOK_MINUTES = 15  # more than this for one notebook, on average, and its process is stopped


@dataclass(frozen=True)
class Marks:
    """Points of one notebook: by code (None if it could not be read), and how many wait for a human."""

    got: float | None
    possible: float
    outstanding: float


@dataclass(frozen=True)
class Result:
    """One student's marks by notebook, and what the instructor should know."""

    student: str
    marks: dict[str, Marks]
    notes: list[str]

    @property
    def got(self) -> float:
        return sum(marks.got or 0.0 for marks in self.marks.values())

    @property
    def possible(self) -> float:
        return sum(marks.possible for marks in self.marks.values())

    @property
    def outstanding(self) -> float:
        return sum(marks.outstanding for marks in self.marks.values())


def grade_class(
    course: Path,
    assignment: str,
    jobs: int,
    student: str | None = None,
    done: Callable[[str], None] | None = None,
    force: bool = False,
) -> list[Result]:
    """Grade every submission of an assignment, or one student's; in alphabetical order of students.

    A submission that was graded before is not graded again unless it, the source or labkit has changed,
    or `force` is set. done: called with a student's name as soon as that student is graded.
    Raises LabError if there is nothing to grade. What goes wrong with one student is a note of theirs.
    """
    students = submissions(course, assignment)
    if student is not None:
        if student not in students:
            raise LabError(f"{student} has handed in nothing: there is no submitted/{student}/{assignment}")
        students = [student]
    if not students:
        raise LabError(
            f"nobody has handed in {assignment}: there is no {course / 'submitted'}/<student>/{assignment}.\n"
            "Put each student's notebooks into such a folder and run this again."
        )
    with prepared_release(course, assignment) as released:
        graded, before = Graded(course, assignment), read_marks(course, assignment, students)
        known = {name: graded.report(name) for name in students if before[name] and not force}
        reports = {name: report for name, report in known.items() if report is not None}
        waiting = [name for name in students if name not in reports]
        if done is not None:
            for name in reports:
                done(name)
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            running = {pool.submit(_grade_one, course, assignment, name, released): name for name in waiting}
            for future in as_completed(running):
                name, report = running[future], future.result()
                reports[name] = report
                graded.keep(name, report)
                if done is not None:
                    done(name)
    write_exports(course, assignment)
    return [
        _result(name, marks, before[name], reports[name])
        for name, marks in read_marks(course, assignment, students).items()
    ]


def _result(student: str, marks: dict[str, Marks], before: dict[str, Marks], report: Report) -> Result:
    for notebook in report.not_graded:
        marks[notebook] = replace(marks[notebook], got=None)
    result = Result(student, marks, list(report.notes))
    was = Result(student, before, []).got
    if before and was != result.got:
        result.notes.append(f"{was:g} points by code before, {result.got:g} now")
    return result


def submissions(course: Path, assignment: str) -> list[str]:
    """The students who have handed in at least one file that could be a notebook, or a zip."""
    folders = (course / "submitted").glob(f"*/{assignment}")
    return sorted(folder.parent.name for folder in folders if handed_in(folder))


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


def read_marks(course: Path, assignment: str, students: list[str]) -> dict[str, dict[str, Marks]]:
    """Every student's marks by notebook, from the gradebook; no entry where nbgrader has none."""
    coursedir = course_directory(course, assignment)
    result: dict[str, dict[str, Marks]] = {name: {} for name in students}
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        for name in students:
            try:
                submission = gradebook.find_submission(assignment, name)
            except MissingEntry:
                continue
            for notebook in sorted(submission.notebooks, key=lambda notebook: notebook.name):
                by_code = [grade for grade in notebook.grades if grade.cell.cell_type == "code"]
                result[name][notebook.name] = Marks(
                    got=sum(grade.auto_score or 0.0 for grade in by_code),
                    possible=sum(grade.max_score for grade in by_code),
                    outstanding=sum(grade.max_score for grade in notebook.grades if grade.needs_manual_grade),
                )
    return result


def _grade_one(course: Path, assignment: str, student: str, released: Path) -> Report:
    """Grade one student in a process of its own; its report, or what became of it."""
    log = course / "logs" / f"{student}.log"
    log.parent.mkdir(exist_ok=True)
    minutes = NOTEBOOK_MINUTES * len(source_notebooks(course, assignment))
    context = _processes()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=in_own_process, args=(theirs, log, course, assignment, student, released), daemon=True
    )
    process.start()
    theirs.close()  # so that the end of the process ends the wait
    try:
        if not ours.poll(60 * minutes):
            process.kill()
            return Report([f"stopped after {minutes} minutes"], complete=False)
        report: Report = ours.recv()
        return report
    except EOFError:
        return Report([f"grading broke off, see {log.relative_to(course)}"], complete=False)
    finally:
        process.join()


def _processes() -> SpawnContext | ForkServerContext:
    """How processes start: forked from a clean one that has nbgrader imported (3 s), where that exists."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([in_own_process.__module__])
    return context
