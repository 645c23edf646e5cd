"""Pictures of tensors: the data set's images, weights before and after, masks, levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor, nn

from labkit.datasets import ImageSet
from labkit.models import QuantizedConv, prunable_layers
from labkit.plots.style import BLUE, GREY, PALE, VERMILION, Picture, listing, need, new_picture, short, styled

Weights = nn.Module | Mapping[str, Tensor]


@styled
def pictures(data: ImageSet, n: int = 20) -> Picture:
    """n images of a data set, the first ones of each class, a class in each column."""
    need(range(n), "n is 0")
    need(data, f"{data.name} is empty")
    columns = min(len(data.classes), n)
    rows = math.ceil(n / columns)
    fig = new_picture(height=0.3 + 0.76 * rows)
    axes = fig.subplots(rows, columns, squeeze=False)
    shown = 0
    for label in range(columns):
        found = torch.nonzero(data.labels == label).flatten()[:rows].tolist()
        for row in range(rows):
            ax = axes[row, label]
            ax.set_axis_off()
            if row < len(found) and row * columns + label < n:
                ax.imshow(data.images[found[row]].permute(1, 2, 0).numpy(), interpolation="nearest")
                shown += 1
        axes[0, label].set_title(data.classes[label], fontsize=9)
    names = listing(list(data.classes[:columns]), most=10)
    fig.labkit_alt = f"{shown} images of {data.name}, a class in each column: {names}."
    return fig


@styled
def weight_histograms(
    before: Weights,
    after: Weights,
    layers: Sequence[str] | None = None,
    called: tuple[str, str] = ("before", "after"),
) -> Picture:
    """How each layer's weights are distributed before and after, zeros counted and not drawn.

    before, after: networks (of their prunable layers the effective weights), or name -> tensor.
    layers: the names to draw, all that both have if None. called: what the two are, for the legend.
    """
    old, new = _weights(before), _weights(after)
    names = [name for name in old if name in new] if layers is None else list(layers)
    need(names, "no layer is in both")
    for name in names:
        if name not in old or name not in new:
            raise ValueError(f"there is no layer {name}; there are {listing([*old])}")
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    fig = new_picture(height=0.9 + (1.35 if columns == 4 else 2.4) * rows)
    axes = fig.subplots(rows, columns, squeeze=False).flat
    for ax, name in zip(axes, names, strict=False):
        _histogram(ax, old[name], new[name])
        ax.set_title(short(name), fontsize=9)
        ax.tick_params(labelsize=8)
    for ax in list(axes)[len(names) :]:
        ax.set_axis_off()
    fig.supxlabel("weight", fontsize=10)
    fig.supylabel("weights per bin", fontsize=10)
    counts = [sum(int((w[name] == 0).sum()) for name in names) for w in (old, new)]
    total = sum(new[name].size for name in names)
    zeros = (f": {counts[0]:,} of {total:,} weights are zero", f": {counts[1]:,} zeros")
    first, second = (name + (which if any(counts) else "") for name, which in zip(called, zeros, strict=True))
    fig.legend(
        handles=[
            Patch(facecolor=PALE, edgecolor=GREY, label=first),
            Line2D([], [], color=BLUE, label=second),
        ],
        loc="outside upper center",
        ncols=2,
    )
    fig.labkit_alt = (
        f"Histograms of the nonzero weights of {len(names)} layers ({listing(names, most=3)}) "
        f"{called[0]} and {called[1]}; zeros go from {counts[0]:,} to {counts[1]:,} of {total:,} weights."
    )
    return fig


def _histogram(ax: Any, old: Any, new: Any) -> None:
    values = np.concatenate([old, new])
    values, old, new = (w[np.isfinite(w)] for w in (values, old, new))
    low, high = (float(values.min()), float(values.max())) if values.size else (-1.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 61)
    ax.hist(old[old != 0], bins, color=PALE, edgecolor=GREY, linewidth=0.4, histtype="stepfilled")
    ax.hist(new[new != 0], bins, color=BLUE, linewidth=1.2, histtype="step")
    zeros = [int((w == 0).sum()) for w in (old, new)]
    if not any(zeros):
        return
    text = f"zeros\n{zeros[0]:,}\n→ {zeros[1]:,}"
    ax.text(0.98, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=7.5)


def _weights(source: Weights) -> dict[str, Any]:
    """Layer name -> flat float64 array; a quantized layer's weight is the one that computes."""
    if isinstance(source, nn.Module):
        quantized = {id(m.conv): m for m in source.modules() if isinstance(m, QuantizedConv)}
        found = {
            name: quantized[id(layer)].effective_weight if id(layer) in quantized else layer.weight
            for name, layer in prunable_layers(source)
        }
    else:
        found = dict(source)
    return {name: _array(w).ravel() for name, w in found.items()}


def _array(w: Tensor) -> Any:
    return w.detach().cpu().double().numpy()


@styled
def mask_picture(layer_or_weight: nn.Module | Tensor) -> Picture:
    """Which weights of a layer survive: a kernel for each pair of channels, dark where a weight is not zero.

    layer_or_weight: a layer with a `weight`, or a tensor (out, in) or (out, in, k, k).
    """
    w = layer_or_weight if isinstance(layer_or_weight, Tensor) else getattr(layer_or_weight, "weight", None)
    if not isinstance(w, Tensor) or w.dim() not in (2, 4) or not w.numel():
        raise ValueError("mask_picture draws a weight of shape (out, in) or (out, in, k, k)")
    alive = (_array(w) != 0).astype(float)
    if alive.ndim == 2:
        alive = alive[:, :, None, None]
    out, into, high, wide = alive.shape
    gap = 0 if high == wide == 1 else 1
    tiles = np.full((out, into, high + gap, wide + gap), 0.5)
    tiles[:, :, :high, :wide] = alive
    image = tiles.transpose(0, 2, 1, 3).reshape(out * (high + gap), into * (wide + gap))
    ratio = image.shape[0] / image.shape[1]
    width = 7.0 if ratio <= 1 else max(7.0 / ratio, 3.5)
    fig = new_picture(height=min(max(width * ratio, 1.0), 7.0) + 1.1, width=width + 0.7)
    ax = fig.subplots()
    # extent in channels, so that the ticks count channels and not pixels
    ax.imshow(
        image,
        cmap=ListedColormap(["white", PALE, BLUE]),
        vmin=0,
        vmax=1,
        extent=(0, into, out, 0),
        interpolation="nearest",
        aspect=(high + gap) / (wide + gap),
    )
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(True)
    ax.set_xlabel("input channel")
    ax.set_ylabel("output channel")
    left, total = int(alive.sum()), alive.size
    fig.legend(
        handles=[
            Patch(facecolor=BLUE, edgecolor=GREY, label=f"{left:,} weights left"),
            Patch(facecolor="white", edgecolor=GREY, label=f"{total - left:,} zeros"),
        ],
        loc="outside upper center",
        ncols=2,
    )
    empty = int((alive.sum(axis=(2, 3)) == 0).sum())
    fig.labkit_alt = (
        f"A layer's weights as {out} by {into} kernels of {high} x {wide}: "
        f"{left:,} of {total:,} weights are left, {empty:,} of {out * into:,} kernels are empty."
    )
    return fig


@styled
def levels_picture(weights: Tensor, quantized: Tensor) -> Picture:
    """Which level each weight goes to: the staircase, how many weights are where, and what becomes of zero.

    weights, quantized: the same shape; `quantized` is what a quantizer made of `weights`.
    """
    if weights.shape != quantized.shape:
        raise ValueError(f"weights are {tuple(weights.shape)}, quantized {tuple(quantized.shape)}")
    w, q = _array(weights).ravel(), _array(quantized).ravel()
    need(w, "the tensor is empty")
    if not np.isfinite(w).all():
        raise ValueError("the weights hold NaN or infinity")
    order = np.argsort(w, kind="stable")
    w, q = w[order], q[order]
    finite = np.isfinite(q)
    live, pruned = (w != 0) & finite, w == 0
    levels = np.unique(q[live])
    fig = new_picture(height=5.2)
    top, ax = fig.subplots(2, 1, sharex=True, height_ratios=[1, 3])
    top.hist(w[~pruned], bins=80, color=PALE, edgecolor=GREY, linewidth=0.4, histtype="stepfilled")
    top.set_ylabel("weights\nper bin")
    ax.plot(w, w, color=GREY, linewidth=1, linestyle="--", label="no quantization")
    ax.plot(w[live], q[live], color=BLUE, marker=".", markersize=4, linestyle="none", label="weight → level")
    for level in levels if len(levels) <= 64 else []:
        top.axvline(level, color=BLUE, linewidth=0.8)
        ax.axhline(level, color=BLUE, linewidth=0.4, alpha=0.5)
    notes = []
    if len(levels) and w[0] < 0 < w[-1]:
        nearest = float(levels[np.abs(levels).argmin()])
        notes.append(f"level nearest to zero: {nearest:.4f}" if nearest else "zero is a level")
        ax.axhline(nearest, color=VERMILION, linewidth=1.2, linestyle=":", label=notes[0])
    if pruned.any():
        fate = "not zero any more" if q[pruned].any() else "0"
        notes.append(f"{int(pruned.sum()):,} pruned weights → {fate}")
        ax.plot(
            [0], q[pruned][:1], color=VERMILION, marker="D", markersize=8, linestyle="none", label=notes[-1]
        )
    if not finite.all():
        notes.append(f"{int((~finite).sum()):,} quantized weights are NaN or infinite")
        ax.plot([], [], linestyle="none", label=notes[-1])
    ax.set_xlabel("weight")
    ax.set_ylabel("quantized weight")
    ax.legend(loc="upper left")
    span = f"{int((~pruned).sum()):,} weights from {w[0]:.3f} to {w[-1]:.3f}"
    ends = f" from {levels[0]:.3f} to {levels[-1]:.3f}" if len(levels) else ""
    if finite.any():
        notes.insert(0, f"largest error {float(np.abs(q - w)[finite].max()):.3f}")
    fig.labkit_alt = f"{span} on {len(levels)} level{'s' * (len(levels) != 1)}{ends}; {'; '.join(notes)}."
    return fig
