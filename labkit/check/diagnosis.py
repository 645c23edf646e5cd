"""Which mistake a wrong answer comes from, told by what it returned.

On examples that are small enough to follow by hand, a check knows what each common mistake would give.
The first one that gives what the answer gave, in every example, names the hint. If none does, there is no
hint, or one that is true of every answer: a hint that points the wrong way is worse than none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from labkit.check.engine import Failed, as_array, expect_close

Mistakes = Iterable[tuple[str, Any]]
"""(hint, what the mistake gives: numbers of the result's shape, or a function that calculates them)."""

Example = tuple[Callable[[], Any], Callable[[], Mistakes]]
"""(runs the answer, what mistakes give there): the same mistakes in the same order in every example."""


class Near(NamedTuple):
    """What a mistake gives that is almost right: these numbers to within the tolerance, but not exactly."""

    right: Any


def named(got: Any, mistakes: Mistakes, tolerance: float = 1e-5) -> str | None:
    """The hint of the first mistake that gives `got`, to within `tolerance`; None if none does."""
    return named_in([(lambda: got, lambda: mistakes)], tolerance)


def named_in(examples: Iterable[Example], tolerance: float = 1e-5) -> str | None:
    """The hint of the first mistake that gives what the answer gives in every example, or None.

    One example alone is often not enough: different mistakes can agree there. One in which the answer
    raises an error is left out.
    """
    results, each = [], []
    for run, mistakes in examples:
        with contextlib.suppress(Exception):
            results.append(as_array(run()))
            each.append(mistakes())
    for same in zip(*each, strict=True):
        gives = [_values(one) for _, one in same]
        fits = all(_close(*pair, tolerance) for pair in zip(results, gives, strict=True))
        exact = all(map(np.array_equal, results, gives))
        if fits and not (exact and isinstance(same[0][1], Near)):
            return str(same[0][0])
    return None


def _values(gives: Any) -> np.ndarray:
    values = gives.right if isinstance(gives, Near) else gives
    return as_array(values() if callable(values) else values)


def _close(result: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    return result.shape == wanted.shape and np.allclose(result, wanted, 1e-6, tolerance, equal_nan=True)


def expect_named(
    got: Any,
    wanted: Any,
    what: str,
    hint: Callable[[], str | None] = lambda: None,
    tolerance: float = 1e-6,
    picture: Callable[[], str] | None = None,
) -> None:
    """`expect_close`, with a hint, and a picture below the sentence, that are only made if it fails.

    picture: draws the table; only asked for numbers of the right shape.
    """
    try:
        expect_close(got, wanted, what, tolerance)
    except Failed as verdict:
        message = str(verdict)
        if picture is not None and shape_of(got) == as_array(wanted).shape:
            message += "\n" + picture()
        raise Failed(message, hint()) from None


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a number, array or tensor; None of anything else."""
    try:
        return as_array(value).shape
    except (TypeError, ValueError, RuntimeError):
        return None


def table(rows: Mapping[str, Any]) -> str:
    """Rows of numbers or words below each other, the last line pointing to where the last two rows differ.

    weight  -10  -8   3
    should  -10  -8   0
    is        0  -8   0
              ^
    """
    cells = {name: [_written(value) for value in _flat(values)] for name, values in rows.items()}
    *_, should, came = cells.values()
    pointers = ["^" if a != b else "" for a, b in zip(should, came, strict=True)]
    lines = {**cells, "": pointers} if any(pointers) else cells
    widths = [max(map(len, column)) for column in zip(*lines.values(), strict=True)]
    head = max(map(len, lines))
    return "\n".join(
        "  ".join([name.ljust(head), *map(str.rjust, texts, widths)]).rstrip()
        for name, texts in lines.items()
    )


def _flat(values: Any) -> Sequence[Any]:
    if isinstance(values, list) and any(isinstance(value, str) for value in values):
        return values
    return [float(value) for value in as_array(values).ravel()]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else f"{value + 0.0:.3g}"  # + 0.0: not -0
