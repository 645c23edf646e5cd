"""From the source notebooks to what students get: solutions and hidden tests out, the Colab cells in.

nbgrader does the work. The release is committed, so building it twice gives the same bytes: it goes
through a folder of its own, without a gradebook, and every cell keeps the id that it has in the source.
"""

from __future__ import annotations

import filecmp
import logging
import shutil
from pathlib import Path

from nbgrader.converters import GenerateAssignment, NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import SaveCells

from labkit.errors import LabError
from labkit.grading.database import explained
from labkit.grading.scratch import scratch_folder
from labkit.grading.settings import course_settings
from labkit.grading.sources import check_source, leavings, source_notebooks


def release(course: Path, assignment: str) -> list[Path]:
    """Write `release/<assignment>` from `source/<assignment>`; returns the notebooks written."""
    target = course / "release" / assignment
    with scratch_folder("release") as scratch:
        built = build(course, assignment, scratch)
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(built, target, copy_function=shutil.copyfile)
    return sorted(target.glob("*.ipynb"))


def differences(course: Path, assignment: str) -> list[str]:
    """What `release` would change, one line a file; empty if the release is what the source generates."""
    target = course / "release" / assignment
    with scratch_folder("release") as scratch:
        built = build(course, assignment, scratch)
        wanted, there = _files(built), _files(target)
        return [
            *(f"{name}: missing" for name in sorted(wanted - there)),
            *(f"{name}: not in the source any more" for name in sorted(there - wanted)),
            *(
                f"{name}: not what the source generates"
                for name in sorted(wanted & there)
                if not filecmp.cmp(built / name, target / name, shallow=False)
            ),
        ]


def build(course: Path, assignment: str, scratch: Path, gradebook: bool = False) -> Path:
    """Generate the release inside the empty folder `scratch`; returns the folder with the notebooks.

    gradebook: also bring the test cells that the course's gradebook knows up to the source.
    """
    for path in source_notebooks(course, assignment):
        check_source(path)
    shutil.copytree(course / "source" / assignment, scratch / "source" / assignment, ignore=leavings)
    config = course_settings(course)
    config.CourseDirectory.root = str(scratch)  # a course's own path may look like one of nbgrader's patterns
    if not gradebook:  # it would only cost time
        config.GenerateAssignment.no_database = True
        config.GenerateAssignment.preprocessors = [
            step for step in config.GenerateAssignment.preprocessors if step is not SaveCells
        ]
    log = logging.Logger("labkit.release")
    problems: list[str] = []
    log.addHandler(_Collect(problems))
    try:
        coursedir = CourseDirectory(config=config, assignment_id=assignment, log=log)
        with explained(course):
            GenerateAssignment(coursedir=coursedir, config=config, log=log).start()
    except NbGraderException as error:
        if any("there are submissions associated with it" in problem for problem in problems):
            raise LabError(
                "the source has gained or lost graded cells since this class was first graded.\n"
                f"To grade it anew, move {course / 'gradebook.db'} away and run this again."
            ) from None
        raise LabError(
            "nbgrader cannot make the release:\n" + "\n".join(map(_last_line, problems))
        ) from error
    return scratch / "release" / assignment


class _Collect(logging.Handler):
    """Keeps nbgrader's error messages, to be shown if it fails."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().rstrip())


def _last_line(text: str) -> str:
    """Of a traceback it is the error."""
    return text.rpartition("\n")[2]


def _files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if ".ipynb_checkpoints" not in path.parts}
