"""The records as tables: a row's figures over all its seeds, beside the report's."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.reproduce.experiments import BITS, EXPERIMENTS
from labkit.reproduce.records import Record, all_records
from labkit.results import report_table, report_tables


@dataclass(frozen=True)
class Row:
    """A row of a table, its figures over the seeds that were run; empty if none was.

    accuracy: of the weights that were kept, the best epoch's. last: after the last epoch, for trained
        networks. report: the report's accuracy, if it has the row.
    """

    experiment: str
    name: str
    report: float | None
    records: tuple[Record, ...]
    figures: tuple[dict[str, float], ...]

    @property
    def accuracy(self) -> list[float]:
        return self._all("accuracy")

    @property
    def last(self) -> list[float]:
        return self._all("last_accuracy")

    @property
    def loss(self) -> list[float]:
        return self._all("loss")

    @property
    def sparsity(self) -> list[float]:
        return self._all("sparsity")

    @property
    def bytes(self) -> list[float]:
        return self._all("bytes")

    @property
    def ratio(self) -> list[float]:
        """How many times smaller the file is than the float32 values."""
        return [one["float32_bytes"] / one["bytes"] for one in self.figures]

    @property
    def ideal_ratio(self) -> list[float]:
        """The same with every part at its entropy."""
        return [one["float32_bytes"] / one["ideal_bytes"] for one in self.figures]

    def _all(self, figure: str) -> list[float]:
        return [one[figure] for one in self.figures if figure in one]


@dataclass(frozen=True)
class Results:
    """The records of one series."""

    name: str
    records: tuple[Record, ...]

    def row(self, experiment: str, row: str) -> Row:
        """The row of the experiment of that name (`asymmetric`, `one-shot`, `asymmetric-finetune:3`)."""
        found = [r for r in self.records if r["experiment"] == experiment and row in r["rows"]]
        table = EXPERIMENTS[experiment].table
        report = report_table(table).get(row) if table in report_tables() else None
        return Row(experiment, row, report, tuple(found), tuple(record["rows"][row] for record in found))

    @property
    def pruning(self) -> list[Row]:
        return [self.row(name, name) for name in ("baseline", "one-shot", "iterative", "global")]

    def sweep(self, experiment: str) -> list[Row]:
        """The rows of an experiment as it was run, or none."""
        names = [row for r in self.records if r["experiment"] == experiment for row in r["rows"]]
        return [self.row(experiment, row) for row in dict.fromkeys(names)]

    def widths(self, experiment: str) -> list[Row]:
        """The rows of an experiment that is one run for each bit width."""
        return [self.row(f"{experiment}:{bits}", str(bits)) for bits in BITS]

    def rows(self) -> Iterator[Row]:
        """Every row that there is, in the order of the experiments."""
        for experiment in EXPERIMENTS:
            yield from self.sweep(experiment)

    @property
    def devices(self) -> list[str]:
        return sorted({record["environment"]["device"] for record in self.records})

    @property
    def torch(self) -> list[str]:
        return sorted({record["environment"]["torch"] for record in self.records})

    @property
    def precisions(self) -> list[str]:
        return sorted({record["settings"]["precision"] for record in self.records if "settings" in record})

    @property
    def seeds(self) -> list[int]:
        return sorted({record["seed"] for record in self.records})

    @property
    def hours(self) -> float:
        """Time spent in the runs, one after the other."""
        return sum(record["seconds"] for record in self.records) / 3600


def read(folder: Path) -> dict[str, Results]:
    """Everything under `folder`, series by series; trials at `quick` are left out."""
    found: dict[str, list[Record]] = {}
    for series, record in all_records(folder):
        if record["profile"]["name"] == "full":
            found.setdefault(series, []).append(record)
    return {series: Results(series, tuple(records)) for series, records in found.items()}


def spread(values: Sequence[float], form: str = ".4f") -> str:
    """`0.9151`, or `0.9151 ± 0.0012` (standard deviation) over several seeds, or a dash for none."""
    if not values:
        return "–"
    mean = format(statistics.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), form)}"


def difference(row: Row) -> str:
    """In points, `+0.52`: the mean of ours less the report's."""
    if not row.accuracy or row.report is None:
        return "–"
    return f"{100 * (statistics.mean(row.accuracy) - row.report):+.2f}"


def rows_with_figures(rows: Sequence[Row]) -> Iterator[Row]:
    return (row for row in rows if row.figures)
