"""Sparsity is counted as numpy counts it, and a mask keeps zeros through momentum and weight decay."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

from labkit.errors import LabError
from labkit.models import QuantizedConv, prunable_layers, resnet20
from labkit.sparsity import (
    KeepZeros,
    LayerSparsity,
    Mask,
    MaskError,
    SparsityReport,
    sparsity,
    sparsity_report,
)


def tiny_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))


def zero_small_ones(net: nn.Module, share: float) -> None:
    with torch.no_grad():
        for _, layer in prunable_layers(net):
            size = layer.weight.abs().flatten().sort().values
            layer.weight[layer.weight.abs() < size[int(share * len(size))]] = 0


def test_a_layers_sparsity_counts_negative_zero_and_not_nan() -> None:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[0.0, -0.0, 1.0, float("nan")], [1e-45, -1.0, 0.0, 2.0]])
    assert sparsity(layer) == 3 / 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_layers_sparsity_is_numpys_in_any_dtype_and_layout(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(4, 6, 3, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        layer.weight[torch.rand_like(layer.weight) < 0.3] = 0
    weight = layer.weight.detach().numpy()
    assert sparsity(layer) == (weight == 0).sum() / weight.size


def test_a_nets_sparsity_leaves_shortcuts_biases_and_batch_norms_out() -> None:
    net = resnet20()
    for name, layer in net.named_modules():
        if "id_mapping" in name and isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    assert sparsity(net) == 0
    nn.init.zeros_(net.head_conv[0].conv.weight)  # type: ignore[arg-type]
    assert sparsity(net) == 432 / 268_336
    assert sparsity(net.head_conv[0]) == 1.0


def test_no_layers_and_no_weights_have_no_sparsity() -> None:
    assert sparsity(nn.ReLU()) == 0.0
    assert str(sparsity_report(nn.ReLU())) == "Sparsity of all prunable weights: 0/0 = 0.0000"
    assert Mask.of(nn.ReLU()).sparsity == 0.0


def test_the_report_prints_the_reports_lines() -> None:
    report = SparsityReport(
        (LayerSparsity("head_conv.0.conv", 87, 432), LayerSparsity("final_fc.linear", 128, 640))
    )
    assert str(report).splitlines() == [
        "Sparsity of head_conv.0.conv: 87/432 = 0.2014",
        "Sparsity of final_fc.linear: 128/640 = 0.2000",
        "Sparsity of all prunable weights: 215/1072 = 0.2006",
    ]
    assert (report.zeros, report.total) == (215, 1072)


def test_the_report_of_resnet20_has_its_20_layers_in_order() -> None:
    net = resnet20()
    zero_small_ones(net, 0.2)
    report = sparsity_report(net)
    weights = {name: layer.weight.detach().numpy() for name, layer in prunable_layers(net)}
    assert [(row.name, row.zeros, row.total) for row in report.rows] == [
        (name, int((w == 0).sum()), w.size) for name, w in weights.items()
    ]
    assert len(report.rows) == 20
    assert report.total == 268_336
    assert report.overall == sparsity(net)


class _Table(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scopes: list[str | None] = []
        self.seen: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope"))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_html_table_has_a_caption_scopes_and_escaped_names() -> None:
    table = _Table()
    table.feed(SparsityReport((LayerSparsity("a<b>", 1, 2),))._repr_html_())
    assert table.seen.count("caption") == 1
    assert table.scopes == ["col"] * 4 + ["row"] * 2
    assert "a<b>" in table.words
    assert "0.5000" in table.words


def test_a_mask_is_the_nonzero_weights_and_applies_in_place() -> None:
    net = tiny_net()
    zero_small_ones(net, 0.5)
    mask = Mask.of(net)
    expected = {name: layer.weight.detach().numpy() != 0 for name, layer in prunable_layers(net)}
    assert {name: kept.numpy().tolist() for name, kept in mask.layers.items()} == {
        name: kept.tolist() for name, kept in expected.items()
    }
    assert mask.sparsity == sparsity(net)
    parameter, pointer = net[0].weight, net[0].weight.data_ptr()
    before = {name: layer.weight.detach().clone() for name, layer in prunable_layers(net)}
    with torch.no_grad():
        for _, layer in prunable_layers(net):
            layer.weight.copy_(torch.where(layer.weight == 0, -7.0, layer.weight))
    mask.apply(net)
    assert net[0].weight is parameter
    assert net[0].weight.data_ptr() == pointer
    for name, layer in prunable_layers(net):
        assert torch.equal(layer.weight, before[name])
        assert not torch.signbit(layer.weight[layer.weight == 0]).any()


def test_a_mask_takes_infinity_away_and_keeps_float64() -> None:
    net = nn.Sequential(nn.Linear(2, 1, dtype=torch.float64))
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([[0.0, 3.0]])
    mask = Mask.of(net)
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([[float("inf"), 3.0]])
    mask.apply(net)
    assert net[0].weight.tolist() == [[0.0, 3.0]]
    assert net[0].weight.dtype == torch.float64


def test_a_mask_cannot_be_made_wrong_or_changed_later() -> None:
    with pytest.raises(MaskError, match="the mask of a must hold only 0 and 1"):
        Mask({"a": torch.tensor([0.0, 0.5])})
    source = torch.tensor([0.0, 1.0])
    mask = Mask({"a": source})
    source.fill_(1)
    mask.layers["a"].fill_(True)
    assert mask == Mask({"a": torch.tensor([False, True])})
    assert mask != Mask({"a": torch.tensor([True, True])})
    assert mask != Mask({"b": torch.tensor([False, True])})
    with pytest.raises(AttributeError):
        mask.layers = {}  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(mask)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (nn.Sequential(nn.Linear(2, 3)), "0 is \\(3, 2\\), its mask \\(2, 2\\)"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "the mask has no layer 1"),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "the net has no prunable layer 0"),
    ],
)
def test_a_mask_refuses_another_net_and_changes_nothing(other: nn.Module, sentence: str) -> None:
    mine = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(mine[0].weight)  # type: ignore[arg-type]
    before = [p.detach().clone() for p in other.parameters()]
    with pytest.raises(ValueError, match=sentence) as caught:
        Mask.of(mine).apply(other)
    assert isinstance(caught.value, LabError)
    assert all(torch.equal(old, new) for old, new in zip(before, other.parameters(), strict=True))


def test_keep_zeros_holds_against_momentum_and_weight_decay_while_free_weights_move() -> None:
    net = tiny_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    x = torch.randn(8, 2, 4, 4)

    def step() -> None:
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    step()  # momentum from before the pruning
    zero_small_ones(net, 0.5)
    callback = KeepZeros(net)
    before = net[3].weight.detach().clone()
    for _ in range(3):
        step()
        assert sparsity(net) < 0.5  # the step alone revives them
        callback.after_step(net)
        assert Mask.of(net) == callback.mask
    alive = before != 0
    assert (net[3].weight[alive] != before[alive]).all()


def test_a_mask_of_a_quantized_net_is_of_the_weights_below() -> None:
    conv = QuantizedConv(1, 1, 3, bits=2, quantizer=lambda w, bits, symmetric: w + 1)
    net = nn.Sequential(conv)
    nn.init.zeros_(conv.conv.weight)
    assert Mask.of(net).sparsity == 1.0
    assert np.isclose(sparsity(net), 1.0)
