"""Pictures of results: accuracy against bits, sparsity and bytes, training curves, a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from labkit.plots.style import (
    BLACK,
    BLUE,
    GREY,
    MARKERS,
    Picture,
    colour,
    line_style,
    need,
    new_picture,
    percent,
    percent_axis,
    styled,
)

Curves = Mapping[str, Mapping[float, float]]


@styled
def accuracy_against_bits(curves: Curves, baseline: float | None = None) -> Picture:
    """Accuracy for each bit width, a line per method.

    curves: label -> {bits: accuracy 0..1}. baseline: the floating-point net's accuracy.
    """
    fig, ax = _accuracy_lines(curves, baseline, "bits", "bit width")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("bits per weight")
    return fig


@styled
def accuracy_against_sparsity(curves: Curves, baseline: float | None = None) -> Picture:
    """Accuracy for each sparsity, a line per method.

    curves: label -> {sparsity in percent: accuracy 0..1}. baseline: the dense net's accuracy.
    """
    fig, ax = _accuracy_lines(curves, baseline, "% sparsity", "sparsity")
    ax.set_xlabel("sparsity (% of weights that are zero)")
    return fig


def _accuracy_lines(curves: Curves, baseline: float | None, unit: str, what: str) -> tuple[Picture, Any]:
    need(curves, "no curve")
    fig = new_picture(height=4.2)
    ax = fig.subplots()
    sentences = []
    for index, (label, curve) in enumerate(curves.items()):
        points = sorted((float(x), float(y)) for x, y in curve.items())
        need(points, f"{label} has no points")
        ax.plot([x for x, _ in points], [y for _, y in points], **line_style(index), label=label)
        (first, low), (last, high) = points[0], points[-1]
        sentences.append(f"{label} {percent(low)} at {first:g} {unit}")
        if len(points) > 1:
            sentences[-1] += f", {percent(high)} at {last:g}"
    if baseline is not None:
        text = f"floating point, dense: {percent(baseline)}"
        ax.axhline(baseline, color=GREY, linestyle=(0, (6, 3)), linewidth=1.2, label=text, zorder=1)
        sentences.append(f"baseline {percent(baseline)}")
    ax.set_ylabel("test accuracy")
    percent_axis(ax.yaxis)
    ax.legend(loc="best")
    fig.labkit_alt = f"Test accuracy against {what}: {'; '.join(sentences)}."
    return fig, ax


@styled
def training_curve(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """Loss and accuracy against the epochs trained, training hollow and test filled, a colour per run.

    runs: label -> history, a list of records with `epoch`, `train_loss`, `train_accuracy`, `test_loss`,
        `test_accuracy`; a record may lack some of them.
    """
    need(runs, "no run")
    fig = new_picture(height=4.0)
    axes = fig.subplots(1, 2)
    sentences = []
    for index, (label, history) in enumerate(runs.items()):
        need(history, f"{label} has no epochs yet")
        for ax, quantity in zip(axes, ("loss", "accuracy"), strict=True):
            for part, filled in (("train", False), ("test", True)):
                key = f"{part}_{quantity}"
                points = [(r["epoch"] + 1, float(r[key])) for r in history if r.get(key) is not None]
                ax.plot(
                    [epoch for epoch, _ in points],
                    [value for _, value in points],
                    **_point_style(index),
                    markerfacecolor=colour(index) if filled else "white",
                    markersize=4.5,
                    linestyle="-" if filled else "--",
                    linewidth=1.6 if filled else 1.1,
                )
        sentences.append(f"{label}: {len(history)} epoch{'s' if len(history) > 1 else ''}")
        tested = [r for r in history if r.get("test_accuracy") is not None]
        if tested:
            best = max(tested, key=lambda record: float(record["test_accuracy"]))
            sentences[-1] += (
                f", best test accuracy {percent(float(best['test_accuracy']))} after {best['epoch'] + 1}, "
                f"last {percent(float(tested[-1]['test_accuracy']))}"
            )
    for ax, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        ax.set_xlabel("epochs trained")
        ax.set_ylabel(quantity)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len({record["epoch"] for history in runs.values() for record in history}) == 1:
            ax.set_xlim(ax.get_xlim()[0] - 0.5, ax.get_xlim()[1] + 0.5)  # a lone epoch gets whole ticks too
    percent_axis(axes[1].yaxis)
    handles = [Line2D([], [], label=label, **_point_style(i)) for i, label in enumerate(runs)]
    grey: dict[str, Any] = {"color": GREY, "marker": "o"}
    handles.append(Line2D([], [], linestyle="--", markerfacecolor="white", label="training", **grey))
    handles.append(Line2D([], [], label="test", **grey))
    fig.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))
    fig.labkit_alt = f"Training curves. {'; '.join(sentences)}."
    return fig


def _point_style(index: int) -> dict[str, Any]:
    return {"color": colour(index), "marker": MARKERS[index % len(MARKERS)]}


@styled
def trade_off(points: Mapping[str, tuple[float, float]]) -> Picture:
    """Accuracy against the model's size, a labelled point per model; up and to the left is better.

    points: label -> (bytes, accuracy 0..1).
    """
    need(points, "no point")
    fig = new_picture(height=4.8)
    ax = fig.subplots()
    ax.set_xscale("log")
    for index, (size, accuracy) in enumerate(points.values()):
        ax.plot(
            [size],
            [accuracy],
            **_point_style(index),
            markersize=9,
            markeredgecolor=BLACK,
            markeredgewidth=0.6,
        )
    sizes = [size for size, _ in points.values()]
    accuracies = [accuracy for _, accuracy in points.values()]
    ax.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
    room = max(0.12 * (max(accuracies) - min(accuracies)), 0.004)
    ax.set_ylim(min(accuracies) - room, max(accuracies) + room)
    left, right = ax.get_xlim()
    ticks = [digit * 10.0**power for power in range(12) for digit in (1, 2, 5)]
    ax.set_xticks([x for x in ticks if left <= x <= right])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("size of the file (kB, logarithmic)")
    ax.set_ylabel("test accuracy")
    percent_axis(ax.yaxis)
    _label_points(fig, ax, points)
    smallest = min(points, key=lambda label: points[label][0])
    best = max(points, key=lambda label: points[label][1])
    fig.labkit_alt = (
        f"Test accuracy against file size of {len(points)} models: "
        f"smallest is {smallest} with {_size_and_accuracy(points[smallest])}; "
        f"most accurate is {best} with {_size_and_accuracy(points[best])}."
    )
    return fig


def _size_and_accuracy(point: tuple[float, float]) -> str:
    return f"{point[0] / 1000:,.1f} kB and {percent(point[1])}"


def _label_points(fig: Picture, ax: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Writes each label at the first place round its point where it covers no point and no other label."""
    canvas: Any = FigureCanvasAgg(fig)
    fig.draw_without_rendering()  # settles where the axes lie
    renderer = canvas.get_renderer()
    centres = [ax.transData.transform(point) for point in points.values()]
    taken = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in centres]
    frame = ax.get_window_extent(renderer)
    # first close by, then further off with a line to the point
    places = [(d * x, d * y) for d in (9, 20, 34, 50) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1))]
    places += [(d * x, d * y) for d in (12, 24, 40) for x, y in ((-1, 1), (1, -1), (-1, -1))]
    for label, point in points.items():
        for dx, dy in places:
            line = (
                {"arrowstyle": "-", "color": GREY, "linewidth": 0.7} if max(abs(dx), abs(dy)) > 12 else None
            )
            text = ax.annotate(
                label,
                point,
                (dx, dy),
                textcoords="offset points",
                fontsize=9,
                color=BLACK,
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
                arrowprops=line,
            )
            text.update_positions(renderer)
            words = Text.get_window_extent(text, renderer)  # of the words alone, without the arrow
            free = not any(words.overlaps(other) for other in taken)
            if free and frame.x0 <= words.x0 and words.x1 <= frame.x1 and words.y1 <= frame.y1 + 2:
                taken.append(words.padded(4))
                break
            text.remove()
        else:  # nowhere is free: beside the point all the same
            ax.annotate(label, point, (9, 0), textcoords="offset points", fontsize=9, va="center")


@styled
def schedule(values: Sequence[float]) -> Picture:
    """The sparsity that a schedule asks for before each epoch.

    values: percent, one per epoch, the first is epoch 0's; numbers or 0-d tensors.
    """
    need(values, "the schedule has no epochs")
    targets = [float(value) for value in values]
    fig = new_picture(height=3.4)
    ax = fig.subplots()
    ax.step(range(len(targets)), targets, where="post", color=BLUE, linewidth=1.2)
    ax.plot(range(len(targets)), targets, color=BLUE, marker="o", linestyle="none")
    ax.set_xlabel("epoch")
    ax.set_ylabel("sparsity before the epoch (%)")
    ax.set_ylim(min(0.0, *targets) - 2, max(100.0, *targets) + 2)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    reached = targets.index(max(targets))
    fig.labkit_alt = (
        f"Sparsity before each of {len(targets)} epochs: {targets[0]:g} % before epoch 0, "
        f"{max(targets):g} % from epoch {reached} on, {targets[-1]:g} % before the last."
    )
    return fig
