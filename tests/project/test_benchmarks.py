"""The benchmarks run: tiny, on made-up data, so that the commands of benchmarks/README.md stay true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("script", "sides"), [("training", 7), ("steps", 6)])
def test_a_benchmark_measures_every_side_and_writes_it_down(
    script: str, sides: int, repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(repository / "benchmarks" / f"{script}.py")]
    command += ["--train", "32", "--test", "20", "--rounds", "1", "--out", str(out)]
    empty = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "LABKIT_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **empty}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["data"] in ("random", "cifar10") and len(result["peak_memory_gib"]) == sides
    assert all(speed > 0 for values in result["images_per_second"].values() for speed in values)
    assert all(ratio > 0 for ratio in result["median_ratios"].values())


def test_the_fuzzer_sends_all_of_its_frames_and_writes_down_what_came(
    repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fuzz.json"
    command = [sys.executable, str(repository / "benchmarks" / "fuzz.py")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--frames", "400", "--seed", "3", "--out", str(out)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert (result["frames"], result["faults"], result["seed"]) == (400, 0, 3)
    assert sum(one["taken"] + one["refused"] for one in result["readers"].values()) == 400
    assert "400 frames (seed 3)" in done.stdout


def test_the_fuzzers_figures_are_those_of_its_record(repository: Path) -> None:
    result = json.loads((repository / "benchmarks" / "results" / "fuzz.json").read_text())
    assert result["frames"] >= 1_000_000 and result["faults"] == 0
    for page in ("docs/ATTACKS.md", "benchmarks/README.md"):
        text = (repository / page).read_text(encoding="utf-8")
        assert f"{result['frames']:,} frames (seed {result['seed']})" in text
    for name, one in result["readers"].items():
        assert (
            f"| {name} | {one['frames']:,} | {one['taken']:,} | {one['refused']:,} | {one['faults']} |"
            in text
        )
