"""Grade one student's submission with stock nbgrader; `labkit grade` gives each a process of its own.

Notebook by notebook: a kernel that dies costs that notebook, not the other seven.
"""

from __future__ import annotations

import glob
import html
import logging
import os
import shutil
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, GenerateFeedback, NbGraderException

from labkit.checkpoints import write_atomically
from labkit.grading.intake import take_in
from labkit.grading.kernels import private_jupyter
from labkit.grading.reading import Unreadable, read_notebook
from labkit.grading.repair import repair
from labkit.grading.settings import course_directory, course_settings


@dataclass
class Report:
    """What the instructor should know of one student's grading.

    notes: a phrase each. not_graded: notebooks that were handed in and could not be read, and why.
    complete: False if the grading itself was stopped.
    """

    notes: list[str] = field(default_factory=list)
    not_graded: dict[str, str] = field(default_factory=dict)
    complete: bool = True


def grade_student(course: Path, assignment: str, student: str, released: Path) -> Report:
    """Mend and autograde each notebook and write the feedback pages. released: a folder with the release."""
    report = Report()
    submitted = course / "submitted" / student / assignment
    graded = []
    with TemporaryDirectory(prefix="labkit-mended-") as scratch:
        mended = Path(scratch) / student / assignment
        mended.mkdir(parents=True)
        if (submitted / "timestamp.txt").is_file():
            shutil.copy(submitted / "timestamp.txt", mended)
        # all of them before the first is graded: nbgrader gives 0 to every notebook that it does not see
        readable = mend(submitted, released, mended, report)
        for name in readable:
            log = _Log()
            if _convert(Autograde, course, assignment, student, name, log, submitted=scratch):
                graded.append(name)
            else:
                report.notes.append(f"{name}: {_reason(log.errors)}")
                _set_scores(course, assignment, student, name, 0.0)
    # All pages at once is quicker; if one of them fails, nbgrader drops all, so then one by one.
    if graded and not _convert(GenerateFeedback, course, assignment, student, "*", _Log()):
        for name in graded:
            if not _convert(GenerateFeedback, course, assignment, student, name, _Log()):
                report.notes.append(f"{name}: no feedback page")
    for name, why in report.not_graded.items():
        _set_scores(course, assignment, student, name, None)
        write_sentence_page(course, assignment, student, name, f"It could not be graded: {why}.")
    return report


def mend(submitted: Path, released: Path, folder: Path, report: Report) -> list[str]:
    """Write what was handed in to `folder`, as notebooks that can be graded; returns their names."""
    release = {path.stem: nbformat.read(path, 4) for path in sorted(released.glob("*.ipynb"))}
    intake = take_in(submitted, release)
    report.notes += intake.general
    readable = []
    for name, known in release.items():
        if name not in intake.files:
            report.notes.append(f"missing {name}")
            continue
        notes = intake.notes[name]
        try:
            nb, reading = read_notebook(intake.files[name].data)
        except Unreadable as why:
            report.not_graded[name] = str(why)
            report.notes += [f"{name}: {note}" for note in [*notes, f"not graded: {why}"]]
            continue
        result = repair(nb, known)
        notes = notes + reading + result.notes
        report.notes += [f"{name}: {note}" for note in notes]
        if notes:
            tell(result.notebook, notes)
        nbformat.write(result.notebook, folder / f"{name}.ipynb")
        readable.append(name)
    return readable


def tell(nb: NotebookNode, notes: list[str]) -> None:
    """Say at the head of the notebook, and so of its feedback page, what was mended."""
    lines = ["**Before grading, this notebook was mended.**", "", *(f"- {note}" for note in notes)]
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("\n".join(lines), id="labkit-mended"))


def write_sentence_page(course: Path, assignment: str, student: str, name: str, sentence: str) -> None:
    """A feedback page for a notebook of which there is nothing else to show."""
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(name)}</title>"
        f"<h1>{html.escape(name)}</h1><p>{html.escape(sentence)}</p></html>\n"
    )
    path = course / "feedback" / student / assignment / f"{name}.html"
    write_atomically(path, lambda part: part.write_text(page, encoding="utf-8"))


def in_own_process(
    answer: Connection, log: Path, course: Path, assignment: str, student: str, released: Path
) -> None:
    """`grade_student` as a process: what it and its kernels print goes to `log`, its report to `answer`."""
    with log.open("w", encoding="utf-8") as messages, private_jupyter():
        os.dup2(messages.fileno(), sys.stdout.fileno())
        os.dup2(messages.fileno(), sys.stderr.fileno())
        answer.send(grade_student(course, assignment, student, released))


def _convert(
    converter: type,
    course: Path,
    assignment: str,
    student: str,
    name: str,
    log: _Log,
    submitted: str | None = None,
) -> bool:
    """Run one of nbgrader's converters on one notebook; False if it gave up."""
    elsewhere = {} if submitted is None else {"submitted_directory": submitted}
    coursedir = course_directory(
        course, assignment, student_id=glob.escape(student), notebook_id=name, log=log.logger, **elsewhere
    )
    config = course_settings(course)
    config.BaseConverter.force = True  # grade again what was graded before
    try:
        converter(coursedir=coursedir, config=config, log=log.logger).start()
    except NbGraderException:
        return False
    return True


def _set_scores(course: Path, assignment: str, student: str, name: str, score: float | None) -> None:
    """A notebook that was not graded asks for a human: with 0 until then, or (None) without a score."""
    coursedir = course_directory(course, assignment)
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        gradebook.update_or_create_student(student)
        gradebook.update_or_create_submission(assignment, student)
        for grade in gradebook.find_submission_notebook(name, assignment, student).grades:
            grade.auto_score = score
            grade.needs_manual_grade = True
        gradebook.db.commit()


def _reason(errors: str) -> str:
    """One phrase for why nbgrader gave up on a notebook, from its log."""
    known = {
        "DeadKernelError": "the kernel died",
        "kernel became unresponsive": "the kernel hung and could not be interrupted",
        "NotJSONError": "not a notebook that can be read",
        "ValidationError": "its cells' metadata are damaged",
    }
    return next(
        (phrase for sign, phrase in known.items() if sign in errors), "could not be graded, see the log"
    )


class _Log:
    """nbgrader's messages: all of them to stderr, which becomes the student's log file; errors kept."""

    def __init__(self) -> None:
        self.logger = logging.Logger("labkit.grade", logging.INFO)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.logger.addHandler(handler)
        self._kept: list[str] = []
        keep = logging.Handler(logging.ERROR)
        keep.emit = lambda record: self._kept.append(record.getMessage())  # type: ignore[method-assign]
        self.logger.addHandler(keep)

    @property
    def errors(self) -> str:
        return "\n".join(self._kept)
