"""The machinery of checks; the checks themselves are proven in tests/lab."""

from __future__ import annotations

import linecache
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import labkit
from labkit.check import Suite, expect, expect_close
from labkit.check.engine import Failed


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


def test_an_exception_names_the_students_line_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    source = "def breaks(x):\n    return torch.zeros(2) @ torch.zeros(3)\n"
    linecache.cache["<their cell>"] = (len(source), None, source.splitlines(keepends=True), "<their cell>")
    names: dict[str, Any] = {"torch": torch}
    exec(compile(source, "<their cell>", "exec"), names)
    assert suite_of(names["breaks"]).score() == 0.0
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


def test_a_check_without_a_sentence_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="docstring"):
        Suite(abs).check()(lambda f: None)


def test_instant_check_prints_a_mark_for_each_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def signed(layer: torch.nn.Linear, q: float = 70.0) -> None:
        w = layer.weight.data
        w.mul_(w >= np.percentile(w.numpy(), q))

    labkit.check.prune_by_percentage(signed)
    out = capsys.readouterr().out
    assert "✗ Of ten weights" in out and "compare |w| with the threshold" in out
    assert "2 of 3 public checks passed. More are run at grading." in out


def test_code_that_needs_a_gpu_is_told_before_it_is_handed_in(capsys: pytest.CaptureFixture[str]) -> None:
    def on_gpu(layer: torch.nn.Linear, q: float = 70.0) -> None:
        layer.weight.data = layer.weight.data.cuda()

    def careful(layer: torch.nn.Linear, q: float = 70.0) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        w = layer.weight.data.to(device)
        layer.weight.data = w * (w.abs() >= np.percentile(w.abs().cpu().numpy(), q))

    labkit.check.prune_by_percentage(on_gpu)
    assert "✗ It runs on a machine without a GPU" in capsys.readouterr().out
    labkit.check.prune_by_percentage(careful)
    assert "3 of 3 public checks passed" in capsys.readouterr().out
