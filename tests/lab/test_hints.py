"""The instant checks and their hints by themselves: few checks, no hint that fits two mistakes, sentences.

That each answer gets the hint that names its mistake is in test_answers.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from labkit.check import pruning, quantization, schedule
from labkit.check.epochs import SAME, Trial, replays, walk
from labkit.check.exceptions import KNOWN
from labkit.check.fixtures import TinyNet
from labkit.notebooks import _REPORT
from tests.lab.harness import (
    REPOSITORY,
    Graded,
    answers,
    execute,
    graded_functions,
    instant_checks,
    reports,
    set_up,
)

GRADED = graded_functions()


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
        right = schedule.percentages(TinyNet(), lambda name, w, q=q: None if name == "id_mapping" else q)  # type: ignore[misc]
        yield "a step", 1.0, right, list(schedule.step_mistakes(TinyNet(), epoch, target, ramp))
    yield "one grid", 1e-5, quantization.ASYMMETRIC, list(quantization.asymmetric_mistakes())
    yield "the other", 1e-5, quantization.SYMMETRIC, list(quantization.symmetric_mistakes())
    for bits in (None, 4):
        yield f"an epoch, {bits} bits", SAME, walk(Trial(bits)), list(replays(bits))


def test_no_result_fits_two_hints_and_no_hint_fits_a_right_one() -> None:
    clashes: list[tuple[str, str, str]] = []
    told: dict[str, set[str]] = defaultdict(set)
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
    execute(signed.source, namespace, "answer")
    namespace["labkit"].check.prune_by_percentage(namespace["prune_by_percentage"])
    printed = capsys.readouterr().out
    assert f"```\n{printed}```" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [len(found) for found in _REPORT.findall(printed)] == [2]  # `labkit submit` reads it
