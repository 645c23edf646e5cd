from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.profiles import PROFILES, profile
from labkit.results import compare, lab_table, report_table
from labkit.training import finetune
from tests.conftest import random_pictures
from tests.test_training import small


def test_the_reports_tables_are_the_reports() -> None:
    assert report_table("pruning") == {
        "baseline": 0.9151,
        "one-shot": 0.8794,
        "iterative": 0.8769,
        "global": 0.8841,
    }
    assert report_table("asymmetric") == {"6": 0.9144, "5": 0.9113, "4": 0.8973, "3": 0.7660, "2": 0.0899}
    assert report_table("symmetric")["4"] == 0.8532
    assert report_table("asymmetric_finetuned") == {"5": 0.9156, "4": 0.9140, "3": 0.9058, "2": 0.8597}
    assert report_table("pruned_quantized_before")["3"] == 0.7186
    assert report_table("pruned_quantized_after") == {"5": 0.9032, "4": 0.8994, "3": 0.8715, "2": 0.3348}


def test_an_unknown_table_says_which_there_are() -> None:
    with pytest.raises(LabError, match="symmetric"):
        report_table("nonsense")


def test_the_labs_own_figures_are_at_hand() -> None:
    one_shot = lab_table("one-shot", "report", "report_baseline")["one-shot"]
    assert one_shot["accuracy"] == 0.8808 and one_shot["sparsity"] == 0.8 and one_shot["bytes"] == 273_194
    widths = lab_table("asymmetric-finetune", "report", "report_baseline")
    assert list(widths) == ["5", "4", "3", "2"] and widths["2"]["accuracy"] == 0.8562
    with pytest.raises(LabError, match=r"no results of 'one-shot' from elsewhere.* There are: none"):
        lab_table("one-shot", baseline="elsewhere")
    with pytest.raises(LabError, match=r"There are: .*one-shot, iterative"):
        lab_table("nonsense", "report", "report_baseline")


def test_comparison_sets_ours_beside_the_reports() -> None:
    table = compare("asymmetric", {4: 0.9, 7: 0.5})
    lines = str(table).splitlines()
    assert lines[2].split() == ["4", "0.9000", "0.8973", "+0.0027"]
    assert lines[3].split() == ["7", "0.5000"]  # the report has no such row
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", table._repr_html_())
    assert cells[:4] == ["", "measured", "report", "difference"]
    assert cells[4:] == ["4", "0.9000", "0.8973", "+0.0027", "7", "0.5000", "", ""]


def test_shapes10_figures_stand_alone() -> None:
    table = compare("asymmetric", {4: 0.9}, dataset="Shapes-10")
    assert "report" not in str(table).splitlines()[1]
    assert "Shapes-10" in str(table)


def test_a_runs_record_is_plain_json() -> None:
    run = finetune(small(), random_pictures(64), random_pictures(32, 1), epochs=2, label="try")
    record = json.loads(json.dumps(run.record()))
    assert len(record["history"]) == 2 and record["settings"]["seed"] == 42
    assert record["environment"]["torch"] and record["best_epoch"] in (0, 1)
    assert f"{run.best['test_accuracy']:.4f}" in str(run) and "chosen on test" in str(run)


def test_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    full = profile("full")
    assert (full.epochs, full.ramp_epochs, full.lr, full.batch_size) == (20, 10, 0.002, 256)
    assert full.train_size is None and full.test_size is None and full.dataset == "CIFAR-10"
    monkeypatch.setenv("LABKIT_PROFILE", "quick")
    assert profile() is PROFILES["quick"]
    monkeypatch.setenv("LABKIT_PROFILE", "huge")
    with pytest.raises(LabError, match="full or quick"):
        profile()


def test_quick_needs_no_data_on_disk_and_keeps_no_checkpoints() -> None:
    quick = profile("quick")
    assert len(quick.train_set()) == quick.train_size
    assert len(quick.scan_set()) == quick.scan_size
    assert quick.folder("x") is None
    assert profile("full").folder("x") == Path("runs/x")
