"""A network made ready to be evaluated many times: what can be computed once is computed once.

Weights are quantized once instead of in each batch, and each batch norm is folded into the convolution
before it (Jacob et al. 2018, section 3.2): in evaluation mode it is a multiplication and an addition
per channel, so its factor goes into the weights and the rest becomes a bias.
"""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.models import QuantizedConv, ResidualBlock, ResNet

Size = tuple[int, ...]


class FoldedConv(nn.Module):
    """A convolution with its batch norm folded in.

    With batch norm's s = sqrt(var + eps): weight' = weight * gamma / s, bias' = beta - mean * gamma / s.
    """

    def __init__(self, conv: QuantizedConv, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_var is not None and norm.running_mean is not None
        factor = (norm.running_var + norm.eps).rsqrt()
        shift = -norm.running_mean * factor
        if norm.affine:
            factor, shift = factor * norm.weight, shift * norm.weight + norm.bias
        weight = conv.effective_weight * factor.view(-1, 1, 1, 1)
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), shift
        assert not isinstance(conv.conv.padding, str)
        self.stride: Size = conv.conv.stride
        self.padding: Size = conv.conv.padding
        self.in_one_pass = weight.device.type == "cpu" and weight.dtype == torch.float32 and _can_fuse()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def then_relu(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """relu(self(x) + plus), in one walk through memory where that can be had."""
        if self.in_one_pass:
            return _conv_relu(x, plus, self.weight, self.bias, self.stride, self.padding)
        out = self(x)
        return (out if plus is None else out.add_(plus)).relu_()


class FoldedBlock(nn.Module):
    """A residual block of folded convolutions."""

    def __init__(self, conv1: FoldedConv, conv2: FoldedConv, id_mapping: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2, self.id_mapping = conv1, conv2, id_mapping

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2.then_relu(self.conv1.then_relu(x), plus=self.id_mapping(x))


class FoldedResNet(nn.Module):
    """A ResNet whose first convolution is folded."""

    def __init__(self, head_conv: FoldedConv, body_op: nn.Module, final_fc: nn.Module) -> None:
        super().__init__()
        self.head_conv, self.body_op, self.final_fc = head_conv, body_op, final_fc

    def forward(self, x: Tensor) -> Tensor:
        return self.final_fc(self.body_op(self.head_conv.then_relu(x)).mean(dim=(2, 3)))


@torch.no_grad()
def frozen(net: nn.Module) -> nn.Module:
    """A stand-in for `net` in evaluation mode: the same function, to float32's rounding, in less time.

    Made of what `net` is now; it does not follow later changes, and `net` itself stays as it is. Only
    labkit's own modules are replaced; others, and those that someone watches by a hook, are used as they are.
    """
    if type(net) not in (ResNet, ResidualBlock, nn.Sequential) or _watched(net):
        return net
    if isinstance(net, nn.Sequential) and len(net) == 2:
        conv, norm = net
        if type(conv) is QuantizedConv and type(norm) is nn.BatchNorm2d:
            foldable = norm.track_running_stats and not _watched(conv) and not _watched(norm)
            return FoldedConv(conv, norm) if foldable else net
    stand_in = copy.copy(net)
    stand_in._modules = {name: frozen(part) for name, part in net.named_children()}
    if isinstance(stand_in, ResidualBlock):
        conv1, conv2 = stand_in.conv1, stand_in.conv2
        if isinstance(conv1, FoldedConv) and isinstance(conv2, FoldedConv):
            return FoldedBlock(conv1, conv2, stand_in.id_mapping)
    if isinstance(stand_in, ResNet) and isinstance(stand_in.head_conv, FoldedConv):
        return FoldedResNet(stand_in.head_conv, stand_in.body_op, stand_in.final_fc)
    return stand_in


def _watched(net: nn.Module) -> bool:
    return bool(net._forward_hooks or net._forward_pre_hooks)


def _conv_relu(
    x: Tensor, plus: Tensor | None, weight: Tensor, bias: Tensor, stride: Size, padding: Size
) -> Tensor:
    """oneDNN's convolution, addition and ReLU in one, as torch.compile calls it."""
    operator = torch.ops.mkldnn._convolution_pointwise
    given = (weight, bias, padding, stride, (1, 1), 1)
    if plus is None:
        return operator(x, *given, "relu", [], "")
    return operator.binary(x, plus, *given, "add", 1.0, "relu", [], "")


@cache
def _can_fuse() -> bool:
    """Whether `_conv_relu` works here: its operator is no public one, so it is tried before it is trusted."""
    x, weight, bias = torch.ones(1, 8, 4, 4), torch.full((8, 8, 3, 3), -0.01), torch.ones(8)
    wanted = (F.conv2d(x, weight, bias, 2, 1) + 0.5).relu()
    try:
        got = _conv_relu(x, torch.full((1, 8, 2, 2), 0.5), weight, bias, (2, 2), (1, 1))
        return torch.allclose(got, wanted)
    except (AttributeError, RuntimeError, TypeError):
        return False
