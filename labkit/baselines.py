"""How the networks that the lab starts from are trained: what `labkit train` does.

No test picture has a say in the weights: the last epoch is kept, where the learning rate has fallen to
zero, or the best of the last tenth on training pictures that were held out.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit.checkpoints import save
from labkit.datasets import cifar10, shapes10
from labkit.errors import LabError
from labkit.models import default_device, resnet20
from labkit.reproducible import seed_everything
from labkit.training import Evaluation, evaluate, one_cycle, sgd, train


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum under a one-cycle learning rate; random crops and flips.

    held_out: so many training pictures choose the epoch and are not trained on; 0: the last one is kept.
    """

    dataset: str
    epochs: int
    lr: float
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    held_out: int = 0
    precision: str = "auto"
    seed: int = 42

    def __str__(self) -> str:
        chosen = f", epoch chosen on {self.held_out:,} held-out training pictures" if self.held_out else ""
        return (
            f"SGD, Nesterov momentum {self.momentum:g}, weight decay {self.weight_decay:g}, "
            f"one-cycle learning rate to {self.lr:g}, batch {self.batch_size}, {self.epochs} epochs, "
            f"{self.precision}, seed {self.seed}{chosen}"
        )


RECIPES = {
    "cifar10": Recipe("cifar10", epochs=200, lr=0.1, held_out=1000),
    "shapes10": Recipe("shapes10", epochs=12, lr=0.2),
}


def train_baseline(recipe: Recipe, out: Path, folder: Path) -> Evaluation:
    """Train a ResNet-20 by this recipe, write its weights to `out`, and return its test figures.

    folder: keeps the checkpoint of each epoch; the same recipe goes on from there after a kill.
    """
    pictures = cifar10 if recipe.dataset == "cifar10" else shapes10
    seed_everything(recipe.seed)
    net = resnet20().to(default_device())
    train_set, validation_set = pictures(train=True), None
    if recipe.held_out >= len(train_set):
        raise LabError(
            f"--held-out {recipe.held_out} leaves nothing of {len(train_set):,} training pictures."
        )
    if recipe.held_out:
        train_set, validation_set = train_set.split(recipe.held_out)
    run = train(
        net,
        train_set,
        epochs=recipe.epochs,
        validation_set=validation_set,
        keep_best_from=recipe.epochs * 9 // 10,
        optimizer=sgd(recipe.lr, recipe.momentum, recipe.weight_decay, nesterov=True),
        schedule=one_cycle,
        batch_size=recipe.batch_size,
        precision=recipe.precision,
        folder=folder,
        seed=recipe.seed,
        label=f"ResNet-20 on {recipe.dataset}",
    )
    result = evaluate(net, pictures(train=False))
    save(
        net,
        out,
        recipe=json.dumps(asdict(recipe)),
        environment=json.dumps(run.environment),
        test_accuracy=f"{result.accuracy:.4f}",
        test_loss=f"{result.loss:.4f}",
    )
    return result
