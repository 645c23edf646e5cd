"""How the finetunings train: the report's recipe, and ours for the same number of epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labkit.training import Schedule, constant, cosine, sgd


@dataclass(frozen=True)
class Recipe:
    """SGD with a learning rate that follows `schedule`. Epochs and batch size are the profile's."""

    name: str
    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool
    schedule: Schedule

    @property
    def options(self) -> dict[str, Any]:
        """As arguments of `labkit.train`."""
        optimizer = sgd(self.lr, self.momentum, self.weight_decay, self.nesterov)
        return {"optimizer": optimizer, "schedule": self.schedule}

    def __str__(self) -> str:
        nesterov = "Nesterov momentum" if self.nesterov else "momentum"
        return (
            f"SGD, learning rate {self.lr:g} ({self.schedule.__name__}), {nesterov} {self.momentum:g}, "
            f"weight decay {self.weight_decay:g}"
        )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("report", 0.002, 0.875, 1e-4, False, constant),
        # a finetuning that starts again at a high learning rate, as in Renda et al. 2020, and anneals it
        Recipe("improved", 0.05, 0.9, 5e-4, True, cosine),
    )
}
