"""The net that pruning is tried on, and what is read from it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import nn

from labkit.check.engine import Failed, as_array, expect
from labkit.check.fixtures import TinyNet, linear, weights, with_weight
from labkit.models import Quantizer, default_device, prunable_layers

PARAMETER = "write into it (layer.weight.data.mul_(mask)): an optimizer holds on to the old Parameter."
DTYPE = "multiply the weight by the mask in place: then it keeps its dtype."
DEVICE = "the notebook's network is there: bring the mask to weight.device."
REST = "only layer.weight may change, and only in the layers of labkit.prunable_layers(net)."

Numbers = dict[str, np.ndarray]  # a net's parameters by name


def small_net(bits: int | None = None, quantizer: Quantizer | None = None) -> nn.Sequential:
    """TinyNet within another module, so that no name begins with id_mapping.

    Two of its layers have one shape, one is of a subclass of nn.Linear, and no two biases or weights of batch
    norms are alike: one that is pruned is seen.
    """
    return copy.deepcopy(_net(bits, quantizer))


@cache
def _net(bits: int | None, quantizer: Quantizer | None) -> nn.Sequential:
    net = TinyNet(bits, quantizer)
    special = nn.modules.linear.NonDynamicallyQuantizableLinear(8, 8)  # torch's own subclass
    net.add_module(
        "hidden",
        nn.Sequential(linear(8, 8, seed=11), nn.ReLU(), with_weight(special, weights(8, 8, seed=12))),
    )
    net.final = linear(8, 10, seed=13, scale=0.4)
    for number, (name, parameter) in enumerate(net.named_parameters()):
        if parameter.ndim == 1:
            start = 0.02 if name.endswith("bias") else 0.5
            parameter.data = start + 0.01 * torch.arange(len(parameter)) + 0.001 * number
    return nn.Sequential(OrderedDict(body=net))


@cache
def untouched() -> Numbers:
    """The numbers of `small_net`."""
    return numbers(small_net())


@cache
def pruned_names() -> list[str]:
    """The names of the weights of `small_net` that are to be pruned."""
    return weight_names(small_net())


@cache
def tried_names() -> list[str]:
    """The same, and those of its shortcuts."""
    return pruned_names() + shortcut_names(small_net())


def numbers(net: nn.Module) -> Numbers:
    """All parameters in float64, by name."""
    return {name: as_array(parameter).copy() for name, parameter in sorted(net.named_parameters())}


def flat(values: Numbers) -> np.ndarray:
    """All parameters, one after the other."""
    return np.concatenate([value.ravel() for value in values.values()])


def weight_names(net: nn.Module) -> list[str]:
    """The names of the weights that are to be pruned."""
    return [f"{name}.weight".removeprefix(".") for name, _ in prunable_layers(net)]


def shortcut_names(net: nn.Module) -> list[str]:
    """The names of the shortcuts' weights."""
    return [name for name, _ in net.named_parameters() if "id_mapping" in name]


def short(name: str) -> str:
    """A weight's name as a column's head: `body.conv1.conv.weight` is conv1."""
    return name.removeprefix("body.").removesuffix(".weight").removesuffix(".conv")


class Before:
    """A net's parameters as they are before an answer has it; moves the net to the notebook's device.

    In float64: an answer that calculates in float32 whatever it was given is seen.
    """

    def __init__(self, net: nn.Module) -> None:
        self.parameters, self.names = dict(net.double().named_parameters()), sorted(net.state_dict())
        self.numbers, self.device = numbers(net), default_device()
        net.to(self.device)

    def expect_only_zeros(self, net: nn.Module, hint: Callable[[], str | None] = lambda: None) -> None:
        """Fail unless all that has changed is that weights to be pruned became zero, in place.

        hint: asked for a better one where values changed that should not.
        """
        for name, parameter in net.named_parameters():
            expect(parameter is self.parameters.get(name), f"{name} is another object now", PARAMETER)
            dtype, device = parameter.dtype, parameter.device.type
            expect(dtype == torch.float64, f"{name} was float64 and is {dtype} now", DTYPE)
            expect(
                device == self.device.type, f"{name} was on {self.device.type} and is on {device} now", DEVICE
            )
            expect(parameter.requires_grad, f"{name} can no longer be trained: requires_grad is False")
        expect(sorted(net.state_dict()) == self.names, "the state dict has other names now")
        after, prunable = numbers(net), weight_names(net)
        wanted = {n: w * (after[n] != 0) if n in prunable else w for n, w in self.numbers.items()}
        changed = [name for name in wanted if not np.array_equal(after[name], wanted[name])]
        if changed:
            other = None if set(changed) <= set(prunable) else REST
            where = ", ".join(changed)
            raise Failed(f"values changed that should have stayed, in {where}", hint() or other)
