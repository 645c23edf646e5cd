"""Grades many notebooks at once: here, one a core, or on a Dask cluster."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from labkit.cluster import connect
from labkit.errors import LabError
from labkit.grading.engine import Engine, broken_off
from labkit.grading.scratch import sweep
from labkit.grading.verdicts import Graded, Job

Key = TypeVar("Key")
AHEAD = 4  # jobs that wait for each core: enough to keep it busy, few enough to stay small in memory


def grade_here(
    jobs: Iterable[tuple[Key, Job]], cores: int, engine: Engine, say: Callable[[str], object]
) -> Iterator[tuple[Key, Graded]]:
    """Each job's key and result, as they get done. Jobs are made as late as they are needed."""
    with ThreadPoolExecutor(cores) as pool:
        say(f"isolation: {engine.level.sentence}")
        running: dict[Future[Graded], Key] = {}
        waiting = iter(jobs)
        more = True
        while more or running:
            while more and len(running) < cores * AHEAD:
                key, job = next(waiting, (None, None))
                more = job is not None
                if job is not None:
                    running[pool.submit(engine.grade, job)] = key  # type: ignore[assignment]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def grade_on(
    address: str, jobs: Iterable[tuple[Key, Job]], say: Callable[[str], object]
) -> Iterator[tuple[Key, Graded]]:
    """The same on the cluster of the scheduler at `address`; a job whose worker dies goes to another."""
    with connect(address) as client:
        from dask.distributed import KilledWorker, as_completed

        ahead = AHEAD * max(1, sum(client.nthreads().values()))
        waiting = iter(jobs)
        sent: dict[str, tuple[Key, Job]] = {}
        done = as_completed()

        def submit() -> None:
            for key, job in waiting:
                future = client.submit(_grade_there, job, pure=False, retries=2)
                sent[future.key] = key, job
                done.add(future)
                return

        for _ in range(ahead):
            submit()
        said = False
        for future in done:
            key, job = sent.pop(future.key)
            try:
                level, graded = future.result()
            except KilledWorker:  # several workers died of it: nothing is known of the notebook, then
                yield key, broken_off(job, "the workers that graded it were lost")
            else:
                if not said:
                    say(f"isolation on the cluster: {level}")
                    said = True
                yield key, graded
            submit()


_engine: Engine | None = None
_changing = threading.Lock()  # a worker of the cluster may have several threads


def _grade_there(job: Job) -> tuple[str, Graded]:
    """In a worker of the cluster: one engine for as long as the worker lives, or until it fails."""
    engine = _started()
    try:
        return engine.level.sentence, engine.grade(job)
    except LabError:
        _stop(engine)  # the next try, here or elsewhere, starts a new one
        raise


def _started() -> Engine:
    global _engine
    with _changing:
        if _engine is None:
            sweep()
            _engine = Engine([]).__enter__()
            atexit.register(_stop, _engine)
        return _engine


def _stop(engine: Engine) -> None:
    global _engine
    with _changing:
        if _engine is engine:
            _engine = None
            engine.__exit__(None, None, None)
