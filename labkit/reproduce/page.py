"""docs/RESULTS.md, its pictures and tables.csv, made from the records, so that they cannot drift."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from labkit import plots
from labkit.errors import LabError
from labkit.files import write_atomically
from labkit.models import prunable_layers, resnet20
from labkit.plots import Picture
from labkit.recipes import RECIPES
from labkit.reproduce.tables import Results, difference, read, rows_with_figures, spread
from labkit.sparsity import LayerSparsity, SparsityReport

TEMPLATE = "RESULTS.md.j2"


def write_page(records: Path, docs: Path) -> list[Path]:
    """Write `docs`/RESULTS.md, `docs`/results/*.png and `records`/tables.csv; returns what was written.

    Raises LabError if there are no records or no template.
    """
    text = page(records, docs)
    written = []
    for series, results in read(records).items():
        for name in PICTURES:
            if (picture := _picture(results, name)) is not None:
                path = docs / "results" / f"{series}-{name}.png"
                write_atomically(path, lambda part, picture=picture: _save(picture, part))  # type: ignore[misc]
                written.append(path)
    for path, content in ((records / "tables.csv", tables_csv(records)), (docs / "RESULTS.md", text)):
        write_atomically(path, lambda part, content=content: part.write_text(content, encoding="utf-8"))  # type: ignore[misc]
        written.append(path)
    return written


def tables_csv(records: Path) -> str:
    """Every row of every table as a line, for `labkit.lab_table`: means over the seeds."""
    lines = ["baseline,recipe,experiment,row,seeds,accuracy,last_accuracy,sparsity,bytes"]
    for series, results in read(records).items():
        baseline, _, recipe = series.rpartition("-")
        for row in results.rows():
            last = f"{_mean(row.last):.4f}" if row.last else ""
            lines.append(
                f"{baseline},{recipe},{row.experiment},{row.name},{len(row.figures)},{_mean(row.accuracy):.4f},"
                f"{last},{_mean(row.sparsity):.4f},{_mean(row.bytes):.0f}"
            )
    return "\n".join(lines) + "\n"


def page(records: Path, docs: Path) -> str:
    """The text of RESULTS.md."""
    series = read(records)
    if not series:
        raise LabError(f"there are no records under {records}: run `labkit reproduce` first.")
    if not (docs / TEMPLATE).exists():
        raise LabError(f"{docs / TEMPLATE} is missing: run this in a checkout of the lab.")
    environment = Environment(
        loader=FileSystemLoader(docs),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 (Markdown, from our own records)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"spread": spread, "difference": difference}

    def picture(name: str, which: str) -> str:
        """The Markdown of a picture, or nothing if there is nothing to show yet."""
        drawn = _picture(series[name], which)
        return f"![{drawn.labkit_alt}](results/{name}-{which}.png)\n" if drawn is not None else ""

    text = environment.get_template(TEMPLATE).render(series=series, picture=picture, recipes=RECIPES)
    return re.sub(r"\n{3,}", "\n\n", text)  # what is left out leaves its blank lines


def _picture(results: Results, which: str) -> Picture | None:
    """None where there is nothing to show: a few trials without their baseline make no picture."""
    return PICTURES[which](results) if results.pruning[0].figures else None


def against_sparsity(results: Results) -> Picture | None:
    """The sweeps without finetuning, and the finetuned networks at the sparsity that they have."""
    curves: dict[str, dict[float, float]] = {}
    for label, sweep in (("layer by layer", "pruning-sweep"), ("one threshold", "global-sweep")):
        if rows := results.sweep(sweep):
            curves[f"{label}, not finetuned"] = {float(row.name): _mean(row.accuracy) for row in rows}
    for row in rows_with_figures(results.pruning[1:]):
        curves[f"{row.name}, finetuned"] = {round(100 * _mean(row.sparsity), 1): _mean(row.accuracy)}
    return plots.accuracy_against_sparsity(curves, _baseline(results)) if curves else None


def against_bits(results: Results) -> Picture | None:
    """Every method that has a bit width."""
    curves: dict[str, dict[float, float]] = {}
    for label, rows in (
        ("asymmetric", results.sweep("asymmetric")),
        ("symmetric", results.sweep("symmetric")),
        ("asymmetric, finetuned", results.widths("asymmetric-finetune")),
        ("80 % pruned", results.sweep("pruned-quantized")),
        ("80 % pruned, finetuned, zeros held", results.widths("pruned-quantized-held")),
    ):
        if found := {float(row.name): _mean(row.accuracy) for row in rows_with_figures(rows)}:
            curves[label] = found
    return plots.accuracy_against_bits(curves, _baseline(results)) if curves else None


def against_bytes(results: Results) -> Picture | None:
    """Every finetuned network at the size of its file."""
    points: dict[str, tuple[float, float]] = {}
    for label, rows in (
        ("", results.pruning),
        (" bits", results.widths("asymmetric-finetune")),
        (" bits, 80 %", results.widths("pruned-quantized-held")),
    ):
        for row in rows_with_figures(rows):
            points[row.name + label] = (_mean(row.bytes), _mean(row.accuracy))
    return plots.trade_off(points) if len(points) > 1 else None


def layers(results: Results) -> Picture | None:
    """The sparsity of each layer of the pruned networks, first seed."""
    sizes = {name: layer.weight.numel() for name, layer in prunable_layers(resnet20())}
    reports: dict[str, SparsityReport] = {}
    for row in rows_with_figures(results.pruning[1:]):
        shares = row.records[0]["sparsity_by_layer"]
        reports[row.name] = SparsityReport(
            tuple(LayerSparsity(name, round(shares[name] * size), size) for name, size in sizes.items())
        )
    return plots.sparsity_by_layer(reports) if reports else None


def curves(results: Results) -> Picture | None:
    """Loss and accuracy by epoch of the prunings, first seed."""
    runs = {row.name: row.records[0]["history"] for row in rows_with_figures(results.pruning[1:])}
    return plots.training_curve(runs) if runs else None


PICTURES: dict[str, Callable[[Results], Picture | None]] = {
    "sparsity": against_sparsity,
    "bits": against_bits,
    "bytes": against_bytes,
    "layers": layers,
    "curves": curves,
}


def _baseline(results: Results) -> float | None:
    accuracy = results.pruning[0].accuracy
    return _mean(accuracy) if accuracy else None


def _mean(values: Sequence[float]) -> float:
    return statistics.mean(values)


def _save(picture: Picture, path: Path) -> None:
    picture.savefig(path, format="png", metadata={"Software": None, "Description": picture.labkit_alt})
