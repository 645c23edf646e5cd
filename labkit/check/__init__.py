"""Instant checks for every function that the notebooks ask for.

    labkit.check.prune_by_percentage(prune_by_percentage)

prints a sentence for each public check, with a mark before it. The hidden tests in the instructor's
notebooks are suites of the same kind, built with `Suite`, `expect` and `fixtures`.
"""

from __future__ import annotations

from typing import Any

from labkit.check import fixtures, public
from labkit.check.engine import Failed, Report, Suite, expect, expect_close

__all__ = [
    "STE", "Failed", "Report", "Suite", "expect", "expect_close", "finetune_after_prune",
    "finetune_quantized", "fixtures", "global_prune_by_percentage", "iterative_prune",
    "prune_by_percentage", "report", "sparsity_at",
]  # fmt: skip


def report(name: str, answer: Any, **options: Any) -> Report:
    """The outcomes of the public checks of the function called `name`, without printing anything."""
    suite: Suite = getattr(public, name)(answer, **options)
    return suite.run()


def prune_by_percentage(answer: Any) -> None:
    """Notebook 01: try a `prune_by_percentage(layer, q=70.0)`."""
    _show(public.prune_by_percentage(answer))


def finetune_after_prune(answer: Any) -> None:
    """Notebook 02: try a `finetune_after_prune(net, trainloader, criterion, optimizer, prune=True)`."""
    _show(public.finetune_after_prune(answer))


def sparsity_at(answer: Any) -> None:
    """Notebook 03: try a `sparsity_at(epoch, target=80.0, ramp_epochs=10)`."""
    _show(public.sparsity_at(answer))


def iterative_prune(answer: Any) -> None:
    """Notebook 03: try an `iterative_prune(net, epoch, target=80.0, ramp_epochs=10)`."""
    _show(public.iterative_prune(answer))


def global_prune_by_percentage(answer: Any) -> None:
    """Notebook 04: try a `global_prune_by_percentage(net, q=70.0)`."""
    _show(public.global_prune_by_percentage(answer))


def STE(answer: Any, symmetric: bool = False) -> None:  # noqa: N802 (named after the student's class)
    """Notebooks 05 and 06: try a `class STE(torch.autograd.Function)`."""
    _show(public.STE(answer, symmetric))


def finetune_quantized(answer: Any) -> None:
    """Notebook 07: try a `finetune_quantized(net, trainloader, criterion, optimizer)`."""
    _show(public.finetune_quantized(answer))


def _show(suite: Suite) -> None:
    outcome = suite.run(quiet=False)
    print(outcome.name)
    for line in outcome.outcomes:
        print(line.lines(with_points=False))
    print(f"{outcome.summary}. More are run at grading.")
