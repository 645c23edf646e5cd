"""Runs the jobs that have no record yet, one after the other, or all at once on a Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from labkit.cluster import connect
from labkit.errors import LabError
from labkit.files import NotWritten
from labkit.paths import user_cache
from labkit.reproduce.experiments import EXPERIMENTS, Experiment, Finetuning
from labkit.reproduce.jobs import Job, Outcome, Series, run
from labkit.reproduce.records import Records

Say = Callable[[str], object]


def jobs_of(series: Series, experiments: Sequence[Experiment], seeds: Sequence[int]) -> list[Job]:
    """Every experiment with every seed, seed by seed."""
    return [Job.of(series, experiment, seed) for seed in seeds for experiment in experiments]


def to_do(jobs: Sequence[Job], records: Records) -> list[Job]:
    """The jobs without a record, and those whose weights a job without a record starts from."""
    missing = [job for job in jobs if records.read(job) is None]
    needed = {job.start.key for job in missing if job.start and records.outcome(job.start) is None}
    return [job for job in jobs if job in missing or job.key in needed]


def run_here(series: Series, jobs: Sequence[Job], records: Records, say: Say) -> None:
    """Run the jobs one after the other. Killed, it goes on in the same epoch when it is called again.

    A job that fails (its loss diverges, say) costs itself and those that start from it; the others are
    run, and then LabError is raised.
    """
    if jobs:
        series.profile.test_set()  # where there is no data set, that is said once and not for each job
    waiting, failed = list(jobs), Failures()
    seconds: float | None = None
    for number, job in enumerate(jobs, start=1):
        say(f"{number} of {len(jobs)}: {job}{_left(waiting, seconds)}")
        waiting.remove(job)
        start = records.outcome(job.start) if job.start else None
        if job.start and start is None:
            failed.add(job, f"it starts from {job.start}, which failed", say)
            continue
        began = time.perf_counter()
        try:
            records.write(job, run(series, job, start, records.running(job)))
        except NotWritten:  # nor could what the others give be kept
            raise
        except LabError as error:
            failed.add(job, str(error), say)
            continue
        if _trains(job):
            seconds = time.perf_counter() - began
    failed.check()


def run_on(address: str, series: Series, jobs: Sequence[Job], records: Records, say: Say) -> None:
    """Run the jobs on the Dask cluster whose scheduler is at `address`; records are written here.

    A job whose worker dies is given to another; one that fails is treated as in `run_here`. Raises
    LabError if the scheduler cannot be reached.
    """
    failed = Failures()
    with connect(address) as client:
        from dask.distributed import as_completed

        shared = client.scatter(series, broadcast=True)
        futures: dict[Job, Any] = {}
        for job in jobs:
            start = None
            if job.start:
                start = futures.get(job.start) or records.outcome(job.start)
            futures[job] = client.submit(_on_worker, shared, job, start, key=f"{job.slug}-{job.key}")
        jobs_by_key = {future.key: job for job, future in futures.items()}
        for number, future in enumerate(as_completed(futures.values()), start=1):
            job = jobs_by_key[future.key]
            if future.status == "finished":
                records.write(job, future.result())
                say(f"{number} of {len(jobs)} done: {job}")
            else:
                failed.add(job, str(future.exception()), say)
    failed.check()


class Failures:
    """What went wrong, said at once and again at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, job: Job, why: str, say: Say) -> None:
        self.lines.append(f"{job}: {why}")
        say(f"failed: {self.lines[-1]}")

    def check(self) -> None:
        """Raise LabError if anything failed."""
        if self.lines:
            raise LabError(
                f"{len(self.lines)} runs failed; the others are recorded.\n" + "\n".join(self.lines)
            )


def _on_worker(series: Series, job: Job, start: Outcome | None) -> Outcome:
    """The checkpoint stays on the worker's machine, so that a worker there goes on where another stopped."""
    return run(series, job, start, user_cache() / "reproduce" / f"{job.slug}-{job.key}")


def _trains(job: Job) -> bool:
    return isinstance(EXPERIMENTS[job.experiment], Finetuning)


def _left(waiting: Sequence[Job], seconds: float | None) -> str:
    """What remains, this job included, told from how long the finetuning before it took."""
    if seconds is None:
        return ""
    minutes = sum(map(_trains, waiting)) * seconds / 60
    return f"; about {minutes // 60:.0f} h {minutes % 60:02.0f} min left"
