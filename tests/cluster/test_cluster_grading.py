"""Grading on a Dask cluster: a worker is killed in the middle, and every notebook is graded once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any, ClassVar

import nbformat
import psutil
import pytest

pytest.importorskip("nbgrader")
pytest.importorskip("distributed", reason="needs dask: pip install 'labkit[cluster]'")

import distributed

from labkit.errors import LabError
from labkit.grading import sandbox, schedule
from labkit.grading.engine import broken_off
from labkit.grading.submission import Assignment, Submission, job_of
from labkit.grading.verdicts import Graded, Job
from tests import graded_course as made

pytestmark = pytest.mark.filterwarnings("default")  # dask's own: sockets and loops that it closes late

JOBS = 12


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Job]:
    """Students' notebooks of the tiny course; every third one is wrong. Each takes half a second."""
    course = made.make(tmp_path_factory.mktemp("course"))
    assignment = Assignment.read(course.root / "nowhere", course.root / "source" / made.ASSIGNMENT)
    jobs = {}
    for number in range(JOBS):
        nb = course.answered(made.FIRST)
        if number % 3 == 0:
            made.named(nb, "double").source = "def double(x):\n    return x + 1"
        nb.cells.append(nbformat.v4.new_code_cell("import time\ntime.sleep(0.5)", id="own"))
        mended = course.mended(nb, made.FIRST)
        submission = Submission(f"student{number}", {made.FIRST: mended})
        jobs[number] = job_of(made.FIRST, submission, assignment, assignment.texts())
    return jobs


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


def wanted(number: int) -> list[float]:
    return [0.0 if number % 3 == 0 else 7.0, 3.0]


def warm_parents(*workers: int) -> list[psutil.Process]:
    """The processes below these that the engine started, and bubblewrap around them."""
    found = []
    for one in [one for pid in workers for one in psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended in the meantime
            if "labkit.grading.zygote" in " ".join(one.cmdline()):
                found.append(one)
    return found


def test_a_worker_is_killed_and_nothing_is_lost_or_done_twice(jobs: dict[int, Job], cluster: Any) -> None:
    pids = [worker.pid for worker in cluster.workers.values()]
    orphans: list[psutil.Process] = []
    said: list[str] = []
    results = []
    for key, graded in schedule.grade_on(cluster.scheduler_address, jobs.items(), said.append):
        results.append((key, [verdict.points for verdict in graded.verdicts], graded.complete))
        if not orphans:  # the first result: others are on their way
            victim = max(pids, key=lambda pid: len(warm_parents(pid)))
            orphans = warm_parents(victim)
            os.kill(victim, signal.SIGKILL)
    assert sorted(key for key, *_ in results) == sorted(jobs)
    assert all(complete for *_, complete in results)
    assert {key: points for key, points, _ in results} == {number: wanted(number) for number in jobs}
    assert len(said) == 1 and said[0].startswith("isolation on the cluster: ")
    assert len(orphans) >= 2
    assert psutil.wait_procs(orphans, timeout=20)[1] == []  # they ended with the worker


def test_no_process_is_left_when_the_cluster_closes(jobs: dict[int, Job], cluster: Any) -> None:
    results = list(schedule.grade_on(cluster.scheduler_address, list(jobs.items())[:3], str))
    assert len(results) == 3
    left = warm_parents(*(worker.pid for worker in cluster.workers.values()))
    assert left
    cluster.close()
    assert psutil.wait_procs(left, timeout=20)[1] == []


class Fragile:
    """An engine that grades one notebook."""

    level = sandbox.Level(False, False, False)
    states: ClassVar[list[str]] = []

    def __init__(self, hidden: object) -> None:
        self._left = 1

    def __enter__(self) -> Fragile:
        self.states.append("started")
        return self

    def __exit__(self, *error: object) -> None:
        self.states.append("stopped")

    def grade(self, job: Job) -> Graded:
        if not self._left:
            raise LabError("the grader's process for tests ended")
        self._left -= 1
        return broken_off(job, "for want of a real one")


def test_a_workers_engine_that_fails_is_replaced(
    jobs: dict[int, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "Engine", Fragile)
    monkeypatch.setattr(schedule, "_engine", None)
    schedule._grade_there(jobs[1])
    with pytest.raises(LabError, match="ended"):
        schedule._grade_there(jobs[1])  # dask tries it again
    _, graded = schedule._grade_there(jobs[1])
    assert [(verdict.kind, verdict.possible) for verdict in graded.verdicts] == [("error", 7), ("error", 3)]
    assert not graded.complete
    assert Fragile.states == ["started", "stopped", "started"]
