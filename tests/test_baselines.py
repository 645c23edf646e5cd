from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from labkit import baselines
from labkit.baselines import RECIPES, Recipe, train_baseline
from labkit.checkpoints import load_into, notes
from labkit.cli import app
from labkit.errors import LabError
from labkit.models import resnet20
from labkit.training import evaluate, train
from tests.conftest import random_pictures


@pytest.mark.slow
def test_weights_are_written_with_their_recipe_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "shapes10", lambda train: random_pictures(64, seed=int(train)))
    recipe = Recipe("shapes10", epochs=1, lr=0.05, batch_size=32)
    out = tmp_path / "w.safetensors"
    result = train_baseline(recipe, out, tmp_path / "run")
    assert json.loads(notes(out)["recipe"])["epochs"] == 1
    assert notes(out)["test_accuracy"] == f"{result.accuracy:.4f}"
    assert evaluate(load_into(resnet20(), out), random_pictures(64, seed=0)) == result
    assert len(list((tmp_path / "run").glob("checkpoint-*.pt"))) == 1


@pytest.mark.slow
def test_held_out_pictures_choose_the_epoch_and_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def watched(net: Any, train_set: Any, **options: Any) -> Any:
        asked.update(options, train_set=train_set)
        return train(net, train_set, **options)

    pictures = random_pictures(64)
    monkeypatch.setattr(baselines, "shapes10", lambda train: pictures)
    monkeypatch.setattr(baselines, "train", watched)
    recipe = Recipe("shapes10", epochs=2, lr=0.05, batch_size=32, held_out=16)
    train_baseline(recipe, tmp_path / "w.safetensors", tmp_path / "run")
    assert (len(asked["train_set"]), len(asked["validation_set"])) == (48, 16)
    assert asked["keep_best_from"] == 1  # of two epochs the last tenth is the last
    assert "16 held-out" in str(recipe)


def test_holding_everything_out_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "shapes10", lambda train: random_pictures(64))
    with pytest.raises(LabError, match="--held-out 64 leaves nothing of 64"):
        train_baseline(Recipe("shapes10", epochs=1, lr=0.05, held_out=64), tmp_path / "w", tmp_path / "run")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_as_a_sentence(name: str) -> None:
    assert RECIPES[name].dataset == name
    assert f"{RECIPES[name].epochs} epochs" in str(RECIPES[name])


def test_the_command_says_what_it_does_not_know() -> None:
    runner = CliRunner()
    for arguments, sentence in (
        (["train", "mnist"], "cifar10 or shapes10"),
        (["train", "--precision", "int8"], "bfloat16"),
    ):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2 and sentence in result.output


@pytest.mark.slow
def test_the_command_trains_and_says_where_the_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "kept"))
    monkeypatch.setattr(baselines, "shapes10", lambda train: random_pictures(64, seed=int(train)))
    result = CliRunner().invoke(app, ["train", "shapes10", "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "1 epochs" in result.output and "weights in resnet20-shapes10.safetensors" in result.output
    assert Path("resnet20-shapes10.safetensors").exists()
    assert (tmp_path / "kept" / "train-shapes10-42" / "record.json").exists()


def test_the_command_trains_nothing_that_it_could_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "train", None)  # calling it would be a TypeError
    result = CliRunner().invoke(app, ["train", "shapes10", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "is a folder: name a file in it" in " ".join(result.output.split())
