"""Grade one student's submission with stock nbgrader; `labkit grade` gives each a process of its own.

Notebook by notebook: a kernel that dies costs that notebook, not the other seven.
"""

from __future__ import annotations

import glob
import logging
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, GenerateFeedback, NbGraderException

from labkit.grading.kernels import private_jupyter
from labkit.grading.settings import course_directory, course_settings, source_notebooks


def grade_student(course: Path, assignment: str, student: str) -> list[str]:
    """Autograde each notebook and write the feedback pages; returns what the instructor should know."""
    submitted = course / "submitted" / student / assignment
    notes, graded = [], []
    for name in [path.stem for path in source_notebooks(course, assignment)]:
        if not (submitted / f"{name}.ipynb").is_file():
            notes.append(f"missing {name}")
            continue
        log = _Log()
        if _convert(Autograde, course, assignment, student, name, log):
            graded.append(name)
        else:
            notes.append(f"{name}: {_reason(log.errors)}")
            _give_zero(course, assignment, student, name)
    # All pages at once is quicker; if one of them fails, nbgrader drops all, so then one by one.
    if graded and not _convert(GenerateFeedback, course, assignment, student, "*", _Log()):
        for name in graded:
            if not _convert(GenerateFeedback, course, assignment, student, name, _Log()):
                notes.append(f"{name}: no feedback page")
    return notes


def in_own_process(answer: Connection, log: Path, course: Path, assignment: str, student: str) -> None:
    """`grade_student` as a process: what it and its kernels print goes to `log`, its notes to `answer`."""
    with log.open("w", encoding="utf-8") as messages, private_jupyter():
        os.dup2(messages.fileno(), sys.stdout.fileno())
        os.dup2(messages.fileno(), sys.stderr.fileno())
        answer.send(grade_student(course, assignment, student))


def _convert(converter: type, course: Path, assignment: str, student: str, name: str, log: _Log) -> bool:
    """Run one of nbgrader's converters on one notebook; False if it gave up."""
    coursedir = course_directory(
        course, assignment, student_id=glob.escape(student), notebook_id=name, log=log.logger
    )
    config = course_settings(course)
    config.BaseConverter.force = True  # grade again what was graded before
    try:
        converter(coursedir=coursedir, config=config, log=log.logger).start()
    except NbGraderException:
        return False
    return True


def _give_zero(course: Path, assignment: str, student: str, name: str) -> None:
    """A notebook that could not be run earns nothing by itself and asks for a human eye."""
    coursedir = course_directory(course, assignment)
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        for grade in gradebook.find_submission_notebook(name, assignment, student).grades:
            grade.auto_score = 0.0
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
