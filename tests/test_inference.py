from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labkit import inference
from labkit.checkpoints import weights_sha256
from labkit.datasets import ImageSet
from labkit.inference import FoldedResNet, frozen
from labkit.models import ResNet, quantized_layers, resnet20
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


def assert_same_function(
    net: nn.Module, stand_in: Callable[[Tensor], Tensor], inputs: Tensor, tolerance: float
) -> None:
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
    net = lived_in()
    for unit in [net.head_conv] + [block.conv1 for block in net.body_op]:
        unit[1] = nn.BatchNorm2d(unit[0].conv.out_channels, affine=False).eval()  # type: ignore[arg-type, assignment]
    assert isinstance(frozen(net), FoldedResNet)
    assert_same_function(net, frozen(net), pictures(), 1e-5)


def test_batch_norm_without_statistics_is_left_alone() -> None:
    net = lived_in()
    net.head_conv[1] = nn.BatchNorm2d(16, track_running_stats=False)
    assert frozen(net) is net


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


@pytest.mark.slow
def test_evaluation_follows_training(small_set: ImageSet) -> None:
    net = resnet20()
    before = evaluate(net, small_set)
    run = finetune(net, small_set, small_set, epochs=1, lr=0.05, batch_size=32)
    assert evaluate(net, small_set).loss == run.last["test_loss"] != before.loss


def test_a_watched_network_is_used_as_it_is(small_set: ImageSet) -> None:
    net = lived_in()
    seen = []
    net.body_op[4].conv1[0].register_forward_hook(lambda *_: seen.append("conv"))
    assert frozen(net) is net
    evaluate(net, small_set, batch_size=96)
    assert seen == ["conv"]


def test_a_students_own_modules_are_used_as_they_are() -> None:
    class Doubled(ResNet):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class Noisy(nn.BatchNorm2d):
        pass

    inside, without_norm, longer, by_hand, other_end = (resnet20() for _ in range(5))
    inside.body_op[2].conv1[1] = Noisy(16)  # type: ignore[assignment]
    without_norm.body_op[2].conv1[1] = nn.Identity()  # type: ignore[assignment]
    longer.head_conv.append(nn.Identity())
    by_hand.body_op[0].forward = lambda x: x
    other_end.final_fc = nn.Linear(64, 10)  # type: ignore[assignment]
    for net in (Doubled(), inside, without_norm, longer, by_hand, other_end, nn.Linear(3, 4)):
        assert frozen(net.eval()) is net


def test_inputs_are_not_written_to() -> None:
    inputs = pictures()
    before = inputs.clone()
    with torch.no_grad():
        frozen(lived_in())(inputs)
    assert torch.equal(inputs, before)
