"""The processes in which references stand in: what they are asked, and what becomes of one that ends."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.channel import Gone, TimedOut
from labkit.grading.stand_in import MOST_STARTS, StandIns

PRUNING = "01_percentile_pruning"


class Process:
    """A process that ends as it is told when it is asked for a path that `fails` names."""

    def __init__(self, fails: dict[str, type[Exception]]) -> None:
        self.control, self._fails = self, fails
        self.told: list[dict[str, Any]] = []
        self.stopped = False

    def send(self, header: dict[str, Any], buffers: list[Any], deadline: float) -> None:
        self.told.append(header)

    def receive(self, deadline: float) -> tuple[dict[str, Any], list[bytearray]]:
        path = self.told[-1].get("path")
        if path in self._fails:
            raise self._fails[path]
        return {"result": path, "changes": {}, "else": 1, "sizes": []}, []

    def stop(self) -> None:
        self.stopped = True


class Started:
    """Stand-ins for three functions, and the processes that were started for them."""

    def __init__(self, **fails: type[Exception]) -> None:
        self.processes: list[Process] = []
        self.stand_ins = StandIns(self._start, {PRUNING: "its definitions", "05": "others"})
        for notebook, name in ((PRUNING, "prune"), (PRUNING, "other"), ("05", "STE")):
            self.stand_ins.lend(notebook, name)
        self._fails = fails

    def _start(self) -> Any:
        self.processes.append(Process(self._fails))
        return self.processes[-1]

    def ask(self, notebook: str, path: str) -> dict[str, Any]:
        return self.stand_ins.ask(notebook, path, {"call": 1}, [], 0.0)[0]


def test_a_notebook_has_one_process_that_knows_its_own_definitions_only() -> None:
    started = Started()
    for notebook, path in ((PRUNING, "prune"), (PRUNING, "other"), ("05", "STE.apply"), (PRUNING, "prune")):
        assert started.ask(notebook, path) == {"result": path, "changes": {}}
    first, second = started.processes
    assert [told.get("path", told.get("notebook")) for told in first.told] == [
        PRUNING,
        "prune",
        "other",
        "prune",
    ]
    assert second.told[0] == {"op": "lend", "notebook": "05"}
    started.stand_ins.stop()
    assert first.stopped and second.stopped


@pytest.mark.parametrize(
    ("notebook", "path"),
    [(PRUNING, "hidden"), ("02", "prune"), (PRUNING, "prune.__globals__"), ("05", "STE.apply.x"), ("05", "")],
)
def test_what_is_not_lent_cannot_be_asked_for(notebook: str, path: str) -> None:
    started = Started()
    with pytest.raises(LookupError):
        started.ask(notebook, path)
    assert started.processes == []


def test_one_that_ends_is_followed_by_another_a_few_times() -> None:
    started = Started(prune=Gone)
    for _ in range(MOST_STARTS + 3):
        assert "could not go on" in started.ask(PRUNING, "prune")["raised"]
    assert len(started.processes) == MOST_STARTS
    assert all(process.stopped for process in started.processes)


def test_one_that_is_out_of_time_is_stopped() -> None:
    started = Started(prune=TimedOut)
    with pytest.raises(TimedOut):
        started.ask(PRUNING, "prune")
    assert started.processes[0].stopped
    assert started.ask(PRUNING, "other")["result"] == "other"
