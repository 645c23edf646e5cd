"""Grading on a Dask cluster: a worker is killed in the middle, and every notebook is graded once."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import psutil
import pytest

pytest.importorskip("nbgrader")
pytest.importorskip("distributed", reason="needs dask: pip install 'labkit[cluster]'")

import distributed

from labkit.errors import LabError
from labkit.grading import schedule
from labkit.grading.engine import broken_off
from labkit.grading.levels import Level
from labkit.grading.submission import Assignment, Submission, job_of
from labkit.grading.verdicts import Graded, Job
from tests import graded_course as made
from tests.cluster.held import hold_results

pytestmark = pytest.mark.filterwarnings("default")  # dask's own: sockets and loops that it closes late

JOBS = 8
DEADLINE = 120  # seconds, for a process to do what it does in one or two


@dataclass(frozen=True)
class Story:
    """What a cluster did, one of whose two workers was killed while it had notebooks in hand.

    results: of each that was handed back, in that order, its number, points, whether it is complete. engines,
    survivors: how many processes the engines of the killed worker and of the other one had; outlived: those
    that did not end with the worker, or with the cluster.
    """

    results: list[tuple[int, list[float], bool]]
    said: list[str]
    engines: int
    outlived_worker: list[psutil.Process]
    survivors: int
    outlived_cluster: list[psutil.Process]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Job]:
    """Students' notebooks of the tiny course; every third one is wrong."""
    course = made.make(tmp_path_factory.mktemp("course"))
    source = Assignment.read(course.root / "nowhere", course.root / "source" / made.ASSIGNMENT)
    assignment = replace(source, released=course.released)
    jobs = {}
    for number in range(JOBS):
        nb = course.answered(made.FIRST)
        if number % 3 == 0:
            made.named(nb, "double").source = "def double(x):\n    return x + 1"
        mended = course.mended(nb, made.FIRST)
        submission = Submission(f"student{number}", {made.FIRST: mended})
        jobs[number] = job_of(made.FIRST, submission, assignment, assignment.texts())
    return jobs


def wanted(number: int) -> list[float]:
    return [0.0 if number % 3 == 0 else 7.0, 3.0]


@pytest.fixture(scope="module")
def story(jobs: dict[int, Job], tmp_path_factory: pytest.TempPathFactory) -> Story:
    held = tmp_path_factory.mktemp("held")
    said: list[str] = []
    results: list[tuple[int, list[float], bool]] = []
    orphans: list[psutil.Process] = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address=":0", silence_logs=50
    ) as cluster:
        victim, other = cluster.workers.values()
        with distributed.Client(cluster) as client:
            client.run(hold_results, str(held), workers=[victim.worker_address])
        for number, graded in schedule.grade_on(cluster.scheduler_address, jobs.items(), said.append):
            results.append((number, [verdict.points for verdict in graded.verdicts], graded.complete))
            if not orphans:
                wait_for(lambda: any(held.iterdir()), "the worker to have graded a notebook")
                orphans = warm_parents(victim.pid)
                os.kill(victim.pid, signal.SIGKILL)
        outlived_worker = psutil.wait_procs(orphans, timeout=DEADLINE)[1]
        survivors = warm_parents(other.pid)
    outlived_cluster = psutil.wait_procs(survivors, timeout=DEADLINE)[1]
    return Story(results, said, len(orphans), outlived_worker, len(survivors), outlived_cluster)


def wait_for(event: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not event():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def warm_parents(worker: int) -> list[psutil.Process]:
    """The processes below this one that the engine started, and bubblewrap around them."""
    found = []
    for one in psutil.Process(worker).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended in the meantime
            if "labkit.grading.zygote" in " ".join(one.cmdline()):
                found.append(one)
    return found


def test_a_worker_is_killed_and_nothing_is_lost_or_done_twice(story: Story) -> None:
    assert sorted(number for number, *_ in story.results) == list(range(JOBS))
    assert all(complete for *_, complete in story.results)
    assert {number: points for number, points, _ in story.results} == {n: wanted(n) for n in range(JOBS)}
    (line,) = story.said
    assert line.startswith("isolation on the cluster: ")


def test_no_process_is_left_when_a_worker_dies_or_the_cluster_closes(story: Story) -> None:
    assert story.engines >= 2
    assert story.outlived_worker == []
    assert story.survivors >= 2
    assert story.outlived_cluster == []


class Fragile:
    """An engine that grades one notebook."""

    level = Level(False, False, False, False)
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
