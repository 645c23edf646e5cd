"""The instant checks of `prune_by_percentage`: which weights go."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit.check.diagnosis import Near, expect_named, named_in, table
from labkit.check.engine import Suite
from labkit.check.fixtures import with_weight
from labkit.check.nets import Before
from labkit.check.suites import public_suite

NOTHING = "nothing changed: the zeros have to end up in {}, in place; a copy does not help."
SIGNED = "the percentile is taken of w itself: take it of the magnitudes |w|."
SIGNED_MASK = "compare |w| with the threshold, not w: a large negative weight is not a small one."
SIGNED_BOTH = (
    "signed weights: take the percentile of |w|, and compare |w| with it, so that the sign does not count."
)
FRACTION = "np.percentile takes q from 0 to 100, so it is not divided by 100 (torch.quantile takes 0 to 1)."
LARGEST = "the largest weights went: keep those with |w| >= t."
KEPT = "q percent of the weights stayed, but q percent have to go."
SIGNS = "the signs are lost: multiply the weight by the mask, not |w|."
MASK = "this is the mask itself: multiply the weight by it."
IGNORED = "70 percent went, whatever q says: take the percentile at q."
SHARE = "q percent of the largest |w| is not a percentile: np.percentile sorts the weights and counts them."
SQUARED = "w squared is compared with a percentile of |w|: compare |w|."
COUNTED = "do not round q percent to a number of weights: take t = np.percentile(|w|, q) and keep |w| >= t."
DECIMALS = "percentages have decimals, as in q = 0.5: do not round them."
INTERPOLATED = "between two weights the percentile is interpolated, which is np.percentile's default."
AT_THRESHOLD = "a weight equal to the threshold stays: keep |w| >= t, not |w| > t."
SMALL_Q = "q is always in percent: q = 0.5 means half a percent of the weights, not half of them."
ALMOST = "they are made small, not zero: a pruned weight is exactly 0.0."

TEN = np.array([[-14.0, -5, -3, 1, 4], [-8, -2, 6, 7, 10]])
BIAS = (0.5, -20.0)
PERCENTAGES = (60.0, 85.0, 12.0, 0.5, 0.0)


def ten_weights_pruned(q: float) -> np.ndarray:
    """TEN as it should be after pruning."""
    return TEN * (np.abs(TEN) >= np.percentile(np.abs(TEN), q))


def layer_mistakes(q: float) -> list[tuple[str, Any]]:
    """What common mistakes make of TEN."""
    w, a = TEN, np.abs(TEN)
    t, signed = np.percentile(a, q), np.percentile(w, q)
    rank, part = a.ravel().argsort().argsort().reshape(a.shape), q / 100 * a.size
    return [
        (NOTHING.format("layer.weight itself"), w),
        (SIGNED, w * (a >= signed)),
        (SIGNED_MASK, w * (w >= t)),
        (SIGNED_BOTH, w * (w >= signed)),
        (FRACTION, w * (a >= np.percentile(a, q / 100))),
        (LARGEST, w * (a <= t)),
        (KEPT, w * (a >= np.percentile(a, 100 - q))),
        (SHARE, w * (a >= q / 100 * a.max())),
        (
            "each row has a threshold of its own: take one percentile over the whole layer.",
            w * (a >= np.percentile(a, q, axis=1, keepdims=True)),
        ),
        (SIGNS, a * (a >= t)),
        (MASK, 1.0 * (a >= t)),
        (IGNORED, w * (a >= np.percentile(a, 70))),
        (SQUARED, w * (w * w >= t)),
        *((COUNTED, w * (rank >= whole(part))) for whole in (math.floor, round, math.ceil)),
        (DECIMALS, w * (a >= np.percentile(a, int(q)))),
        (INTERPOLATED, w * (a >= np.percentile(a, q, method="lower"))),
        (INTERPOLATED, w * (a >= np.percentile(a, q, method="nearest"))),
        (AT_THRESHOLD, w * (a > t)),
        (SMALL_Q, w * (a >= np.percentile(a, 100 * q if q <= 1 else q))),
        (ALMOST, Near(w * (a >= t))),
    ]


def prune_by_percentage(answer: Any) -> Suite:
    suite = public_suite(answer, "prune_by_percentage")

    def pruned(prune: Any, q: float) -> torch.Tensor:
        layer: Any = nn.Linear(5, 2) if q == PERCENTAGES[0] else nn.Conv2d(1, 2, (1, 5))
        prune(with_weight(layer, torch.from_numpy(TEN).reshape(layer.weight.shape)), q=q)
        return layer.weight.flatten(1)

    def hint(prune: Any) -> str | None:
        return named_in((partial(pruned, prune, q), partial(layer_mistakes, q)) for q in PERCENTAGES)

    def expect_pruned(prune: Any, q: float, what: str = "the weight") -> None:
        wanted, got = ten_weights_pruned(q), pruned(prune, q)

        def picture() -> str:
            return table({"weight": TEN, "should": wanted, "is": got})

        expect_named(got, wanted, what, lambda: hint(prune), 0.0, picture)

    @suite.check()
    def smallest_go(prune: Any) -> None:
        """Of ten weights, q = 60 takes the six smallest in magnitude and leaves the rest as they were."""
        expect_pruned(prune, 60.0)

    @suite.check(after=smallest_go)
    def percent(prune: Any) -> None:
        """q is in percent: of a convolution's ten weights 0 takes none, 0.5 one, 12 two and 85 eight."""
        for q in PERCENTAGES[1:]:
            expect_pruned(prune, q, f"with q = {q:g}, the weight")

    @suite.check()
    def in_place(prune: Any) -> None:
        """layer.weight stays the same Parameter, with its dtype and device; the bias stays as it was."""
        layer = with_weight(nn.Conv2d(1, 2, (1, 5)), torch.from_numpy(TEN).reshape(2, 1, 1, 5))
        layer.bias = nn.Parameter(torch.tensor(BIAS))
        before = Before(layer)
        prune(layer, q=30.0)
        before.expect_only_zeros(layer, lambda: hint(prune))

    return suite
