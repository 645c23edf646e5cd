"""The report's tables, and ours beside them.

`data/report/*.csv` holds the report's numbers, a file a table; `compare` sets measured accuracies
next to them. Runs on Shapes-10 have no counterpart there, so only their own figures are shown.
`data/results/tables.csv` holds what this lab itself measured, a line a row of docs/RESULTS.md.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit import arguments
from labkit.errors import ArgumentError, LabError
from labkit.paths import shipped_data
from labkit.sparsity import html_table


def report_tables() -> list[str]:
    """The names of the report's tables."""
    return sorted(path.stem for path in (shipped_data() / "report").glob("*.csv"))


def report_table(name: str) -> dict[str, float]:
    """A table of the report: the name of each row (a method, or a bit width) and its accuracy, 0 to 1.

    name: `pruning`, `asymmetric`, `symmetric`, `asymmetric_finetuned`, `pruned_quantized_before`,
        `pruned_quantized_after`. Raises LabError for another name.
    """
    if name not in report_tables():
        raise LabError(f"the report has no table {name!r}. It has: {', '.join(report_tables())}.")
    path = shipped_data() / "report" / f"{name}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return {row["row"]: float(row["accuracy"]) for row in csv.DictReader(file)}


def lab_table(
    experiment: str, recipe: str = "improved", baseline: str = "resnet20-cifar10"
) -> dict[str, dict[str, float]]:
    """What this lab measured on CIFAR-10 (docs/RESULTS.md): the name of each row and its figures.

    The figures are means over the seeds, `accuracy` 0 to 1, of the best epoch where there was training,
    `sparsity`, and `bytes` of the file. Raises LabError for an experiment that has not been run so.
    """
    with (shipped_data() / "results" / "tables.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["baseline"], row["recipe"]) == (baseline, recipe)]
    found = {
        row["row"]: {name: float(row[name]) for name in ("accuracy", "sparsity", "bytes")}
        for row in rows
        if row["experiment"].partition(":")[0] == experiment
    }
    if not found:
        known = dict.fromkeys(row["experiment"].partition(":")[0] for row in rows)
        raise LabError(
            f"there are no results of {experiment!r} from {baseline} by the recipe {recipe!r}. "
            f"There are: {', '.join(known) or 'none'}."
        )
    return found


@dataclass(frozen=True)
class Comparison:
    """Measured accuracies by row, with the report's where it has them."""

    title: str
    ours: dict[str, float]
    report: dict[str, float]

    def __str__(self) -> str:
        width = max(len(row) for row in ("row", *self.ours))
        lines = [
            self.title,
            "  ".join([f"{'':{width}}", "measured", *(["report", "difference"] * bool(self.report))]),
        ]
        for row, accuracy in self.ours.items():
            line = f"{row:{width}}  {accuracy:8.4f}"
            if row in self.report:
                line += f"  {self.report[row]:6.4f}  {accuracy - self.report[row]:+10.4f}"
            lines.append(line)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for row, accuracy in self.ours.items():
            known = self.report.get(row)
            beside = ["", ""] if known is None else [f"{known:.4f}", f"{accuracy - known:+.4f}"]
            rows.append([row, f"{accuracy:.4f}", *(beside if self.report else [])])
        return html_table(
            self.title, ["", "measured", *(["report", "difference"] if self.report else [])], rows
        )


def compare(
    table: str, ours: Mapping[Any, float], title: str | None = None, dataset: str = "CIFAR-10"
) -> Comparison:
    """Our accuracies next to the report's table of that name; rows are matched as text.

    dataset: the data set that `ours` was measured on; the report's column appears for CIFAR-10 only.
    """
    if not isinstance(ours, Mapping):
        raise ArgumentError(f"ours should be a dict, row: accuracy, not {arguments.shown(ours)}.")
    measured = {str(row): arguments.number(value, f"the accuracy of {row!r}") for row, value in ours.items()}
    report = report_table(table) if dataset == "CIFAR-10" else {}
    return Comparison(title or f"{table.replace('_', ' ')}, accuracy on {dataset}", measured, report)
