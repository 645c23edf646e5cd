from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from labkit.checkpoints import weights_sha256
from labkit.datasets import ImageSet
from labkit.models import resnet20
from labkit.runs import KEPT, Run
from labkit.training import TrainingDiverged, evaluate, finetune, one_cycle, sgd, train
from tests.conftest import random_pictures


class Small(nn.Module):
    """A network that learns the test pictures in a blink."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def plain_epoch(
    net: nn.Module, trainloader: Any, criterion: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()


@pytest.mark.slow
def test_evaluate_is_the_mean_over_batches_of_a_hundred() -> None:
    data = random_pictures(200)
    net = resnet20()
    got = evaluate(net, data, batch_size=50)
    net.eval()
    mean, std = torch.tensor(data.mean).view(3, 1, 1), torch.tensor(data.std).view(3, 1, 1)
    inputs = (data.images / 255 - mean) / std
    with torch.no_grad():
        halves = [(net(inputs[s]), data.labels[s]) for s in (slice(100), slice(100, 200))]
    loss = sum(nn.functional.cross_entropy(*half).item() for half in halves) / 2
    correct = sum(int((logits.argmax(1) == labels).sum()) for logits, labels in halves)
    assert got.loss == pytest.approx(loss, abs=1e-5)
    assert got.accuracy == correct / 200


def test_evaluate_puts_the_mode_back(small_set: ImageSet) -> None:
    net = resnet20()
    for mode in (True, False):
        net.train(mode)
        evaluate(net, small_set)
        assert net.training is mode


def test_training_learns_and_keeps_history() -> None:
    run = train(
        small(), random_pictures(512), random_pictures(200, 1), epochs=4, optimizer=sgd(0.05), batch_size=32
    )
    assert [record["epoch"] for record in run.history] == [0, 1, 2, 3]
    assert run.last["train_loss"] < run.history[0]["train_loss"]
    assert run.best["test_accuracy"] == max(record["test_accuracy"] for record in run.history)
    assert all(record["images_per_second"] > 0 for record in run.history)
    assert run.settings["seed"] == 42 and run.settings["optimizer"]["lr"] == 0.05
    assert run.environment["torch"] == torch.__version__


def test_students_epoch_gives_the_same_weights_as_ours(small_set: ImageSet) -> None:
    nets = [small(), small()]
    finetune(nets[0], small_set, epochs=2, batch_size=32)
    finetune(nets[1], small_set, epochs=2, batch_size=32, epoch_fn=plain_epoch)
    assert weights_sha256(nets[0]) == weights_sha256(nets[1])


def test_train_is_plain_sgd(small_set: ImageSet) -> None:
    from labkit.loaders import Loader

    ours, theirs = small(), small()
    plain = {"batch_size": 32, "seed": 3, "precision": "float32"}
    train(ours, small_set, epochs=2, optimizer=sgd(0.1, 0.8, 1e-3), **plain)  # type: ignore[arg-type]
    loader = Loader(small_set, 32, device="cpu", seed=3)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.8, weight_decay=1e-3)
    for _ in range(2):
        plain_epoch(theirs, loader, nn.CrossEntropyLoss(), optimizer)
    assert weights_sha256(ours) == weights_sha256(theirs)


def test_net_ends_with_the_weights_of_its_best_epoch() -> None:
    class Spoil:
        def before_epoch(self, net: nn.Module, epoch: int) -> None:
            if epoch == 3:
                nn.init.zeros_(net.net[2].weight)

    net, test_set = small(), random_pictures(200, 1)
    data = random_pictures(512)
    run = train(net, data, test_set, epochs=4, optimizer=sgd(0.01), callbacks=[Spoil()], batch_size=128)
    assert run.best_epoch is not None and run.best_epoch < 3
    assert evaluate(net, test_set).accuracy == run.best["test_accuracy"]
    assert run.last["test_accuracy"] < run.best["test_accuracy"]


def test_best_is_chosen_on_validation_and_from_the_epoch_asked_for(small_set: ImageSet) -> None:
    rest, held_out = random_pictures(300).split(100)
    run = train(
        small(), rest, small_set, epochs=5, optimizer=sgd(0.05), validation_set=held_out, keep_best_from=2
    )
    assert run.settings["chosen_on"] == "validation"
    assert run.best_epoch is not None and run.best_epoch >= 2
    later = [record["validation_accuracy"] for record in run.history[2:]]
    assert run.best["validation_accuracy"] == max(later)


def test_callbacks_run_after_each_step_of_anybodys_loop(small_set: ImageSet) -> None:
    class Count:
        steps = 0
        epochs: list[int] = []  # noqa: RUF012

        def after_step(self, net: nn.Module) -> None:
            self.steps += 1

        def after_epoch(self, net: nn.Module, record: dict[str, Any]) -> None:
            self.epochs.append(record["epoch"])

    count = Count()
    finetune(small(), small_set, epochs=2, batch_size=32, epoch_fn=plain_epoch, callbacks=[count])
    assert count.steps == 6
    assert count.epochs == [0, 1]


def test_schedule_sets_the_learning_rate_of_each_step(small_set: ImageSet) -> None:
    rates: list[float] = []

    def epoch(
        net: nn.Module, trainloader: Any, criterion: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        for inputs, targets in trainloader:
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            criterion(net(inputs), targets).backward()
            optimizer.step()

    train(small(), small_set, epochs=2, optimizer=sgd(0.2), schedule=one_cycle, batch_size=32, epoch_fn=epoch)
    assert rates == pytest.approx([0.2 * one_cycle(step / 6) for step in range(6)])


def test_nan_loss_stops_with_advice(small_set: ImageSet) -> None:
    with pytest.raises(TrainingDiverged, match="learning rate ten times smaller"):
        train(small(), small_set, epochs=3, optimizer=sgd(1e30), batch_size=16)


RUNS = """
    import sys, os, signal
    sys.path.insert(0, {repository!r})
    import torch
    from labkit.checkpoints import save
    from labkit.models import resnet20
    from labkit.training import finetune
    from tests.conftest import random_pictures

    class Kill:
        def __init__(self, epoch):
            self.epoch = epoch

        def before_epoch(self, net, epoch):
            if epoch == self.epoch:
                os.kill(os.getpid(), signal.SIGKILL)

    def run(folder, kill_in):
        torch.manual_seed(1)
        torch.set_num_threads(1)
        net = resnet20()
        run = finetune(net, random_pictures(20), random_pictures(10, 1), epochs=4, lr=0.02, batch_size=8,
                       folder=folder, callbacks=[Kill(kill_in)])
        losses = [round(r["test_loss"], 12) for r in run.history]
        print("result", save(net, folder + ".safetensors"), losses, run.best_epoch, flush=True)

    torch.optim.SGD(torch.nn.Linear(1, 1).parameters())  # imports half of torch: here, and not in each run
    for folder, kill_in in {runs!r}:
        if os.fork() == 0:
            run(folder, kill_in)
            os._exit(0)
        _, status = os.wait()
        print("ended with", os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill -9")
@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, repository: Path) -> None:
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    runs = [(whole, -1), (killed, 2), (killed, -1), (killed, 0)]
    code = textwrap.dedent(RUNS.format(repository=str(repository), runs=runs))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    outputs = re.split(r"ended with (-?\d+)\n", done.stdout)
    assert [int(status) for status in outputs[1::2]] == [0, -signal.SIGKILL, 0, 0], done.stderr

    def result(output: str) -> str:
        return next(line for line in output.splitlines() if line.startswith("result"))

    first, second, resumed, again = outputs[:-1:2]
    assert "epoch  2/4" in second and "result" not in second
    assert "goes on after epoch 2 of 4" in resumed and result(resumed) == result(first)
    # finished: nothing is trained, so nothing is killed
    assert "was finished before" in again and result(again) == result(first)


def run_in(folder: Path, data: ImageSet, net: nn.Module | None = None, **options: Any) -> Run:
    return finetune(net or small(), data, epochs=1, batch_size=32, folder=folder, **options)


def test_a_changed_start_does_not_resume(
    tmp_path: Path, small_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    def masked(
        net: nn.Module, trainloader: Any, criterion: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        plain_epoch(net, trainloader, criterion, optimizer)
        next(iter(net.parameters())).data.mul_(1.0)

    run_in(tmp_path, small_set)
    run_in(tmp_path, small_set)
    assert "was finished before" in capsys.readouterr().out
    other = small()
    nn.init.zeros_(other.net[2].bias)  # type: ignore[arg-type]
    for change in (
        {"lr": 0.01},
        {"seed": 7},
        {"epoch_fn": plain_epoch},
        {"epoch_fn": masked},
        {"net": other},
    ):
        run_in(tmp_path, small_set, **change)
        assert "starting afresh" in capsys.readouterr().out, change


def test_another_start_does_not_cost_what_was_done(
    tmp_path: Path, small_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, small_set)
    for seed in range(1, KEPT):
        run_in(tmp_path, small_set, seed=seed)
    capsys.readouterr()
    run_in(tmp_path, small_set)
    assert "was finished before: read back" in capsys.readouterr().out
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert record["settings"]["seed"] == 42, "of the run that was asked for"
    for file in tmp_path.glob("checkpoint-*.pt"):
        os.utime(file, (2**31, 2**31))  # by another machine's clock
    for seed in range(KEPT + 2):
        run_in(tmp_path, small_set, seed=10 + seed)
        assert "was finished before" not in capsys.readouterr().out
        run_in(tmp_path, small_set, seed=10 + seed)
        assert "was finished before" in capsys.readouterr().out
    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == KEPT


def test_a_damaged_checkpoint_is_not_used(
    tmp_path: Path, small_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, small_set)
    (file,) = tmp_path.glob("checkpoint-*.pt")
    file.write_bytes(file.read_bytes()[: os.path.getsize(file) // 2])
    capsys.readouterr()
    run = run_in(tmp_path, small_set)
    assert "cannot be read; starting afresh" in capsys.readouterr().out
    assert len(run.history) == 1


def test_progress_shows_speed_and_each_epoch(small_set: ImageSet, capfd: pytest.CaptureFixture[str]) -> None:
    finetune(small(), small_set, small_set, epochs=2, batch_size=32, label="demo")
    out = capfd.readouterr().out
    assert "epoch  2/2 · train loss" in out and "images/s" in out and "demo:" in out


def test_grading_is_silent(
    small_set: ImageSet, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_GRADING", "1")
    finetune(small(), small_set, epochs=1)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
