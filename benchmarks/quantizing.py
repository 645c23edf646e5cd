"""What does the quantizing forward cost in training? The same step at 4 bits and in floating point, in turn.

The quantizer is notebook 05's own. Both networks live in one process and take turns, a dozen times.

    python benchmarks/quantizing.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

from harness import RESULTS, timed
from torch import nn
from training import BATCH, Size, network, optimizer_of, pictures

import labkit
from labkit.loaders import Loader
from labkit.memory import keep_freed_memory
from labkit.precision import best_precision, forward_in
from labkit.reproducible import environment
from labkit.training import train_epoch

SIZE, TURNS = Size(train=2_560, test=0), 12


def trainer(bits: int | None) -> Callable[[], float]:
    """Trains over the same batches at each call; returns images per second."""
    net, criterion = network(bits).train(), nn.CrossEntropyLoss()
    optimizer = optimizer_of(net)
    precision = best_precision(labkit.default_device())
    batches = list(Loader(pictures(True, SIZE), BATCH, train=False))

    def train() -> None:
        with forward_in(net, precision):
            train_epoch(net, batches, criterion, optimizer)

    return lambda: timed(train, SIZE.train)


def main() -> None:
    keep_freed_memory()
    floating, quantized = trainer(None), trainer(4)
    floating(), quantized()
    ratios = [
        quantized() / floating() if turn % 2 else 1 / (floating() / quantized()) for turn in range(TURNS)
    ]
    median = statistics.median(ratios)
    print(f"4 bits / floating point: {median:.3f} of the speed ({min(ratios):.3f} to {max(ratios):.3f})")
    result = {"median": round(median, 3), "ratios": [round(ratio, 3) for ratio in ratios]}
    result |= {"precision": best_precision(labkit.default_device())}
    result |= {"environment": environment(labkit.default_device())}
    (RESULTS / "quantizing.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
