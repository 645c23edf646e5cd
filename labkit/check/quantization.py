"""The instant checks of `STE`: six weights on the four levels of 2 bits, and what goes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.check.diagnosis import expect_named, named, shape_of, table
from labkit.check.engine import UNANSWERED, Failed, Suite, as_array, expect, expect_close
from labkit.check.suites import public_suite

SIX = np.array([[-1.0, -0.6, -0.35], [0.1, 0.4, 0.8]])
BIT = 2
LEVELS = "the levels are k / (2^bit - 1) of the way from {}; k = 0 ... 2^bit - 1."
ENDS = {True: "-m to m, m = max|w|", False: "the lowest weight to the highest"}
THREE_VALUES = "backward returns one value for each argument of forward: g, None, None."


def on_grid(
    w: np.ndarray,
    low: Any,
    high: Any,
    steps: int = 2**BIT - 1,
    to_whole: Callable[[np.ndarray], np.ndarray] = np.round,
) -> np.ndarray:
    """w on the levels from low to high, so many steps apart."""
    return low + to_whole((w - low) / (high - low) * steps) / steps * (high - low)


M = np.abs(SIX).max()
ASYMMETRIC = on_grid(SIX, SIX.min(), SIX.max())
SYMMETRIC = on_grid(SIX, -M, M)


def _common(low: float, high: float, wanted: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What mistakes make of SIX that either grid, from low to high, can suffer from."""
    n, length = 2**BIT - 1, high - low
    u = (SIX - low) / length
    down = "torch.round goes to the nearest level; floor and int() always go down."
    yield down, on_grid(SIX, low, high, to_whole=np.floor)
    yield (
        "torch.round goes to the nearest level; ceil always goes up.",
        on_grid(SIX, low, high, to_whole=np.ceil),
    )
    steps = "2^bit levels have 2^bit - 1 steps between them."
    yield steps, on_grid(SIX, low, high, 2**BIT)
    yield steps, low + np.minimum(np.round(u * 2**BIT), n) / 2**BIT * length
    yield (
        "add the offset beta again at the end: the grid starts there, not at 0.",
        np.round(u * n) / n * length,
    )
    yield (
        "that is the number k of each level: asked for is the level, beta + alpha k / (2^bit - 1).",
        np.round(u * n),
    )
    back = "that is a share from 0 to 1: scale back, beta + alpha k / (2^bit - 1)."
    yield back, np.round(u * n) / n
    yield "nothing was rounded: w came back as it was.", SIX
    yield "half precision loses digits: calculate in the dtype of w.", wanted.astype(np.float16)


def asymmetric_mistakes() -> Iterator[tuple[str, np.ndarray]]:
    """What common mistakes make of SIX where the grid goes from the lowest weight to the highest."""
    low, high, n = SIX.min(), SIX.max(), 2**BIT - 1
    yield from _common(low, high, ASYMMETRIC)
    other = "that is the grid from -m to m: if symmetric is False, alpha = max(w) - min(w) and beta = min(w)."
    yield other, SYMMETRIC
    step, through_0 = (
        (high - low) / n,
        "subtract beta = min(w) before rounding: the grid starts there, and 0 is no level.",
    )
    yield through_0, np.round(SIX / step) * step
    rows = "each row has a grid of its own: take min and max of the whole tensor."
    yield rows, on_grid(SIX, SIX.min(axis=1, keepdims=True), SIX.max(axis=1, keepdims=True))


def symmetric_mistakes() -> Iterator[tuple[str, np.ndarray]]:
    """What common mistakes make of SIX where the grid goes from -m to m."""
    m = M
    half = max(2 ** (BIT - 1) - 1, 1)
    yield from _common(-m, m, SYMMETRIC)
    yield (
        "that is the asymmetric grid, from min(w) to max(w): if symmetric is True, from -m to m, m = max|w|.",
        ASYMMETRIC,
    )
    zero = "that grid has zero as a level, and one level fewer: asked for are 2^bit levels, none at zero."
    yield zero, np.round(SIX / m * half) / half * m
    yield "m is the largest magnitude, max|w|, not the largest weight.", on_grid(SIX, -SIX.max(), SIX.max())
    narrow = "the steps are half as wide as they should be: from -m to m is 2 m, with 2^bit levels in all."
    yield narrow, on_grid(SIX, -m, 0.0)
    rows = "each row has an m of its own: take max|w| of the whole tensor."
    m_rows = np.abs(SIX).max(axis=1, keepdims=True)
    yield rows, on_grid(SIX, -m_rows, m_rows)
    sigma = 3 * SIX.std(ddof=1)
    yield (
        "m is max|w| itself, not a multiple of the standard deviation.",
        on_grid(np.clip(SIX, -sigma, sigma), -sigma, sigma),
    )


def gradient_mistakes(came: Any, sent: np.ndarray, is_symmetric: bool) -> Iterator[tuple[str, Any]]:
    """What arrives at SIX if backward makes something else of the gradient that was sent."""
    yield "that is the true gradient of round, which is zero: return g itself.", np.zeros_like(sent)
    yield "that is 1 whatever was sent: return g itself.", np.ones_like(sent)
    plain = "autograd went through round by itself: a torch.autograd.Function with a backward that returns g."
    yield plain, lambda: _by_autograd(sent, is_symmetric)
    if shape_of(came) == sent.shape:
        got = as_array(came)
        clipped = "the gradient is clipped: return g as it is."
        yield clipped, np.clip(sent, -np.abs(got).max(), np.abs(got).max())
        yield "the gradient is scaled: return g as it is.", sent * got.ravel()[-1] / sent.ravel()[-1]


def _by_autograd(sent: np.ndarray, is_symmetric: bool) -> np.ndarray:
    """The gradient of the formula itself."""
    w = torch.from_numpy(SIX).requires_grad_()
    low, high = (-w.abs().max(), w.abs().max()) if is_symmetric else (w.min(), w.max())
    n = 2**BIT - 1
    q = low + (high - low) * torch.round((w - low) / (high - low) * n) / n
    (gradient,) = torch.autograd.grad(q, w, torch.from_numpy(sent))
    return gradient.numpy()


def six() -> Tensor:
    return torch.from_numpy(SIX).float()


def _swapped(ste: Any) -> Callable[[], np.ndarray]:
    """What the symmetric branch gives if the two branches are swapped."""

    def gives() -> np.ndarray:
        other = None
        with contextlib.suppress(Exception, NotImplementedError):
            other = named(ste.apply(six(), BIT, False), [("swapped", SYMMETRIC)])
        return ASYMMETRIC if other else np.empty(0)

    return gives


def _expect_grid(ste: Any, got: Any, symmetric: bool, call: str) -> None:
    wanted = SYMMETRIC if symmetric else ASYMMETRIC
    expect(got is not None, f"{call} gives nothing (None)", "forward has to end in `return ...`.")
    if isinstance(got, Tensor) and got.shape != wanted.shape and got.numel() == wanted.size:
        message = f"a w of shape {wanted.shape} came back as {tuple(got.shape)}"
        raise Failed(message, "give the result in the shape of w.")
    mistakes: list[tuple[str, Any]] = list(symmetric_mistakes() if symmetric else asymmetric_mistakes())
    if symmetric:
        mistakes.insert(0, ("the branches are swapped: with symmetric=True from -m to m.", _swapped(ste)))

    def picture() -> str:
        return table({"w": SIX, "should": wanted, "is": got})

    expect_named(got, wanted, call, mistakes, 1e-5, LEVELS.format(ENDS[symmetric]), picture)


def STE(answer: Any, symmetric: bool = False) -> Suite:  # noqa: N802 (named after the student's class)
    suite = public_suite(answer, "STE, symmetric" if symmetric else "STE")

    @suite.check()
    def levels(ste: Any) -> None:
        """At 2 bits each of six weights lands on the nearest of four levels; w itself stays as it was."""
        w = six()
        got = ste.apply(w, BIT, symmetric)
        hint = (
            "no operation whose name ends in _, no += and no w[...] = ... on w: it is the layer's own weight."
        )
        expect(torch.equal(w, six()), "w itself was changed", hint)
        _expect_grid(ste, got, symmetric, f"STE.apply(w, {BIT}, {symmetric})")

    if symmetric:

        @suite.check()
        def other_branch(ste: Any) -> None:
            """Without symmetric=True the six weights still land on the grid of notebook 05."""
            try:
                got = ste.apply(six(), BIT)
            except NotImplementedError:
                raise Failed(UNANSWERED, "bring your asymmetric branch over from notebook 05.") from None
            _expect_grid(ste, got, False, f"STE.apply(w, {BIT})")

    @suite.check()
    def zero(ste: Any) -> None:
        """A weight that is exactly zero (a pruned one) stays exactly zero."""
        pruned = torch.tensor([-0.9, 0.0, 0.31, 0.0, 0.6])
        got = ste.apply(pruned, 3, symmetric)
        expect_close(got[[1, 3]], [0.0, 0.0], "the pruned weights", 0.0, "multiply by (w != 0) at the end.")

    @suite.check()
    def gradient(ste: Any) -> None:
        """The gradient passes straight through: backward hands it on unchanged."""
        w, sent = six().requires_grad_(), torch.tensor([[-3.0, -0.5, 2.0], [0.25, 5.0, -1.5]])
        got = ste.apply(w, BIT, symmetric)
        cut = "is STE a torch.autograd.Function, with a backward, and is its result made from w in forward?"
        expect(got.requires_grad, "the result is cut off from w: no gradient can pass", cut)
        try:
            (got.reshape(2, 3) * sent).sum().backward()
        except NotImplementedError:
            raise Failed(UNANSWERED, f"{THREE_VALUES} It still has to be written.") from None
        expect(w.grad is not None, "no gradient arrived at w", THREE_VALUES)
        general = "backward hands on g as it is: not clipped, scaled or masked."
        mistakes = gradient_mistakes(w.grad, sent.double().numpy(), symmetric)
        expect_named(w.grad, sent, "the gradient", mistakes, otherwise=general)

    @suite.check()
    def floating_point(ste: Any) -> None:
        """bit = None leaves the weights in floating point, bit = 0 makes all of them zero."""
        got, zeros = ste.apply(six(), None, symmetric), torch.zeros(2, 3)
        not_bit = "`if not bit` is true of None and of 0: ask `if bit is None`, and `if bit == 0` for zeros."
        expect_named(got, six(), "STE.apply(w, None)", [(not_bit, zeros)], 0.0)
        got = ste.apply(six(), 0, symmetric)
        own_case = "bit == 0 is a case of its own: zeros in the shape of w (2^0 - 1 = 0 steps make no grid)."
        expect_named(got, zeros, "STE.apply(w, 0)", [(not_bit, six())], 0.0, own_case)

    return suite
