"""Run notebooks from top to bottom as a student's Jupyter would, and count the points they reach."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.utils import determine_grade, is_grade, is_solution

from labkit.grading.kernels import kernel_environment, private_jupyter
from labkit.grading.scratch import scratch_folder
from labkit.grading.sources import leavings

CELL_SECONDS = 300


@dataclass(frozen=True)
class Run:
    """One notebook that was run: its outputs, how long it took, what it earned, why it stopped if it did."""

    name: str
    notebook: NotebookNode
    seconds: float
    points: float
    possible: float
    trouble: str | None = None


def run_notebooks(folder: Path, jobs: int, done: Callable[[Run], None] | None = None) -> list[Run]:
    """Run the notebooks of a folder at the `quick` profile, `jobs` at a time, one thread each; in order.

    They run in a copy of the folder, so that each finds its siblings and what it writes litters nothing.
    done: called with each run as it ends, in whatever order they end.
    """
    with scratch_folder("run") as scratch, private_jupyter():
        copy = scratch / folder.name
        shutil.copytree(folder, copy, ignore=leavings)
        return asyncio.run(_run_all(sorted(copy.glob("*.ipynb")), jobs, done))


async def _run_all(paths: list[Path], jobs: int, done: Callable[[Run], None] | None) -> list[Run]:
    free = asyncio.Semaphore(max(1, jobs))

    async def one(path: Path) -> Run:
        async with free:
            run = await _run(path)
        if done is not None:
            done(run)
        return run

    # The last notebooks are the longest: begun first, they leave no core idle at the end.
    runs = await asyncio.gather(*(one(path) for path in reversed(paths)))
    return runs[::-1]


async def _run(path: Path) -> Run:
    nb = nbformat.read(path, as_version=4)
    start, trouble = time.perf_counter(), None
    with kernel_environment() as env:
        client = NotebookClient(
            nb,
            kernel_name="python3",
            timeout=CELL_SECONDS,
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            await client.async_execute(env=env, stderr=subprocess.DEVNULL)  # the kernel program's own log
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            trouble = _first_error(nb) or str(error).strip().splitlines()[0]
    points, possible = score(nb)
    return Run(path.stem, nb, time.perf_counter() - start, points, possible, trouble)


def _first_error(nb: NotebookNode) -> str | None:
    outputs = (output for cell in nb.cells for output in cell.get("outputs", []))
    errors = (f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error")
    return next(errors, "").partition("\n")[0] or None


def score(nb: NotebookNode) -> tuple[float, float]:
    """(points, possible) of a run notebook's test cells, counted as nbgrader does; stderr costs nothing."""
    got = most = 0.0
    for cell in nb.cells:
        if cell.cell_type == "code" and is_grade(cell) and not is_solution(cell):
            cell = nbformat.from_dict(
                dict(cell, outputs=[o for o in cell.outputs if o.get("name") != "stderr"])
            )
            ran = cell.execution_count is not None
            points, possible = determine_grade(cell)
            got += points if ran else 0.0
            most += possible
    return got, most
