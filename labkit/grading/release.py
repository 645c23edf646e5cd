"""From the source notebooks to what students get: solutions and hidden tests out, the Colab cells in.

nbgrader does the work. The release is committed, so building it twice gives the same bytes: it goes
through a folder of its own, without a gradebook, and every cell keeps the id that it has in the source.
"""

from __future__ import annotations

import filecmp
import json
import logging
import shutil
from pathlib import Path

from nbgrader.converters import GenerateAssignment, NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import SaveCells

from labkit.errors import LabError
from labkit.grading.scratch import scratch_folder
from labkit.grading.settings import course_settings, source_notebooks
from labkit.submit import ZIP_NAME


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


def build(course: Path, assignment: str, scratch: Path) -> Path:
    """Generate the release inside the empty folder `scratch`; returns the folder with the notebooks."""
    for path in source_notebooks(course, assignment):
        check_source(path)
    shutil.copytree(course / "source" / assignment, scratch / "source" / assignment, ignore=_leavings)
    config = course_settings(scratch)
    # The gradebook is written when a class is graded; here it would only cost time.
    config.GenerateAssignment.no_database = True
    config.GenerateAssignment.preprocessors = [
        step for step in config.GenerateAssignment.preprocessors if step is not SaveCells
    ]
    log = logging.getLogger("labkit.release")
    log.propagate = False
    problems: list[str] = []
    handler = _Collect(problems)
    log.addHandler(handler)
    try:
        coursedir = CourseDirectory(config=config, assignment_id=assignment, log=log)
        GenerateAssignment(coursedir=coursedir, config=config, log=log).start()
    except NbGraderException as error:
        raise LabError("the release could not be made:\n" + "\n".join(problems)) from error
    finally:
        log.removeHandler(handler)
    return scratch / "release" / assignment


def check_source(path: Path) -> None:
    """Raise LabError unless every cell has an id of its own, on which a reproducible release depends."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if (content["nbformat"], content["nbformat_minor"]) != (4, 5):
        raise LabError(f"{path.name} is not in notebook format 4.5: open and save it in a current Jupyter")
    ids = [cell.get("id") for cell in content["cells"]]
    for number, cell_id in enumerate(ids):
        if cell_id is None or cell_id in ids[:number]:
            raise LabError(
                f"{path.name}: cell {number} has no id of its own: give it one, such as its grade_id"
            )


class _Collect(logging.Handler):
    """Keeps nbgrader's error messages, to be shown if it fails."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().rstrip().rpartition("\n")[2])


def _files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if ".ipynb_checkpoints" not in path.parts}


def _leavings(folder: str, names: list[str]) -> set[str]:
    """What running the notebooks in place leaves there."""
    left = {".ipynb_checkpoints", "__pycache__", "runs", ZIP_NAME}
    return {name for name in names if name in left or name.endswith(".part")}
