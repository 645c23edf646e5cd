"""Levels are counted, whatever a quantizer did: right, wrong, constant, NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labkit.models import QuantizedConv, resnet20
from labkit.quantization import distinct_levels, grid, levels_report


def to_grid(w: Tensor, bits: int, symmetric: bool) -> Tensor:
    """The tests' own quantizer: nearest grid value by distance, zeros kept."""
    live = w.detach()
    high = float(live.abs().max()) if symmetric else float(live.max())
    low = -high if symmetric else float(live.min())
    values = torch.linspace(low, high, 2**bits)
    nearest = values[(live.unsqueeze(-1) - values).abs().argmin(-1)]
    return torch.where(live == 0, torch.zeros(()), nearest)


def one_layer(quantizer, bits: int = 4, pruned: int = 0) -> nn.Sequential:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    conv = QuantizedConv(8, 16, 3, bits=bits, quantizer=quantizer)
    with torch.no_grad():
        conv.conv.weight.view(-1)[:pruned] = 0
    return nn.Sequential(conv)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_a_grid_is_numpys_linspace_with_exact_ends(bits: int) -> None:
    values = grid(-0.7, 0.9, bits)
    np.testing.assert_allclose(values.numpy(), np.linspace(-0.7, 0.9, 2**bits), rtol=0, atol=1e-15)
    assert (float(values[0]), float(values[-1])) == (-0.7, 0.9)


def test_a_grid_needs_a_bit() -> None:
    with pytest.raises(ValueError, match="bits should be a whole number, from 1 to 20, not 0"):
        grid(0, 1, 0)


def test_distinct_levels_are_numpys_unique_when_nothing_is_close() -> None:
    w = torch.randint(-5, 6, (7, 9, 3)).float() / 8
    np.testing.assert_array_equal(distinct_levels(w).numpy(), np.unique(w.numpy()).astype(np.float64))
    assert distinct_levels(w).dtype == torch.float64


def test_distinct_levels_work_on_views_and_gradients() -> None:
    w = torch.arange(12.0).reshape(3, 4).T.requires_grad_()
    assert not w.is_contiguous()
    assert distinct_levels(w).tolist() == list(range(12))


def test_neighbours_within_the_tolerance_are_one_level_and_chains_are_not() -> None:
    near = torch.tensor([0.0, 0.9e-6, 0.5, 0.5 + 0.9e-6, 1.0], dtype=torch.float64)
    assert distinct_levels(near).tolist() == [0.0, 0.5, 1.0]
    assert len(distinct_levels(near, tolerance=0)) == 5
    chain = torch.cat([torch.arange(11) * 0.6e-6, torch.ones(1)]).double()
    assert len(distinct_levels(chain)) == 7  # six pairs share a level, 1.0 is its own


@pytest.mark.parametrize(
    ("w", "expected"),
    [(torch.zeros(0), []), (torch.full((3, 3), 0.25), [0.25]), (torch.tensor([0.0, -0.0]), [0.0])],
)
def test_empty_constant_and_zero_tensors_have_their_levels(w: Tensor, expected: list[float]) -> None:
    assert distinct_levels(w).tolist() == expected


def test_nan_has_no_level() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        distinct_levels(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_right_quantizer_is_evenly_spaced_with_the_step_of_its_grid(bits: int, symmetric: bool) -> None:
    net = one_layer(to_grid, bits, pruned=100)
    net[0].symmetric = symmetric  # type: ignore[assignment]
    (row,) = levels_report(net).rows
    w = net[0].conv.weight.detach()
    span = 2 * float(w.abs().max()) if symmetric else float(w.max() - w.min())
    assert row.evenly_spaced
    used = np.unique(net[0].effective_weight.numpy())
    assert row.levels == len(used[used != 0]) <= 2**bits
    assert row.zeros == 100
    assert row.step is not None
    # a grid whose levels are all odd or all even has a coarser one that holds them
    assert round(row.step / (span / (2**bits - 1)), 4) in {1.0, 2.0, 3.0}
    if not symmetric:
        assert (row.smallest, row.largest) == pytest.approx((float(w.min()), float(w.max())), abs=1e-6)


def test_unused_levels_do_not_make_a_grid_uneven() -> None:
    values = torch.tensor([-0.7, -0.5, -0.2, 0.8])  # steps 0, 2, 5, 15 of 0.1
    net = one_layer(lambda w, bits, symmetric: values.repeat(288).view_as(w))
    (row,) = levels_report(net).rows
    assert row.step == pytest.approx(0.1)
    assert str(row) == "Levels of 0: 4 of 16 (4 bits), step 0.1000, -0.70 to 0.80, 0 zeros"


def test_an_uneven_quantizer_is_told() -> None:
    net = one_layer(lambda w, bits, symmetric: torch.sign(w) * torch.exp2(torch.randint(-9, 0, w.shape)))
    (row,) = levels_report(net).rows
    assert not row.evenly_spaced
    assert row.step is None
    assert "not evenly spaced" in str(row)


def test_a_quantizer_that_does_nothing_has_too_many_levels() -> None:
    (row,) = levels_report(one_layer(lambda w, bits, symmetric: w, bits=2)).rows
    assert row.levels > 1000
    assert row.allowed == 4
    assert not row.evenly_spaced


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (0.0, "Levels of 0: 0 of 16 (4 bits), no weight left, 1152 zeros"),
        (0.5, "Levels of 0: 1 of 16 (4 bits), one level, 0.50 to 0.50, 0 zeros"),
        (float("nan"), "Levels of 0: 0 of 16 (4 bits), no weight left, 0 zeros, 1152 NaN or infinite"),
    ],
)
def test_constant_quantizers_give_a_line(value: float, line: str) -> None:
    report = levels_report(one_layer(lambda w, bits, symmetric: torch.full_like(w, value)))
    assert str(report) == line


def test_zero_bits_and_one_bit_give_a_line() -> None:
    zeros = levels_report(one_layer(lambda w, bits, symmetric: w * 0, bits=0))
    assert str(zeros) == "Levels of 0: 0 of 1 (0 bits), no weight left, 1152 zeros"
    ends = levels_report(one_layer(to_grid, bits=1))
    assert str(ends).startswith("Levels of 0: 2 of 2 (1 bit), step ")


def test_the_report_covers_the_quantized_layers_and_changes_nothing() -> None:
    net = resnet20(2, True, to_grid)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = levels_report(net)
    assert len(report.rows) == 20
    assert {row.bits for row in report.rows} == {2}
    assert "body_op.3.id_mapping.0" in {row.name for row in report.rows}
    assert report.evenly_spaced
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    html = report._repr_html_()
    assert html.count('scope="row"') == 20
    assert html.count('scope="col"') == 8


def test_a_floating_point_net_has_no_quantized_layer() -> None:
    assert str(levels_report(resnet20())) == "No layer of this net is quantized (bits=None)."
