"""A mistake in a notebook: one sentence and the student's own line, nothing of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BETWEEN = "---- next cell"


def shown(folder: Path, *cells: str) -> list[str]:
    """What IPython, in a process of its own, shows of each of these cells, which fail."""
    pytest.importorskip("IPython")
    run = f"for cell in {cells!r}: get_ipython().run_cell(cell); print({BETWEEN!r})"
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", run]
    environment = {**os.environ, "IPYTHONDIR": str(folder), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return done.stdout.split(BETWEEN)[:-1]


@pytest.mark.slow
def test_a_mistake_is_its_sentence_and_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    mistake = "import labkit\n\ndef mine():\n    return labkit.load('nosuch')\n\nmine()"
    bug = "import labkit\nlabkit.checkpoints.shipped = lambda: 1 / 0\nlabkit.load('nosuch')"
    text, wrong_argument, of_a_bug = shown(tmp_path, mistake, "import labkit\nlabkit.load(3)", bug)
    assert "LabError: there are no weights called 'nosuch'." in text
    assert "line 4: return labkit.load('nosuch')" in text
    assert "Traceback" not in text and "checkpoints.py" not in text
    assert "ArgumentError: name should be" in wrong_argument and "Traceback" not in wrong_argument
    assert "Traceback" in of_a_bug
