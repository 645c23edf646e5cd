"""For a worker of the cluster: it grades, and nobody hears of it. It imports little, as the worker does."""

from __future__ import annotations

import tempfile
import threading

from labkit.grading.engine import Engine
from labkit.grading.verdicts import Graded, Job


def hold_results(folder: str) -> None:
    """From now on this process keeps what it has graded; each notebook leaves a file in `folder`."""
    grade = Engine.grade

    def held(self: Engine, job: Job) -> Graded:
        graded = grade(self, job)
        tempfile.mkstemp(dir=folder)
        threading.Event().wait(800)  # until the process is killed
        return graded

    Engine.grade = held  # type: ignore[method-assign]
