"""The report's own weights give the report's own figures, computed by the notebooks' own solutions.

The quantizer and the pruning under test are the reference answers of the source notebooks, taken out of them
as they stand. Three networks are evaluated on all 10,000 images, the most sensitive of their kind. The others
have a record of that, whose key says that it is of today's solutions, and what these make of every layer is
held against numpy. Needs the report's baseline, and CIFAR-10 where something is evaluated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.checkpoints import load_into
from labkit.datasets import ImageSet, cifar10
from labkit.models import ResNet, prunable_layers, quantized_layers, resnet20
from labkit.profiles import PROFILES
from labkit.reproduce.experiments import EXPERIMENTS
from labkit.reproduce.jobs import Job, Series
from labkit.reproduce.lab import read_notebooks
from labkit.reproduce.records import Records
from labkit.siblings import definitions
from labkit.sparsity import sparsity_report
from labkit.training import evaluate
from tests.conftest import REPOSITORY, SOURCE

FLOATING_POINT = 0.9151
ASYMMETRIC = {6: 0.9145, 5: 0.9112, 4: 0.8972, 3: 0.7662, 2: 0.0899}
SYMMETRIC = {6: 0.9133, 5: 0.9071, 4: 0.8531, 3: 0.7151, 2: 0.1000}
PRUNED = {20: 0.9087, 40: 0.8874, 60: 0.7223, 70: 0.4204, 80: 0.1003}
TOLERANCE = 0.0003  # three images: what rounding on another device moves
SWEEPS: dict[str, dict[Any, float]] = {
    "baseline": {"baseline": FLOATING_POINT},
    "asymmetric": ASYMMETRIC,
    "symmetric": SYMMETRIC,
    "pruning-sweep": PRUNED,
}


@pytest.fixture(scope="module")
def test_set(cifar_root: Path) -> ImageSet:
    return cifar10(train=False, root=cifar_root)


def solution(notebook: str, name: str) -> Any:
    (path,) = SOURCE.glob(f"{notebook}_*.ipynb")
    return definitions(path)[name]


def quantized(weights: Path, bits: int, symmetric: bool) -> ResNet:
    """The report's network under the STE of notebook 05 or 06."""
    ste = solution("06" if symmetric else "05", "STE")
    return load_into(resnet20(bits=bits, symmetric=symmetric, quantizer=ste.apply), weights)


def pruned(weights: Path, q: float) -> ResNet:
    """The report's network, every layer pruned by notebook 01's solution."""
    net, prune_by_percentage = load_into(resnet20(), weights), solution("01", "prune_by_percentage")
    for _, layer in prunable_layers(net):
        prune_by_percentage(layer, q=q)
    return net


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_records_of_todays_solutions_hold_the_reports_figures(report_baseline: Path, sweep: str) -> None:
    series = Series.of(read_notebooks(SOURCE), PROFILES["full"], str(report_baseline), "report")
    job = Job.of(series, EXPERIMENTS[sweep], seed=42)
    record = Records(REPOSITORY / "data" / "results" / "report_baseline-report").read(job)
    assert record is not None, f"its inputs have changed: run `labkit reproduce {sweep}` again"
    measured = {row: figures["accuracy"] for row, figures in record["rows"].items()}
    assert measured == pytest.approx(
        {str(row): accuracy for row, accuracy in SWEEPS[sweep].items()}, abs=TOLERANCE
    )


def test_floating_point_on_all_images(report_baseline: Path, test_set: ImageSet) -> None:
    result = evaluate(load_into(resnet20(), report_baseline), test_set)
    assert result.accuracy == pytest.approx(FLOATING_POINT, abs=TOLERANCE)
    assert result.loss == pytest.approx(0.3231, abs=0.0002)


def test_three_bits_on_all_images(report_baseline: Path, test_set: ImageSet) -> None:
    result = evaluate(quantized(report_baseline, 3, symmetric=False), test_set)
    assert result.accuracy == pytest.approx(ASYMMETRIC[3], abs=TOLERANCE)


def test_sixty_percent_pruned_on_all_images(report_baseline: Path, test_set: ImageSet) -> None:
    assert evaluate(pruned(report_baseline, 60.0), test_set).accuracy == pytest.approx(
        PRUNED[60], abs=TOLERANCE
    )


@pytest.mark.parametrize("bits", ASYMMETRIC)
@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
def test_every_layer_is_quantized_as_numpy_quantizes_it(
    report_baseline: Path, bits: int, symmetric: bool
) -> None:
    ste = solution("06" if symmetric else "05", "STE")
    for name, layer in quantized_layers(quantized(report_baseline, bits, symmetric)):
        weight = layer.conv.weight.detach()
        exact = weight.double().numpy()
        low = -np.abs(exact).max() if symmetric else exact.min()
        width = 2 * np.abs(exact).max() if symmetric else exact.max() - low
        steps = 2**bits - 1
        levels = low + width * np.round((exact - low) / width * steps) / steps
        ours = ste.apply(weight, bits, symmetric).numpy()
        off = np.abs(ours - levels) > 1e-5 * width
        # a weight half way between two levels may go to either in float32
        assert off.sum() <= exact.size * 1e-3, name
        assert np.abs(ours - exact).max() <= 0.501 * width / steps, name


@pytest.mark.parametrize("q", PRUNED)
def test_every_layer_is_pruned_as_numpy_prunes_it(report_baseline: Path, q: int) -> None:
    whole = dict(prunable_layers(load_into(resnet20(), report_baseline)))
    for name, layer in prunable_layers(pruned(report_baseline, float(q))):
        exact = whole[name].weight.detach().double().abs().numpy()
        expected = exact >= np.percentile(exact, q)
        # the percentile may fall on a weight, which float32 keeps or drops
        assert ((layer.weight.detach() != 0).numpy() != expected).sum() <= 1, name


def test_sparsity_table_is_printed_as_in_the_report(report_baseline: Path) -> None:
    table = str(sparsity_report(pruned(report_baseline, 20.0))).splitlines()
    assert table[0] == "Sparsity of head_conv.0.conv: 87/432 = 0.2014"
    assert table[1] == "Sparsity of body_op.0.conv1.0.conv: 461/2304 = 0.2001"
    assert table[7] == "Sparsity of body_op.3.conv1.0.conv: 922/4608 = 0.2001"
    assert table[8] == "Sparsity of body_op.3.conv2.0.conv: 1843/9216 = 0.2000"
