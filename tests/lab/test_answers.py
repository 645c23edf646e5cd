"""Right answers, however they are written, get full marks; plausible wrong ones lose some."""

from __future__ import annotations

import pytest

from tests.lab.harness import Answer, Graded, answers, grade, graded_functions, points

GRADED = {graded.function: graded for graded in graded_functions()}
CASES = [
    pytest.param(graded, answer, id=f"{graded.notebook[:2]}-{answer.kind}-{answer.title.replace(' ', '_')}")
    for graded in GRADED.values()
    for answer in answers(graded.function)
]


@pytest.mark.parametrize(("graded", "answer"), CASES)
def test_answer_gets_what_it_deserves(graded: Graded, answer: Answer) -> None:
    scores, printed = grade(graded, answer.source, answer.before)
    possible = {test: points(graded.notebook, test) for test in graded.tests}
    if answer.kind == "right":
        assert scores == possible, printed
    else:
        assert sum(scores.values()) < sum(possible.values()), f"full marks for a wrong answer\n{printed}"
        assert "✗" in printed  # and a sentence says why


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
