"""One experiment with one seed: the key of its inputs, and the run itself, here or on another machine."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.checkpoints import weights_sha256
from labkit.datasets import ImageSet
from labkit.models import ResNet
from labkit.profiles import Profile
from labkit.recipes import Recipe, recipe
from labkit.reproduce.experiments import EXPERIMENTS, Experiment, Sweep
from labkit.reproduce.lab import Lab, Notebooks, ProfileFrom, code_of
from labkit.reproducible import environment, seed_everything
from labkit.sparsity import sparsity, sparsity_report
from labkit.storage import size_report
from labkit.training import evaluate, train

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Series:
    """What all experiments of a table have in common; plain data, to be sent to other machines."""

    name: str
    notebooks: Notebooks
    profile: ProfileFrom
    recipe: str

    @classmethod
    def of(cls, notebooks: Notebooks, profile: Profile, baseline: str, recipe: str) -> Series:
        """baseline: a name of shipped weights or a weights file. recipe: a name of RECIPES."""
        quick = "" if profile.name == "full" else f"-{profile.name}"
        name = f"{Path(baseline).stem}-{recipe}{quick}"
        return cls(name, notebooks, ProfileFrom.of(profile, baseline), recipe)

    def recipe_of(self, experiment: Experiment) -> Recipe:
        """How the experiment's network is trained, if it trains one."""
        return recipe(self.recipe, experiment.bits)

    def settings(self, experiment: Experiment) -> dict[str, Any]:
        """Everything that decides the experiment's figures, but its code and its seed."""
        return {
            "profile": {name: getattr(self.profile, name) for name in SIZES},
            "recipe": self.recipe_of(experiment).settings,
            "baseline_sha256": self._baseline_sha256,
        }

    @cached_property
    def _baseline_sha256(self) -> str:
        return weights_sha256(self.profile.baseline())


SIZES = ("name", "dataset", "epochs", "ramp_epochs", "batch_size", "train_size", "test_size")


@dataclass(frozen=True)
class Job:
    """An experiment with a seed. key: a hash of everything that its figures follow from."""

    experiment: str
    seed: int
    key: str
    start: Job | None

    @classmethod
    def of(cls, series: Series, experiment: Experiment, seed: int) -> Job:
        start = cls.of(series, EXPERIMENTS[experiment.start], seed) if experiment.start else None
        inputs = {
            "experiment": experiment.name,
            "seed": seed,
            "start": start.key if start else None,
            "code": code_of(series.notebooks, experiment.functions),
            **series.settings(experiment),
        }
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
        return cls(experiment.name, seed, key, start)

    @property
    def slug(self) -> str:
        """Its name as a part of file names."""
        return f"{self.experiment.replace(':', '-')}-seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.experiment}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a job gave. record: plain data. weights: of the network that it ended with, if it trained one."""

    record: dict[str, Any]
    weights: Weights | None


def run(series: Series, job: Job, start: Outcome | None, folder: Path | None) -> Outcome:
    """Do the job. start: of the job that it starts from. folder: keeps a checkpoint of each epoch.

    Takes the profile's data sets; raises LabError if they cannot be had.
    """
    began = time.perf_counter()
    lab, experiment = Lab.of(series.notebooks, series.profile), EXPERIMENTS[job.experiment]
    test_set = series.profile.test_set()
    seed_everything(job.seed)
    net = lab.baseline()
    if start is not None and start.weights is not None:
        net.load_state_dict(start.weights)
    record: dict[str, Any] = {
        "experiment": job.experiment, "table": experiment.table, "seed": job.seed, "key": job.key,
        **series.settings(experiment), "starts_from_sha256": weights_sha256(net),
    }  # fmt: skip
    if isinstance(experiment, Sweep):
        rows = {row: figures(changed, test_set) for row, changed in experiment.rows(lab, net)}
        seconds = round(time.perf_counter() - began, 1)
        about = {"rows": rows, "environment": environment(next(net.parameters()).device), "seconds": seconds}
        return Outcome(record | about, None)

    how = series.recipe_of(experiment)
    net = experiment.network(lab, net)
    how.prepare(net)
    options = how.options | experiment.options(lab)
    result = train(
        net, series.profile.train_set(), test_set,
        epochs=series.profile.epochs, batch_size=series.profile.batch_size,
        seed=job.seed, label=str(job), folder=folder, **options,
    )  # fmt: skip
    row = figures(net, test_set) | {"last_accuracy": result.last["test_accuracy"]}
    record |= result.record() | {
        "rows": {experiment.row: row},
        "sparsity_by_layer": {row.name: round(row.sparsity, 4) for row in sparsity_report(net).rows},
        "weights_sha256": weights_sha256(net),
        "seconds": round(sum(epoch["seconds"] for epoch in result.history), 1),
    }
    return Outcome(record, {name: value.detach().cpu() for name, value in net.state_dict().items()})


@torch.no_grad()
def figures(net: ResNet, test_set: ImageSet) -> dict[str, float]:
    """What the tables say of a network; the bytes are those that `labkit.size_report` counts."""
    result, size = evaluate(net, test_set), size_report(net)
    return {
        "loss": round(result.loss, 5),
        "accuracy": result.accuracy,
        "sparsity": round(sparsity(net), 5),
        "bytes": size.total,
        "ideal_bytes": round(size.ideal_bits / 8),
        "float32_bytes": size.float32,
    }
