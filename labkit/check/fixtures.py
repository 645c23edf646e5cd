"""Small layers, networks and batches that checks try an answer on: no data, no GPU, milliseconds."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from labkit.models import QuantizedConv, Quantizer

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def weights(*shape: int, seed: int = 0, scale: float = 0.1) -> Tensor:
    """Normally distributed float32 weights, the same for the same seed."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conv(
    in_channels: int = 4, out_channels: int = 8, kernel: int = 3, seed: int = 0, scale: float = 0.1
) -> nn.Conv2d:
    """A convolution with `weights` in it."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, bias=False)
    return with_weight(layer, weights(*layer.weight.shape, seed=seed, scale=scale))


def linear(in_features: int = 12, out_features: int = 5, seed: int = 0, scale: float = 0.1) -> nn.Linear:
    """A linear layer with `weights` in it, and a bias of 0.5."""
    layer = nn.Linear(in_features, out_features)
    nn.init.constant_(layer.bias, 0.5)
    return with_weight(layer, weights(*layer.weight.shape, seed=seed, scale=scale))


def with_weight(layer: Layer, weight: Tensor) -> Layer:
    """`layer` with a copy of this weight."""
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


class TinyNet(nn.Module):
    """A residual network in miniature, (N, 3, 8, 8) to (N, 10): 5 prunable layers and one shortcut.

    Its layers differ in scale, so that one global threshold and one threshold a layer are told apart.
    With `bits`, the convolutions of its block go through `quantizer`, as in labkit's ResNet-20.
    """

    SCALES: ClassVar = {
        "head": 0.3,
        "conv1": 0.05,
        "conv2": 0.2,
        "id_mapping": 0.3,
        "hidden": 0.1,
        "final": 0.4,
    }

    def __init__(self, bits: int | None = None, quantizer: Quantizer | None = None, seed: int = 0) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.head_bn = nn.BatchNorm2d(6)
        self.conv1 = QuantizedConv(6, 8, 3, 2, bits, False, quantizer)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = QuantizedConv(8, 8, 3, 1, bits, False, quantizer)
        self.bn2 = nn.BatchNorm2d(8)
        self.id_mapping = QuantizedConv(6, 8, 1, 2, bits, False, quantizer)
        self.hidden = nn.Linear(8, 12)
        self.final = nn.Linear(12, 10)
        for number, (name, scale) in enumerate(self.SCALES.items()):
            layer = getattr(self, name)
            inner = getattr(layer, "conv", layer)
            with_weight(inner, weights(*inner.weight.shape, seed=100 * seed + number, scale=scale))
        for bias in (self.hidden.bias, self.final.bias):
            nn.init.constant_(bias, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.head_bn(self.head(x)))
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)) + self.id_mapping(x))
        return self.final(F.relu(self.hidden(out.mean(dim=(2, 3)))))


class RoundToSteps(torch.autograd.Function):
    """A quantizer for checks that must not need the student's own: steps of 0.05, gradient passed on.

    Zero stays zero, and so do nonzero weights below 0.025: their level is zero, though they are not pruned.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, bits: int | None, symmetric: bool = False) -> Tensor:
        return torch.round(w * 20) / 20

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, None, None


def batches(
    count: int = 6, size: int = 8, seed: int = 0, device: torch.device | str = "cpu"
) -> DataLoader[tuple[Tensor, ...]]:
    """A real DataLoader of `count` different batches: (N, 3, 8, 8) inputs and labels, in a fixed order."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count * size, 3, 8, 8, generator=generator)
    targets = torch.randint(10, (count * size,), generator=generator)
    return DataLoader(TensorDataset(inputs.to(device), targets.to(device)), batch_size=size)


def restless_optimizer(
    net: nn.Module, lr: float = 0.05, momentum: float = 0.9, weight_decay: float = 0.01, seed: int = 7
) -> torch.optim.SGD:
    """SGD whose momentum is already moving when the training starts, and with weight decay.

    Built before the pruning: a mask on the gradient alone, or before the step, then lets weights revive.
    The network's weights are as before; only the optimizer remembers.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    before = copy.deepcopy(net.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)
    optimizer.step()
    optimizer.zero_grad()
    net.load_state_dict(before)
    return optimizer
