"""nbgrader's settings for this lab, in one place: `nbgrader_config.py` and `labkit grade` both use them.

A course folder holds `source/<assignment>/*.ipynb` and, once there is a class, `submitted/`,
`autograded/`, `feedback/` and `gradebook.db`, as nbgrader lays them out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nbgrader import preprocessors as stock
from nbgrader.converters import Autograde, GenerateAssignment, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from traitlets.config import Config

from labkit.errors import LabError
from labkit.grading import nbgrader_steps as ours
from labkit.grading.repair import EXPERIMENT

CODE_STUB = 'raise NotImplementedError("write your answer here, then run the check below")'
TEXT_STUB = "*Your answer here.*"
CELL_SECONDS = 120  # a graded cell takes about a second; the first one also imports torch


def configure(c: Config, course: Path) -> Config:
    """Put the lab's settings for the course folder `course` into nbgrader's configuration `c`.

    The gradebook is `gradebook.db` in that folder, or what the environment variable LABKIT_GRADEBOOK names
    by an SQLAlchemy URL: postgresql://USER:PASSWORD@HOST/DATABASE (needs `pip install 'labkit[postgres]'`).
    Raises LabError if that URL is none.
    """
    c.CourseDirectory.root = str(course)
    c.CourseDirectory.course_id = "compression-lab"
    c.CourseDirectory.db_url = gradebook_url(course)

    c.ClearSolutions.code_stub = {"python": CODE_STUB}
    c.ClearSolutions.text_stub = TEXT_STUB
    c.GenerateAssignment.preprocessors = [ours.AddColabCells, *_stock(GenerateAssignment, "preprocessors")]

    c.Autograde.sanitize_preprocessors = [
        ours.TrustedCells,  # first: the next step goes by the tags that this one restores
        ours.KeepExperimentOutputs,  # instead of ClearOutput
        stock.DeduplicateIds,
        stock.OverwriteKernelspec,
        stock.OverwriteCells,
        stock.CheckCellMetadata,
    ]
    c.Autograde.autograde_preprocessors = [
        ours.GradeExecute,
        ours.PointsAreNumbers,
        *(step for step in _stock(Autograde, "autograde_preprocessors") if step is not stock.Execute),
    ]
    c.OverwriteCells.add_missing_cells = True
    c.Execute.timeout = CELL_SECONDS
    c.Execute.interrupt_on_timeout = True
    c.Execute.skip_cells_with_tag = EXPERIMENT
    # nbgrader gives 0 to a test cell with anything on stderr; a warning or a progress bar is no mistake.
    c.IgnorePattern.enabled = True
    c.IgnorePattern.pattern = r"(?s).*"

    c.GenerateFeedback.preprocessors = [
        stock.GetGrades,
        stock.ClearHiddenTests,
        ours.ShortTracebacks,
        *(step for step in _stock(GenerateFeedback, "preprocessors") if step is not stock.GetGrades),
    ]
    _put_own_programs_on_path()
    return c


def gradebook_url(course: Path) -> str:
    """Where the grades of a course are kept, for SQLAlchemy. LabError if LABKIT_GRADEBOOK is no URL."""
    named = os.environ.get("LABKIT_GRADEBOOK")
    if not named:
        # nbgrader's own programs may write at the same time; each waits its turn for up to a minute
        return f"sqlite:///{course / 'gradebook.db'}?timeout=60"
    try:
        url = make_url(named)
        if url.drivername in ("postgres", "postgresql"):  # which driver that means depends on SQLAlchemy
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect().import_dbapi()
    except (ImportError, NoSuchModuleError):
        raise LabError(
            f"no driver for {url.drivername} is installed: pip install 'labkit[postgres]' for PostgreSQL."
        ) from None
    except ArgumentError:
        # the URL itself is not shown: it may hold a password
        raise LabError(
            "LABKIT_GRADEBOOK is no database URL: postgresql://USER:PASSWORD@HOST/DATABASE\n"
            "Special characters in a password are written as %XX."
        ) from None
    return url.render_as_string(hide_password=False)


def course_settings(course: Path) -> Config:
    """A fresh configuration for the course folder `course`."""
    return configure(Config(), course)


def course_directory(course: Path, assignment: str, **traits: object) -> CourseDirectory:
    """nbgrader's view of the course folder, for one assignment."""
    return CourseDirectory(config=course_settings(course), assignment_id=assignment, **traits)


def _stock(converter: type, trait: str) -> list[type]:
    """The steps that nbgrader itself runs, so that a new one of its own reaches us too."""
    return list(converter.class_traits()[trait].default())  # type: ignore[attr-defined]


def _put_own_programs_on_path() -> None:
    """nbgrader starts `alembic` by name; it lies beside this Python, which need not be on PATH."""
    programs = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "").split(os.pathsep)
    if programs not in path:
        os.environ["PATH"] = os.pathsep.join([programs, *path])
