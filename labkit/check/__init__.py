"""Instant checks for every function that the notebooks ask for.

    labkit.check.prune_by_percentage(prune_by_percentage)

prints a sentence for each public check, with a mark before it. The hidden tests in the instructor's
notebooks are suites of the same kind, built with `Suite`, `expect` and `fixtures`. So are the instant
checks of a function that is not listed here: they stand in its notebook and end in `show()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labkit.check import fixtures, global_pruning, pruning, quantization, schedule, suites, training
from labkit.check.engine import Failed, Report, Suite, expect, expect_close

__all__ = [
    "STE", "Failed", "Report", "Suite", "expect", "expect_close", "finetune_after_prune",
    "finetune_quantized", "fixtures", "global_prune_by_percentage", "iterative_prune",
    "prune_by_percentage", "report", "sparsity_at",
]  # fmt: skip


_SUITES: dict[str, Callable[..., Suite]] = {
    "prune_by_percentage": pruning.prune_by_percentage,
    "finetune_after_prune": training.finetune_after_prune,
    "sparsity_at": schedule.sparsity_at,
    "iterative_prune": schedule.iterative_prune,
    "global_prune_by_percentage": global_pruning.global_prune_by_percentage,
    "STE": quantization.STE,
    "finetune_quantized": training.finetune_quantized,
}


def report(name: str, answer: Any, **options: Any) -> Report:
    """The outcomes of the public checks of the function called `name`, without printing anything.

    Of a name that this module does not know, an instructor's own, only whether it is written.
    """
    make = _SUITES.get(name)
    suite = suites.is_written(answer, name) if make is None else make(answer, **options)
    return suite.run()


def prune_by_percentage(answer: Any) -> None:
    """Notebook 01: try a `prune_by_percentage(layer, q=70.0)`."""
    pruning.prune_by_percentage(answer).show()


def finetune_after_prune(answer: Any) -> None:
    """Notebook 02: try a `finetune_after_prune(net, trainloader, criterion, optimizer, prune=True)`."""
    training.finetune_after_prune(answer).show()


def sparsity_at(answer: Any) -> None:
    """Notebook 03: try a `sparsity_at(epoch, target=80.0, ramp_epochs=10)`."""
    schedule.sparsity_at(answer).show()


def iterative_prune(answer: Any) -> None:
    """Notebook 03: try an `iterative_prune(net, epoch, target=80.0, ramp_epochs=10)`."""
    schedule.iterative_prune(answer).show()


def global_prune_by_percentage(answer: Any) -> None:
    """Notebook 04: try a `global_prune_by_percentage(net, q=70.0)`."""
    global_pruning.global_prune_by_percentage(answer).show()


def STE(answer: Any, symmetric: bool = False) -> None:  # noqa: N802 (named after the student's class)
    """Notebooks 05 and 06: try a `class STE(torch.autograd.Function)`."""
    quantization.STE(answer, symmetric).show()


def finetune_quantized(answer: Any) -> None:
    """Notebook 07: try a `finetune_quantized(net, trainloader, criterion, optimizer)`."""
    training.finetune_quantized(answer).show()
