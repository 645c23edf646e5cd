"""Plain nbgrader with the lab's configuration: the same release, points and secrets as `labkit`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.release import release
from tests.roundtrip import submissions as made
from tests.roundtrip.classes import ASSIGNMENT, FIRST, feedback
from tests.roundtrip.tiny_course import SECRET, write_course

ROOT = Path(__file__).resolve().parents[2]


# nbgrader's own programs, one after the other in one process: its import takes seconds
PROGRAMS = """
import json, sys
from nbgrader.apps import NbGraderApp
for words in json.loads(sys.argv[1]):
    NbGraderApp.launch_instance(words)
    for kind in NbGraderApp._walk_mro():
        kind.clear_instance()
"""


def test_stock_nbgrader_does_the_same_from_our_configuration(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course")
    release(course, ASSIGNMENT)
    ours = files(course)
    made.hand_in(course, "noisy", made.noisy)
    made.only(made.hand_in(course, "tagged", made.tagged_away), FIRST)
    grades = tmp_path / "grades.csv"
    with tempfile.TemporaryDirectory(prefix="labkit-") as sockets:  # a short path: a socket's has a limit
        # kernels without ports: two that start together could get the same one
        ipc = ["--KernelManager.transport=ipc", f"--KernelManager.ip={sockets}/kernel"]
        nbgrader(
            course,
            ["generate_assignment", ASSIGNMENT, "--force"],
            ["autograde", ASSIGNMENT, *ipc],
            ["generate_feedback", ASSIGNMENT],
            ["export", "--to", str(grades)],
        )
    assert files(course) == ours
    with grades.open(newline="") as table:
        scores = {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader(table)}
    assert scores == {"noisy": 20.0, "tagged": 3.0}
    page = feedback(course, "tagged")
    assert "double(1) is not 2" in page
    assert SECRET not in page


def files(course: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (course / "release" / ASSIGNMENT).iterdir()}


def nbgrader(course: Path, *commands: list[str]) -> None:
    # not under the warnings filter of these tests: nbgrader's own warnings are not ours to fix
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAMS, json.dumps(commands)],
        cwd=ROOT,  # with nbgrader_config.py
        env={**os.environ, "LABKIT_COURSE": str(course)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stderr
