"""An epoch on a small pruned net: as it should be, and with each common mistake.

It is small enough to be gone through again, so an answer whose weights end where one of these ways ends has
made that mistake.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from labkit.check.engine import as_array
from labkit.check.fixtures import RoundToSteps, batches, restless_optimizer
from labkit.check.nets import flat, numbers, short, shortcut_names, small_net
from labkit.check.quantization import Case, on_levels
from labkit.models import default_device, prunable_layers, quantized_layers

SAME = 1e-4  # closer than this in every weight, two ways through an epoch end in the same place
SMALL = 1e-4  # a weight that is small, but not pruned

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
LEVELS = "the weights were replaced by their levels: the quantizer rounds in the forward pass only."

Criterion = Callable[[Tensor, Tensor], Tensor]


def criterion() -> nn.CrossEntropyLoss:
    """Not the usual one: an answer that takes its own ends elsewhere."""
    return nn.CrossEntropyLoss(label_smoothing=0.2)


def loader() -> DataLoader[tuple[Tensor, ...]]:
    """Four batches, the last one smaller, on the notebook's device."""
    tensors = (tensor[:21].to(default_device()) for tensor in next(iter(batches(1, 24))))
    return DataLoader(TensorDataset(*tensors), batch_size=6)


class Trial:
    """A net in training with part of each prunable layer at zero, and an optimizer that already moves.

    It stands where the notebook's `device` is, for answers that move their batches there.
    """

    def __init__(self, bits: int | None = None) -> None:
        self.net = small_net(bits, RoundToSteps.apply if bits else None).to(default_device())
        self.optimizer = restless_optimizer(self.net)
        for (_, layer), part in zip(prunable_layers(self.net), cycle((0.6, 0.5, 0.4)), strict=False):
            w = layer.weight.data.flatten()
            order = w.abs().argsort()
            w[order[: int(part * len(w))]] = 0
            w[order[-1]] = SMALL
            layer.weight.data.copy_(w.view_as(layer.weight))
        self.net.train()
        self.parameters = dict(self.net.named_parameters())
        for name in shortcut_names(self.net):
            self.parameters[name].data[0, 0] = SMALL
        self.before = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.pruned = {name: self.before[f"{name}.weight"] == 0 for name, _ in prunable_layers(self.net)}
        self.memory = [copy.deepcopy(state) for state in self.optimizer.state.values()]
        self.settings = self._settings()

    @property
    def layers(self) -> dict[str, nn.Conv2d | nn.Linear]:
        return dict(prunable_layers(self.net))

    def weights(self) -> np.ndarray:
        """All parameters, one after the other."""
        return flat(numbers(self.net))

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

    def on_levels(self) -> bool:
        """Whether the weights of a quantized layer have few different values, as levels do."""
        weights = [as_array(layer.conv.weight) for _, layer in quantized_layers(self.net)]
        return any(np.unique(w).size < 0.5 * np.count_nonzero(w) for w in weights)

    def lost_shortcut(self) -> bool:
        """Whether a weight of a shortcut is zero."""
        return any(bool((self.parameters[name] == 0).any()) for name in shortcut_names(self.net))

    def held_by_another(self) -> tuple[str, str] | None:
        """A layer whose zeros are those that another layer of its shape should have, and that one."""
        for name, layer in self.layers.items():
            for other, zeros in self.pruned.items():
                same = zeros.shape == layer.weight.shape and torch.equal(layer.weight == 0, zeros)
                if other != name and same:
                    return short(name), short(other)
        return None

    def ran(self) -> bool:
        """Whether a batch went through the net, in training mode."""
        norms = (module for module in self.net.modules() if isinstance(module, nn.BatchNorm2d))
        return any(bool(norm.num_batches_tracked) for norm in norms)

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
    loss: Criterion | None = None,
    first: Callable[[Trial, int], object] = lambda *_: None,
) -> np.ndarray:
    """Where the weights end after an epoch gone through by hand; the defaults are right.

    hold: when the mask is applied: after or before the step, at the end, never; or on the gradient.
    clear: gradients are set to None before the batch, to zero just before the step, or never.
    use, repeat: which batches, and how often. one_step: gradients of all of them for a single step.
    forget: the optimizer's memory is lost, once or each time. loss: instead of the criterion.
    first: called with the number of each batch, from 1, before it.
    """
    net, optimizer, loss = trial.net, trial.optimizer, loss or criterion()
    held = [(layer.weight, ~trial.pruned[name]) for name, layer in prunable_layers(net)]
    chosen = list(loader())[use] * repeat

    def apply_masks() -> None:
        for weight, mask in held:
            weight.data.mul_(mask)

    for number, (inputs, targets) in enumerate(chosen, start=1):
        first(trial, number)
        if forget == "each time" or (forget and number == 1):
            optimizer.state.clear()
        if clear == "before" and (number == 1 or not one_step):
            optimizer.zero_grad()
        loss(net(inputs), targets).backward()
        if one_step and number < len(chosen):
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
        last = number == len(chosen) and hold in ("end", "gradient, end")
        if hold == "after" or last:
            apply_masks()
    return trial.weights()


@cache
def right_way(bits: int | None) -> np.ndarray:
    """Where the weights should end."""
    return walk(Trial(bits))


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
    from_gradient = "the mask is taken from the gradient: take weight != 0, before the loop."
    yield from_gradient, way(hold="where the gradient is")
    for hold in ("after", "never"):
        ends = partial(way, hold=hold)
        yield NOT_CLEARED, ends(clear="never")
        late = "the steps were made without a gradient: zero_grad() first, then backward(), then step()."
        yield late, ends(clear="after")
        first = "only the first batch is used: does a `return` or `break` stand inside the loop?"
        yield first, ends(use=slice(1))
        yield (
            "only the last batch is used: does the training stand inside the loop?",
            ends(use=slice(-1, None)),
        )
        yield "the first batch is left out.", ends(use=slice(1, None))
        yield "the last batch is left out: it is smaller than the others.", ends(use=slice(-1))
        another = "the batches come in another order: take them as trainloader gives them."
        yield another, ends(use=slice(None, None, -1))
        for times in (2, 3):
            yield "each batch is used more than once: train for one epoch.", ends(repeat=times)
        one = "one step for the whole epoch: zero_grad, backward and step belong inside the loop."
        yield one, ends(one_step=True)
        yield one, ends(one_step=True, loss=lambda y, t: criterion()(y, t) / len(loader()))
        own = "the loss is not that of the criterion that was given: criterion(net(inputs), targets)."
        for factor in (1, 2):
            yield own, ends(loss=lambda y, t, factor=factor: factor * nn.functional.cross_entropy(y, t))
        twice = "criterion takes what net gives as it is: a softmax before it is one too many."
        yield twice, ends(loss=lambda y, t: criterion()(y.softmax(1), t))
        given = "the optimizer has lost its memory (momentum): use the one that was given, as it is."
        yield given, ends(forget="once")
        yield given, ends(forget="each time")
        mode = (
            "the net is set to evaluation mode: batch norm then takes its old averages. Leave the mode alone."
        )
        yield mode, ends(lambda trial: trial.net.eval())
        if bits is not None:
            yield "the quantizer is switched off while it trains: leave layer.bits alone.", ends(unquantized)
            for grid in (RoundToSteps.apply, asymmetric):
                for last in (1, 4):
                    yield LEVELS, ends(first=partial(to_levels, grid, bits, last))


def asymmetric(w: Tensor, bits: int) -> Tensor:
    """What notebook 05's STE makes of a weight."""
    return torch.from_numpy(on_levels(Case(w.double().numpy(), bits), False)).to(w) * (w != 0)


def to_levels(grid: Callable[..., Tensor], bits: int, last: int, trial: Trial, number: int) -> None:
    """Replace the weights of quantized layers by their levels before the first batches, up to `last`."""
    for _, layer in quantized_layers(trial.net) if number <= last else ():
        layer.conv.weight.data.copy_(grid(layer.conv.weight.detach(), bits))
