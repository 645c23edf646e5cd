"""Instant checks for every function that the notebooks ask for.

    labkit.check.prune_by_percentage(prune_by_percentage)

prints a sentence for each public check, with a mark before it. The hidden tests in the instructor's
notebooks are suites of the same kind, built with `Suite`, `expect` and `fixtures`. So are the instant
checks of a function that is not listed here: they stand in its notebook and end in `show()`.
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
    """The outcomes of the public checks of the function called `name`, without printing anything.

    Of a name that this module does not know, an instructor's own, only whether it is written.
    """
    suite = getattr(public, name)(answer, **options) if name in __all__ else public.is_written(answer, name)
    return suite.run()


def prune_by_percentage(answer: Any) -> None:
    """Notebook 01: try a `prune_by_percentage(layer, q=70.0)`."""
    public.prune_by_percentage(answer).show()


def finetune_after_prune(answer: Any) -> None:
    """Notebook 02: try a `finetune_after_prune(net, trainloader, criterion, optimizer, prune=True)`."""
    public.finetune_after_prune(answer).show()


def sparsity_at(answer: Any) -> None:
    """Notebook 03: try a `sparsity_at(epoch, target=80.0, ramp_epochs=10)`."""
    public.sparsity_at(answer).show()


def iterative_prune(answer: Any) -> None:
    """Notebook 03: try an `iterative_prune(net, epoch, target=80.0, ramp_epochs=10)`."""
    public.iterative_prune(answer).show()


def global_prune_by_percentage(answer: Any) -> None:
    """Notebook 04: try a `global_prune_by_percentage(net, q=70.0)`."""
    public.global_prune_by_percentage(answer).show()


def STE(answer: Any, symmetric: bool = False) -> None:  # noqa: N802 (named after the student's class)
    """Notebooks 05 and 06: try a `class STE(torch.autograd.Function)`."""
    public.STE(answer, symmetric).show()


def finetune_quantized(answer: Any) -> None:
    """Notebook 07: try a `finetune_quantized(net, trainloader, criterion, optimizer)`."""
    public.finetune_quantized(answer).show()
