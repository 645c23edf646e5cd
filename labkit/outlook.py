"""What a student should know before a long run: how long it takes on this machine, and where it is kept.

Printed with the profile in each notebook's set-up cell.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Iterator

import torch
from torch import nn

from labkit import colab
from labkit.datasets import ImageSet
from labkit.loaders import Loader
from labkit.models import default_device, resnet20
from labkit.paths import runs_folder
from labkit.precision import forward_in, resolve
from labkit.training import sgd, train_epoch

CIFAR10_EPOCH = 50_000 + 10_000 / 2.5  # pictures: evaluating one takes 0.4 of the time of training on it
GPU_IN_COLAB = "Runtime, Change runtime type, T4 GPU, then run all cells again"


def outlook(full: bool, epochs: int) -> Iterator[str]:
    """Sentences for this machine; none where there is nothing to mind."""
    if default_device().type == "cpu":
        if full:
            seconds = epochs * CIFAR10_EPOCH / training_speed()
            better = f" With a GPU it would be a few: {GPU_IN_COLAB}." if colab.here() else ""
            yield f"No GPU: a run of {epochs} epochs takes about {_minutes(seconds)} here.{better}"
        elif colab.here():
            yield f"No GPU, so the experiments are small ones. For CIFAR-10: {GPU_IN_COLAB}."
    if full:
        kept = f"An interrupted run goes on where it was: it is kept in {runs_folder()}"
        if colab.here() and colab.drive() is None:
            kept += ", which Colab deletes with the runtime. Mount your Drive first (the folder on the left)"
        yield f"{kept}."


@functools.cache
def training_speed(seconds: float = 1.0, batch_size: int = 64) -> float:
    """Pictures per second of training ResNet-20 on this machine's device, measured for about so long.

    Draws from no random number generator that anybody else uses.
    """
    device = default_device()
    with torch.random.fork_rng():
        images = torch.randint(256, (batch_size, 3, 32, 32), dtype=torch.uint8)
        labels = torch.randint(10, (batch_size,))
        net = resnet20().to(device)
    pictures = ImageSet("noise", images, labels, (), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    loader, optimizer = Loader(pictures, batch_size, device=device), sgd(0.01)(net.parameters())
    steps: list[float] = []
    end = math.inf
    with forward_in(net, resolve("auto", device)):
        while len(steps) < 4 or time.perf_counter() < end:
            began = time.perf_counter()
            train_epoch(net, loader, nn.CrossEntropyLoss(), optimizer)
            steps.append(time.perf_counter() - began)
            if len(steps) == 1:  # which warms up
                end = time.perf_counter() + seconds
    return batch_size / statistics.median(steps[1:])


def _minutes(seconds: float) -> str:
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours"
