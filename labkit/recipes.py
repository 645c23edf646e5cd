"""How the finetunings train: the report's recipe, and ours for the same number of epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from labkit.errors import LabError
from labkit.models import quantized_layers
from labkit.training import Schedule, constant, cosine, sgd


@dataclass(frozen=True)
class Recipe:
    """SGD with a learning rate that follows `schedule`. Epochs and batch size are the profile's.

    lr_at: bit width -> the learning rate there, where it is another one than `lr`. The less the grid has
        taken from a network, the less there is to learn anew, and a high rate would only cost.
    clip: bit width -> how many standard deviations a quantized layer's weights may lie from zero when the
        training begins. Two or three outliers stretch a min-max grid until most weights share one level.
    """

    name: str
    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool
    schedule: Schedule
    lr_at: Mapping[int, float] = field(default_factory=dict)
    clip: Mapping[int, float] = field(default_factory=dict)

    def at(self, bits: int | None) -> Recipe:
        """The recipe for networks of this bit width, None for those in floating point."""
        return replace(self, lr=self.lr_at.get(bits or 0, self.lr), lr_at={})

    @property
    def options(self) -> dict[str, Any]:
        """As arguments of `labkit.train`."""
        optimizer = sgd(self.lr, self.momentum, self.weight_decay, self.nesterov)
        return {"optimizer": optimizer, "schedule": self.schedule}

    @property
    def settings(self) -> dict[str, Any]:
        """As plain data; of a recipe `at` a bit width."""
        plain = {name: getattr(self, name) for name in ("name", "lr", "momentum", "weight_decay", "nesterov")}
        plain["schedule"] = self.schedule.__name__
        return plain | ({"clip": {str(bits): c for bits, c in self.clip.items()}} if self.clip else {})

    @torch.no_grad()
    def prepare(self, net: nn.Module) -> None:
        """Clip the weights of the quantized layers, in place; the pruned ones are zero and stay so."""
        for _, layer in quantized_layers(net):
            if (deviations := self.clip.get(layer.bits or 0)) is not None:
                weight = layer.conv.weight
                kept = weight[weight != 0]
                if len(kept) > 1:  # of fewer there is no deviation
                    limit = deviations * float(kept.std())
                    weight.clamp_(-limit, limit)

    def __str__(self) -> str:
        nesterov = "Nesterov momentum" if self.nesterov else "momentum"
        lr = "".join(f", {lr:g} at {bits} bits" for bits, lr in self.lr_at.items())
        clip = "".join(
            f"; at {bits} bits clipped to {c:g} standard deviations" for bits, c in self.clip.items()
        )
        return (
            f"SGD, learning rate {self.lr:g}{lr} ({self.schedule.__name__}), {nesterov} {self.momentum:g}, "
            f"weight decay {self.weight_decay:g}{clip}"
        )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("report", 0.002, 0.875, 1e-4, False, constant),
        # starts again at a high learning rate and anneals it (Renda et al. 2020: learning rate rewinding)
        Recipe(
            "improved", 0.05, 0.9, 5e-4, True, cosine,
            lr_at={5: 0.01, 4: 0.01, 3: 0.02}, clip={3: 3.5, 2: 2.5},
        ),
    )
}  # fmt: skip


def recipe(name: str, bits: int | None = None) -> Recipe:
    """The finetuning recipe called `report` or `improved`, for networks of that bit width (None: float32).

    To train by it: `chosen.prepare(net)`, then `labkit.train(net, ..., **chosen.options)`. Raises
    LabError for another name.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise LabError(f"there is no recipe {name!r}: it can be {' or '.join(RECIPES)}.")
    return RECIPES[name].at(bits)
