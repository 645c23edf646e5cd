"""A student's way through Colab, in a process that looks like it: see `lookalike`."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import levels
from tests.colab.lookalike import ROOT, Colab, start

COURSE = ROOT / "notebooks"
WHERE_IS_TORCH = "import torch; print(torch.__file__, torch.__version__)"
PRUNING, FINETUNING = "01_percentile_pruning", "02_masked_finetuning"
pytestmark = [
    pytest.mark.skipif(not levels.level().bubblewrap, reason="bubblewrap does not work here"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Colab]:
    folder = tmp_path_factory.mktemp("runtime")
    yield start(folder)
    shutil.rmtree(folder)


def answered(name: str) -> dict[str, Any]:
    """The released notebook with the reference's answers, called as Colab calls a copy."""
    release, source = (
        json.loads((COURSE / kind / "compression" / f"{name}.ipynb").read_text(encoding="utf-8"))
        for kind in ("release", "source")
    )
    answers = {
        cell["id"]: "".join(line for line in cell["source"] if " SOLUTION" not in line)
        for cell in source["cells"]
        if "answer" in cell["metadata"].get("tags", [])
    }
    for cell in release["cells"]:
        cell["source"] = answers.get(cell["id"], "".join(cell["source"]))
    release["metadata"]["colab"]["name"] = f"Copy of {name}.ipynb"
    return dict(release)


def printed(notebook: dict[str, Any], cell_id: str) -> str:
    """The text that stands below a cell."""
    (cell,) = [cell for cell in notebook["cells"] if cell["id"] == cell_id]
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


@pytest.fixture(scope="module")
def first(colab: Colab) -> dict[str, Any]:
    """The first notebook, run. It has installed labkit, and nothing else."""
    assert colab.python("import labkit").returncode, "labkit is there before it was installed"
    torch_before = colab.python(WHERE_IS_TORCH).stdout
    done = colab.run(answered(PRUNING))
    assert colab.python(WHERE_IS_TORCH).stdout == torch_before
    return done


def test_a_student_goes_through_two_notebooks_and_hands_in(colab: Colab, first: dict[str, Any]) -> None:
    assert printed(first, "colab-bootstrap") == ""
    assert "No GPU, so the experiments are small ones" in printed(first, "setup")
    assert "3 of 3 public checks passed" in printed(first, "test-prune-threshold")
    assert colab.python("import labkit; print(labkit.__file__)").stdout.startswith("/colab/env/")

    # the first notebook is saved in the student's Drive; the second is opened in the same runtime
    saved = colab.drive / "Colab Notebooks" / f"Copy of {PRUNING}.ipynb"
    saved.parent.mkdir(parents=True)
    saved.write_text(json.dumps(first), encoding="utf-8")
    second = colab.run(answered(FINETUNING))
    assert printed(second, "colab-bootstrap") == ""
    assert "4 of 4 public checks passed" in printed(second, "test-finetune-masks")
    with zipfile.ZipFile(colab.content / "downloaded" / "submission.zip") as archive:
        assert archive.namelist() == [f"{PRUNING}.ipynb", f"{FINETUNING}.ipynb", "receipt.json"]
        receipt = json.loads(archive.read("receipt.json"))
    assert receipt["notebooks"][FINETUNING]["answers"]["finetune_after_prune"] == "written"
    assert receipt["notebooks"][PRUNING]["file"] == saved.name


@pytest.mark.usefixtures("first")
def test_long_runs_are_kept_in_drive_if_it_is_mounted(colab: Colab, tmp_path: Path) -> None:
    code = "import labkit; p = labkit.profile('full'); print(p.folder('02-one-shot')); print(p)"
    unmounted = Colab(tmp_path)
    (tmp_path / "content").mkdir()
    shutil.copytree(colab.folder / "colab", tmp_path / "colab", symlinks=True)
    folder, _, estimate, kept = unmounted.python(code).stdout.splitlines()
    assert folder == "runs/02-one-shot"
    assert "No GPU: a run of 20 epochs takes about" in estimate and "T4 GPU" in estimate
    assert "Mount your Drive first" in kept
    colab.drive.mkdir(parents=True, exist_ok=True)
    folder, *_, kept = colab.python(code).stdout.splitlines()
    assert folder == "/content/drive/MyDrive/compression-lab/runs/02-one-shot"
    assert "Mount" not in kept and "/content/drive/MyDrive/compression-lab/runs" in kept
