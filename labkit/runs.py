"""A run: its settings, its history as plain data, its best epoch, and its checkpoint on disk.

A checkpoint is one file, replaced after each epoch. It is read with `weights_only=True`, and only
goes on if the run that asks for it would have started in exactly the same way: another start has
another file, so that a changed line of code does not cost the hours before it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from labkit import arguments
from labkit.checkpoints import weights_sha256
from labkit.datasets import ImageSet
from labkit.errors import ArgumentError, LabError
from labkit.files import NotWritten, expect_writable, write_atomically


@dataclass
class Run:
    """What a training run did.

    history: one dict for each epoch, plain numbers: epoch (from 0), lr, train_loss, train_accuracy,
        seconds, images_per_second, and test_/validation_loss and _accuracy where these were given.
    settings, environment: everything needed to repeat it.
    """

    label: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    fingerprint: str
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_weights: dict[str, Tensor] | None = field(default=None, repr=False)

    @property
    def best(self) -> dict[str, Any]:
        """The record of the epoch whose weights were kept."""
        if self.best_epoch is None:
            raise ArgumentError("no epoch was eligible for the best: keep_best_from should be below epochs.")
        return self.history[self.best_epoch]

    @property
    def last(self) -> dict[str, Any]:
        """The record of the last epoch."""
        if not self.history:
            raise ArgumentError("there is no last epoch: the run had epochs=0.")
        return self.history[-1]

    def add(self, record: dict[str, Any], net: nn.Module, eligible: bool) -> None:
        """Append an epoch's record; keep a copy of the weights if it is the best so far."""
        self.history.append(record)
        if eligible and (self.best_epoch is None or self._figure(record) > self._figure(self.best)):
            self.best_epoch = len(self.history) - 1
            self.best_weights = {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}

    def _figure(self, record: dict[str, Any]) -> float:
        chosen_on = self.settings["chosen_on"]
        # without a data set to choose on, a later epoch is a better one
        return float(record.get(f"{chosen_on}_accuracy", record["epoch"]))

    def load_best(self, net: nn.Module) -> None:
        """Put the best epoch's weights into `net` (nothing to do if no epoch was eligible)."""
        if self.best_weights is not None:
            net.load_state_dict(self.best_weights)

    def record(self) -> dict[str, Any]:
        """The run as JSON-ready data, without weights."""
        return {
            "label": self.label,
            "settings": self.settings,
            "environment": self.environment,
            "fingerprint": self.fingerprint,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }

    def __str__(self) -> str:
        if self.best_epoch is None:
            return f"{self.label}: {len(self.history)} epochs, none of them chosen"
        chosen_on = self.settings["chosen_on"]
        name = "test" if "test_accuracy" in self.last else "train"
        best, last = self.best[f"{name}_accuracy"], self.last[f"{name}_accuracy"]
        return (
            f"{self.label}: {name} accuracy {best:.4f} in epoch {self.best_epoch + 1} of {len(self.history)} "
            f"(chosen on {chosen_on}), {last:.4f} in the last"
        )


def fingerprint(settings: dict[str, Any], net: nn.Module, data: ImageSet) -> str:
    """A hash of how a run starts: settings, starting weights, bit widths, and the data."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(weights_sha256(net).encode())
    digest.update(repr(net).encode())  # names the layers and their bit widths
    digest.update(data.labels.numpy().tobytes())
    digest.update(data.images[:: max(1, len(data) // 256)].numpy().tobytes())
    return digest.hexdigest()[:16]


KEPT = 4  # checkpoints in a run's folder, each 3 MB for a ResNet-20


class RunFolder:
    """Reads and writes a run's `<folder>/checkpoint-<fingerprint>.pt`; beside it, its record as JSON.

    The newest KEPT checkpoints stay.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.file = arguments.path(folder, "folder") / f"checkpoint-{fingerprint}.pt"
        self.fingerprint = fingerprint
        self._kept = 0  # epochs that the checkpoint on disk holds
        self._told = False

    def expect_writable(self) -> None:
        """Raise LabError unless checkpoints can be kept here: said before hours of training, not after."""
        if self.file.is_dir():
            raise LabError(f"{self.file} is a folder in the place of a checkpoint: delete it.")
        try:
            expect_writable(self.file)
        except NotWritten as error:
            raise LabError(
                f"the run folder {self.file.parent} cannot be written ({error.strerror}). Name another one "
                "with folder=... or LABKIT_RUNS, or train with folder=None, which keeps no checkpoint."
            ) from None

    def write(self, run: Run, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Keep this epoch. A disk that is full costs the checkpoint, and not the training."""
        try:
            self._write(run, net, optimizer)
            self._kept, self._told = len(run.history), False
        except NotWritten as error:
            if not self._told:
                text = f"{run.label} goes on without its checkpoint: {error} {self._last_good()}"
                tqdm.write(text, file=sys.stdout)  # above the bar
            self._told = True

    def _last_good(self) -> str:
        if not self._kept:
            return "No epoch of this run is kept on disk yet."
        return f"The last good one is {self.file}, after epoch {self._kept}."

    def _write(self, run: Run, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "history": run.history,
            "best_epoch": run.best_epoch,
            "best_weights": run.best_weights,
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        data = io.BytesIO()  # torch itself reports a full disk as a RuntimeError
        torch.save(state, data)
        write_atomically(self.file, lambda part: part.write_bytes(data.getbuffer()))
        for old in self._others()[KEPT - 1 :]:
            with contextlib.suppress(OSError):
                old.unlink()
        self._write_record(run)

    def _write_record(self, run: Run) -> None:
        record = json.dumps(run.record(), indent=1, default=str) + "\n"  # small enough to hand in
        path = self.file.with_name("record.json")
        write_atomically(path, lambda part: part.write_text(record, encoding="utf-8"))

    def restore(self, run: Run, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Take up an earlier, identical start of this run, if the folder has one."""
        state = self._read()
        if state is None:
            return
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        torch.set_rng_state(state["torch_rng"].cpu())
        run.history = state["history"]
        run.best_epoch = state["best_epoch"]
        run.best_weights = state["best_weights"]
        self._kept = len(run.history)
        with contextlib.suppress(NotWritten):  # a folder to read from, such as somebody else's
            self._write_record(run)  # it may be that of another start
        done, of = len(run.history), run.settings["epochs"]
        what = "was finished before: read back" if done == of else f"goes on after epoch {done} of {of}"
        print(f"{run.label} {what} (from {self.file.parent}; delete that folder to start over)")

    def _others(self) -> list[Path]:
        """The checkpoints of other starts, the newest first."""
        written: dict[Path, float] = {}
        for file in self.file.parent.glob("checkpoint-*.pt"):
            with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                written[file] = file.stat().st_mtime
        written.pop(self.file, None)
        return sorted(written, key=lambda file: -written[file])

    def _read(self) -> dict[str, Any] | None:
        if not self.file.exists():
            if self._others():
                print(f"the checkpoint in {self.file.parent} is of other settings or code; starting afresh")
            return None
        try:
            state = dict(torch.load(self.file, map_location="cpu", weights_only=True))
        except Exception:  # of a damaged file, anything
            print(f"the checkpoint {self.file} cannot be read; starting afresh")
            with contextlib.suppress(OSError):
                self.file.rmdir()  # an empty folder in its place
            return None
        return state if state.get("fingerprint") == self.fingerprint else None
