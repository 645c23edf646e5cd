"""Figures that a notebook or the README quotes from docs/RESULTS.md are in the tables behind that page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from labkit.results import report_table, report_tables
from tests.lab.harness import REPOSITORY, SOURCE


def measured() -> set[str]:
    """Every accuracy, sparsity and size in the lab's tables and the report's, as a text writes them."""
    found = {f"{value:.4f}" for table in report_tables() for value in report_table(table).values()}
    with (REPOSITORY / "data" / "results" / "tables.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found |= {row["accuracy"], row["last_accuracy"], row["sparsity"], f"{int(row['bytes']):,}"}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.ipynb")), ids=lambda path: path.stem)
def test_quoted_figures_are_measured_ones(path: Path) -> None:
    known = measured()
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for paragraph in "".join(cell["source"]).split("\n\n"):
            if "this lab" in paragraph.lower() and cell["cell_type"] == "markdown":
                quoted = re.findall(r"\b0\.\d{4}\b|\b\d{2,3},\d{3}\b(?= bytes)", paragraph)
                assert set(quoted) <= known, f"{cell['id']}: {sorted(set(quoted) - known)}"


def test_the_readme_quotes_measured_figures() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    results = readme[readme.index("\n## Results") : readme.index("\n## How fast")]
    rows = [line.strip("| ").split(" | ") for line in results.splitlines() if line.startswith("| ")]
    report = {f"{value:.4f}" for table in report_tables() for value in report_table(table).values()}
    with (REPOSITORY / "data" / "results" / "tables.csv").open(newline="", encoding="utf-8") as file:
        own = {
            (row["accuracy"], f"{round(int(row['bytes']) / 1000):,} kB")
            for row in csv.DictReader(file)
            if (row["baseline"], row["recipe"]) == ("resnet20-cifar10", "improved")
        }
    assert len(rows) > 5
    for _, theirs, here, size in rows[1:]:
        assert theirs[:6] in report
        assert (here, size) in own
