from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labkit import inference
from labkit.checkpoints import weights_sha256
from labkit.datasets import ImageSet
from labkit.inference import FoldedConv, FoldedResNet, frozen
from labkit.models import QuantizedConv, ResNet, quantized_layers, resnet20
from labkit.training import evaluate, finetune


def lived_in(**quantization: Any) -> ResNet:
    """A network in evaluation mode whose batch norms have statistics and factors of their own."""
    torch.manual_seed(0)
    net = resnet20(**quantization)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, -1.5, 1.5)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.2, 3)  # type: ignore[arg-type]
    return net.eval()


def pictures(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 3, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)


def assert_same_function(net: nn.Module, stand_in: nn.Module, inputs: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        wanted, got = net(inputs), stand_in(inputs)
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


class Counting:
    """A quantizer to 8 levels that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, w: Tensor, bits: int | None, symmetric: bool) -> Tensor:
        self.calls += 1
        return (w * 8).round() / 8


@pytest.mark.parametrize("fuses", [True, False])
def test_the_stand_in_computes_what_the_network_does(fuses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fuses:
        monkeypatch.setattr(inference, "_can_fuse", lambda: False)
    net = lived_in(bits=3, quantizer=Counting())
    stand_in = frozen(net)
    assert isinstance(stand_in, FoldedResNet)
    assert stand_in.head_conv.in_one_pass == (fuses and inference._can_fuse())
    assert_same_function(net, stand_in, pictures(), 1e-5)


def test_float64_stays_float64() -> None:
    net = lived_in().double()
    assert_same_function(net, frozen(net), pictures(torch.float64), 1e-13)


def test_batch_norm_without_factors_is_folded_too() -> None:
    unit = nn.Sequential(QuantizedConv(3, 8, 3), nn.BatchNorm2d(8, affine=False)).eval()
    assert isinstance(frozen(unit), FoldedConv)
    assert_same_function(unit, frozen(unit), pictures(), 1e-5)


def test_batch_norm_without_statistics_is_left_alone() -> None:
    unit = nn.Sequential(QuantizedConv(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)).eval()
    assert frozen(unit) is unit


def test_evaluation_quantizes_each_layer_once(small_set: ImageSet) -> None:
    quantizer = Counting()
    net = lived_in(bits=3, quantizer=quantizer)
    evaluate(net, small_set, batch_size=10)
    assert quantizer.calls == len(list(quantized_layers(net))) == 20


def test_evaluation_leaves_the_network_as_it_was(small_set: ImageSet) -> None:
    net = lived_in()
    modules, before = list(net.modules()), weights_sha256(net)
    evaluate(net, small_set)
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
    assert weights_sha256(net) == before


def test_evaluation_follows_training(small_set: ImageSet) -> None:
    net = resnet20()
    before = evaluate(net, small_set)
    run = finetune(net, small_set, small_set, epochs=1, lr=0.05, batch_size=32)
    assert evaluate(net, small_set).loss == run.last["test_loss"] != before.loss


def test_a_watched_layer_is_seen_by_its_hook(small_set: ImageSet) -> None:
    net = lived_in()
    seen = []
    net.body_op[4].conv1[0].register_forward_hook(lambda *_: seen.append("conv"))  # type: ignore[index]
    net.body_op[7].register_forward_hook(lambda *_: seen.append("block"))
    net.head_conv[1].register_forward_hook(lambda *_: seen.append("norm"))
    assert_same_function(net, frozen(net), pictures(), 1e-5)
    seen.clear()
    evaluate(net, small_set, batch_size=96)
    assert seen == ["norm", "conv", "block"]


def test_a_students_own_modules_are_used_as_they_are() -> None:
    class Doubled(ResNet):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x) + self.head_conv[0].conv.weight.sum()

    net = Doubled().eval()
    assert frozen(net) is net
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).eval()
    assert_same_function(block, frozen(block), pictures(), 0.0)
