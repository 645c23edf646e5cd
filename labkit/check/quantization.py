"""The instant checks of `STE`: six weights on the levels of 2 and of 3 bits, and what goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from labkit.check.diagnosis import Example, Mistakes, expect_named, named, named_in, shape_of, table
from labkit.check.engine import UNANSWERED, Failed, Suite, expect, expect_close
from labkit.check.suites import public_suite

SIX = np.array([[-1.7, -0.6, -0.3], [0.2, 0.7, 0.8]])


class Case(NamedTuple):
    """Weights to quantize, and to how many bits."""

    w: np.ndarray
    bit: int

    @property
    def tensor(self) -> Tensor:
        return torch.from_numpy(self.w).float()


# 2 * 2 and 2^2 are the same number, -m may be min(w), and a range of 1 hides a scale: so two of them
CASES = (Case(SIX, 2), Case(SIX / -100, 3))
FORMULA = {
    True: "the levels are k / (2^bit - 1) of the way from -m to m, m = max|w|; k = 0 ... 2^bit - 1.",
    False: "the levels are k / (2^bit - 1) of the way from min(w) to max(w); k = 0 ... 2^bit - 1.",
}
NOT_ASYMMETRIC = (
    "this is the grid from -m to m: if symmetric is False, alpha = max(w) - min(w) and beta = min(w)."
)
NOT_SYMMETRIC = (
    "this is the asymmetric grid, from min(w) to max(w): if symmetric is True, from -m to m, m = max|w|."
)
BRANCHES = "the branches are swapped: with symmetric=True from -m to m."
THREE_VALUES = "backward returns one value for each argument of forward: g, None, None."
IN_PLACE = "no operation whose name ends in _, no += and no w[...] = ... on w: it is the layer's own weight."
MASK = "multiply by (w != 0) at the end."
ONLY_ZEROS = "only weights that are exactly 0 stay 0: the mask is w != 0, without a tolerance."
GUARD = "the range can be 0: divide by alpha + 1e-8."
TWO_CASES = (
    "bit is None leaves w as it is, bit == 0 gives zeros: two cases, and `if not bit` is true of both."
)
ZERO_BITS = "bit == 0 is a case of its own: zeros in the shape of w (2^0 - 1 = 0 steps make no grid)."


def on_grid(
    w: np.ndarray,
    low: Any,
    high: Any,
    steps: float,
    to_whole: Callable[[np.ndarray], np.ndarray] = np.round,
) -> np.ndarray:
    """w on the levels from low to high, so many steps apart; NaN where there is no step."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return low + to_whole((w - low) / (high - low) * steps) / np.float64(steps) * (high - low)


def ends(w: np.ndarray, symmetric: bool) -> tuple[float, float]:
    m = np.abs(w).max()
    return (-m, m) if symmetric else (w.min(), w.max())


def on_levels(case: Case, symmetric: bool) -> np.ndarray:
    """The weights as they should be quantized."""
    return on_grid(case.w, *ends(case.w, symmetric), 2**case.bit - 1)


def _common(case: Case, symmetric: bool) -> Iterator[tuple[str, np.ndarray]]:
    """What mistakes that either grid can suffer from make of the weights."""
    (w, bit), (low, high) = case, ends(case.w, symmetric)
    n, length = 2**bit - 1, high - low
    u = (w - low) / length
    down = "torch.round goes to the nearest level; floor and int() always go down."
    yield down, on_grid(w, low, high, n, np.floor)
    guarded = (w - low).astype("f4") / (np.float32(length) + np.float32(1e-8)) * n
    yield down, low + np.floor(guarded) / n * length  # which can lose the top level
    yield "torch.round goes to the nearest level; ceil always goes up.", on_grid(w, low, high, n, np.ceil)
    power = "in Python 2 ^ bit is not a power: write 2**bit."
    for steps in ((2 ^ bit) - 1, 2 ^ (bit - 1), 2 ^ bit):
        yield power, on_grid(w, low, high, steps)
    levels = "the number of levels is 2 to the power of bit: 2**bit."
    for steps in (2 * bit - 1, bit**2 - 1, bit - 1, bit):
        yield levels, on_grid(w, low, high, steps)
    yield "the number of levels depends on bit: 2**bit, 4 only for 2 bits.", on_grid(w, low, high, 3)
    fewer = "there are 2^bit levels from one end to the other: 2^bit - 1 steps, not fewer."
    yield fewer, on_grid(w, low, high, 2 ** (bit - 1) - 1)
    yield fewer, on_grid(w, low, high, 2 ** (bit - 1))
    if not symmetric:  # where it is the grid with a level at zero
        yield fewer, on_grid(w, low, high, 2**bit - 2)
    many = "2^bit levels have 2^bit - 1 steps between them."
    yield many, on_grid(w, low, high, 2**bit)
    yield many, low + np.minimum(np.round(u * 2**bit), n) / 2**bit * length
    offset = "add the offset beta again at the end: the grid starts there, not at 0."
    yield offset, np.round(u * n) / n * length
    number = "this is the number k of each level: return the level, beta + alpha k / (2^bit - 1)."
    yield number, np.round(u * n)
    yield "this is a share from 0 to 1: scale back, beta + alpha k / (2^bit - 1).", np.round(u * n) / n
    scale = "take alpha and beta from w: its range is not 1."
    yield scale, on_grid(w.clip(-1, 1), -1.0, 1.0, n)
    yield scale, on_grid(w, -1.0, 1.0, n)
    yield scale, on_grid(w, 0.0, 1.0, n)
    yield scale, on_grid(w.clip(0, 1), 0.0, 1.0, n)
    yield scale, np.round(w * n) / n
    yield scale, np.round(w.clip(-1, 1) * n) / n
    guard = "the number that guards against 0 / 0 is too large for small weights: 1e-8."
    k = np.round((w - low) / (length + 1e-2) * n)
    yield guard, low + k / n * length
    yield guard, low + k / n * (length + 1e-2)
    yield guard, on_grid(w, low, high + 1e-3, n)
    yield ONLY_ZEROS, on_levels(case, symmetric) * (np.abs(w) > 1e-2)
    yield "nothing was rounded: w came back as it was.", w
    yield "half precision loses digits: calculate in the dtype of w.", on_levels(case, symmetric).astype("f2")


def asymmetric_mistakes(case: Case) -> Iterator[tuple[str, Any]]:
    """What common mistakes make of the weights where the grid goes from the lowest weight to the highest."""
    w, n = case.w, 2**case.bit - 1
    yield from _common(case, False)
    yield NOT_ASYMMETRIC, on_levels(case, True)
    step = (w.max() - w.min()) / n
    through_0 = "subtract beta = min(w) before rounding: the grid starts there, and 0 is no level."
    yield through_0, np.round(w / step) * step
    rows = "each row has a grid of its own: take min and max of the whole tensor."
    yield rows, on_grid(w, w.min(axis=1, keepdims=True), w.max(axis=1, keepdims=True), n)


def symmetric_mistakes(case: Case) -> Iterator[tuple[str, Any]]:
    """What common mistakes make of the weights where the grid goes from -m to m."""
    w, m, n = case.w, np.abs(case.w).max(), 2**case.bit - 1
    half = max(2 ** (case.bit - 1) - 1, 1)
    yield from _common(case, True)
    yield NOT_SYMMETRIC, on_levels(case, False)
    zero = "this grid has zero as a level and one level fewer: use 2^bit levels, none of them zero."
    yield zero, np.round(w / m * half) / half * m
    largest = "m is the largest magnitude, max|w|, not the largest weight."
    yield largest, on_grid(w, -w.max(), w.max(), n)
    yield "m is the largest magnitude, max|w|, not |min(w)|.", on_grid(w, w.min(), -w.min(), n)
    narrow = "the steps are half as wide as they should be: from -m to m is 2 m, with 2^bit levels in all."
    yield narrow, on_grid(w, -m, 0.0, n)
    yield narrow, np.sign(w) * on_grid(np.abs(w), 0.0, m, n)
    back = "scale back by alpha = 2 m, as it was divided: beta + alpha k / (2^bit - 1)."
    yield back, np.round((w + m) / (2 * m) * n) / n * m - m
    m_rows = np.abs(w).max(axis=1, keepdims=True)
    yield "each row has an m of its own: take max|w| of the whole tensor.", on_grid(w, -m_rows, m_rows, n)
    sigma = 3 * w.std(ddof=1)
    deviation = "m is max|w| itself, not a multiple of the standard deviation."
    yield deviation, on_grid(w.clip(-sigma, sigma), -sigma, sigma, n)


def gradient_mistakes(came: Any, w: np.ndarray, sent: np.ndarray, symmetric: bool) -> Mistakes:
    """What arrives at w if backward makes something else of the gradient that was sent."""
    yield "this is the true gradient of round, which is zero: return g itself.", np.zeros_like(sent)
    yield "this is 1 whatever was sent: return g itself.", np.ones_like(sent)
    plain = "autograd went through round by itself: a torch.autograd.Function with a backward that returns g."
    yield plain, lambda: _by_autograd(w, sent, symmetric)
    yield "the zero mask belongs to forward only: return g for weights that are zero, too.", sent * (w != 0)
    yield "the gradient is cut where |w| > 1: return g itself for every weight.", sent * (np.abs(w) <= 1)
    if shape_of(came) == sent.shape:
        largest = np.abs(came.double().numpy()).max()
        yield "the gradient is clipped: return g as it is.", sent.clip(-largest, largest)
        yield "the gradient is scaled: return g as it is.", sent * float(came.ravel()[-1]) / sent.ravel()[-1]


def _by_autograd(weights: np.ndarray, sent: np.ndarray, symmetric: bool) -> np.ndarray:
    """The gradient of the formula itself, at 2 bits."""
    w = torch.from_numpy(weights).requires_grad_()
    low, high = (-w.abs().max(), w.abs().max()) if symmetric else (w.min(), w.max())
    q = (low + (high - low) * torch.round((w - low) / (high - low) * 3) / 3) * (w != 0)
    (gradient,) = torch.autograd.grad(q, w, torch.from_numpy(sent))
    return gradient.numpy()


def grid_hint(ste: Any, *branch: bool) -> str:
    """The mistake that gives what came for both cases, or the formula."""
    symmetric = branch == (True,)

    def example(case: Case, *branch: bool) -> Example:
        size, mistakes = (
            np.abs(case.w).max(),
            symmetric_mistakes if branch == (True,) else asymmetric_mistakes,
        )
        return (
            lambda: ste.apply(case.tensor, case.bit, *branch) / size,
            lambda: ((hint, values / size) for hint, values in mistakes(case)),
        )

    found = named_in(example(case, *branch) for case in CASES)
    if found == NOT_SYMMETRIC and named_in(example(case, False) for case in CASES) == NOT_ASYMMETRIC:
        return BRANCHES
    return found or FORMULA[symmetric]


def expect_grid(ste: Any, case: Case, *branch: bool) -> None:
    """Fail unless the weights come back on the nearest levels, and w itself is as it was."""
    symmetric, w = branch == (True,), case.tensor
    call = f"STE.apply({', '.join(['w', *map(str, (case.bit, *branch))])})"
    got, wanted = ste.apply(w, case.bit, *branch), on_levels(case, symmetric)
    expect(torch.equal(w, case.tensor), "w itself was changed", IN_PLACE)
    expect(got is not None, f"{call} gives nothing (None)", "forward has to end in `return ...`.")
    if isinstance(got, Tensor) and got.shape != wanted.shape and got.numel() == wanted.size:
        message = f"a w of shape {wanted.shape} came back as {tuple(got.shape)}"
        raise Failed(message, "give the result in the shape of w.")

    def picture() -> str:
        return table({"w": case.w, "should": wanted, "is": got})

    tolerance = 2e-6 * float(np.ptp(case.w))
    expect_named(got, wanted, call, lambda: grid_hint(ste, *branch), tolerance, picture)
    expect(
        got.dtype == w.dtype, f"a float32 w came back as {got.dtype}", "give the result in the dtype of w."
    )


def STE(answer: Any, symmetric: bool = False) -> Suite:  # noqa: N802 (named after the student's class)
    suite = public_suite(answer, "STE, symmetric" if symmetric else "STE")

    @suite.check()
    def levels(ste: Any) -> None:
        """At 2 and 3 bits each of six weights lands on the nearest level; w itself stays as it was."""
        for case in CASES:
            expect_grid(ste, case, symmetric)

    if symmetric:

        @suite.check()
        def other_branch(ste: Any) -> None:
            """Without symmetric=True the six weights still land on the grid of notebook 05."""
            try:
                expect_grid(ste, CASES[0])
            except NotImplementedError:
                raise Failed(UNANSWERED, "bring your asymmetric branch over from notebook 05.") from None

    @suite.check(after=levels)
    def zero(ste: Any) -> None:
        """Weights that are exactly zero (pruned) stay zero, and only they; equal weights give no NaN."""
        case = Case(np.array([-0.9, 0.0, 5e-4, 0.31, 0.0, 0.6]), 3)
        got, levels = ste.apply(case.tensor, case.bit, symmetric), on_levels(case, symmetric)
        mistakes = [(MASK, levels), *((ONLY_ZEROS, levels * (np.abs(case.w) > t)) for t in (1e-3, 0.4))]
        expect_named(got, levels * (case.w != 0), "the result", lambda: named(got, mistakes), 1e-5)
        expect_close(got[[1, 4]], [0.0, 0.0], "the pruned weights", 0.0)
        value = 0.0 if symmetric else -0.25  # where the range is 0
        got = ste.apply(torch.full((2, 3), value), case.bit, symmetric)
        expect(torch.isfinite(got).all(), f"weights that are all {value:g} became NaN or infinite", GUARD)

    @suite.check()
    def gradient(ste: Any) -> None:
        """The gradient passes straight through: backward hands it on unchanged."""
        weights, sent = SIX * (SIX != -0.3), torch.tensor([[-3.0, -0.5, 2.0], [0.25, 5.0, -1.5]])
        w = torch.from_numpy(weights).float().requires_grad_()
        got = ste.apply(w, 2, symmetric)
        cut = "is STE a torch.autograd.Function, with a backward, and is its result made from w in forward?"
        expect(got.requires_grad, "the result is cut off from w: no gradient can pass", cut)
        try:
            (got.reshape(2, 3) * sent).sum().backward()
        except NotImplementedError as error:
            if "must implement" in str(error):  # torch's own: there is no backward at all
                raise
            raise Failed(UNANSWERED, f"{THREE_VALUES} It still has to be written.") from None
        expect(w.grad is not None, "no gradient arrived at w", THREE_VALUES)

        def hint() -> str:
            found = named(w.grad, gradient_mistakes(w.grad, weights, sent.double().numpy(), symmetric))
            return found or "backward hands on g as it is: not clipped, scaled or masked."

        expect_named(w.grad, sent, "the gradient", hint)

    @suite.check()
    def floating_point(ste: Any) -> None:
        """bit = None leaves the weights in floating point, bit = 0 makes all of them zero."""
        w, zeros = torch.from_numpy(SIX).float(), torch.zeros(2, 3)
        came = ste.apply(w.clone(), None, symmetric)
        expect_named(came, w, "STE.apply(w, None)", lambda: named(came, [(TWO_CASES, zeros)]), 0.0)
        came = ste.apply(w.clone(), 0, symmetric)
        expect_named(came, zeros, "STE.apply(w, 0)", lambda: named(came, [(TWO_CASES, w)]) or ZERO_BITS, 0.0)

    return suite
