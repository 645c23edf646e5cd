"""Every collected answer once, as it is graded: right ones get full marks, wrong ones less and a sentence.

The instant checks run in the student's own process, too. Which hint an answer gets stands with it, in
`answers/*.py`: `# hint: ` and a part of the first one shown. A wrong answer without that line passes the
instant checks; the hidden tests are for it.
"""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import replace
from typing import Any

import pytest

from labkit.check.engine import Report
from labkit.notebooks import _REPORT
from labkit.outcomes import MARKS, Outcome
from tests.lab.harness import (
    SOURCE,
    Answer,
    Graded,
    answers,
    cells_of,
    grade,
    graded_functions,
    reports,
    tags,
)

pytest.importorskip("nbgrader")

from labkit.grading.engine import Engine
from labkit.grading.repair import defined_names
from labkit.grading.verdicts import Cell, Job
from labkit.grading.verdicts import Graded as Grades

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="grading needs Linux or macOS")

GRADED = {graded.function: graded for graded in graded_functions()}
REFERENCE = {path.stem: path.read_text(encoding="utf-8") for path in SOURCE.glob("*.ipynb")}
# What an instant check reads in the code itself, which does not cross the border.
IN_THE_CODE = "written for the GPU"


def case(graded: Graded, answer: Answer) -> Any:
    name = f"{graded.notebook[:2]}-{graded.function}-{answer.kind}-{answer.title.replace(' ', '_')}"
    return pytest.param(graded, answer, id=name)


def of_each_kind(graded: Graded, right: int, wrong: int) -> list[Answer]:
    """The first answers to a question."""
    kinds = {
        kind: [one for one in answers(graded.function) if one.kind == kind] for kind in ("right", "wrong")
    }
    return [*kinds["right"][:right], *kinds["wrong"][:wrong]]


def job_of(graded: Graded, answer: Answer) -> Job:
    """The source notebook with this answer, its other answers the reference's, and the tests of this one."""
    cells: list[Cell] = []
    names: list[str] = []
    for cell in cells_of(graded.notebook):
        kind: Any = next((tag for tag in tags(cell) if tag in ("setup", "answer", "test")), None)
        marks = cell["metadata"].get("nbgrader", {})
        if kind is None or (kind == "test" and not answer.before and marks["grade_id"] not in graded.tests):
            continue
        source = cell["source"]
        if kind == "answer":
            names += sorted(defined_names(source))
            if marks["grade_id"] == graded.function:
                source = answer.source
                if answer.before:
                    place = max(n for n, one in enumerate(cells) if one.kind == "answer")
                    cells[place] = replace(cells[place], source=answer.before)
        cells.append(Cell(cell["id"], kind, source, marks["grade_id"], marks.get("points") or 0.0))
    siblings = {name: text for name, text in REFERENCE.items() if name < graded.notebook}
    return Job(graded.notebook, tuple(cells), tuple(names), siblings, REFERENCE)


@functools.cache
def graded_by(engine: Engine, graded: Graded, answer: Answer) -> Grades:
    """As the engine grades it, once for all tests of this process."""
    return engine.grade(job_of(graded, answer))


def shown(printed: str) -> list[str]:
    """What the instant checks printed, but for the student's line that an exception names."""
    return [re.sub(r"\(line.*", "", "".join(report)) for report in _REPORT.findall(printed)]


@pytest.mark.parametrize(
    ("graded", "answer"), [case(one, answer) for one in GRADED.values() for answer in answers(one.function)]
)
def test_an_answer_gets_what_it_deserves(shared_engine: Engine, graded: Graded, answer: Answer) -> None:
    result = graded_by(shared_engine, graded, answer)
    assert result.attempts == ()
    verdicts = [verdict for verdict in result.verdicts if verdict.cell in graded.tests]
    got, possible = sum(one.points for one in verdicts), sum(one.possible for one in verdicts)
    printed = "\n".join(verdict.printed for verdict in result.verdicts)
    if answer.kind == "right":
        assert got == possible, printed
    else:
        assert got < possible, f"full marks for a wrong answer\n{printed}"
        assert "✗" in printed  # and a sentence says why
    own = reports(graded, answer)
    assert_the_hint_fits(answer, own)
    texts = [read_back(report) for report in own]
    if answer.title != IN_THE_CODE:
        assert shown(printed)[-len(own) :] == shown("\n".join(texts))


def read_back(report: Report) -> str:
    """What a report prints: `labkit submit` finds every line of it, and its tables fit the page."""
    lines = [outcome.lines(with_points=False) for outcome in report.outcomes]
    text = "\n".join([report.name, *lines, report.summary])
    ((title, body),) = _REPORT.findall(text)
    assert title == report.name
    assert sum(line[2:3] in MARKS.values() for line in body.splitlines()) == len(report.outcomes)
    tables = [row for outcome in report.outcomes for row in outcome.message.splitlines()[1:]]
    assert all(len(row) <= 90 for row in tables)
    return text


def assert_the_hint_fits(answer: Answer, own: list[Report]) -> None:
    failed: list[Outcome] = [one for report in own for one in report.outcomes if one.state == "failed"]
    hints = [outcome.hint for outcome in failed if outcome.hint]
    if answer.hint is None:
        assert failed == [], "it should pass; a wrong answer that does not needs a line `# hint: ...`"
    elif answer.hint == "none":
        assert failed and not hints
    else:
        assert failed, "it passes"
        assert hints and answer.hint in hints[0], f"{failed[0].message}\n{hints[:1]}"


@pytest.mark.parametrize(
    ("graded", "answer"), [case(one, answer) for one in GRADED.values() for answer in of_each_kind(one, 2, 3)]
)
def test_the_tests_give_the_same_in_the_students_own_process(
    shared_engine: Engine, graded: Graded, answer: Answer
) -> None:
    """As plain nbgrader runs them."""
    alone, printed = grade(graded, answer.source, answer.before)
    across = graded_by(shared_engine, graded, answer).verdicts
    assert {verdict.cell: verdict.points for verdict in across if verdict.cell in alone} == alone, printed


@pytest.mark.parametrize("graded", GRADED.values(), ids=GRADED)
def test_there_are_enough_answers_of_each_kind(graded: Graded) -> None:
    kinds = [answer.kind for answer in answers(graded.function)]
    assert kinds.count("right") >= 3
    assert kinds.count("wrong") >= 8


@pytest.mark.parametrize("graded", GRADED.values(), ids=GRADED)
def test_a_stub_gets_nothing(graded: Graded) -> None:
    stub = 'raise NotImplementedError("write your answer here, then run the check below")'
    signature = f"def {graded.function}(*args, **kwargs):\n    {stub}\n"
    if graded.function.startswith("STE"):
        signature = (
            "class STE(torch.autograd.Function):\n"
            f"    @staticmethod\n    def forward(ctx, w, bit, symmetric=False):\n        {stub}\n"
            f"    @staticmethod\n    def backward(ctx, g):\n        {stub}\n"
        )
    scores, printed = grade(graded, signature)
    assert sum(scores.values()) == 0, printed
    assert "not answered yet" in printed


ZEROS = """
    layers = [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.weight.data.zero_()
"""


@pytest.mark.parametrize("body", [ZEROS, "    return None\n"], ids=["every weight zero", "nothing done"])
@pytest.mark.parametrize(
    "function",
    [
        "prune_by_percentage",
        "finetune_after_prune",
        "iterative_prune",
        "global_prune_by_percentage",
        "finetune_quantized",
    ],
)
def test_the_ends_of_sparsity_earn_nothing(function: str, body: str) -> None:
    scores, printed = grade(GRADED[function], f"def {function}(net, *args, **kwargs):\n{body}")
    assert sum(scores.values()) == 0, printed
