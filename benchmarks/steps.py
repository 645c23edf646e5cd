"""What each step brought: the same work with one more of them at a time.

Training: the report's recipe on batches that lie ready. Evaluation: 10,000 pictures in float32. Each
side has everything that the side before it has, and one thing more.

    python benchmarks/steps.py            # add --compile for torch.compile, which labkit does without
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import cache, partial
from itertools import pairwise

import torch
from harness import Measure, Side, compare, timed
from torch import nn
from training import BATCH, Size, add_arguments, network, optimizer_of, pictures

import labkit
from labkit import inference, memory
from labkit.loaders import Loader
from labkit.precision import best_precision, forward_in
from labkit.training import train_epoch

STEPS = (
    "float32, NCHW",
    "channels_last inputs",
    "freed memory kept",
    "in huge pages",
    "bfloat16 / batch norm folded",
    "- / ReLU and addition fused",
)


def side(steps: int, compiled: bool, size: Size) -> dict[str, Measure]:
    """Training and evaluation with the first `steps` of STEPS."""
    if steps == 3:
        memory._use_huge_pages = lambda libc, size: None
    if steps >= 3:
        memory.keep_freed_memory()
    if steps < 6:
        inference._can_fuse = cache(lambda: False)
    device, net, criterion = labkit.default_device(), network(), nn.CrossEntropyLoss()
    optimizer = optimizer_of(net)
    precision = best_precision(device) if steps >= 5 else "float32"
    layout = torch.channels_last if steps >= 2 else torch.contiguous_format
    batches = [
        (inputs.contiguous(memory_format=layout), targets)
        for inputs, targets in Loader(pictures(True, size), BATCH, train=False)
    ]
    test_set = pictures(False, size)
    if compiled:
        net.compile()

    def train() -> None:
        net.train()
        with forward_in(net, precision):
            train_epoch(net, batches, criterion, optimizer)

    def evaluate() -> None:
        net.eval()
        forward = inference.frozen(net) if steps >= 5 else net
        with torch.no_grad():
            for inputs, _ in Loader(test_set, 250, train=False):
                forward(inputs.contiguous(memory_format=layout))

    measures = {"train": lambda: timed(train, size.train)}
    if not compiled:
        measures["evaluate"] = lambda: timed(evaluate, size.test)
    return measures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_arguments(parser, "steps.json", Size(5_120, 10_000))
    parser.add_argument("--compile", action="store_true", help="one side more; takes a minute to get ready")
    options = parser.parse_args()
    size = Size(options.train, options.test)
    sides: dict[str, Side] = {
        name: partial(side, number, False, size) for number, name in enumerate(STEPS, 1)
    }
    if options.compile:
        sides["torch.compile"] = partial(side, len(STEPS), True, size)
    pairs = [((b, "train"), (a, "train")) for a, b in pairwise(sides)]
    pairs += [((b, "evaluate"), (a, "evaluate")) for a, b in pairwise(STEPS)]
    result = compare(sides, options.rounds)
    result.report(pairs)
    result.write(
        options.out, pairs, images=asdict(size), rounds=options.rounds, data=pictures(False, size).name
    )


if __name__ == "__main__":
    main()
