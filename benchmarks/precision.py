"""Does training in bfloat16 cost accuracy? Five finetuning epochs in each precision, over three seeds.

Each network is the shipped CIFAR-10 baseline, pruned to 80 % in every layer and finetuned with its masks
held, by notebook 01's and 02's own functions and the report's recipe. Every accuracy is evaluated in
float32. Takes about half an hour on two cores; goes on where it was stopped.

    python benchmarks/precision.py
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import labkit
from labkit.reproducible import environment
from labkit.siblings import definitions
from labkit.training import finetune

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parent / "notebooks" / "source" / "compression"


def last_accuracy(precision: str, seed: int, epochs: int) -> float:
    """Test accuracy, in per cent, after the last of `epochs` finetuning epochs."""
    prune = definitions(NOTEBOOKS / "01_percentile_pruning.ipynb")["prune_by_percentage"]
    epoch = definitions(NOTEBOOKS / "02_masked_finetuning.ipynb")["finetune_after_prune"]
    labkit.seed_everything(seed)
    net = labkit.load("resnet20-cifar10").to(labkit.default_device())
    for _, layer in labkit.prunable_layers(net):
        prune(layer, q=80.0)
    run = finetune(
        net, labkit.cifar10(train=True), labkit.cifar10(train=False),
        epochs=epochs, epoch_fn=epoch, precision=precision, seed=seed,
        folder=HERE / "runs" / f"{precision}-seed{seed}", label=f"{precision}, seed {seed}",
    )  # fmt: skip
    return round(100 * run.last["test_accuracy"], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    accuracy: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for seed in options.seeds:
        for precision in accuracy:
            accuracy[precision].append(last_accuracy(precision, seed, options.epochs))
    difference = statistics.mean(accuracy["bfloat16"]) - statistics.mean(accuracy["float32"])
    result = {
        "what": f"test accuracy in per cent, {options.epochs} epochs, pruned to 80 % per layer, masks held",
        "seeds": options.seeds,
        "accuracy": accuracy,
        "bfloat16_minus_float32": round(difference, 3),
        "environment": environment(labkit.default_device()),
    }
    (HERE / "results" / "precision.json").write_text(json.dumps(result, indent=1) + "\n")
    for precision, values in accuracy.items():
        print(f"{precision:9}", *(f"{value:.2f}" for value in values), f"mean {statistics.mean(values):.2f}")
    print(f"bfloat16 - float32: {difference:+.2f} points")


if __name__ == "__main__":
    main()
