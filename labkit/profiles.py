"""How big to go: `full` is the report's experiment on CIFAR-10, `quick` the same steps in seconds.

`quick` uses Shapes-10, drawn on the spot, a few thousand pictures and a few epochs: for the first
walk through a notebook, for CI, and for a plane without Wi-Fi. Its numbers are its own; the report's
numbers belong to `full`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit import arguments
from labkit.checkpoints import load
from labkit.datasets import ImageSet, cifar10, shapes10
from labkit.errors import LabError
from labkit.models import Quantizer, ResNet, default_device, resnet20
from labkit.outlook import outlook
from labkit.paths import runs_folder


@dataclass(frozen=True)
class Profile:
    """Sizes of the experiments. Percentages, bit widths and function names never depend on it."""

    name: str
    dataset: str
    baseline_name: str
    epochs: int
    ramp_epochs: int
    lr: float
    batch_size: int
    train_size: int | None
    test_size: int | None
    scan_size: int

    def train_set(self) -> ImageSet:
        """The training pictures, `train_size` of them."""
        return self._pictures(train=True, size=self.train_size)

    def test_set(self) -> ImageSet:
        """The test pictures, `test_size` of them."""
        return self._pictures(train=False, size=self.test_size)

    def scan_set(self) -> ImageSet:
        """The first `scan_size` test pictures: for scans that evaluate dozens of networks."""
        return self._pictures(train=False, size=self.scan_size)

    def baseline(
        self,
        bits: int | None = None,
        symmetric: bool = False,
        quantizer: Quantizer | None = None,
        device: torch.device | str | None = None,
    ) -> ResNet:
        """A fresh network with the trained floating-point weights, on the device that will run it."""
        where = arguments.device(device) if device is not None else default_device()
        net = resnet20(bits=bits, symmetric=symmetric, quantizer=quantizer)
        net.load_state_dict(self.starting_weights())
        return net.to(where)

    def starting_weights(self) -> Mapping[str, Tensor]:
        """The state dict that every experiment starts from, on the CPU."""
        return load(self.baseline_name).state_dict()

    @property
    def recipe(self) -> dict[str, Any]:
        """The finetuning recipe as keyword arguments of `labkit.finetune`."""
        return {"epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size}

    def folder(self, run: str) -> Path | None:
        """Where a run keeps its checkpoint: only at `full`, where an interrupted run costs something.

        See `labkit.paths.runs_folder`.
        """
        return None if self.name == "quick" else runs_folder() / run

    def __str__(self) -> str:
        """The sizes, and what to know of this machine; at `full` without a GPU its speed is measured."""
        size = "all" if self.train_size is None else f"{self.train_size:,}"
        about = (
            f"profile {self.name}: {self.dataset}, {size} training pictures, {self.epochs} epochs a run "
            f"(lr {self.lr:g}, batch {self.batch_size})"
        )
        return "\n".join([about, *outlook(self.name == "full", self.epochs)])

    def _pictures(self, train: bool, size: int | None) -> ImageSet:
        if self.dataset == "Shapes-10":
            return shapes10(train=train, size=size)  # draws no more than it gives
        data = cifar10(train=train)
        return data if size is None else data.subset(slice(size))


PROFILES = {
    "full": Profile(
        name="full", dataset="CIFAR-10", baseline_name="resnet20-cifar10",
        epochs=20, ramp_epochs=10, lr=0.002, batch_size=256,
        train_size=None, test_size=None, scan_size=2000,
    ),
    "quick": Profile(
        name="quick", dataset="Shapes-10", baseline_name="resnet20-shapes10",
        epochs=4, ramp_epochs=2, lr=0.01, batch_size=64,
        train_size=600, test_size=500, scan_size=200,
    ),
}  # fmt: skip


def profile(name: str | None = None) -> Profile:
    """The profile called `name`, else the one that LABKIT_PROFILE names, else the one that fits.

    With a GPU that is `full`; on a CPU it is `quick`, because a full run takes hours there.
    Raises LabError for an unknown name.
    """
    name = name or os.environ.get("LABKIT_PROFILE") or ("full" if torch.cuda.is_available() else "quick")
    if not isinstance(name, str) or name not in PROFILES:
        raise LabError(f"there is no profile {name!r}: LABKIT_PROFILE can be {' or '.join(PROFILES)}.")
    return PROFILES[name]
