"""A disk that takes no checkpoint: said before the first epoch, else it costs no more than that."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import labkit
from labkit.datasets import ImageSet
from labkit.errors import LabError
from labkit.runs import Run
from tests.conftest import random_pictures

CHECKPOINT = 380_000  # bytes, about, of the network below: its weights, the best ones, the momentum


def small() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def trained(folder: Path, data: ImageSet, epochs: int = 3) -> Run:
    return labkit.finetune(small(), data, epochs=epochs, batch_size=32, folder=folder)


@contextlib.contextmanager
def no_larger_files_than(size: int) -> Iterator[None]:
    """What a quota does: a write beyond it fails."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_a_folder_that_cannot_be_written_is_said_before_the_first_epoch(
    tmp_path: Path, small_set: ImageSet, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" if place == "a file" else tmp_path / "file" / "run"
    with pytest.raises(LabError, match=r"run folder .*file.* cannot be written .*LABKIT_RUNS"):
        trained(folder, small_set)
    assert "epoch" not in capfd.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_disk_that_fills_up_costs_the_checkpoint_and_not_the_run(
    tmp_path: Path, small_set: ImageSet, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = trained(tmp_path / "elsewhere", small_set)
    capfd.readouterr()
    with no_larger_files_than(CHECKPOINT // 2):
        run = trained(tmp_path / "run", small_set)
    said = capfd.readouterr().out
    assert [epoch["train_loss"] for epoch in run.history] == [epoch["train_loss"] for epoch in wanted.history]
    assert said.count("goes on without its checkpoint") == 1
    assert "File too large" in said and "No epoch of this run is kept" in said
    assert list((tmp_path / "run").glob("*.pt")) == list((tmp_path / "run").glob(".*")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_the_last_good_checkpoint_is_named_and_goes_on(
    tmp_path: Path, small_set: ImageSet, capfd: pytest.CaptureFixture[str]
) -> None:
    limits = contextlib.ExitStack()

    class FillsUp:
        def before_epoch(self, net: nn.Module, epoch: int) -> None:
            if epoch == 2:
                limits.enter_context(no_larger_files_than(CHECKPOINT // 2))

    with limits:
        labkit.finetune(small(), small_set, epochs=3, batch_size=32, folder=tmp_path, callbacks=[FillsUp()])
    (kept,) = tmp_path.glob("checkpoint-*.pt")
    assert f"The last good one is {kept}, after epoch 2." in capfd.readouterr().out
    run = trained(tmp_path, small_set)
    assert "goes on after epoch 2 of 3" in capfd.readouterr().out
    assert len(run.history) == 3


def test_a_finished_run_is_read_from_a_folder_that_takes_nothing(
    tmp_path: Path, small_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(tmp_path, small_set, epochs=1)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("labkit.files.os.open", refuse)
    assert trained(tmp_path, small_set, epochs=1).history == first.history


def test_a_folder_in_the_place_of_a_checkpoint(
    tmp_path: Path, small_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, small_set, epochs=1)
    (kept,) = tmp_path.glob("checkpoint-*.pt")
    kept.unlink()
    kept.mkdir()
    trained(tmp_path, small_set, epochs=1)
    assert "cannot be read; starting afresh" in capsys.readouterr().out and kept.is_file()
    kept.unlink()
    (kept / "something").mkdir(parents=True)
    with pytest.raises(LabError, match="in the place of a checkpoint"):
        trained(tmp_path, random_pictures(96), epochs=1)
