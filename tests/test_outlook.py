"""What a student reads before a long run: how long it takes here, and where it is kept."""

from __future__ import annotations

import random
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labkit import colab, outlook, profile
from labkit.loaders import Loader
from labkit.models import ResNet

GPU = "Runtime, Change runtime type, T4 GPU, then run all cells again"
KEPT = "An interrupted run goes on where it was: it is kept in"


@pytest.fixture(autouse=True)
def nothing_measured_before() -> Iterator[None]:
    outlook.training_speed.cache_clear()
    yield
    outlook.training_speed.cache_clear()


class Machine:
    """The computer that a student sits at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.patch, self.drive = monkeypatch, folder / "MyDrive"
        monkeypatch.delenv("LABKIT_RUNS", raising=False)
        monkeypatch.setattr(colab, "DRIVE", self.drive)
        self.is_(gpu=False, in_colab=False)

    def is_(self, gpu: bool, in_colab: bool) -> None:
        self.patch.setattr(outlook, "default_device", lambda: torch.device("cuda" if gpu else "cpu"))
        self.patch.setattr(colab, "here", lambda: in_colab)

    def trains(self, pictures_per_second: float | None) -> None:
        """So many pictures in a second; None: nobody may measure it."""

        def speed() -> float:
            assert pictures_per_second is not None, "a second of everybody's time, for nothing"
            return pictures_per_second

        self.patch.setattr(outlook, "training_speed", speed)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def said(full: bool, epochs: int = 20) -> list[str]:
    return list(outlook.outlook(full, epochs))


# ---- the sentences


def test_a_full_run_without_a_gpu_has_its_time_and_its_place(machine: Machine) -> None:
    machine.trains(1000)
    assert said(full=True) == [
        "No GPU: a run of 20 epochs takes about 18 minutes here.",  # 20 * (50,000 + 0.4 * 10,000) / 1000 s
        f"{KEPT} runs.",
    ]


def test_in_colab_without_a_gpu_and_without_drive_both_have_a_way_out(machine: Machine) -> None:
    machine.trains(100)
    machine.is_(gpu=False, in_colab=True)
    assert said(full=True) == [
        f"No GPU: a run of 20 epochs takes about 3.0 hours here. With a GPU it would be a few: {GPU}.",
        f"{KEPT} runs, which Colab deletes with the runtime."
        " Mount your Drive first (the folder on the left).",
    ]


def test_a_mounted_drive_keeps_the_run(machine: Machine) -> None:
    machine.trains(None)
    machine.is_(gpu=True, in_colab=True)
    machine.drive.mkdir()
    assert said(full=True) == [f"{KEPT} {machine.drive / 'compression-lab' / 'runs'}."]


def test_a_folder_that_was_named_is_where_the_run_is_kept(machine: Machine) -> None:
    machine.trains(None)
    machine.is_(gpu=True, in_colab=False)
    machine.patch.setenv("LABKIT_RUNS", "elsewhere")
    assert said(full=True) == [f"{KEPT} elsewhere."]


@pytest.mark.parametrize(("gpu", "in_colab"), [(False, False), (True, False), (True, True)])
def test_of_quick_experiments_there_is_nothing_to_mind(machine: Machine, gpu: bool, in_colab: bool) -> None:
    machine.trains(None)
    machine.is_(gpu, in_colab)
    assert said(full=False) == []


def test_in_colab_without_a_gpu_quick_experiments_say_how_to_get_large_ones(machine: Machine) -> None:
    machine.trains(None)
    machine.is_(gpu=False, in_colab=True)
    assert said(full=False) == [f"No GPU, so the experiments are small ones. For CIFAR-10: {GPU}."]


@pytest.mark.parametrize(
    ("seconds", "time"),
    [(4, "1 minutes"), (100, "2 minutes"), (5399, "90 minutes"), (5400, "1.5 hours"), (90_000, "25.0 hours")],
)
def test_times_are_minutes_up_to_an_hour_and_a_half_then_hours(
    machine: Machine, seconds: float, time: str
) -> None:
    machine.trains(54_000 / seconds)
    assert said(full=True, epochs=1)[0] == f"No GPU: a run of 1 epochs takes about {time} here."


def test_a_profile_is_printed_with_its_outlook(machine: Machine) -> None:
    machine.trains(1000)
    assert str(profile("full")).splitlines()[-2:] == said(full=True)
    assert not set(said(full=True)) & set(str(profile("quick")).splitlines())


# ---- the measurement


class Steps:
    """Steps of training that take as long as they are told to, by a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.seconds, self.now, self.done = seconds, 100.0, 0
        self.trained: tuple[Any, Any] | None = None
        monkeypatch.setattr(outlook, "time", types.SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(outlook, "train_epoch", self)

    def __call__(self, net: Any, loader: Any, *_: object) -> None:
        self.now += self.seconds[self.done % len(self.seconds)]
        self.done += 1
        self.trained = net, loader


def test_the_speed_is_the_median_of_the_steps_after_the_first_which_warms_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = Steps(monkeypatch, 30.0, 0.25, 0.5, 0.125, 4.0)
    assert outlook.training_speed() == 64 / 0.375
    assert steps.done == 5  # 0.875 s of the second were over before the last


def test_a_slow_machine_makes_four_steps_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, 60.0, 8.0, 16.0, 32.0)
    assert outlook.training_speed() == 64 / 16
    assert steps.done == 4


def test_a_step_trains_the_labs_network_on_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, 0.5)
    assert outlook.training_speed(batch_size=32) == 64
    assert steps.trained is not None
    net, loader = steps.trained
    assert isinstance(net, ResNet) and isinstance(loader, Loader)
    assert [tuple(inputs.shape) for inputs, _ in loader] == [(32, 3, 32, 32)]


def test_the_speed_is_measured_once(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    steps = Steps(monkeypatch, 0.5)
    first = said(full=True)
    done = steps.done
    assert said(full=True) == first and steps.done == done > 0


def test_a_real_measurement_trains_and_draws_from_nobodys_random_numbers() -> None:
    def states() -> tuple[bytes, object, str]:
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(np.random.get_state())

    before = states()
    assert outlook.training_speed(seconds=0, batch_size=4) > 0
    assert states() == before
