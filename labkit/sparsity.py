"""How many weights are zero, layer by layer, and a mask that keeps them so.

This module measures. Which weights become zero is decided elsewhere: by the pruning functions that
the notebooks ask for. `sparsity` gives one number, `sparsity_report` a line per layer as the
report prints them, and a `Mask` remembers which weights were there, to be applied after each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor, nn

from labkit import arguments
from labkit.errors import ArgumentError, LabError
from labkit.models import prunable_layers


class MaskError(LabError, ValueError):
    """A mask that is not 0/1, or that belongs to another network."""


def count_zeros(w: Tensor) -> int:
    """How many elements of w are zero; -0.0 is zero, NaN is not."""
    return int((w.detach() == 0).sum())


def sparsity(net_or_layer: nn.Module) -> float:
    """Zeros divided by weights, 0.0 to 1.0: of a layer's `weight`, or of a net's prunable layers together.

    A net is a module that has no `weight` of its own. One without prunable layers has no zeros: 0.0.
    """
    weight = getattr(arguments.network(net_or_layer, "net_or_layer"), "weight", None)
    if isinstance(weight, Tensor):
        return count_zeros(weight) / max(weight.numel(), 1)
    return sparsity_report(net_or_layer).overall


@dataclass(frozen=True)
class LayerSparsity:
    """One line of a report: a layer's name, its zero weights, all its weights."""

    name: str
    zeros: int
    total: int

    @property
    def sparsity(self) -> float:
        return self.zeros / max(self.total, 1)

    def __str__(self) -> str:
        return f"Sparsity of {self.name}: {self.zeros}/{self.total} = {self.sparsity:.4f}"


@dataclass(frozen=True)
class SparsityReport:
    """The zeros of every prunable layer, and of all of them together; `print(report)` gives the lines."""

    rows: tuple[LayerSparsity, ...]

    @property
    def zeros(self) -> int:
        return sum(row.zeros for row in self.rows)

    @property
    def total(self) -> int:
        return sum(row.total for row in self.rows)

    @property
    def overall(self) -> float:
        return self._all.sparsity

    @property
    def _all(self) -> LayerSparsity:
        return LayerSparsity("all prunable weights", self.zeros, self.total)

    def __str__(self) -> str:
        return "\n".join(str(row) for row in (*self.rows, self._all))

    def _repr_html_(self) -> str:
        lines = [
            (row.name, f"{row.zeros:,}", f"{row.total:,}", f"{row.sparsity:.4f}")
            for row in (*self.rows, self._all)
        ]
        return html_table("Sparsity by layer", ("layer", "zeros", "weights", "sparsity"), lines)


def sparsity_report(net: nn.Module) -> SparsityReport:
    """Counts the zeros of each prunable layer of `net`, in the net's own order."""
    return SparsityReport(
        tuple(
            LayerSparsity(name, count_zeros(layer.weight), layer.weight.numel())
            for name, layer in prunable_layers(net)
        )
    )


class Mask:
    """Which weights of each prunable layer stay (1) and which are pruned (0).

    layers: layer name -> tensor of the weight's shape that holds only 0 and 1. A Mask keeps its own
        copy and hands out copies, so it cannot change after it was made.

    Raises MaskError (a ValueError) if a tensor holds anything else.
    """

    __slots__ = ("_pruned",)

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        if not isinstance(layers, Mapping):
            raise ArgumentError(
                f"layers should map names to tensors, not be {arguments.shown(layers)}. "
                "The mask of a network as it is now: Mask.of(net)."
            )
        pruned: dict[str, Tensor] = {}
        for name, values in layers.items():
            arguments.tensor(values, f"the mask of {name}")
            if not bool(((values == 0) | (values == 1)).all()):
                raise MaskError(f"the mask of {name} must hold only 0 and 1, 0 where a weight is pruned")
            pruned[name] = values.detach() == 0
        self._pruned = pruned

    @classmethod
    def of(cls, net: nn.Module) -> Mask:
        """The mask of what `net` is now: 1 where a prunable weight is not zero."""
        return cls({name: layer.weight.detach() != 0 for name, layer in prunable_layers(net)})

    @property
    def layers(self) -> dict[str, Tensor]:
        """Layer name -> bool tensor of the weight's shape, True where the weight stays; a copy."""
        return {name: ~pruned for name, pruned in self._pruned.items()}

    @property
    def sparsity(self) -> float:
        """The share of weights that this mask prunes, 0.0 to 1.0."""
        total = sum(pruned.numel() for pruned in self._pruned.values())
        return sum(int(pruned.sum()) for pruned in self._pruned.values()) / max(total, 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self._pruned.keys() == other._pruned.keys() and all(
            torch.equal(pruned.cpu(), other._pruned[name].cpu()) for name, pruned in self._pruned.items()
        )

    __hash__ = None  # type: ignore[assignment]  # compares by content, and tensors hash by identity

    def __repr__(self) -> str:
        return f"Mask({len(self._pruned)} layers, sparsity {self.sparsity:.4f})"

    @torch.no_grad()
    def apply(self, net: nn.Module) -> None:
        """Sets every pruned weight of `net` to zero, in place: same Parameter, dtype and device.

        Raises MaskError (a ValueError), before anything is changed, if the net's prunable layers
        are not those that the mask was made for.
        """
        layers = dict(prunable_layers(net))
        for name in (*self._pruned, *layers):
            if name not in layers:
                raise MaskError(f"the mask does not fit this net: the net has no prunable layer {name}")
            if name not in self._pruned:
                raise MaskError(f"the mask does not fit this net: the mask has no layer {name}")
            wanted, found = tuple(self._pruned[name].shape), tuple(layers[name].weight.shape)
            if wanted != found:
                raise MaskError(f"the mask does not fit this net: {name} is {found}, its mask {wanted}")
        for name, layer in layers.items():
            # not a product: 0 * inf would be NaN, and 0 * -1 would be -0.0
            layer.weight.masked_fill_(self._pruned[name].to(layer.weight.device), 0)


class KeepZeros:
    """A callback for the training loop: what is zero when it is made is zero after every step.

    Momentum moves a weight whose gradient is zero, and weight decay cannot bring it back: the mask
    has to be applied after the optimizer's step, each time.
    """

    def __init__(self, net: nn.Module) -> None:
        self.mask = Mask.of(net)

    def after_step(self, net: nn.Module) -> None:
        self.mask.apply(net)

    def __repr__(self) -> str:
        return f"KeepZeros({self.mask!r})"


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that a screen reader can walk: a caption, headers with a scope, first column as row headers."""
    pad = "padding: 0.1em 0.8em; "
    columns = "".join(
        f'<th scope="col" style="{pad}text-align: {"left" if i == 0 else "right"}">{escape(name)}</th>'
        for i, name in enumerate(head)
    )
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td style="{pad}text-align: right">{escape(cell)}</td>' for cell in others)
        name = f'<th scope="row" style="{pad}text-align: left; font-weight: normal">{escape(first)}</th>'
        lines.append(f"<tr>{name}{cells}</tr>")
    return (
        f'<table><caption style="text-align: left">{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
