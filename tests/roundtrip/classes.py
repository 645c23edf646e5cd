"""What the tests of whole classes share: grading one, and reading what came of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from labkit.grading.grade import Options, grade_class
from labkit.grading.marks import Result
from tests import alembic_once  # noqa: F401

ASSIGNMENT = "compression"
FIRST, SECOND = "01_double", "02_triple"  # the tiny course's notebooks
CORES = os.cpu_count() or 1


def graded_now(course: Path, cores: int = CORES, **options: Any) -> dict[str, Result]:
    """Grade a class; results by student."""
    return {result.student: result for result in grade_class(course, ASSIGNMENT, Options(cores, **options))}


def points(result: Result) -> tuple[float | None, float | None]:
    return result.marks[FIRST].got, result.marks[SECOND].got


def feedback(course: Path, student: str, name: str = FIRST) -> str:
    return (course / "feedback" / student / ASSIGNMENT / f"{name}.html").read_text(encoding="utf-8")
