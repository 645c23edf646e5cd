"""A mistake in a notebook: one sentence and the student's own line, nothing of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def shown(cell: str, folder: Path) -> str:
    """What IPython shows of a cell that fails."""
    pytest.importorskip("IPython")
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", cell]
    environment = {**os.environ, "IPYTHONDIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_mistake_is_its_sentence_and_the_line_that_led_to_it(tmp_path: Path) -> None:
    text = shown("import labkit\n\ndef mine():\n    return labkit.load('nosuch')\n\nmine()", tmp_path)
    assert "LabError: there are no weights called 'nosuch'." in text
    assert "line 4: return labkit.load('nosuch')" in text
    assert "Traceback" not in text and "checkpoints.py" not in text


@pytest.mark.slow
def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    assert "Traceback" in shown("import labkit\nlabkit.load(3)", tmp_path)
