"""What came out, on disk: a JSON record for each run, and the weights beside it.

<folder>/<series>/<experiment>-seed<n>.json
<folder>/<series>/weights/<experiment>-seed<n>.safetensors
<folder>/<series>/running/<experiment>-seed<n>/    the checkpoint of a run that is not finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from labkit.checkpoints import read_weights
from labkit.errors import LabError
from labkit.files import write_atomically
from labkit.reproduce.jobs import Job, Outcome, Series

Record = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """The records of one series."""

    folder: Path

    @classmethod
    def of(cls, folder: Path, series: Series) -> Records:
        return cls(folder / series.name)

    def read(self, job: Job) -> Record | None:
        """The record of this very job, or None if there is none or its inputs were others."""
        record = _read(self._record(job))
        return record if record is not None and record["key"] == job.key else None

    def outcome(self, job: Job) -> Outcome | None:
        """Record and weights, or None if one of them is missing."""
        record, weights = self.read(job), self._weights(job)
        if record is None:
            return None
        if "weights_sha256" not in record:
            return Outcome(record, None)
        return Outcome(record, read_weights(weights)) if weights.exists() else None

    def write(self, job: Job, outcome: Outcome) -> None:
        """Keep what came out: weights first, so that a record never waits for them. The checkpoint goes."""
        if outcome.weights is not None:
            tensors = {name: value.contiguous() for name, value in outcome.weights.items()}
            data = safetensors.torch.save(tensors)
            write_atomically(self._weights(job), lambda part: part.write_bytes(data))
        text = json.dumps(outcome.record, indent=1, default=str) + "\n"
        write_atomically(self._record(job), lambda part: part.write_text(text, encoding="utf-8"))
        shutil.rmtree(self.running(job), ignore_errors=True)

    def running(self, job: Job) -> Path:
        """The folder for the job's checkpoint."""
        return self.folder / "running" / job.slug

    def _record(self, job: Job) -> Path:
        return self.folder / f"{job.slug}.json"

    def _weights(self, job: Job) -> Path:
        return self.folder / "weights" / f"{job.slug}.safetensors"


def all_records(folder: Path) -> Iterator[tuple[str, Record]]:
    """(series, record) of everything under `folder`, in the order of names."""
    for path in sorted(folder.glob("*/*.json")):
        record = _read(path)
        if record is not None:
            yield path.parent.name, record


def _read(path: Path) -> Record | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if {"key", "rows"} <= record.keys() else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise LabError(
            f"{path} is no record of ours; delete it to run that experiment again ({error})."
        ) from None
