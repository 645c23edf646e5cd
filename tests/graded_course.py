"""The tiny course, graded without running anything: hand-made verdicts and outputs on real notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.grading.autograded import Autograded, autograded
from labkit.grading.grade import prepared_release
from labkit.grading.gradebook import GradebookWriter
from labkit.grading.repair import repair
from labkit.grading.samples import fill_in
from labkit.grading.verdicts import Graded, Verdict, VerdictKind
from labkit.outcomes import Outcome
from tests import alembic_once  # noqa: F401
from tests.roundtrip.tiny_course import write_course

ASSIGNMENT = "compression"
FIRST, SECOND = "01_double", "02_triple"
CHECKS = (
    Outcome("Twice one is two.", "passed", 3.0),
    Outcome("Larger numbers too.", "failed", 3.5, "it gave 21, should be 42", "multiply <all> of it"),
    Outcome("And negative ones.", "skipped", 0.5),
)


@dataclass(frozen=True)
class Course:
    """A course folder whose gradebook knows the assignment; released: its notebooks, as students get them."""

    root: Path
    released: Mapping[str, NotebookNode]

    def answered(self, name: str) -> NotebookNode:
        """The reference answers in the release."""
        nb = nbformat.from_dict(self.released[name])
        fill_in(nb, nbformat.read(self.root / "source" / ASSIGNMENT / f"{name}.ipynb", 4))
        return nb

    def mended(self, nb: NotebookNode, name: str) -> NotebookNode:
        return repair(nb, self.released[name]).notebook

    def writer(self) -> GradebookWriter:
        return GradebookWriter(self.root, ASSIGNMENT)


def make(root: Path) -> Course:
    write_course(root)
    with prepared_release(root, ASSIGNMENT) as folder:
        released = {path.stem: nbformat.read(path, 4) for path in sorted(folder.glob("*.ipynb"))}
    return Course(root, released)


def graded(name: str, points: float = 3.0, **outputs: list[dict[str, Any]]) -> Graded:
    """7 points for the first test if `points` is 7, else partly; the second test passed."""
    function = name.partition("_")[2]
    kind: VerdictKind = "passed" if points == 7.0 else "partial"
    sentence = "" if kind == "passed" else "1 of 3 checks passed."
    verdicts = (
        Verdict(f"test_{function}", kind, points, 7.0, sentence, CHECKS),
        Verdict("test-sign", "passed", 3.0, 3.0, printed="sign: 3 of 3 points\n"),  # named by its cell's id
    )
    return Graded(name, verdicts, {key.replace("_", "-"): value for key, value in outputs.items()})


def hand_out(course: Course, nb: NotebookNode, result: Graded, notes: tuple[str, ...] = ()) -> Autograded:
    with course.writer() as writer:
        return autograded(course.mended(nb, result.notebook), result, writer.sources[result.notebook], notes)


def named(nb: NotebookNode, cell_id: str) -> NotebookNode:
    (cell,) = [cell for cell in nb.cells if cell.id == cell_id]
    return cell
