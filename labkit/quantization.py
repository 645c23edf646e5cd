"""What a quantizer did to the weights: how many levels there are, and whether they are evenly spaced.

This module measures. How a weight finds its level is the notebooks' question. `distinct_levels`
counts the values of one tensor, `levels_report` says for each quantized layer of a net how many of
its 2^bits levels are in use, and `grid` gives the evenly spaced values themselves, for pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import arguments
from labkit.errors import ArgumentError
from labkit.models import quantized_layers
from labkit.sparsity import html_table

# Values closer than this share of the range are one level: float32 formulas differ by as much.
TOLERANCE = 1e-6
MOST_GRID_BITS = 20  # a million values; nobody looks at more


def grid(low: float, high: float, bits: int) -> Tensor:
    """The 2^bits evenly spaced values low + (high - low) * k / (2^bits - 1), k = 0..2^bits - 1.

    Returns float64 (2^bits,), both ends exact. Raises ArgumentError unless bits is 1 to 20.
    """
    bits = arguments.whole_number(bits, "bits", 1, MOST_GRID_BITS)
    values: Tensor = torch.linspace(low, high, 2**bits, dtype=torch.float64)
    return values


def distinct_levels(w: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """The different values of w, smallest first, as float64 (levels,).

    tolerance: values that lie within tolerance * (max - min) of the smallest of their group count as
        one, and that smallest stands for them. 0 merges nothing but equal values.

    Raises ArgumentError, a ValueError, if w is not a tensor, or holds NaN or infinity.
    """
    values: Tensor = torch.unique(arguments.tensor(w, "w").detach().cpu().double())
    if not bool(torch.isfinite(values).all()):
        raise ArgumentError("cannot count levels: the tensor holds NaN or infinity")
    if len(values) < 2:
        return values
    reach = arguments.number(tolerance, "tolerance") * float(values[-1] - values[0])
    levels: list[float] = []
    for value in values.tolist():
        # measured from the group's first value: a chain of near neighbours is no level
        if not levels or value - levels[-1] > reach:
            levels.append(value)
    return torch.tensor(levels, dtype=torch.float64)


def grid_step(levels: Tensor, bits: int) -> float | None:
    """The step of the coarsest evenly spaced grid that holds all `levels`, or None if there is none.

    levels: distinct values, smallest first. The ends are on the grid; between them at most 2^bits - 1
    steps, some of whose levels may be unused. None too for fewer than two levels: they have no step.
    """
    if len(levels) < 2 or len(levels) > 2**bits:
        return None
    values = levels.double().numpy()
    span = float(values[-1] - values[0])
    places = (values - values[0]) / span
    if bits <= 12:
        counts = range(len(values) - 1, 2**bits)
    else:  # too many to try: the narrowest gap must be one step
        steps = round(1 / float(np.diff(places).min()))
        counts = range(steps, steps + 1)
    for count in counts:
        if np.abs(places * count - np.round(places * count)).max() <= 2 * TOLERANCE * count:
            return span / count
    return None


@dataclass(frozen=True)
class LayerLevels:
    """What one quantized layer's effective weights are.

    levels: distinct values among the nonzero, finite weights. smallest, largest: of the same, None if
    there are none. step: between neighbouring levels, None if they are not evenly spaced or fewer
    than two. bad: how many weights are NaN or infinite.
    """

    name: str
    bits: int
    total: int
    zeros: int
    levels: int
    smallest: float | None
    largest: float | None
    step: float | None
    bad: int = 0

    @property
    def allowed(self) -> int:
        """How many levels this bit width offers: 2^bits."""
        return int(2**self.bits)

    @property
    def evenly_spaced(self) -> bool:
        """Whether all levels lie on one evenly spaced grid of at most 2^bits values."""
        return self.levels < 2 or self.step is not None

    @property
    def spacing(self) -> str:
        if self.levels == 0:
            return "no weight left"
        if self.levels == 1:
            return "one level"
        return f"step {self.step:.4f}" if self.step is not None else "not evenly spaced"

    def __str__(self) -> str:
        parts = [f"{self.levels} of {self.allowed} ({_bits(self.bits)})", self.spacing]
        if self.smallest is not None and self.largest is not None:
            parts.append(f"{self.smallest:.2f} to {self.largest:.2f}")
        parts.append(f"{self.zeros} zeros")
        if self.bad:
            parts.append(f"{self.bad} NaN or infinite")
        return f"Levels of {self.name}: {', '.join(parts)}"


@dataclass(frozen=True)
class LevelsReport:
    """The levels of every quantized layer; `print(report)` gives a line per layer."""

    rows: tuple[LayerLevels, ...]

    @property
    def evenly_spaced(self) -> bool:
        return all(row.evenly_spaced for row in self.rows)

    def __str__(self) -> str:
        return "\n".join(str(row) for row in self.rows) or "No layer of this net is quantized (bits=None)."

    def _repr_html_(self) -> str:
        head = ("layer", "bits", "levels", "spacing", "smallest", "largest", "zeros", "weights")
        lines = []
        for row in self.rows:
            smallest, largest = ("" if end is None else f"{end:.4f}" for end in (row.smallest, row.largest))
            bad = f" ({row.bad:,} NaN or infinite)" if row.bad else ""
            counts = (f"{row.zeros:,}", f"{row.total:,}{bad}")
            levels = f"{row.levels} of {row.allowed}"
            lines.append((row.name, str(row.bits), levels, row.spacing, smallest, largest, *counts))
        return html_table("Levels by quantized layer", head, lines)


@torch.no_grad()
def levels_report(net: nn.Module) -> LevelsReport:
    """Counts the levels of each quantized layer's effective weight, zeros (the pruned ones) apart."""
    rows = []
    for name, layer in quantized_layers(net):
        bits = layer.bits or 0
        w = layer.effective_weight.detach().cpu().double().flatten()
        finite = w[torch.isfinite(w)]
        levels = distinct_levels(finite[finite != 0])
        rows.append(
            LayerLevels(
                name=name,
                bits=bits,
                total=w.numel(),
                zeros=int((w == 0).sum()),
                levels=len(levels),
                smallest=float(finite[finite != 0].min()) if len(levels) else None,
                largest=float(finite[finite != 0].max()) if len(levels) else None,
                step=grid_step(levels, bits),
                bad=w.numel() - finite.numel(),
            )
        )
    return LevelsReport(tuple(rows))


def _bits(bits: int) -> str:
    return "1 bit" if bits == 1 else f"{bits} bits"
