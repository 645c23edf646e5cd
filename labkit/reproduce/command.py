"""`labkit reproduce`: what is there, what is done, run the rest, and compare with the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labkit.errors import LabError
from labkit.files import expect_writable
from labkit.profiles import profile as profile_of
from labkit.recipes import RECIPES
from labkit.reproduce.experiments import chosen
from labkit.reproduce.jobs import Job, Series
from labkit.reproduce.lab import read_notebooks
from labkit.reproduce.records import Records
from labkit.reproduce.schedule import Say, jobs_of, run_here, run_on, to_do
from labkit.results import Comparison, report_table, report_tables


def reproduce(
    names: Sequence[str],
    *,
    baseline: str,
    recipe: str,
    seeds: Sequence[int],
    profile: str,
    results: Path,
    notebooks: Path,
    address: str | None,
    only_list: bool,
    say: Say,
) -> None:
    """Run what has no record yet and print every table beside the report's; see `labkit reproduce --help`."""
    if recipe not in RECIPES:
        raise LabError(f"--recipe {recipe} is not known: it can be {' or '.join(RECIPES)}.")
    experiments = chosen(names)
    series = Series.of(read_notebooks(notebooks), profile_of(profile), baseline, recipe)
    records = Records.of(results, series)
    jobs = jobs_of(series, experiments, seeds)
    waiting = to_do(jobs, records)
    if only_list:
        for job in jobs:
            say(f"{'to do' if job in waiting else 'done ':6} {job}")
        return
    if waiting:
        expect_writable(records.folder / "record")  # before the hours of training, not after
    say(f"{series.profile}; {baseline}; {RECIPES[recipe]}")
    say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are done; records in {records.folder}")
    if address is not None:
        run_on(address, series, waiting, records, say)
    else:
        run_here(series, waiting, records, say)
    for table in tables(jobs, records, series.profile.dataset):
        say(f"\n{table}")


def tables(jobs: Sequence[Job], records: Records, dataset: str) -> list[Comparison]:
    """What these jobs measured: a table for each group of experiments, beside the report's if it has one."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for job in jobs:
        record = records.read(job)
        if record is not None:
            # the two ways of finetuning a pruned and quantized network fill the same table of the report
            group = job.experiment.split(":")[0] if ":" in job.experiment else record["table"]
            title = f"{group}, seed {job.seed}".replace("_", " ")
            accuracy = {row: figures["accuracy"] for row, figures in record["rows"].items()}
            found.setdefault((record["table"], title), {}).update(accuracy)
    return [
        Comparison(
            f"{title}, accuracy on {dataset}",
            rows,
            report_table(table) if dataset == "CIFAR-10" and table in report_tables() else {},
        )
        for (table, title), rows in found.items()
    ]
