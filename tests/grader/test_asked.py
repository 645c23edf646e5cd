"""A zero that came without a run of the student's own code: a human is asked, and told what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.asked import questions, with_questions
from labkit.grading.verdicts import Cell, Graded, Verdict
from labkit.outcomes import Outcome
from labkit.written import Answer
from tests import graded_course as made
from tests.graded_course import FIRST, Course

CODE = Answer("halve", ("halve",), "written")
WORDS = Answer("q_why", (), "unanswered", stub=True)
EMPTY = "its cell is empty, and words are in a cell of their own"
CELLS = (
    Cell("a", "answer", "def halve(x):\n    return limit(x)", "halve"),
    Cell("t", "test", "labkit.check.Suite(halve).score()", "test_halve", 5.0),
    Cell("o", "own", "limit = float"),
)
NOTHING = Verdict("test_halve", "not answered", 0.0, 5.0)
UNDEFINED = replace(NOTHING, sentence="halve is not defined: its cell failed.")


def asked(verdict: Verdict, answer: Answer = CODE, words: Answer = WORDS, **outputs: object) -> Graded:
    graded = Graded("01_halves", (verdict,), outputs)  # type: ignore[arg-type]
    return with_questions(graded, {"halve": answer, "q_why": words}, CELLS, {"q_why": 4.0})


def test_an_empty_answer_is_a_zero_without_a_question() -> None:
    came = asked(NOTHING, replace(CODE, state="unanswered", stub=True))
    assert came.verdicts == (NOTHING,) and questions(came) == []


def test_what_may_be_the_answer_is_not_graded() -> None:
    came = asked(NOTHING, replace(CODE, state="unclear", why="its cell holds words instead of code"))
    (verdict,) = came.verdicts
    assert (verdict.kind, verdict.points) == ("not graded", 0.0)
    assert verdict.sentence == "A human is asked: its cell holds words instead of code."
    assert questions(came) == ["not graded, a human is asked: halve: its cell holds words instead of code"]


def test_words_that_are_elsewhere_are_not_graded() -> None:
    came = asked(
        replace(NOTHING, kind="passed", points=5.0), words=replace(WORDS, state="unclear", why=EMPTY)
    )
    assert [(one.cell, one.kind, one.possible) for one in came.verdicts[1:]] == [("q_why", "not graded", 4.0)]
    assert questions(came) == [f"not graded, a human is asked: q_why: {EMPTY}"]


def test_code_that_defines_nothing_is_a_zero_to_look_at() -> None:
    (verdict,) = asked(
        UNDEFINED, replace(CODE, state="broken", why="its cell has a syntax error in line 2")
    ).verdicts
    assert (verdict.kind, verdict.points) == ("error", 0.0)
    assert verdict.sentence == "Its cell has a syntax error in line 2."
    assert verdict.asks == "halve: its cell has a syntax error in line 2"


def test_a_cell_that_stopped_says_with_what() -> None:
    error = {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "division by zero"}
    (verdict,) = asked(UNDEFINED, a=[error]).verdicts
    assert verdict.asks == "halve is not defined: its cell stopped with ZeroDivisionError: division by zero"


def test_written_code_that_still_ends_as_the_stub_is_looked_at() -> None:
    (verdict,) = asked(NOTHING).verdicts
    assert verdict.kind == "error" and verdict.asks.startswith("it ends in the stub's NotImplementedError")


def test_a_helper_further_down_is_named() -> None:
    said = Outcome("Half of two is one.", "failed", 5.0, "it raised NameError: name 'limit' is not defined")
    (verdict,) = asked(Verdict("test_halve", "failed", 0.0, 5.0, checks=(said,))).verdicts
    assert verdict.sentence == "limit is defined only further down: put it above, restart and run all."
    assert verdict.asks and verdict.checks == (said,)


@pytest.mark.parametrize("kind", ["failed", "timeout", "out of memory"])
def test_a_zero_of_code_that_was_run_stays_one(kind: str) -> None:
    verdict = Verdict("test_halve", kind, 0.0, 5.0, "It took too long.")  # type: ignore[arg-type]
    assert asked(verdict).verdicts == (verdict,)


@pytest.mark.slow
def test_the_gradebook_asks_for_points_or_for_a_look(tmp_path: Path) -> None:
    course = made.make(tmp_path / "course")
    mended = course.mended(course.released[FIRST], FIRST)
    words = next(name for name, cell in marked(course).items() if cell == "markdown")
    tests = [name for name, cell in marked(course).items() if cell == "code" and name.startswith("test")]
    verdicts = (
        Verdict(tests[0], "not graded", 0.0, 7.0, "A human is asked.", asks="halve: words"),
        Verdict(tests[1], "error", 0.0, 3.0, "Its cell has a syntax error.", asks="halve: a syntax error"),
        Verdict(words, "not graded", 0.0, 4.0, "A human is asked.", asks=f"{words}: {EMPTY}"),
    )
    with course.writer() as writer:
        writer.write("ada", {FIRST: Graded(FIRST, verdicts, {})}, {FIRST: mended})
        grades = writer.grades("ada")[FIRST]
    scores = {name: (grades.cells[name].auto, grades.cells[name].waits) for name in (*tests, words)}
    assert scores == {tests[0]: (None, True), tests[1]: (0.0, True), words: (None, True)}
    assert words not in grades.comments, "no `No response.` to what may have been answered"


def marked(course: Course) -> dict[str, str]:
    with course.writer() as writer:
        return {name: cell.cell_type for name, cell in writer.sources[FIRST].cells.items()}
