"""The instant checks and their hints by themselves: few checks, no hint that fits two mistakes, sentences.

That the first hint an answer gets names its mistake is in test_answers; here, that every other one is true of
it as well. How often each hint is shown:

    python -m tests.lab.test_hints
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from labkit.check import global_pruning, nets, pruning, quantization, schedule
from labkit.check.diagnosis import Near
from labkit.check.epochs import SAME, replays, right_way
from labkit.check.exceptions import KNOWN
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


Mistakes = list[tuple[str, Any]]


def ways() -> Iterator[tuple[str, float, list[Any], list[Mistakes]]]:
    """(what it is, what counts as the same, right results, what mistakes give) of the checks' examples."""
    ten = [pruning.ten_weights_pruned(q) for q in pruning.PERCENTAGES]
    yield "ten weights", 1e-5, ten, [pruning.layer_mistakes(q) for q in pruning.PERCENTAGES]
    net = [list(global_pruning.net_mistakes(q)) for q in global_pruning.PERCENTAGES]
    yield "a net", 1e-6, [near.right for (*_, (_, near)) in net], net
    ramps = [[t * min(e + 1, ramp) / ramp for e in range(epochs)] for t, ramp, epochs in schedule.RAMPS]
    yield "a ramp", 1e-5, ramps, [list(schedule.ramp_mistakes(*one)) for one in schedule.RAMPS]
    steps = [pruned_to(target * (epoch + 1) / ramp) for epoch, target, ramp in schedule.STEPS]
    yield "a step", 0.5, steps, [list(schedule.step_mistakes(*one)) for one in schedule.STEPS]
    for symmetric, mistakes in (
        (False, quantization.asymmetric_mistakes),
        (True, quantization.symmetric_mistakes),
    ):
        sizes = [np.abs(case.w).max() for case in quantization.CASES]
        grids = [quantization.on_levels(case, symmetric) for case in quantization.CASES]
        yield (
            f"a grid, symmetric {symmetric}",
            1e-5,
            [grid / size for grid, size in zip(grids, sizes, strict=True)],
            [
                [(hint, gives / size) for hint, gives in mistakes(case)]
                for case, size in zip(quantization.CASES, sizes, strict=True)
            ],
        )
    for bits in (None, 4):
        yield f"an epoch, {bits} bits", SAME, [right_way(bits)], [list(replays(bits))]


def pruned_to(q: float) -> np.ndarray:
    """The zeros of each weight of the small net, its shortcut's last, with each layer pruned to q percent."""
    weights = [np.abs(w) for w in schedule.tried(nets.small_net()).values()]
    return np.array([*((w < np.percentile(w, q)).sum() for w in weights[:-1]), 0.0])


def test_no_result_fits_two_hints_and_no_hint_fits_a_right_one() -> None:
    clashes: list[tuple[str, str, str]] = []
    for name, tolerance, right, each in ways():
        found = [(same[0][0], [given(one) for _, one in same]) for same in zip(*each, strict=True)]
        assert [hint for hint, result in found if alike(result, right, tolerance)] in (
            [],
            [pruning.ALMOST],
        ), name
        for (one, a), (other, b) in itertools.combinations(found, 2):
            if one != other and pruning.ALMOST not in (one, other) and alike(a, b, 2 * tolerance):
                clashes.append((name, one, other))
    assert clashes == []


def given(gives: Any) -> Any:
    gives = gives.right if isinstance(gives, Near) else gives
    return gives() if callable(gives) else gives


def alike(some: list[Any], others: list[Any], tolerance: float) -> bool:
    pairs = zip(some, others, strict=True)
    return all(np.allclose(a, b, 1e-6, tolerance, equal_nan=True) for a, b in pairs)


def test_hints_are_sentences() -> None:
    hints = {hint for *_, each in ways() for hint, _ in each[0]}
    hints |= {hint for _, hint in KNOWN}
    assert [hint for hint in hints if not 15 < len(hint) < 260 or "\n" in hint or hint[-1] not in ".?"] == []


# Hints that an answer sees after its first one, which stands with it, and that are true of it, too.
ALSO = {
    "the flag is turned round": ["look at the argument `prune`"],
    "written for the GPU": ["grading has no GPU"],
    "shortcuts are pruned as well": ["only in the layers of labkit.prunable_layers(net)"],
    "the branches are swapped": ["this is the grid from -m to m: if symmetric is False"],
}


def shown(graded: Graded) -> Iterator[tuple[str, str, bool]]:
    """(hint, title, whether it is true of it) for each hint that a wrong answer sees in instant checks."""
    for answer in answers(graded.function):
        true = [answer.hint or "none", *ALSO.get(answer.title, ())]
        outcomes = [outcome for one in reports(graded, answer) for outcome in one.outcomes]
        for hint in dict.fromkeys(outcome.hint for outcome in outcomes if outcome.hint):
            yield hint, answer.title, any(part in hint for part in true)


@pytest.mark.parametrize("graded", GRADED, ids=lambda graded: graded.function)
def test_no_answer_sees_a_hint_that_is_not_true_of_it(graded: Graded) -> None:
    assert [(title, hint) for hint, title, true in shown(graded) if not true] == []


def test_a_wrong_answer_shows_which_weights_should_have_gone(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's example, word for word."""
    namespace = dict(set_up("01_percentile_pruning"))
    (signed,) = [a for a in answers("prune_by_percentage") if a.title == "signed values on both sides"]
    execute(signed.source, namespace, "answer")
    namespace["labkit"].check.prune_by_percentage(namespace["prune_by_percentage"])
    printed = capsys.readouterr().out
    assert f"```\n{printed}```" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [len(found) for found in _REPORT.findall(printed)] == [2]  # `labkit submit` reads it


if __name__ == "__main__":
    for one in GRADED:
        found = list(shown(one))
        counts, true = (Counter(hint for hint, _, fits in found if fits or any_) for any_ in (True, False))
        print(f"\n{one.function}\nshown  true  hint")
        for text, count in counts.most_common():
            print(f"{count:5d} {true[text]:5d}  {text}")
