"""Grade a class: students' code and tests in processes of their own, many notebooks at once.

`submitted/<student>/<assignment>/*.ipynb` -> `autograded/`, `feedback/` and `gradebook.db` in the same
course folder, all in nbgrader's own formats, so that its formgrader can open them for manual grading.
This process alone writes them; whatever goes wrong with one student is a note of that student.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from labkit.grading import schedule
from labkit.grading.class_run import ClassRun, Say
from labkit.grading.database import check_reachable, explained
from labkit.grading.engine import Engine
from labkit.grading.exports import write_exports
from labkit.grading.gradebook import GradebookWriter
from labkit.grading.marks import Result
from labkit.grading.release import build
from labkit.grading.roster import roster
from labkit.grading.scratch import scratch_folder, sweep
from labkit.grading.submission import Assignment


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
    say = say or (lambda line: None)
    students = submissions(course, assignment, say)
    if options.student is not None:
        if options.student not in students:
            raise LabError(
                f"{options.student} has handed in nothing: "
                f"there is no file in submitted/{options.student}/{assignment}"
            )
        students = [options.student]
    if not students:
        raise LabError(
            f"nobody has handed in {assignment}: there is no {course / 'submitted'}/<student>/{assignment}.\n"
            "Put each student's notebooks into such a folder and run this again."
        )
    with ExitStack() as stack:
        if engine is None:  # else whoever has started it has seen to it
            sweep()
            stack.callback(sweep)
        released = stack.enter_context(prepared_release(course, assignment))
        stack.enter_context(explained(course))
        book = stack.enter_context(GradebookWriter(course, assignment))
        lab = Assignment.read(released, released.parents[1] / "source" / assignment)
        if options.notebook is not None and options.notebook not in lab.source:
            raise LabError(f"{assignment} has no notebook {options.notebook}: it has {', '.join(lab.source)}")
        run = ClassRun(
            course, assignment, lab, book, done or (lambda name: None), options.notebook, options.force
        )
        before = {name: run.marks(name) for name in students}
        jobs = run.jobs(students)
        if options.cluster is None:
            engine = engine or stack.enter_context(Engine([course]))
            results = schedule.grade_here(jobs, options.cores, engine, say)
        else:
            results = schedule.grade_on(options.cluster, jobs, say)
        for (student, name), graded in results:
            run.take(student, name, graded)
        write_exports(course, assignment)
        return [run.result(name, before[name]) for name in students]


def submissions(course: Path, assignment: str, say: Say = lambda line: None) -> list[str]:
    """The students who have handed in at least one file. say: hears of what is left out, and why."""
    found = roster(course, assignment)
    for line in found.lines():
        say(line)
    return found.students


@contextmanager
def prepared_release(course: Path, assignment: str) -> Iterator[Path]:
    """Bring the gradebook's test cells up to the source; gives a folder with the release, for a while.

    The committed release is not touched.
    """
    check_reachable(course)
    with scratch_folder("release") as scratch:
        yield build(course, assignment, scratch, gradebook=True)
