"""The instructor's commands where their user has no home, or Python drops docstrings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from tests.roundtrip.tiny_course import write_course

WITHOUT_A_HOME = """
import os, pwd, sys
for name in ("HOME", "USER", "LOGNAME"):
    os.environ.pop(name, None)
def nobody(*_): raise KeyError("no entry")
pwd.getpwuid = pwd.getpwnam = nobody
from labkit.cli import app
app(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="users as POSIX has them")
def test_commands_work_without_a_home_and_a_users_name(tmp_path: Path) -> None:
    write_course(tmp_path)
    for command in (["release", "--course", str(tmp_path)], ["data", "--status"], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_A_HOME, *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr and done.returncode == 0, done.stderr
    assert len(list((tmp_path / "release" / "compression").iterdir())) == 3
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["grade"], ["release", "--score"], ["demo", "--folder", "shown"]], ids=lambda words: words[0]
)
def test_a_python_without_docstrings_is_told(tmp_path: Path, command: list[str]) -> None:
    write_course(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "labkit", *command, "--course", str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONOPTIMIZE": "2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "PYTHONOPTIMIZE" in done.stderr and "Traceback" not in done.stderr
