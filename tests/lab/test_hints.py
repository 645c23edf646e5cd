"""The instant checks: every right answer passes them, and a wrong one gets the hint that names its mistake.

Which one that is stands with the answer, in `answers/*.py`: `# hint: ` and a part of the first hint shown. A
wrong answer without that line passes the instant checks; the hidden tests are for it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from labkit.check import pruning, quantization, report, schedule
from labkit.check.engine import Report
from labkit.check.epochs import SAME, Trial, replays, walk
from labkit.check.exceptions import KNOWN
from labkit.check.fixtures import TinyNet
from labkit.notebooks import _REPORT
from labkit.outcomes import MARKS
from tests.lab.harness import (
    REPOSITORY,
    SOURCE,
    Answer,
    Graded,
    _execute,
    answers,
    cells_of,
    grade_id,
    graded_functions,
    tags,
)

GRADED = graded_functions()
CASES = [
    pytest.param(graded, answer, id=f"{graded.notebook[:2]}-{answer.kind}-{answer.title.replace(' ', '_')}")
    for graded in GRADED
    for answer in answers(graded.function)
]


@pytest.fixture(autouse=True)
def in_the_notebooks_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SOURCE)  # sibling notebooks are looked for in the working directory
    monkeypatch.setenv("LABKIT_PROFILE", "quick")


@lru_cache
def set_up(notebook: str) -> dict[str, Any]:
    """What the set-up cells of a notebook define."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in cells_of(notebook):
            if "setup" in tags(cell):
                _execute(cell["source"], namespace, cell["id"])
    return namespace


def instant_checks(graded: Graded) -> list[tuple[str, dict[str, bool]]]:
    """The instant checks in the notebook's test cells: (name, options)."""
    sources = [c["source"] for c in cells_of(graded.notebook) if "test" in tags(c)]
    ids = [grade_id(c) for c in cells_of(graded.notebook) if "test" in tags(c)]
    calls = [
        re.match(r"labkit\.check\.(\w+)\(\1(, symmetric=True)?\)", source)
        for source, test in zip(sources, ids, strict=True)
        if test in graded.tests
    ]
    return [(call[1], {"symmetric": True} if call[2] else {}) for call in calls if call]


def reports(graded: Graded, answer: Answer) -> list[Report]:
    namespace = dict(set_up(graded.notebook))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _execute(f"{answer.before}\n\n{answer.source}", namespace, "answer")
        return [report(name, namespace[name], **options) for name, options in instant_checks(graded)]


@pytest.mark.parametrize(("graded", "answer"), CASES)
def test_the_first_hint_names_the_mistake(graded: Graded, answer: Answer) -> None:
    failed = [
        outcome for one in reports(graded, answer) for outcome in one.outcomes if outcome.state == "failed"
    ]
    hints = [outcome.hint for outcome in failed if outcome.hint]
    if answer.hint is None:
        assert failed == [], "it should pass; a wrong answer that does not needs a line `# hint: ...`"
    elif answer.hint == "none":
        assert failed and not hints
    else:
        assert failed, "it passes"
        assert hints and answer.hint in hints[0], f"{failed[0].message}\n{hints[:1]}"


def test_every_function_has_its_instant_check() -> None:
    assert [name for graded in GRADED for name, _ in instant_checks(graded)] == [
        "prune_by_percentage", "finetune_after_prune", "sparsity_at", "iterative_prune",
        "global_prune_by_percentage", "STE", "STE", "STE", "finetune_quantized",
    ]  # fmt: skip


@pytest.mark.parametrize("graded", GRADED, ids=lambda graded: graded.function)
def test_the_checks_are_few_and_most_mistakes_meet_them(graded: Graded) -> None:
    right, *_ = [answer for answer in answers(graded.function) if answer.kind == "right"]
    for one in reports(graded, right):
        assert 2 <= len(one.outcomes) <= 5
        assert len({outcome.sentence for outcome in one.outcomes}) == len(one.outcomes)
    wrong = [answer for answer in answers(graded.function) if answer.kind == "wrong"]
    assert sum(answer.hint not in (None, "none") for answer in wrong) >= 0.6 * len(wrong)


def examples() -> Iterator[tuple[str, float, np.ndarray, list[tuple[str, Any]]]]:
    """(what it is, what counts as the same, the right result, what mistakes give) of the checks' examples."""
    yield "ten weights", 1e-5, pruning.ten_weights_pruned(60.0), pruning.layer_mistakes(60.0)
    whole = list(pruning.net_mistakes(TinyNet(), 75.0))
    yield "a net", 1e-6, whole[-1][1], whole
    for target, ramp, epochs in ((80.0, 10, 12), (50.0, 4, 6)):
        steps = [target * min(epoch + 1, ramp) / ramp for epoch in range(epochs)]
        yield "a ramp", 1e-5, np.array(steps), list(schedule.ramp_mistakes(target, ramp, epochs))
    for epoch, target, ramp in ((4, 80.0, 10), (2, 90.0, 6)):
        q = target * (epoch + 1) / ramp
        right = schedule.percentages(TinyNet(), lambda name, w, q=q: None if name == "id_mapping" else q)
        yield "a step", 1.0, right, list(schedule.step_mistakes(TinyNet(), epoch, target, ramp))
    yield "one grid", 1e-5, quantization.ASYMMETRIC, list(quantization.asymmetric_mistakes())
    yield "the other", 1e-5, quantization.SYMMETRIC, list(quantization.symmetric_mistakes())
    for bits in (None, 4):
        yield f"an epoch, {bits} bits", SAME, walk(Trial(bits)), list(replays(bits))


def test_no_result_fits_two_hints_and_no_hint_fits_a_right_one() -> None:
    clashes, told = [], defaultdict(set)
    for name, tolerance, right, mistakes in examples():
        given = [(hint, gives() if callable(gives) else gives) for hint, gives in mistakes]
        # that one is told from the right result by being exactly zero
        wrong = [(h, a) for h, a in given if h != pruning.ALMOST and not alike(a, right, tolerance)]
        told[name] |= {hint for hint, _ in wrong}
        for (one, a), (other, b) in itertools.combinations(wrong, 2):
            if one != other and alike(a, b, 2 * tolerance):
                clashes.append((name, one, other))
    assert clashes == []
    for name, _, _, mistakes in examples():
        assert {hint for hint, _ in mistakes} - {pruning.ALMOST} <= told[name]


def alike(a: Any, b: Any, tolerance: float) -> bool:
    return np.allclose(a, b, 0.0, tolerance, equal_nan=True)


def test_hints_are_sentences() -> None:
    hints = {hint for *_, mistakes in examples() for hint, _ in mistakes}
    hints |= {hint for _, hint in KNOWN}
    assert [hint for hint in hints if not 15 < len(hint) < 260 or "\n" in hint or hint[-1] not in ".?"] == []


def test_a_wrong_answer_shows_which_weights_should_have_gone(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's example, word for word."""
    namespace = dict(set_up("01_percentile_pruning"))
    (signed,) = [a for a in answers("prune_by_percentage") if a.title == "signed values on both sides"]
    _execute(signed.source, namespace, "answer")
    namespace["labkit"].check.prune_by_percentage(namespace["prune_by_percentage"])
    printed = capsys.readouterr().out
    assert f"```\n{printed}```" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [len(found) for found in _REPORT.findall(printed)] == [2]  # `labkit submit` reads it


@pytest.mark.parametrize("graded", GRADED, ids=lambda graded: graded.function)
def test_every_line_of_a_report_is_read_back_and_fits(graded: Graded) -> None:
    for answer in answers(graded.function):
        for one in reports(graded, answer):
            lines = [outcome.lines(with_points=False) for outcome in one.outcomes]
            printed = "\n".join([one.name, *lines, one.summary])
            ((title, body),) = _REPORT.findall(printed)
            assert title == one.name
            assert sum(line[2:3] in MARKS.values() for line in body.splitlines()) == len(one.outcomes)
            tables = [row for o in one.outcomes for row in o.message.splitlines()[1:]]
            assert all(len(row) <= 90 for row in tables)
