"""A network made ready to be evaluated many times: what can be computed once is computed once.

Weights are quantized once instead of in each batch, and each batch norm is folded into the convolution
before it (Jacob et al. 2018, section 3.2): in evaluation mode it is a multiplication and an addition
per channel, so its factor goes into the weights and the rest becomes a bias.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.models import Classifier, QuantizedConv, ResidualBlock, ResNet


def frozen(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """A stand-in for `net` in evaluation mode: the same function, to float32's rounding, in less time.

    Made of what `net` is now; it does not follow later changes, and `net` itself stays as it is. A
    network that is no plain labkit ResNet, or that someone watches through hooks, stands in for itself.
    """
    return FoldedResNet(net) if type(net) is ResNet and _is_plain(net) else net


def _is_plain(net: ResNet) -> bool:
    """Whether `net` is built as labkit builds it, and nobody hooked into it or replaced a part."""
    blocks = list(net.body_op)
    units: list[nn.Module] = [net.head_conv]
    for block in blocks:
        if type(block) is not ResidualBlock:
            return False
        shortcut = [] if type(block.id_mapping) is nn.Identity else [block.id_mapping]
        units += [block.conv1, block.conv2, *shortcut]
    untouched = not any(
        part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in net.modules()
    )
    return untouched and type(net.final_fc) is Classifier and all(map(_is_conv_and_norm, units))


def _is_conv_and_norm(unit: nn.Module) -> bool:
    if type(unit) is not nn.Sequential or [type(part) for part in unit] != [QuantizedConv, nn.BatchNorm2d]:
        return False
    conv, norm = unit
    return type(conv.conv) is nn.Conv2d and bool(norm.track_running_stats)


class FoldedResNet:
    """A ResNet of folded convolutions, called as the network is."""

    @torch.no_grad()
    def __init__(self, net: ResNet) -> None:
        self.head_conv, self.final_fc = FoldedConv(net.head_conv), net.final_fc
        self.blocks = [FoldedBlock(block) for block in net.body_op]

    def __call__(self, x: Tensor) -> Tensor:
        x = self.head_conv.then_relu(x)
        for block in self.blocks:
            x = block(x)
        return self.final_fc(x.mean(dim=(2, 3)))


class FoldedBlock:
    """A residual block of folded convolutions. Its result may lie where its input was: nobody else looks."""

    def __init__(self, block: nn.Module) -> None:
        assert isinstance(block, ResidualBlock)
        self.conv1, self.conv2 = FoldedConv(block.conv1), FoldedConv(block.conv2)
        shortcut = block.id_mapping
        self.id_mapping = None if isinstance(shortcut, nn.Identity) else FoldedConv(shortcut)

    def __call__(self, x: Tensor) -> Tensor:
        out = self.conv1.then_relu(x)
        return self.conv2.then_relu(out, onto=x if self.id_mapping is None else self.id_mapping(x))


class FoldedConv:
    """A convolution with the batch norm behind it folded in.

    With batch norm's s = sqrt(var + eps): weight' = weight * gamma / s, bias' = beta - mean * gamma / s.
    """

    def __init__(self, unit: nn.Module) -> None:
        assert isinstance(unit, nn.Sequential)
        conv, norm = unit
        assert isinstance(conv, QuantizedConv) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        assert not isinstance(conv.conv.padding, str)
        factor = (norm.running_var + norm.eps).rsqrt()
        shift = -norm.running_mean * factor
        if norm.affine:
            factor, shift = factor * norm.weight, shift * norm.weight + norm.bias
        weight = conv.effective_weight * factor.view(-1, 1, 1, 1)
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), shift
        self.stride, self.padding = conv.conv.stride, conv.conv.padding
        self.in_one_pass = weight.device.type == "cpu" and weight.dtype == torch.float32 and _can_fuse()

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def then_relu(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """relu(self(x) + onto), written over `onto`, in one walk through memory where that can be had."""
        if self.in_one_pass:
            return _conv_relu(x, onto, self.weight, self.bias, self.stride, self.padding)
        out = self(x)
        return (out if onto is None else onto.add_(out)).relu_()


def _conv_relu(
    x: Tensor,
    onto: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """oneDNN's convolution, addition and ReLU in one, as torch.compile calls it."""
    given = (x, weight, bias, padding, stride, (1, 1), 1)
    if onto is None:
        return torch.ops.mkldnn._convolution_pointwise(*given, "relu", [], "")
    return torch.ops.mkldnn._convolution_pointwise_.binary(onto, *given, "add", 1.0, "relu", [], "")


@cache
def _can_fuse() -> bool:
    """Whether `_conv_relu` works here: its operators are no public ones, so they are tried before use."""
    x, weight, bias = torch.ones(1, 8, 4, 4), torch.full((8, 8, 3, 3), -0.01), torch.ones(8)
    x, half = (t.to(memory_format=torch.channels_last) for t in (x, torch.full((1, 8, 2, 2), 0.5)))
    plain = F.conv2d(x, weight, bias, 2, 1)
    try:
        alone, added = (_conv_relu(x, onto, weight, bias, (2, 2), (1, 1)) for onto in (None, half))
        return torch.allclose(alone, plain.relu()) and torch.allclose(added, (plain + 0.5).relu())
    except (AttributeError, RuntimeError, TypeError):
        return False
