from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from labkit import training
from labkit.checkpoints import read_weights
from labkit.cli import app
from labkit.errors import LabError
from labkit.models import prunable_layers, quantized_layers, resnet20
from labkit.profiles import PROFILES, Profile
from labkit.recipes import RECIPES, recipe
from labkit.reproduce import command, schedule
from labkit.reproduce.experiments import EXPERIMENTS, chosen
from labkit.reproduce.jobs import Job, Series
from labkit.reproduce.lab import Lab, code_of, read_notebooks
from labkit.reproduce.records import Records, all_records
from labkit.reproduce.schedule import jobs_of, run_here, run_on, to_do
from tests.conftest import SOURCE

TINY = replace(PROFILES["quick"], epochs=2, ramp_epochs=1, batch_size=32, train_size=64, test_size=50)
NOTEBOOKS = read_notebooks(SOURCE)


def series(profile: Profile = TINY, recipe: str = "report", notebooks: dict[str, str] = NOTEBOOKS) -> Series:
    return Series.of(notebooks, profile, "resnet20-shapes10", recipe)


def do(names: list[str], folder: Path, seeds: tuple[int, ...] = (42,), **options: Any) -> dict[str, Any]:
    """Run these experiments and give their records by name."""
    one = series(**options)
    records = Records.of(folder, one)
    jobs = jobs_of(one, chosen(names), seeds)
    run_here(one, to_do(jobs, records), records, say=lambda line: None)
    return {str(job): records.read(job) for job in jobs}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_notebooks_define_what_an_experiment_uses(name: str) -> None:
    lab = Lab.of(NOTEBOOKS, PROFILES["quick"])
    for function in EXPERIMENTS[name].functions:
        assert callable(lab[function]) or hasattr(lab[function], "apply")
        assert code_of(NOTEBOOKS, [function])


def test_every_table_of_the_report_has_its_experiments() -> None:
    from labkit.results import report_table, report_tables

    for table in report_tables():
        rows = set(report_table(table))
        ours = [experiment for experiment in EXPERIMENTS.values() if experiment.table == table]
        named = {experiment.row for experiment in ours if hasattr(experiment, "row")}
        if named:
            assert rows <= named | {"baseline"}
        else:
            lab = Lab.of(NOTEBOOKS, PROFILES["quick"])
            assert rows == {row for sweep in ours for row, _ in sweep.rows(lab, lab.baseline())}


def test_a_finetuning_is_recorded_with_everything_behind_it(tmp_path: Path) -> None:
    record = do(["one-shot"], tmp_path)["one-shot, seed 42"]
    row = record["rows"]["one-shot"]
    assert row["sparsity"] == pytest.approx(0.8, abs=0.001)
    assert row["accuracy"] == max(epoch["test_accuracy"] for epoch in record["history"])
    assert row["last_accuracy"] == record["history"][-1]["test_accuracy"]
    assert row["bytes"] < row["float32_bytes"] / 2
    assert len(record["history"]) == TINY.epochs
    assert record["settings"]["optimizer"]["lr"] == 0.002
    assert {"torch", "device"} <= record["environment"].keys()
    weights = read_weights(tmp_path / series().name / "weights" / "one-shot-seed42.safetensors")
    zeros = sum(
        int((weights[f"{name}.weight"] == 0).sum())
        for name, _ in prunable_layers(series().profile.baseline())
    )
    assert zeros == round(row["sparsity"] * 268_336)


def test_the_improved_recipe_starts_lower_where_the_grid_takes_less(tmp_path: Path) -> None:
    rates = {}
    for name in ("one-shot", "asymmetric-finetune:4", "asymmetric-finetune:2"):
        record = do([name], tmp_path, recipe="improved")[f"{name}, seed 42"]
        rates[name] = record["recipe"]["lr"]
        assert record["settings"]["optimizer"]["lr"] == record["recipe"]["lr"]
        annealed = [epoch["lr"] / rates[name] for epoch in record["history"]]
        assert annealed == pytest.approx([1.0, 0.5])  # as each epoch begins
    assert rates == {"one-shot": 0.05, "asymmetric-finetune:4": 0.01, "asymmetric-finetune:2": 0.05}


def test_clipping_leaves_the_zeros_and_every_other_bit_width_alone() -> None:
    lab = Lab.of(NOTEBOOKS, PROFILES["quick"])
    for bits, clipped in ((2, True), (4, False)):
        net = lab.baseline(bits=bits)
        lab["04.global_prune_by_percentage"](net, q=80.0)
        before = {name: layer.conv.weight.detach().clone() for name, layer in quantized_layers(net)}
        recipe("improved", bits).prepare(net)
        for name, layer in quantized_layers(net):
            after, first = layer.conv.weight.detach(), before[name]
            assert torch.equal(after == 0, first == 0)
            limit = 2.5 * first[first != 0].std()
            assert torch.equal(after, first.clamp(-limit, limit) if clipped else first)


def test_clipping_leaves_a_layer_alone_that_has_lost_nearly_all() -> None:
    net = Lab.of(NOTEBOOKS, PROFILES["quick"]).baseline(bits=2)
    layers = [layer.conv.weight for _, layer in quantized_layers(net)]
    for kept, weight in enumerate(layers[:2]):  # none, and one
        weight.data.view(-1)[kept:] = 0
    recipe("improved", 2).prepare(net)
    assert all(bool(weight.isfinite().all()) for weight in layers)
    assert [int((weight != 0).sum()) for weight in layers[:2]] == [0, 1]


def test_the_reports_loop_loses_the_zeros_and_ours_holds_them(tmp_path: Path) -> None:
    records = do(["pruned-quantized-finetune:4", "pruned-quantized-held:4"], tmp_path)
    assert set(records) == {
        "global, seed 42",
        "pruned-quantized-finetune:4, seed 42",
        "pruned-quantized-held:4, seed 42",
    }
    sparsity = {
        name.partition(",")[0]: next(iter(r["rows"].values()))["sparsity"] for name, r in records.items()
    }
    assert sparsity["pruned-quantized-finetune:4"] < 0.1
    assert sparsity["pruned-quantized-held:4"] == sparsity["global"] == pytest.approx(0.8, abs=0.001)


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = do(["one-shot"], tmp_path)

    def fail(*_: Any) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(schedule, "run", fail)
    assert do(["one-shot"], tmp_path) == first
    for change in ({"seeds": (7,)}, {"recipe": "improved"}, {"profile": replace(TINY, epochs=1)}):
        with pytest.raises(AssertionError, match="run again"):
            do(["one-shot"], tmp_path, **change)


def test_a_start_whose_weights_are_gone_is_run_again_only_where_it_is_needed(tmp_path: Path) -> None:
    do(["global"], tmp_path)
    one = series()
    records = Records.of(tmp_path, one)
    (tmp_path / one.name / "weights" / "global-seed42.safetensors").unlink()
    assert to_do(jobs_of(one, chosen(["global"]), [42]), records) == []
    needed = to_do(jobs_of(one, chosen(["pruned-quantized"]), [42]), records)
    assert [job.experiment for job in needed] == ["global", "pruned-quantized"]


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = do(["iterative"], tmp_path / "whole")["iterative, seed 42"]
    calls: list[int] = []
    evaluate = training.evaluate

    def killed(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:  # in the second epoch
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    monkeypatch.setattr(training, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        do(["iterative"], tmp_path / "parts")
    monkeypatch.setattr(training, "evaluate", evaluate)
    parts = do(["iterative"], tmp_path / "parts")["iterative, seed 42"]
    assert "iterative, seed 42 goes on after epoch 1 of 2" in capsys.readouterr().out
    assert parts["weights_sha256"] == whole["weights_sha256"]
    assert parts["rows"] == whole["rows"]
    assert not (tmp_path / "parts" / series().name / "running" / "iterative-seed42").exists()


def test_a_run_that_fails_costs_itself_and_what_starts_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = schedule.run

    def sometimes(series: Series, job: Job, *rest: Any) -> Any:
        if job.experiment == "global":
            raise training.TrainingDiverged("the training loss is no longer a finite number")
        return run(series, job, *rest)

    monkeypatch.setattr(schedule, "run", sometimes)
    with pytest.raises(LabError) as raised:
        do(["baseline", "pruned-quantized", "asymmetric"], tmp_path)
    assert str(raised.value).splitlines() == [
        "2 runs failed; the others are recorded.",
        "global, seed 42: the training loss is no longer a finite number",
        "pruned-quantized, seed 42: it starts from global, seed 42, which failed",
    ]
    assert {record["experiment"] for _, record in found(tmp_path)} == {"baseline", "asymmetric"}


def test_without_its_data_set_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise LabError("CIFAR-10 is nowhere on this machine")

    monkeypatch.setattr("labkit.profiles.cifar10", missing)
    with pytest.raises(LabError, match="CIFAR-10 is nowhere"):
        do(["baseline", "asymmetric"], tmp_path, profile=PROFILES["full"])
    assert found(tmp_path) == []


def found(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    return list(all_records(folder))


def test_clipping_leaves_zeros_and_floating_point_layers_alone() -> None:
    net = resnet20(bits=2, quantizer=lambda w, bits, symmetric: w)
    layer = dict(quantized_layers(net))["body_op.4.conv1.0"].conv
    with torch.no_grad():
        layer.weight[:, :16] = 0
        layer.weight[0, 20, 1, 1] = 5.0
    head, before = net.head_conv[0].conv.weight.detach().clone(), layer.weight.detach().clone()
    limit = 2.5 * float(before[before != 0].std())
    RECIPES["improved"].prepare(net)
    assert torch.equal(layer.weight, before.clamp(-limit, limit))
    assert layer.weight.max() < 5.0 and int((layer.weight == 0).sum()) >= 32 * 16 * 9
    assert torch.equal(net.head_conv[0].conv.weight, head)  # type: ignore[arg-type]


def key(experiment: str, notebooks: dict[str, str]) -> str:
    return Job.of(series(notebooks=notebooks), EXPERIMENTS[experiment], 42).key


def edited(notebook: str, old: str, new: str) -> dict[str, str]:
    name = next(name for name in NOTEBOOKS if name.startswith(notebook))
    assert old in NOTEBOOKS[name]
    return NOTEBOOKS | {name: NOTEBOOKS[name].replace(old, new)}


def test_a_key_follows_the_code_that_an_experiment_reaches() -> None:
    comment = edited("02", "# after the step: the optimizer", "# later: the optimizer")
    assert key("iterative", comment) == key("iterative", NOTEBOOKS)
    helper = edited("01", "np.percentile", "np.quantile")
    assert key("iterative", helper) != key("iterative", NOTEBOOKS)  # through iterative_prune
    assert key("asymmetric-finetune:3", helper) == key("asymmetric-finetune:3", NOTEBOOKS)
    ramp = edited("04", "target=80.0, ramp_epochs=profile", "target=70.0, ramp_epochs=profile")
    assert key("global", ramp) != key("global", NOTEBOOKS)
    assert key("pruned-quantized-held:3", ramp) != key("pruned-quantized-held:3", NOTEBOOKS)  # its start


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    do(["baseline"], tmp_path)
    path = tmp_path / series().name / "baseline-seed42.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(LabError, match=r"baseline-seed42.json is no record of ours; delete it"):
        list(all_records(tmp_path))


def test_the_command_runs_compares_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "profile_of", lambda name: TINY)
    arguments = ["reproduce", "--profile", "quick", "--baseline", "resnet20-shapes10"]
    arguments += ["--results", str(tmp_path), "--notebooks", str(SOURCE)]
    listed = CliRunner().invoke(app, [*arguments, "--list", "asymmetric", "asymmetric-finetune:2"])
    assert listed.output.split("\n")[:2] == [
        "to do  asymmetric, seed 42",
        "to do  asymmetric-finetune:2, seed 42",
    ]
    done = CliRunner().invoke(app, [*arguments, "asymmetric"])
    assert done.exit_code == 0, done.output
    assert "asymmetric, seed 42, accuracy on Shapes-10" in done.output
    listed = CliRunner().invoke(app, [*arguments, "--list", "asymmetric"])
    assert listed.output == "done   asymmetric, seed 42\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["two-shot"], "there is no experiment 'two-shot'. There are: baseline, "),
        (["--recipe", "best"], "--recipe best is not known: it can be report or improved."),
        (["--notebooks", "nowhere"], "no notebooks of the lab in nowhere"),
        (["--on", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    always = ["--baseline", "resnet20-shapes10", "--profile", "quick", "--results", str(tmp_path)]
    where = [] if "--notebooks" in arguments else ["--notebooks", str(SOURCE)]
    result = CliRunner().invoke(app, ["reproduce", *arguments, *always, *where])
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


@pytest.mark.filterwarnings("default")  # dask's own: sockets and event loops that it closes late
def test_a_cluster_gives_the_same_records_though_a_worker_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install 'labkit[cluster]'")
    names = ["global", "pruned-quantized-held:2", "one-shot"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = do(names, tmp_path / "here")
    torch.set_num_threads(torch_threads)

    one = series()
    records = Records.of(tmp_path / "there", one)
    jobs = jobs_of(one, chosen(names), [42])
    told: list[str] = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        victims = [worker.pid for worker in cluster.workers.values()][:1]

        def say(line: str) -> None:
            told.append(line)
            while victims:  # after the first result, while others run
                os.kill(victims.pop(), signal.SIGKILL)

        run_on(cluster.scheduler_address, one, to_do(jobs, records), records, say)
    assert len(told) == len(jobs)
    there = {str(job): records.read(job) for job in jobs}
    assert {name: r["rows"] for name, r in there.items()} == {name: r["rows"] for name, r in here.items()}
    assert {name: r.get("weights_sha256") for name, r in there.items()} == {
        name: r.get("weights_sha256") for name, r in here.items()
    }
    assert json.loads(json.dumps(there)) == there
