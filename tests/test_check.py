"""The machinery of checks; the checks themselves are proven in tests/lab."""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import labkit
from labkit.check import Suite, expect, expect_close
from labkit.check.diagnosis import Example, Near, expect_named, named, named_in, table
from labkit.check.engine import Failed
from labkit.outcomes import Outcome


def suite_of(answer: Any) -> Suite:
    suite = Suite(answer, "double")

    @suite.check(points=2)
    def doubles(f: Any) -> None:
        """Two becomes four."""
        expect(f(2) == 4, f"expected 4, got {f(2)}", "multiply by two")

    @suite.check(points=1, after=doubles)
    def negative(f: Any) -> None:
        """Minus one becomes minus two."""
        expect_close(f(-1), -2, "double(-1)")

    return suite


def test_points_sentences_and_hints(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite_of(lambda x: 2 * x).score() == 3.0
    assert "✓ 2/2 Two becomes four." in capsys.readouterr().out
    assert suite_of(abs).score() == 0.0
    out = capsys.readouterr().out
    assert "double: 0 of 3 points" in out
    assert "✗ 0/2 Two becomes four." in out and "expected 4, got 2" in out and "Hint: multiply by two" in out
    assert "– 0/1 Minus one becomes minus two." in out  # skipped, not failed


def test_partial_credit() -> None:
    assert suite_of(lambda x: abs(2 * x)).score() == 2.0


def test_printing_warning_and_stderr_cost_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def noisy(x: float) -> float:
        warnings.warn("careful", stacklevel=1)
        print("working", file=sys.stderr)
        print("on it")
        return 2 * x

    assert suite_of(noisy).score() == 3.0
    captured = capsys.readouterr()
    assert captured.err == "" and "on it" not in captured.out


def test_an_unwritten_answer_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    def stub(x: float) -> float:
        raise NotImplementedError("write your answer here")

    suite = suite_of(stub)
    assert suite.score() == 0.0
    assert suite.run().unanswered
    assert "not answered yet" in capsys.readouterr().out


def written(source: str, file: str = "<their cell>") -> dict[str, Any]:
    """The names that a cell defines; its lines can be looked up, as in a notebook."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"torch": torch}
    exec(compile(source, file, "exec"), names)
    return names


def test_an_error_of_torchs_own_is_no_unwritten_answer(capsys: pytest.CaptureFixture[str]) -> None:
    source = "def f(x):\n    return torch.log_softmax(torch.ones(2, dtype=torch.long), 0)\n"
    suite = suite_of(written(source)["f"])
    suite.score()
    out = " ".join(capsys.readouterr().out.split())
    assert "it raised NotImplementedError" in out and "line 2 of your cell" in out
    assert not suite.run().unanswered
    stub = "def f(x):\n    raise NotImplementedError('write it here')\n"
    assert suite_of(written(stub)["f"]).run().unanswered


def test_a_missing_method_is_no_unwritten_answer() -> None:
    suite = Suite(NoBackward, "STE")

    @suite.check()
    def passes_on(ste: Any) -> None:
        """A gradient passes."""
        ste.apply(W, 2).sum().backward()

    assert not suite.run().unanswered
    for symmetric in (False, True):
        report = labkit.check.report("STE", NoBackward, symmetric=symmetric)
        assert not report.unanswered
        assert "needs a method called backward" in str([outcome.hint for outcome in report.outcomes])


def test_a_line_of_another_notebook_is_named_as_its(capsys: pytest.CaptureFixture[str]) -> None:
    earlier = written("def g(x):\n    return x / 0\n", "<02_masked_finetuning, code cell 3>")["g"]
    suite_of(lambda x: earlier(x)).score()
    assert "line 2 of 02_masked_finetuning, code cell 3" in " ".join(capsys.readouterr().out.split())


def test_an_exception_names_the_students_line_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    source = "def breaks(x):\n    return torch.zeros(2) @ torch.zeros(3)\n"
    assert suite_of(written(source)["breaks"]).score() == 0.0
    out = capsys.readouterr().out
    assert "it raised RuntimeError" in out
    assert "line 2 of your cell: return torch.zeros(2) @" in " ".join(out.split())
    assert "Traceback" not in out and "expect(" not in out


def test_an_exception_in_a_hidden_tests_own_line_shows_nothing_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = Suite(lambda x: None, "nothing")

    @suite.check()
    def adds(f: Any) -> None:
        """The answer can be added to."""
        f(1) + 41  # a secret of the test

    suite.score()
    out = capsys.readouterr().out
    assert "it raised TypeError" in out and "41" not in out


def test_a_helper_of_another_test_cell_is_not_shown_either(capsys: pytest.CaptureFixture[str]) -> None:
    helper = written("def judged(x):\n    return x * 42\n", "<test other>")["judged"]
    suite = Suite(lambda x: {}, "wrong kind")

    @suite.check()
    def fits(f: Any) -> None:
        """It fits."""
        helper(f(1))

    suite.score()
    out = capsys.readouterr().out
    assert "it raised TypeError" in out and "42" not in out


def test_a_later_stub_costs_only_its_own_check() -> None:
    def first_half(x: float) -> float:
        if x < 0:
            raise NotImplementedError
        return 2 * x

    assert suite_of(first_half).score() == 2.0


@pytest.mark.parametrize(
    ("got", "wanted"),
    [(1.0, 2.0), (float("nan"), 1.0), (torch.tensor([1.0, float("inf")]), [1.0, 2.0]), ([1, 2], [1, 2, 3]),
     (None, 1.0), ("two", 2.0), (True, 1.0), (torch.ones(2, 1), [1.0, 1.0]), ([[1], [1, 2]], [1.0])],
)  # fmt: skip
def test_expect_close_refuses(got: Any, wanted: Any) -> None:
    with pytest.raises(Failed):
        expect_close(got, wanted, "it")


@pytest.mark.parametrize(
    "got", [2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor(2, dtype=torch.int64), np.array(2.0)]
)
def test_expect_close_takes_any_kind_of_number(got: Any) -> None:
    expect_close(got, 2.0, "it")


def test_expect_close_names_the_worst_value() -> None:
    with pytest.raises(
        Failed, match=r"the weight at index \(1, 0\) should be 5, but it is 9 \(2 of 4 values differ\)"
    ):
        expect_close([[1, 2.5], [9, 4]], [[1, 2], [5, 4]], "the weight")


def test_a_table_points_to_what_differs() -> None:
    weights = {"weight": [-10.0, 3, 0.25], "should": [0, 3, 0.25], "is": torch.tensor([-0.0, 3, 1e-8])}
    assert table(weights).splitlines() == [
        "weight  -10  3   0.25",
        "should    0  3   0.25",
        "is        0  3  1e-08",
        "                    ^",
    ]
    same = table({"layer": ["head", "a"], "should": [1, 200], "is": [1, 200]})
    assert same == "layer   head    a\nshould     1  200\nis         1  200"  # nothing to point to
    assert table({"epoch": [8, 9], "should": [72, 80], "is": ["72", "None"]}).splitlines()[2:] == [
        "is      72  None", "               ^",
    ]  # fmt: skip


def test_a_table_is_shown_as_it_is_below_a_sentence_that_is_wrapped() -> None:
    outcome = Outcome("It is so.", "failed", 1.0, f"{'long ' * 30}\na    b" + 60 * "  1" + "\n     ^", "look")
    *sentence, first, second, hint = outcome.lines(with_points=False).splitlines()
    assert len(sentence) == 3 and all(len(line) <= 102 for line in sentence)
    assert (first, second) == ("      a    b" + 60 * "  1", "           ^")
    assert hint == "      Hint: look"


def test_the_first_mistake_that_gives_what_came_names_the_hint() -> None:
    def later() -> list[float]:
        return [1.0, 3.0]

    mistakes: list[tuple[str, Any]] = [("other shape", [1.0]), ("nothing", [None, 1.0][1:]), ("later", later)]
    assert named(torch.tensor([1.0, 3.0]), mistakes) == "later"
    assert named([1.0, 3.1], mistakes) is None
    assert named("text", mistakes) is None and named(None, mistakes) is None
    assert named([1.0, float("nan")], [("no guard", [1.0, np.nan])]) == "no guard"


def test_a_hint_needs_a_mistake_that_fits_every_example() -> None:
    def example(x: float, answer: Callable[[float], object]) -> Example:
        return lambda: answer(x), lambda: [("squared", x * x), ("doubled", 2 * x), ("almost", Near(x))]

    def hint(answer: Callable[[float], object], *at: float) -> str | None:
        return named_in(example(x, answer) for x in at)

    assert hint(lambda x: 2 * x, 2.0) == "squared"  # one example is not enough
    assert hint(lambda x: 2 * x, 2.0, 3.0) == "doubled"
    assert hint(lambda x: 2 * x if x > 2 else 5.0, 2.0, 3.0) is None
    assert hint(lambda x: 2 * x / (x != 2), 2.0, 3.0) == "doubled"  # one that raises an error is left out
    assert hint(lambda x: x + 1e-6, 2.0, 3.0) == "almost" and hint(lambda x: x, 2.0, 3.0) is None
    assert hint(lambda x: 1 / 0, 2.0, 3.0) is None


def test_a_picture_is_drawn_only_of_numbers_in_the_right_shape() -> None:
    def message(got: Any) -> str:
        with pytest.raises(Failed) as verdict:
            expect_named(
                got,
                [1.0, 2.0],
                "it",
                lambda: named(got, [("twice", [2.0, 4.0])]) or "x",
                picture=lambda: "a\nb",
            )
        return f"{verdict.value} / {verdict.value.hint}"

    assert (
        message([2.0, 4.0])
        == "it at index (1,) should be 2, but it is 4 (2 of 2 values differ)\na\nb / twice"
    )
    assert message([0.0, 0.0]).endswith("\na\nb / x")
    assert "\n" not in message([1.0]) + message(None)


def test_expect_close_shows_no_more_than_one_value() -> None:
    """Hidden tests use it: their numbers are nobody's business."""
    with pytest.raises(Failed) as verdict:
        expect_close(torch.arange(100.0), torch.arange(100.0) + 1, "it")
    assert "\n" not in str(verdict.value) and len(str(verdict.value)) < 100


W = torch.nn.Linear(3, 2).weight


class OneGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, bit: int, symmetric: bool = False) -> torch.Tensor:
        return 2 * w

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return g


class GradientForAll(OneGradient):
    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return g, g, g


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, bit: int, symmetric: bool = False) -> torch.Tensor:
        return 2 * w


class NoForward(torch.autograd.Function):
    """Its author wrote `foward`."""


def pairs() -> Any:
    return labkit.prunable_layers(torch.nn.Sequential(torch.nn.Linear(3, 2)))


def twice_backward() -> None:
    loss = (W * W).sum()
    loss.backward()
    loss.backward()


def changed_before_backward() -> None:
    squared = W.exp()
    squared.mul_(2)
    squared.sum().backward()


def new_weight() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.weight = layer.weight * 2


@pytest.mark.parametrize(
    ("raises", "hint"),
    [
        (lambda: OneGradient.apply(W, 2, False).sum().backward(), "g, None, None"),
        (lambda: GradientForAll.apply(W, 2, False).sum().backward(), "bit and symmetric get no gradient"),
        (lambda: NoBackward.apply(W, 2).sum().backward(), "needs a method called backward"),
        (lambda: NoForward.apply(W, 2), "needs a method called forward"),
        (lambda: [layer.weight for layer in pairs()], "for name, layer in labkit.prunable_layers(net)"),
        (lambda: [layer.weight for layer, name in pairs()], "for name, layer in labkit.prunable_layers(net)"),
        (lambda: [layer.bias for layer in pairs()], "for name, layer in labkit.prunable_layers(net)"),
        (lambda: pairs()[0], "list(labkit.prunable_layers(net))"),
        (lambda: len(pairs()), "list(labkit.prunable_layers(net))"),
        (lambda bit=None: 2**bit - 1, "`bit` may be None"),
        (lambda: np.percentile(W.numpy(), 70), ".detach()"),
        (lambda: W.mul_(2), "a Parameter itself is not written to"),
        (lambda: W[0].mul_(2), "a Parameter itself is not written to"),
        (new_weight, "layer.weight.data"),
        (lambda: torch.quantile(torch.ones(3), 70.0), "divide the percent by 100"),
        (lambda: np.percentile(np.ones(3), 104), "from 0 to 100"),
        (lambda: torch.ones(3).sum().backward(), "cut off from the weights"),
        (twice_backward, "with net(inputs), for each batch"),
        (changed_before_backward, "right after the loss"),
    ],
)  # fmt: skip
def test_a_known_exception_gets_a_hint(raises: Callable[[], object], hint: str) -> None:
    suite = Suite(raises, "raises")

    @suite.check()
    def runs(f: Any) -> None:
        """It runs."""
        f()

    (outcome,) = suite.run().outcomes
    assert outcome.hint is not None and hint in outcome.hint, outcome.message
    assert "\n" not in outcome.message


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("Legacy autograd function with non-static forward method is deprecated.", "@staticmethod above"),
        ("Found no NVIDIA driver on your system.", "no GPU"),
        ("Torch not compiled with CUDA enabled", "no GPU"),
        ("Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, ...", "no GPU"),
        (
            "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False",
            "no GPU",
        ),
        ("PyTorch is not linked with support for mps devices", "no GPU"),
        ("No module named 'my_helpers'", "beside the notebook"),
        ("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()", ".cpu().numpy()"),
        ("Expected all tensors to be on the same device, but found at least two devices", "weight.device"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", None),
        ("something else", None),
    ],
)
def test_messages_of_other_machines_are_told_apart(message: str, hint: str | None) -> None:
    def breaks(x: float) -> float:
        raise RuntimeError(message)

    (outcome, _) = suite_of(breaks).run().outcomes
    assert outcome.hint is None if hint is None else hint in str(outcome.hint)


def test_changed_arguments_are_named() -> None:
    def double(x: float, y: float) -> float:
        return x * y

    (outcome, _) = suite_of(double).run().outcomes
    assert outcome.hint == "its arguments and their names stay as the stub has them."


def test_a_check_may_depend_on_several() -> None:
    suite = Suite(abs, "abs")

    @suite.check()
    def first(f: Any) -> None:
        """One."""

    @suite.check()
    def second(f: Any) -> None:
        """Two."""
        expect(f(-1) == -1, "no")

    @suite.check(after=(first, second))
    def third(f: Any) -> None:
        """Three."""

    assert [outcome.state for outcome in suite.run().outcomes] == ["passed", "failed", "skipped"]


def test_what_every_later_check_needs() -> None:
    suite = Suite(abs, "abs")

    @suite.check()
    def first(f: Any) -> None:
        """One."""
        expect(False, "no")

    suite.needs = (first,)

    @suite.check()
    def second(f: Any) -> None:
        """Two."""

    assert [outcome.state for outcome in suite.run().outcomes] == ["failed", "skipped"]


def test_a_check_draws_no_random_numbers_from_the_notebook() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    labkit.check.report("iterative_prune", lambda net, epoch, target=80.0, ramp_epochs=10: None)
    assert torch.equal(torch.rand(3), wanted)


def test_a_check_without_a_sentence_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="docstring"):
        Suite(abs).check()(lambda f: None)


def test_instant_check_prints_a_mark_for_each_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def signed(layer: torch.nn.Linear, q: float = 70.0) -> None:
        w = layer.weight.data
        w.mul_(w >= np.percentile(w.numpy(), q))

    labkit.check.prune_by_percentage(signed)
    out = capsys.readouterr().out
    assert "✗ Of ten weights" in out and "compare |w| with it" in out
    assert "      weight  -14  -5  -3  1  4  -8  -2  6  7  10\n" in out
    assert "1 of 3 public checks passed. More are run at grading." in out


def test_code_that_needs_a_gpu_is_told_before_it_is_handed_in(capsys: pytest.CaptureFixture[str]) -> None:
    def on_gpu(layer: torch.nn.Linear, q: float = 70.0) -> None:
        layer.weight.data = layer.weight.data.cuda()

    def careful(layer: torch.nn.Linear, q: float = 70.0) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        w = layer.weight.data.to(device)
        layer.weight.data = w * (w.abs() >= np.percentile(w.abs().cpu().numpy(), q))

    def asking(layer: torch.nn.Linear, q: float = 70.0) -> None:
        w = layer.weight.data
        magnitudes = w.abs().cpu() if w.device.type == "cuda" else w.abs()
        w.mul_(w.abs() >= np.percentile(magnitudes.numpy(), q))

    def cast(layer: torch.nn.Linear, q: float = 70.0) -> None:
        layer.weight.data = layer.weight.data.type(torch.float32).cuda()

    for wrong in (on_gpu, cast):
        labkit.check.prune_by_percentage(wrong)
        assert "✗ It runs on a machine without a GPU" in capsys.readouterr().out
    for right in (careful, asking):
        labkit.check.prune_by_percentage(right)
        assert "3 of 3 public checks passed" in capsys.readouterr().out


def test_pruning_is_checked_where_the_network_is_and_batches_stay_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a GPU of which only the name is there: torch's meta device."""
    from labkit.check import fixtures, nets

    monkeypatch.setattr(nets, "default_device", lambda: torch.device("meta"))
    seen: set[str] = set()
    labkit.check.report("prune_by_percentage", lambda layer, q=70.0: seen.add(layer.weight.device.type))
    labkit.check.report(
        "global_prune_by_percentage",
        lambda net, q=80.0: seen.add(f"net {next(net.parameters()).device.type}"),
    )
    assert seen == {"cpu", "meta", "net cpu", "net meta"}
    # a hidden test's network is built on the CPU, whatever the instructor's machine has
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    inputs, _ = next(iter(fixtures.batches()))
    assert inputs.device.type == "cpu"
