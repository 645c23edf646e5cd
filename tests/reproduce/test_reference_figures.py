"""The report's own weights give the report's own figures, computed by the notebooks' own solutions.

The quantizer and the pruning under test are the reference answers of the source notebooks, taken out
of them as they stand. Needs the report's baseline and CIFAR-10; skips where they are not to be had.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from labkit.checkpoints import load_into
from labkit.datasets import ImageSet, cifar10
from labkit.models import prunable_layers, resnet20
from labkit.siblings import definitions
from labkit.sparsity import sparsity_report
from labkit.training import Evaluation, evaluate

ASYMMETRIC = {6: 0.9145, 5: 0.9112, 4: 0.8972, 3: 0.7662, 2: 0.0899}
SYMMETRIC = {6: 0.9133, 5: 0.9071, 4: 0.8531, 3: 0.7151, 2: 0.1000}
PRUNED = {20: 0.9087, 40: 0.8874, 60: 0.7223, 70: 0.4204, 80: 0.1003}
TOLERANCE = 0.0003  # three pictures: what rounding on another device moves


@pytest.fixture(scope="module")
def test_set(cifar_root: Path) -> ImageSet:
    return cifar10(train=False, root=cifar_root)


@pytest.fixture(scope="module", autouse=True)
def all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(before, 2))
    yield
    torch.set_num_threads(before)


def solution(source: Path, notebook: str, name: str) -> Any:
    path = source / f"{notebook}.ipynb"
    return definitions(path)[name]


def measure(weights: Path, test_set: ImageSet, **quantization: Any) -> Evaluation:
    return evaluate(load_into(resnet20(**quantization), weights), test_set)


def test_floating_point(report_baseline: Path, test_set: ImageSet) -> None:
    result = measure(report_baseline, test_set)
    assert result.accuracy == pytest.approx(0.9151, abs=TOLERANCE)
    assert result.loss == pytest.approx(0.3231, abs=0.0002)


@pytest.mark.parametrize("bits", ASYMMETRIC)
def test_asymmetric(report_baseline: Path, test_set: ImageSet, source_notebooks: Path, bits: int) -> None:
    ste = solution(source_notebooks, "05_asymmetric_quantization", "STE")
    result = measure(report_baseline, test_set, bits=bits, quantizer=ste.apply)
    assert result.accuracy == pytest.approx(ASYMMETRIC[bits], abs=TOLERANCE)


@pytest.mark.parametrize("bits", SYMMETRIC)
def test_symmetric(report_baseline: Path, test_set: ImageSet, source_notebooks: Path, bits: int) -> None:
    ste = solution(source_notebooks, "06_symmetric_quantization", "STE")
    result = measure(report_baseline, test_set, bits=bits, symmetric=True, quantizer=ste.apply)
    assert result.accuracy == pytest.approx(SYMMETRIC[bits], abs=TOLERANCE)


@pytest.mark.parametrize("q", PRUNED)
def test_pruned(report_baseline: Path, test_set: ImageSet, source_notebooks: Path, q: int) -> None:
    prune_by_percentage = solution(source_notebooks, "01_percentile_pruning", "prune_by_percentage")
    net = load_into(resnet20(), report_baseline)
    for _, layer in prunable_layers(net):
        prune_by_percentage(layer, q=float(q))
    assert evaluate(net, test_set).accuracy == pytest.approx(PRUNED[q], abs=TOLERANCE)


def test_sparsity_table_is_printed_as_in_the_report(report_baseline: Path, source_notebooks: Path) -> None:
    prune_by_percentage = solution(source_notebooks, "01_percentile_pruning", "prune_by_percentage")
    net = load_into(resnet20(), report_baseline)
    for _, layer in prunable_layers(net):
        prune_by_percentage(layer, q=20.0)
    table = str(sparsity_report(net)).splitlines()
    assert table[0] == "Sparsity of head_conv.0.conv: 87/432 = 0.2014"
    assert table[1] == "Sparsity of body_op.0.conv1.0.conv: 461/2304 = 0.2001"
    assert table[7] == "Sparsity of body_op.3.conv1.0.conv: 922/4608 = 0.2001"
    assert table[8] == "Sparsity of body_op.3.conv2.0.conv: 1843/9216 = 0.2000"
