"""How fast do we train and evaluate, against the report's loop and against bare arithmetic?

- `report`: the report's loop. torchvision's CIFAR10, PIL transforms, a DataLoader with 2 or 16 worker
  processes, float32; `loss.item()` and the accuracy in each step. `evaluate` is what its training cells
  do; `test` is its helper for the tables, which opens the data set anew each time.
- `labkit`: `labkit.finetune` with shuffling, augmentation, metrics, history; `labkit.evaluate`.
- `compute only`: the same step, and the same forward pass, on batches that lie ready; nothing else.

Uses CIFAR-10 where `labkit data` finds it, else random pictures of its shape.

    python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, Figure, Measure, Side, compare, timed
from torch import Tensor, nn

import labkit
from labkit.datasets import CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD, ImageSet
from labkit.download import find_cifar10
from labkit.inference import frozen
from labkit.loaders import Loader
from labkit.memory import keep_freed_memory
from labkit.precision import best_precision, float32_only, forward_in
from labkit.siblings import definitions
from labkit.training import train_epoch

NOTEBOOKS = Path(__file__).parents[1] / "notebooks" / "source" / "compression"
BATCH, TEST_BATCH = 256, 100  # the report's
# how its worker processes start on Linux; a side is itself spawned, which would be handed down
FORK = "fork" if "fork" in multiprocessing.get_all_start_methods() else None


@dataclass(frozen=True)
class Size:
    """How many pictures one measurement takes."""

    train: int
    test: int


def pictures(train: bool, size: Size) -> ImageSet:
    count = size.train if train else size.test
    if find_cifar10() is not None:
        return labkit.cifar10(train=train).subset(slice(count))
    generator = torch.Generator().manual_seed(int(train))
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    return ImageSet("random", images, labels, CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD)


def network(bits: int | None = None) -> nn.Module:
    ste = definitions(NOTEBOOKS / "05_asymmetric_quantization.ipynb")["STE"] if bits else None
    net = labkit.load("resnet20-cifar10", bits=bits, quantizer=ste.apply if ste else None)
    return net.to(labkit.default_device())


def optimizer_of(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.875, weight_decay=1e-4)


def report(workers: int, size: Size) -> dict[str, Measure]:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import CIFAR10

    device, net, criterion = labkit.default_device(), network(), nn.CrossEntropyLoss()
    to_input = [transforms.ToTensor(), transforms.Normalize(CIFAR10_MEAN, CIFAR10_STD)]
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    folder = find_cifar10()

    def data_set(train: bool) -> Any:
        transform = transforms.Compose(augment + to_input if train else to_input)
        count = size.train if train else size.test
        if folder is not None:
            made = CIFAR10(folder.parent, train=train, download=True, transform=transform)
            made.data, made.targets = made.data[:count], made.targets[:count]
            return made
        made, random = CIFAR10.__new__(CIFAR10), pictures(train, size)
        made.data = random.images.permute(0, 2, 3, 1).contiguous().numpy()
        made.targets, made.transform, made.target_transform = random.labels.tolist(), transform, None
        return made

    def loader(data: Any, batch_size: int, shuffle: bool) -> Any:
        return DataLoader(data, batch_size, shuffle, num_workers=workers, multiprocessing_context=FORK)

    trainloader = loader(data_set(train=True), BATCH, shuffle=True)

    def open_test() -> Any:
        return loader(data_set(train=False), TEST_BATCH, shuffle=False)

    testloader = open_test()

    def one_pass(batches: Any, optimizer: torch.optim.Optimizer | None = None) -> None:
        loss_sum = correct = 0.0
        for inputs, targets in batches:
            inputs, targets = inputs.to(device), targets.to(device)
            if optimizer is not None:
                optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, targets)
            if optimizer is not None:
                loss.backward()
                optimizer.step()
            loss_sum += loss.item()
            correct += outputs.max(1)[1].eq(targets).sum().item()

    def train() -> None:
        net.train()
        one_pass(trainloader, optimizer_of(net))

    def evaluate(batches: Any) -> None:
        net.eval()
        with torch.no_grad():
            one_pass(batches)

    measures = {
        "train": lambda: timed(train, size.train),
        "evaluate": lambda: timed(lambda: evaluate(testloader), size.test),
    }
    if folder is not None:  # random pictures are not opened
        measures["test"] = lambda: timed(lambda: evaluate(open_test()), size.test)
    return measures


def ours(precision: str, bits: int | None, size: Size) -> dict[str, Measure]:
    train_set, test_set, net = pictures(True, size), pictures(False, size), network(bits)

    def train() -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # the progress bar is drawn, but not here
            run = labkit.finetune(net, train_set, epochs=1, batch_size=BATCH, precision=precision)
        return float(run.last["images_per_second"])

    return {"train": train, "evaluate": lambda: timed(lambda: labkit.evaluate(net, test_set), size.test)}


def compute_only(precision: str, bits: int | None, size: Size) -> dict[str, Measure]:
    keep_freed_memory()
    net, criterion = network(bits), nn.CrossEntropyLoss()
    optimizer = optimizer_of(net)

    def ready(data: ImageSet, batch: int) -> list[tuple[Tensor, Tensor]]:
        return list(Loader(data, batch, train=False))

    train_batches, test_batches = (
        ready(pictures(True, size), BATCH),
        ready(pictures(False, size), 250),
    )

    def train() -> None:
        net.train()
        with forward_in(net, precision):
            train_epoch(net, train_batches, criterion, optimizer)

    def evaluate() -> None:
        forward = frozen(net.eval())
        with torch.no_grad(), float32_only(labkit.default_device()):
            for inputs, _ in test_batches:
                forward(inputs)

    return {"train": lambda: timed(train, size.train), "evaluate": lambda: timed(evaluate, size.test)}


def sides(best: str, size: Size) -> dict[str, Side]:
    return {
        "report, 2 workers": partial(report, 2, size),
        "report, 16 workers": partial(report, 16, size),
        "labkit": partial(ours, best, None, size),
        "compute only": partial(compute_only, best, None, size),
        "labkit, 4 bits": partial(ours, best, 4, size),
        "labkit, float32": partial(ours, "float32", None, size),
        "compute only, float32": partial(compute_only, "float32", None, size),
    }


def ratios() -> list[tuple[Figure, Figure]]:
    """What the README beside this file claims."""
    two, sixteen, bare = "report, 2 workers", "report, 16 workers", "compute only"
    pairs = [
        ("labkit", "train", two, "train"),
        ("labkit", "train", sixteen, "train"),
        ("labkit", "train", bare, "train"),
        ("labkit, 4 bits", "train", "labkit", "train"),
        ("labkit, float32", "train", two, "train"),
        ("labkit, float32", "train", "compute only, float32", "train"),
        ("labkit", "evaluate", two, "evaluate"),
        ("labkit", "evaluate", sixteen, "evaluate"),
        ("labkit", "evaluate", bare, "evaluate"),
        ("labkit, 4 bits", "evaluate", "labkit", "evaluate"),
    ]
    if find_cifar10() is not None:
        pairs += [("labkit", "evaluate", two, "test"), ("labkit", "evaluate", sixteen, "test")]
    return [((a, b), (c, d)) for a, b, c, d in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_arguments(parser, "training.json", Size(12_800, 10_000))
    options = parser.parse_args()
    size, best = Size(options.train, options.test), best_precision(labkit.default_device())
    result = compare(sides(best, size), options.rounds)
    result.report(ratios())
    result.write(
        options.out, ratios(),
        images=asdict(size), rounds=options.rounds, precision=best, data=pictures(False, size).name,
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser, file: str, size: Size) -> None:
    parser.add_argument("--train", type=int, default=size.train, help="training pictures in a measurement")
    parser.add_argument("--test", type=int, default=size.test, help="test pictures in a measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / file, help="where the JSON goes")


if __name__ == "__main__":
    main()
