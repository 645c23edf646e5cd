"""ResNet-20 for 32x32 pictures (He et al. 2016, section 4.2), with one seam for weight quantization.

Three stages of three residual blocks, 16, 32 and 64 channels wide, batch norm after every
convolution, 1x1 convolutions on the shortcuts where the width changes: 272,474 parameters. Each
convolution of a block can pass its weights through a quantizer on the way to the arithmetic; the
floating-point weights stay underneath and are what an optimizer trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import arguments
from labkit.errors import ArgumentError, LabError

MOST_BITS = 32  # a float32's own
Quantizer = Callable[[Tensor, "int | None", bool], Tensor]
"""`quantizer(w, bits, symmetric)` returns a tensor of w's shape; `STE.apply` of the notebooks is one."""


class QuantizedConv(nn.Module):
    """A convolution whose weight goes through a quantizer on every forward pass.

    `bits=None` means floating point: the quantizer is not called. The weight itself, `conv.weight`
    of shape (out, in, k, k), is never changed by a forward pass.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        bits: int | None = None,
        symmetric: bool = False,
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__()
        if bits is not None and quantizer is None:
            raise ArgumentError(
                f"bits={bits} needs a quantizer: pass quantizer=STE.apply, "
                "the class that notebooks 05 and 06 build"
            )
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        fan = kernel_size**2 * (in_channels + out_channels)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / fan))
        self.bits = bits
        self.symmetric = symmetric
        self.quantizer = quantizer

    @property
    def effective_weight(self) -> Tensor:
        """The weight that the arithmetic sees: quantized if `bits` is set, else `conv.weight` itself."""
        if self.bits is None or self.quantizer is None:
            return self.conv.weight
        quantized: object = self.quantizer(self.conv.weight, self.bits, self.symmetric)
        if not isinstance(quantized, Tensor):
            raise LabError(
                f"the quantizer returned {arguments.shown(quantized)} for a weight: it should return a "
                "tensor of the weight's shape. Does its forward end in `return`?"
            )
        return quantized

    def forward(self, x: Tensor) -> Tensor:
        if self.bits is None or self.quantizer is None:
            return self.conv(x)  # called as a module, so that hooks on it work: torch.nn.utils.prune is one
        return F.conv2d(x, self.effective_weight, None, self.conv.stride, self.conv.padding)

    def extra_repr(self) -> str:
        grid = "symmetric" if self.symmetric else "asymmetric"
        return "" if self.bits is None else f"bits={self.bits}, {grid}"


ConvFactory = Callable[..., QuantizedConv]
"""Makes a convolution from (in channels, out channels, kernel size, stride)."""


class Classifier(nn.Module):
    """The last layer, (N, in) to (N, classes). It owns its `nn.Linear` as `linear`; never quantized."""

    def __init__(self, in_features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, classes)
        nn.init.normal_(self.linear.weight, std=math.sqrt(2 / (in_features + classes)))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a way round them: (N, in, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, conv: ConvFactory) -> None:
        super().__init__()

        def conv_bn(channels: int, kernel: int, step: int) -> nn.Sequential:
            return nn.Sequential(conv(channels, out_channels, kernel, step), nn.BatchNorm2d(out_channels))

        self.conv1 = conv_bn(in_channels, 3, stride)
        self.conv2 = conv_bn(out_channels, 3, 1)
        same_shape = stride == 1 and in_channels == out_channels
        self.id_mapping = nn.Identity() if same_shape else conv_bn(in_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(x)))
        return F.relu(out + self.id_mapping(x))


class ResNet(nn.Module):
    """A CIFAR ResNet of 6n + 2 layers: (N, 3, 32, 32) pictures to (N, classes) logits."""

    def __init__(
        self, blocks_per_stage: int = 3, classes: int = 10, conv: ConvFactory = QuantizedConv
    ) -> None:
        super().__init__()
        self.head_conv = nn.Sequential(QuantizedConv(3, 16, 3), nn.BatchNorm2d(16))
        blocks = []
        channels = 16
        for width in (16, 32, 64):
            for index in range(blocks_per_stage):
                stride = 2 if index == 0 and width != 16 else 1
                blocks.append(ResidualBlock(channels, width, stride, conv))
                channels = width
        self.body_op = nn.Sequential(*blocks)
        self.final_fc = Classifier(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.head_conv(x))
        x = self.body_op(x)
        return self.final_fc(x.mean(dim=(2, 3)))


def resnet20(bits: int | None = None, symmetric: bool = False, quantizer: Quantizer | None = None) -> ResNet:
    """A fresh ResNet-20; the convolutions of its blocks, shortcuts included, quantized if `bits` is given.

    bits: bit width of the weights, 1 to 32, or None for floating point. The first convolution and the
        classifier always stay floating point.
    symmetric: passed on to the quantizer.
    quantizer: called as `quantizer(w, bits, symmetric)` on every forward pass.

    Raises ArgumentError, a ValueError, if bits is given without a quantizer, or for values of another kind.
    """
    if bits is not None:
        bits = arguments.whole_number(bits, "bits", 1, MOST_BITS)
    symmetric = arguments.truth(symmetric, "symmetric", "The quantizer goes by name: quantizer=STE.apply.")
    given: object = quantizer
    if isinstance(given, type) and issubclass(given, torch.autograd.Function):
        raise ArgumentError(f"quantizer is the class {given.__name__}: pass {given.__name__}.apply.")
    if quantizer is not None:
        arguments.function(quantizer, "quantizer", "STE.apply", takes=("w", "bits", "symmetric"))
    return ResNet(conv=partial(QuantizedConv, bits=bits, symmetric=symmetric, quantizer=quantizer))


def prunable_layers(net: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """The (name, layer) pairs that this lab prunes: convolutions and linear layers, but no shortcuts.

    Shortcuts are told by `id_mapping` in their name. ResNet-20 has 20 such layers, 268,336 weights.
    """
    for name, layer in arguments.network(net).named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and "id_mapping" not in name:
            yield name, layer


def quantized_layers(net: nn.Module) -> Iterator[tuple[str, QuantizedConv]]:
    """The (name, layer) pairs whose bit width is set: 20 of ResNet-20's convolutions when it is quantized."""
    for name, layer in arguments.network(net).named_modules():
        if isinstance(layer, QuantizedConv) and layer.bits is not None:
            yield name, layer


def default_device() -> torch.device:
    """The GPU if there is one that torch reaches by CUDA (or ROCm), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
