"""The lab's own notebooks, handed in by five students and graded, against each answer graded alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.grading.marks import Result
from labkit.grading.release import release
from tests.lab.harness import SOURCE, Graded, answers, grade, graded_functions
from tests.lab.harness import points as possible_points
from tests.roundtrip import submissions as made
from tests.roundtrip.classes import ASSIGNMENT, feedback, graded_now

pytestmark = pytest.mark.usefixtures("graded_by_the_shared_engine")
GRADED = [
    path.stem
    for path in sorted(SOURCE.glob("*.ipynb"))
    if '"grade": true' in path.read_text(encoding="utf-8")
]


Class = tuple[Path, dict[str, Result]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, graded_by_the_shared_engine: None) -> Class:
    """The course folder, and the results by student."""
    course = tmp_path_factory.mktemp("lab")
    made.copy_course(SOURCE, course)
    release(course, ASSIGNMENT)
    made.hand_in(course, "right", made.unchanged)
    made.hand_in(course, "untouched", made.unchanged, answered=False)
    made.hand_in(course, "noisy", made.noisy)
    for kind in ("right", "wrong"):
        chosen = {graded.function: some_answer(graded, kind) for graded in graded_functions()}
        made.hand_in(course, f"other-{kind}", made.with_answers(chosen))
    return course, graded_now(course)


def some_answer(graded: Graded, kind: str) -> str:
    """An answer of tests/lab: the last right one, or the first wrong one."""
    sources = [answer.source for answer in answers(graded.function) if answer.kind == kind]
    return sources[-1 if kind == "right" else 0]


@cache  # each is asked for once for itself and once for its notebook
def alone(graded: Graded, kind: str) -> tuple[float, str]:
    """(points, what was printed) of that answer, run without the grader."""
    scores, printed = grade(graded, some_answer(graded, kind))
    return sum(scores.values()), printed


@pytest.mark.parametrize("graded", graded_functions(), ids=lambda graded: graded.function)
@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_a_class_gets_the_points_that_the_tests_give_alone(lab: Class, graded: Graded, kind: str) -> None:
    got, printed = alone(graded, kind)
    possible = sum(possible_points(graded.notebook, test) for test in graded.tests)
    assert (got == possible) is (kind == "right"), printed
    in_notebook = [other for other in graded_functions() if other.notebook == graded.notebook]
    together = sum(alone(other, kind)[0] for other in in_notebook)
    assert lab[1][f"other-{kind}"].marks[graded.notebook].got == together


@pytest.mark.parametrize("name", GRADED)
class TestTheLabsOwnNotebooks:
    def test_the_reference_reaches_every_automatic_point(self, lab: Class, name: str) -> None:
        result = lab[1]["right"]
        assert result.notes == []
        assert result.marks[name].got == result.marks[name].possible

    def test_the_untouched_release_earns_nothing(self, lab: Class, name: str) -> None:
        assert lab[1]["untouched"].marks[name].got == 0

    def test_warnings_and_progress_bars_cost_nothing(self, lab: Class, name: str) -> None:
        assert lab[1]["noisy"].marks[name].got == lab[1]["noisy"].marks[name].possible

    def test_no_hidden_test_reaches_a_student(self, lab: Class, name: str) -> None:
        source = nbformat.read(SOURCE / f"{name}.ipynb", 4)
        released = (lab[0] / "release" / ASSIGNMENT / f"{name}.ipynb").read_text(encoding="utf-8")
        pages = [released, *(feedback(lab[0], student, name) for student in lab[1])]
        for page in pages:
            assert "HIDDEN TESTS" not in page
        shown = "\n".join(cell.source for cell in nbformat.reads(released, 4).cells)
        meant_for_students = "\n".join(visible(cell.source) for cell in source.cells)
        secrets = {line for cell in source.cells for line in hidden_lines(cell.source)}
        for line in secrets:
            assert line in meant_for_students or line not in shown, line


def visible(source: str) -> str:
    """A cell without its hidden region."""
    return source.partition("### BEGIN HIDDEN TESTS")[0]


def hidden_lines(source: str) -> list[str]:
    """The longer lines of a cell's hidden region: `x = 1` could stand anywhere."""
    _, begin, rest = source.partition("### BEGIN HIDDEN TESTS")
    lines = rest.partition("### END HIDDEN TESTS")[0].splitlines() if begin else []
    return [line.strip() for line in lines if len(line.strip()) > 30]
