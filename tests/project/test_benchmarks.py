"""The benchmarks run: tiny, on made-up pictures, so that the commands of benchmarks/README.md stay true."""

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
