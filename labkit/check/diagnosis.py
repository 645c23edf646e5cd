"""Which mistake a wrong answer comes from, told by what came.

On an example that is small enough to follow by hand, a check knows what each common mistake would give.
The first one that gives exactly what came names the hint. If none does, there is no hint, or one that is
true of every answer: a hint that points the wrong way is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from labkit.check.engine import Failed, as_array, expect_close

Mistakes = Iterable[tuple[str, Any]]
"""(hint, what the mistake gives: numbers of the result's shape, or a function that calculates them)."""


def named(got: Any, mistakes: Mistakes, tolerance: float = 1e-5) -> str | None:
    """The hint of the first mistake that gives what came, to within `tolerance`; None if none does."""
    try:
        came = as_array(got)
    except (TypeError, ValueError, RuntimeError):
        return None
    for hint, gives in mistakes:
        values = as_array(gives() if callable(gives) else gives)
        if came.shape == values.shape and np.allclose(came, values, 0.0, tolerance, equal_nan=True):
            return hint
    return None


def expect_named(
    got: Any,
    wanted: Any,
    what: str,
    mistakes: Mistakes = (),
    tolerance: float = 1e-6,
    otherwise: str | None = None,
    picture: Callable[[], str] | None = None,
) -> None:
    """`expect_close`, with the hint of the mistake that gives what came, and a picture below the sentence.

    otherwise: the hint if no mistake gives it; it has to be true of any answer.
    picture: draws the table; only asked for numbers of the right shape.
    """
    try:
        expect_close(got, wanted, what, tolerance)
    except Failed as verdict:
        message, hint = str(verdict), named(got, mistakes) or otherwise
        if picture is not None and shape_of(got) == as_array(wanted).shape:
            message += "\n" + picture()
        raise Failed(message, hint) from None


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
