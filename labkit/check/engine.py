"""The machinery of checks: small functions whose docstring is the sentence that a student reads.

A check passes or fails with what was expected, what came, and a hint that names the likely mistake.
Instant checks and hidden tests are both suites of such functions. What a student's code prints or
warns about never counts, and an exception in it costs the check that it broke, nothing else.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.check.exceptions import explain, is_stub
from labkit.errors import LabError
from labkit.outcomes import Outcome
from labkit.streams import accept_any_text

CheckFunction = Callable[[Any], object]


class Failed(Exception):  # noqa: N818 (a verdict, not an error)
    """A check's verdict: what was expected and what came, with an optional hint.

    message: a sentence; lines after the first are a table, and are shown as they are.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def expect(condition: object, message: str, hint: str | None = None) -> None:
    """Fail the check with this sentence unless the condition holds."""
    if not condition:
        raise Failed(message, hint)


def expect_close(got: Any, wanted: Any, what: str, tolerance: float = 1e-6, hint: str | None = None) -> None:
    """Fail unless `got` is a finite number or tensor of the shape of `wanted`, equal to within `tolerance`.

    what: names the quantity in the sentence. dtype is not compared; NaN is never close.
    """
    try:
        got_values = as_array(got)
    except (TypeError, ValueError, RuntimeError):
        raise Failed(f"{what} should be numbers, but it is {type(got).__name__}", hint) from None
    values = as_array(wanted)
    if got_values.shape != values.shape:
        raise Failed(f"{what} should have shape {values.shape}, but it has {got_values.shape}", hint)
    with np.errstate(invalid="ignore"):
        off = np.abs(got_values - values)
    wrong = ~(off <= tolerance)  # NaN counts as wrong
    if not wrong.any():
        return
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
    where = f" at index {tuple(int(i) for i in worst)}" if off.ndim else ""
    count = f" ({int(wrong.sum())} of {off.size} values differ)" if off.size > 1 else ""
    should, came = values[worst] + 0.0, got_values[worst] + 0.0  # + 0.0: not -0
    raise Failed(f"{what}{where} should be {should:.6g}, but it is {came:.6g}{count}", hint)


def as_array(value: Any) -> np.ndarray:
    """A number, array or tensor as a float64 array. Raises TypeError for anything else."""
    if isinstance(value, Tensor):
        return value.detach().cpu().to(torch.float64).numpy()
    if isinstance(value, bool) or value is None:
        raise TypeError
    return np.asarray(value, dtype=np.float64)


@dataclass(frozen=True)
class Report:
    """All outcomes of a suite."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def all_passed(self) -> bool:
        return all(outcome.state == "passed" for outcome in self.outcomes)

    @property
    def unanswered(self) -> bool:
        return any(outcome.message == UNANSWERED for outcome in self.outcomes)

    @property
    def passed(self) -> int:
        return sum(outcome.state == "passed" for outcome in self.outcomes)

    @property
    def summary(self) -> str:
        return f"{self.passed} of {len(self.outcomes)} public checks passed"

    @property
    def points(self) -> float:
        return float(sum(outcome.earned for outcome in self.outcomes))

    @property
    def possible(self) -> float:
        return float(sum(outcome.points for outcome in self.outcomes))


UNANSWERED = "not answered yet: the stub's NotImplementedError is still there."


class Suite:
    """Checks of one answer, run in order.

    answer: the student's function or class; each check function is called with it.
    name: what to call it when printing; by default its own name.

        hidden = labkit.check.Suite(prune_by_percentage)

        @hidden.check(points=2)
        def keeps_the_largest(prune):
            "Weights at or above the threshold stay exactly as they were."
            ...

        hidden.score()      # prints a sentence for each check, returns the points
    """

    def __init__(self, answer: Any, name: str | None = None) -> None:
        self.answer = answer
        self.name = name or _called(answer)
        self.needs: tuple[CheckFunction, ...] = ()
        """Checks that must pass before any that is registered after them is run."""
        self._checks: list[tuple[CheckFunction, float, tuple[CheckFunction, ...]]] = []

    def check(
        self, points: float = 1.0, after: CheckFunction | Sequence[CheckFunction] = ()
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Register a check. `after`: an earlier check, or several; unless they pass, this one is skipped."""
        earlier = (*self.needs, *((after,) if callable(after) else after))

        def register(function: CheckFunction) -> CheckFunction:
            if not function.__doc__:
                if sys.flags.optimize >= 2:
                    raise LabError("checks need docstrings, which python -OO drops: unset PYTHONOPTIMIZE.")
                raise ValueError(f"check {function.__name__} needs a docstring: it is what the student reads")
            self._checks.append((function, points, earlier))
            return function

        return register

    def run(self, quiet: bool = True) -> Report:
        """Run all checks. quiet: what the answer prints is dropped."""
        outcomes: dict[CheckFunction, Outcome] = {}
        unanswered = False
        for function, points, earlier in self._checks:
            sentence = " ".join(inspect.getdoc(function).split())  # type: ignore[union-attr]
            if unanswered or any(outcomes[one].state != "passed" for one in earlier):
                outcomes[function] = Outcome(sentence, "skipped", points)
                continue
            outcome = _run_one(function, sentence, points, self.answer, quiet)
            unanswered = not outcomes and outcome.message == UNANSWERED
            outcomes[function] = outcome
        return Report(self.name, tuple(outcomes.values()))

    def show(self) -> None:
        """Run and print one sentence for each check, without points: an instant check."""
        report = self.run(quiet=False)
        accept_any_text()  # of a script's console: the marks are not ASCII
        shown[self.name] = Shown(report, tuple(_sources(self.answer)))
        print(report.name)
        for outcome in report.outcomes:
            print(outcome.lines(with_points=False))
        print(f"{report.summary}. More are run at grading.")

    def score(self) -> float:
        """Run, print one sentence for each check, and return the points: the last line of a test cell."""
        report = self.run()
        if observer is not None:
            observer(report)
        print(f"{self.name}: {report.points:g} of {report.possible:g} points")
        for outcome in report.outcomes:
            print(outcome.lines(with_points=True))
        return report.points


@dataclass(frozen=True)
class Shown:
    """A report as the student saw it. sources: the text of the functions that were checked."""

    report: Report
    sources: tuple[str, ...]


shown: dict[str, Shown] = {}
"""The last report of each instant check in this process, by name: `labkit.submit` reads it."""

observer: Callable[[Report], object] | None = None
"""Gets every scored report while grading: the same outcomes that are printed, as records."""


def _run_one(function: CheckFunction, sentence: str, points: float, answer: Any, quiet: bool) -> Outcome:
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if quiet:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(torch.random.fork_rng(devices=[]))  # the next cell draws what it would have drawn
        try:
            function(answer)
        except Failed as verdict:
            return Outcome(sentence, "failed", points, str(verdict), verdict.hint)
        except Exception as error:
            if isinstance(error, NotImplementedError) and is_stub(error, function):
                return Outcome(sentence, "failed", points, UNANSWERED)
            return Outcome(sentence, "failed", points, *explain(error, function, _called(answer)))
    return Outcome(sentence, "passed", points)


def _called(answer: Any) -> str:
    return str(getattr(answer, "__name__", type(answer).__name__))


def functions_of(thing: Any) -> Iterator[types.FunctionType]:
    """A function itself, or the methods of a class; what stands under a decorator such as torch.no_grad()."""
    members = vars(thing).values() if isinstance(thing, type) else [thing]
    for member in members:
        function = getattr(member, "__func__", member)  # a staticmethod holds its function there
        function = inspect.unwrap(function) if isinstance(function, types.FunctionType) else function
        if isinstance(function, types.FunctionType):
            yield function


def _sources(answer: Any) -> Iterator[str]:
    for function in functions_of(answer):
        with contextlib.suppress(OSError, TypeError, SyntaxError):  # not to be had, as of functions from exec
            yield inspect.getsource(function.__code__).strip()
