from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from labkit.checkpoints import read_weights
from labkit.models import prunable_layers, quantized_layers, resnet20


def half(w: Tensor, bits: int | None, symmetric: bool) -> Tensor:
    return w / 2


def test_sizes_are_those_of_the_report() -> None:
    net = resnet20()
    layers = dict(prunable_layers(net))
    assert len(layers) == 20
    assert sum(layer.weight.numel() for layer in layers.values()) == 268_336
    assert layers["head_conv.0.conv"].weight.numel() == 432
    assert sum(p.numel() for p in net.parameters()) == 272_474
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_reports_weights_load_strictly(report_baseline: Path) -> None:
    weights = read_weights(report_baseline)
    net = resnet20()
    assert list(net.state_dict()) == list(weights)
    net.load_state_dict(weights, strict=True)


def test_quantizer_sees_the_blocks_and_their_shortcuts_only() -> None:
    seen: list[tuple[int, int | None, bool]] = []

    def spy(w: Tensor, bits: int | None, symmetric: bool) -> Tensor:
        seen.append((w.numel(), bits, symmetric))
        return w

    net = resnet20(bits=3, symmetric=True, quantizer=spy)
    net(torch.zeros(1, 3, 32, 32))
    assert len(seen) == 20 == len(list(quantized_layers(net)))
    assert {(bits, symmetric) for _, bits, symmetric in seen} == {(3, True)}
    assert {512, 2048} < {size for size, _, _ in seen}  # the two shortcuts
    assert 432 not in {size for size, _, _ in seen}  # not the first convolution


def test_quantizer_changes_the_arithmetic_but_not_the_weights() -> None:
    torch.manual_seed(0)
    plain = resnet20().eval()
    quantized = resnet20(bits=4, quantizer=half).eval()
    quantized.load_state_dict(plain.state_dict())
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(plain(x), quantized(x))
    assert all(torch.equal(before[name], value) for name, value in quantized.state_dict().items())
    name, layer = next(quantized_layers(quantized))
    assert torch.equal(layer.effective_weight, layer.conv.weight / 2), name


def test_bits_without_a_quantizer_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a quantizer"):
        resnet20(bits=4)


def test_prunable_layers_are_told_by_type_and_name() -> None:
    class OwnConv(nn.Conv2d):
        pass

    net = nn.ModuleDict(
        {
            "a": OwnConv(1, 1, 3),
            "id_mapping": nn.Conv2d(1, 1, 1),
            "b": nn.Linear(2, 2),
            "c": nn.BatchNorm2d(3),
        }
    )
    assert [name for name, _ in prunable_layers(net)] == ["a", "b"]
