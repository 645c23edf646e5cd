"""Pictures with a line per layer: how much each can lose, how much each has lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labkit.plots.style import (
    FAINT,
    MARKERS,
    PALE,
    Picture,
    colour,
    line_style,
    need,
    new_picture,
    percent,
    percent_axis,
    short,
    styled,
)
from labkit.sparsity import SparsityReport

Curve = Sequence[tuple[float, float]]


@styled
def sensitivity(curves: Mapping[str, Curve]) -> Picture:
    """Accuracy when one layer alone is pruned: all layers as a heat map, the extremes as lines.

    curves: layer name -> (q in percent, accuracy 0..1) pairs.
    """
    need(curves, "no layer's curve")
    names = list(curves)
    places = sorted({float(q) for curve in curves.values() for q, _ in curve})
    need(places, "no point in any curve")
    table = np.full((len(names), len(places)), np.nan)
    for row, curve in enumerate(curves.values()):
        for q, accuracy in curve:
            table[row, places.index(float(q))] = accuracy
    fig = new_picture(height=max(3.0, 1.2 + 0.24 * len(names)), width=9.0)
    heat, lines = fig.subplots(1, 2, width_ratios=[1, 1.05])

    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    image = heat.imshow(
        table, aspect="auto", cmap="cividis", vmin=low, vmax=high if high > low else low + 1e-6
    )
    heat.grid(False)
    heat.set_yticks(range(len(names)), [short(name) for name in names], fontsize=8)
    every = max(1, -(-len(places) // 10))
    heat.set_xticks(range(0, len(places), every), [f"{q:g}" for q in places[::every]])
    heat.set_xlabel("weights pruned in this layer (%)")
    heat.set_ylabel("layer")
    if len(places) <= 8:
        heat.set_title("test accuracy (%)", fontsize=10)
        for row, column in np.argwhere(~np.isnan(table)):
            value = table[row, column]
            # cividis runs from dark to bright: black on it reads better from about here on
            ink = "white" if value < low + 0.47 * (high - low) else "black"
            heat.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=8)
    else:
        bar = fig.colorbar(image, ax=heat, location="top", shrink=0.9, aspect=30, label="test accuracy")
        percent_axis(bar.ax.xaxis)

    # a layer's worst point says how sensitive it is
    order = [int(i) for i in np.argsort(np.nanmin(np.nan_to_num(table, nan=np.inf), axis=1), kind="stable")]
    shown = order if len(order) <= 6 else [*order[:3], *order[-3:]]
    for row in order:
        if row not in shown:
            lines.plot(*_points(curves[names[row]]), color=FAINT, linewidth=1, zorder=1)
    for index, row in enumerate(shown):
        lines.plot(*_points(curves[names[row]]), **line_style(index), label=short(names[row]))
    if len(shown) < len(names):
        lines.plot([], [], color=FAINT, linewidth=1, label=f"the other {len(names) - len(shown)} layers")
    lines.set_xlabel("weights pruned in one layer (%)")
    lines.set_ylabel("test accuracy")
    percent_axis(lines.yaxis)
    if len(shown) < len(names):
        lines.set_title("the 3 most and the 3 least sensitive layers", fontsize=10)
    fig.legend(loc="outside lower center", ncols=4, fontsize=9)
    (worst, depth), (best, floor) = (
        (names[row], percent(float(np.nanmin(table[row])))) for row in (order[0], order[-1])
    )
    fig.labkit_alt = (
        f"Accuracy when one of {len(names)} layers is pruned by {places[0]:g} to {places[-1]:g} %. "
        f"The most sensitive is {worst}, down to {depth}; the least {best}, never below {floor}."
    )
    return fig


def _points(curve: Curve) -> tuple[list[float], list[float]]:
    ordered = sorted((float(q), float(accuracy)) for q, accuracy in curve)
    return [q for q, _ in ordered], [accuracy for _, accuracy in ordered]


@styled
def sparsity_by_layer(reports: SparsityReport | Mapping[str, SparsityReport]) -> Picture:
    """The sparsity of each layer, and of all together as a vertical line.

    reports: one report, or label -> report to compare several over the same layers.
    """
    labelled = {"": reports} if isinstance(reports, SparsityReport) else dict(reports)
    need(labelled, "no report")
    names = list(dict.fromkeys(row.name for report in labelled.values() for row in report.rows))
    need(names, "the report has no layers")
    fig = new_picture(height=max(2.5, 1.3 + 0.24 * len(names)))
    ax = fig.subplots()
    sentences = []
    for index, (label, report) in enumerate(labelled.items()):
        values = {row.name: row.sparsity for row in report.rows}
        rows = [i for i, name in enumerate(names) if name in values]
        x = [values[names[i]] for i in rows]
        if len(labelled) == 1:
            ax.hlines(rows, 0, x, color=PALE, linewidth=4, zorder=1)
        style: dict[str, Any] = {"color": colour(index), "marker": MARKERS[index % len(MARKERS)]}
        overall = f"{label or 'all layers'}: {percent(report.overall)}"
        ax.plot(x, rows, linestyle="none", **style)
        ax.axvline(report.overall, color=colour(index), linestyle="--", linewidth=1, zorder=1)
        ax.plot([], [], linestyle="--", linewidth=1, **style, label=overall + (" overall" if label else ""))
        sentences.append(overall + (f", by layer {percent(min(x))} to {percent(max(x))}" if x else ""))
    ax.set_yticks(range(len(names)), [short(name) for name in names], fontsize=9)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)
    percent_axis(ax.xaxis)
    ax.set_xlabel("sparsity (weights that are zero)")
    ax.set_ylabel("layer")
    fig.legend(loc="outside upper center", ncols=min(len(labelled), 3))
    fig.labkit_alt = f"Sparsity of {len(names)} layers: {'; '.join(sentences)}."
    return fig
