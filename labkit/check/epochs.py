"""An epoch on a small pruned net: as it should be, and with each common mistake.

It is small enough to be gone through again, so an answer whose weights end where one of these ways ends has
made that mistake.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.check.engine import as_array
from labkit.check.fixtures import RoundToSteps, TinyNet, batches, restless_optimizer
from labkit.models import default_device, prunable_layers, quantized_layers

SAME = 1e-3  # closer than this in every weight, two ways through an epoch end in the same place

BEFORE_STEP = (
    "the mask comes before optimizer.step(), which moves the weights again: apply it after the step."
)
GRADIENT = (
    "a mask on the gradient is not enough: momentum and weight decay move a weight whose gradient is zero."
)
NO_MASK = (
    "it ends like an epoch without a mask: take weight != 0 before the loop, and after each optimizer.step() "
    "write the product into layer.weight itself (layer.weight.data.mul_(mask))."
)
AT_END = (
    "the mask is applied at the end of the epoch only, and pruned weights take part in the batches before: "
    "apply it after each step."
)
NOT_CLEARED = "the gradients add up over the batches: optimizer.zero_grad() for each of them."


class Trial:
    """A net in training with half of each prunable layer at zero, and an optimizer that already moves.

    It stands where the notebook's `device` is, for answers that move their batches there.
    """

    def __init__(self, bits: int | None = None) -> None:
        self.net = TinyNet(bits, RoundToSteps.apply if bits else None)
        for norm in (self.net.head_bn, self.net.bn1, self.net.bn2):
            nn.init.constant_(norm.bias, 0.1)  # not zero, so that a mask of every parameter does no harm
        self.net.to(default_device())
        self.optimizer = restless_optimizer(self.net)
        for _, layer in prunable_layers(self.net):
            magnitude = layer.weight.detach().abs()
            layer.weight.data[magnitude < magnitude.median()] = 0
        self.net.train()
        self.parameters = dict(self.net.named_parameters())
        self.before = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.pruned = {name: self.before[f"{name}.weight"] == 0 for name, _ in prunable_layers(self.net)}
        self.memory = [copy.deepcopy(state) for state in self.optimizer.state.values()]
        self.settings = self._settings()

    @property
    def layers(self) -> dict[str, nn.Conv2d | nn.Linear]:
        return dict(prunable_layers(self.net))

    def weights(self) -> np.ndarray:
        """All parameters, one after the other."""
        return np.concatenate([as_array(p).ravel() for _, p in sorted(self.net.named_parameters())])

    def back(self) -> dict[str, int]:
        """How many of the pruned weights of each layer are not zero any more."""
        return {n: int((layer.weight[self.pruned[n]] != 0).sum()) for n, layer in self.layers.items()}

    def trained(self) -> dict[str, float]:
        """The share of each layer's other weights that moved."""
        return {
            name: float((layer.weight != self.before[f"{name}.weight"])[~self.pruned[name]].float().mean())
            for name, layer in self.layers.items()
        }

    def gone(self) -> int:
        """How many weights are zero that were not."""
        return sum(int((layer.weight[~self.pruned[n]] == 0).sum()) for n, layer in self.layers.items())

    def largest_back(self) -> float:
        """The largest magnitude of a weight that was pruned."""
        return max(float(layer.weight[self.pruned[n]].abs().max()) for n, layer in self.layers.items())

    def on_level(self) -> float:
        """The smallest share of a quantized layer's nonzero weights that lie on a level."""
        weights = [layer.conv.weight.detach() for _, layer in quantized_layers(self.net)]
        weights = [w[w != 0] for w in weights]
        return min(float(((w - RoundToSteps.apply(w, 4)).abs() < 1e-6).float().mean()) for w in weights)

    def unmoved(self) -> list[str]:
        """The parameters that are what they were."""
        return [n for n, p in self.net.named_parameters() if torch.equal(p.detach(), self.before[n])]

    def same_memory(self) -> bool:
        """Whether the optimizer remembers what it did before, as if it had not made a step."""
        now = list(self.optimizer.state.values())
        return len(now) == len(self.memory) and all(
            all(torch.equal(a[key], b[key]) for key in a if isinstance(a[key], Tensor) and key in b)
            for a, b in zip(now, self.memory, strict=True)
        )

    def same_settings(self) -> bool:
        return self._settings() == self.settings

    def _settings(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]


def walk(
    trial: Trial,
    hold: str = "after",
    clear: str = "before",
    use: slice = slice(None),
    repeat: int = 1,
    one_step: bool = False,
    forget: str = "",
    factor: float = 1.0,
) -> np.ndarray:
    """Where the weights end after an epoch gone through by hand; the defaults are right.

    hold: when the mask is applied: after or before the step, at the end, never; or on the gradient.
    clear: gradients are set to None before the batch, to zero just before the step, or never.
    use, repeat: which batches, and how often. one_step: gradients of all of them for a single step.
    forget: the optimizer's memory is lost, once or each time. factor: what the loss is multiplied by.
    """
    net, optimizer, criterion = trial.net, trial.optimizer, nn.CrossEntropyLoss()
    held = [(layer.weight, ~trial.pruned[name]) for name, layer in prunable_layers(net)]
    loader = list(batches(device=default_device()))[use] * repeat

    def apply_masks() -> None:
        for weight, mask in held:
            weight.data.mul_(mask)

    for number, (inputs, targets) in enumerate(loader, start=1):
        if forget == "each time" or (forget and number == 1):
            optimizer.state.clear()
        if clear == "before" and (number == 1 or not one_step):
            optimizer.zero_grad()
        (factor * criterion(net(inputs), targets)).backward()
        if one_step and number < len(loader):
            continue
        if clear == "after":
            optimizer.zero_grad(set_to_none=False)
        if hold == "before":
            apply_masks()
        if hold in ("gradient", "gradient, end"):
            for weight, mask in held:
                weight.grad.mul_(mask)  # type: ignore[union-attr]
        optimizer.step()
        if hold == "where the gradient is":
            for weight, _ in held:
                weight.data.mul_(weight.grad != 0)
        last = number == len(loader) and hold in ("end", "gradient, end")
        if hold == "after" or last:
            apply_masks()
    return trial.weights()


@cache
def replays(bits: int | None) -> tuple[tuple[str, Callable[[], np.ndarray]], ...]:
    """Where common mistakes end; each way is gone once."""
    return tuple(_replays(bits))


def _replays(bits: int | None) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    def way(change: Callable[[Trial], object] | None = None, **options: Any) -> Callable[[], np.ndarray]:
        @cache
        def gone() -> np.ndarray:
            trial = Trial(bits)
            if change is not None:
                change(trial)
            return walk(trial, **options)

        return gone

    def unquantized(trial: Trial) -> None:
        for _, layer in list(quantized_layers(trial.net)):
            layer.bits = None

    yield BEFORE_STEP, way(hold="before")
    yield GRADIENT, way(hold="gradient")
    yield NO_MASK, way(hold="never")
    yield AT_END, way(hold="end")
    yield f"{AT_END} The one on the gradient is not enough.", way(hold="gradient, end")
    yield (
        "the mask is taken from the gradient: take weight != 0, before the loop.",
        way(hold="where the gradient is"),
    )
    for hold in ("after", "never"):
        ends = partial(way, hold=hold)
        yield NOT_CLEARED, ends(clear="never")
        late = "zero_grad() comes between backward() and step(): then the step knows no gradient."
        yield late, ends(clear="after")
        yield (
            "only the first batch is used: does a `return` or `break` stand inside the loop?",
            ends(use=slice(1)),
        )
        yield (
            "only the last batch is used: does the training stand inside the loop?",
            ends(use=slice(-1, None)),
        )
        yield "the first batch is left out.", ends(use=slice(1, None))
        yield "each batch is used twice: one epoch is asked for.", ends(repeat=2)
        one = "one step for the whole epoch: zero_grad, backward and step belong inside the loop."
        yield one, ends(one_step=True)
        yield one, ends(one_step=True, factor=1 / len(batches()))
        given = "the optimizer has lost its memory (momentum): use the one that was given, as it is."
        yield given, ends(forget="once")
        yield given, ends(forget="each time")
        mode = (
            "the net is set to evaluation mode: batch norm then takes its old averages. Leave the mode alone."
        )
        yield mode, ends(lambda trial: trial.net.eval())
        if bits is not None:
            yield "the quantizer is switched off while it trains: leave layer.bits alone.", ends(unquantized)
