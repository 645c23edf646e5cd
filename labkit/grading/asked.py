"""The second law of accounting: an answer is graded by a run of its own code, or a human is asked.

What `labkit.answers` found of a notebook's answers meets what the tests came to. A zero stays one where
the answer's own code was run, or where nothing was written at all.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from labkit.cells import bound_names, parsed
from labkit.grading.outputs import safe_line
from labkit.grading.verdicts import Cell, Graded, Verdict
from labkit.written import Answer

ASKED = "A human is asked"
NOT_RUN = ("not answered", "error", "crashed")  # kinds of verdicts that may come without a run of the answer
RAISES = "it ends in the stub's NotImplementedError, although something is written in it"
UNDEFINED = re.compile(r"name '(\w+)' is not defined")


def with_questions(
    graded: Graded, answers: Mapping[str, Answer], cells: Sequence[Cell], by_hand: Mapping[str, float]
) -> Graded:
    """The results, with what a human is asked to look at.

    answers: by grade_id. cells: as they were run. by_hand: the points of each answer that a human marks.
    """
    tests = {cell.grade_id or cell.id: cell for cell in cells if cell.kind == "test"}
    verdicts = []
    for verdict in graded.verdicts:
        test = tests.get(verdict.cell)
        tested = answers_tested(test, cells, answers) if test is not None else []
        verdicts.append(_judged(verdict, tested, cells, graded.outputs))
    unclear = ((name, answers[name]) for name in by_hand if name in answers)
    for name, answer in unclear:
        if answer.state == "unclear":
            sentence = f"{ASKED}: {answer.why}."
            what = f"{name}: {answer.why}"
            verdicts.append(Verdict(name, "not graded", 0.0, by_hand[name], sentence, asks=what))
    return replace(graded, verdicts=tuple(verdicts))


def questions(graded: Graded) -> list[str]:
    """What a human should look at, a phrase each."""
    asked = (verdict for verdict in graded.verdicts if verdict.asks)
    said = (
        f"not graded, a human is asked: {one.asks}" if one.kind == "not graded" else f"look at {one.asks}"
        for one in asked
    )
    return list(dict.fromkeys(said))


def answers_tested(test: Cell, cells: Sequence[Cell], answers: Mapping[str, Answer]) -> list[Answer]:
    """The answers that a test cell uses; without one, the answer that stands before it."""
    tree = parsed(test.source)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree is not None else set()
    named = [one for one in answers.values() if used.intersection(one.names)]
    before = (cell.grade_id or "" for cell in cells[: cells.index(test)] if cell.kind == "answer")
    return named or [answers[name] for name in before if name in answers][-1:]


def _judged(
    verdict: Verdict,
    tested: Sequence[Answer],
    cells: Sequence[Cell],
    outputs: Mapping[str, list[dict[str, Any]]],
) -> Verdict:
    if verdict.points == verdict.possible:
        return verdict
    by_state = {answer.state: answer for answer in reversed(tested)}
    unclear, broken, written = (by_state.get(state) for state in ("unclear", "broken", "written"))
    not_run = verdict.kind in NOT_RUN and not verdict.points
    if unclear is not None:
        what = f"{unclear.name}: {unclear.why}"
        if not_run:
            return replace(
                verdict, kind="not graded", sentence=f"{ASKED}: {unclear.why}.", checks=(), asks=what
            )
        return replace(verdict, asks=what)
    if broken is not None and not_run:
        sentence = safe_line(_capital(f"{broken.why}."))
        return replace(verdict, kind="error", sentence=sentence, asks=f"{broken.name}: {broken.why}")
    if written is not None and verdict.kind == "not answered":
        what = _why_undefined(written, cells, outputs) if verdict.sentence else RAISES
        sentence = safe_line(_capital(f"{what}."))
        return replace(verdict, kind="error", sentence=sentence, asks=safe_line(what))
    if (later := _defined_below(verdict, cells)) is not None:
        sentence = f"{later} is defined only further down: put it above, restart and run all."
        return replace(verdict, sentence=verdict.sentence or sentence, asks=sentence[:-1])
    return verdict


def _why_undefined(answer: Answer, cells: Sequence[Cell], outputs: Mapping[str, list[dict[str, Any]]]) -> str:
    """Why an answer's cell has not defined what it should."""
    what = f"{' and '.join(answer.names)} is not defined"
    ran = [cell.id for cell in cells if cell.kind == "answer" and cell.grade_id == answer.name]
    for output in (output for name in ran for output in outputs.get(name, [])):
        if output.get("output_type") == "error":
            return f"{what}: its cell stopped with {output.get('ename')}: {output.get('evalue')}"
    return f"{what}: its cell failed"


def _defined_below(verdict: Verdict, cells: Sequence[Cell]) -> str | None:
    """A name that the student's code missed in a test, and that a cell below the test defines."""
    said = "\n".join([verdict.sentence, *(check.message for check in verdict.checks)])
    missed = set(UNDEFINED.findall(said))
    here = next((i for i, cell in enumerate(cells) if verdict.cell in (cell.grade_id, cell.id)), len(cells))
    for cell in (cell for cell in cells[here:] if missed and cell.kind in ("answer", "own")):
        tree = parsed(cell.source)
        if tree is not None and (names := missed & bound_names(tree.body)):
            return min(names)
    return None


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
