from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import labkit
from labkit import colab
from labkit.errors import LabError
from labkit.reproducible import code_fingerprint
from labkit.siblings import _taken, definitions, find_notebook, from_notebook

PRUNING = "01_percentile_pruning"
RIGHT = """def prune_by_percentage(layer, q=70.0):
    w = layer.weight.data
    w.mul_(w.abs() >= np.percentile(w.abs().numpy(), q))
"""
WRONG = RIGHT.replace("np.percentile(w.abs()", "np.percentile(w")
STUB = "def prune_by_percentage(layer, q=70.0):\n    raise NotImplementedError('...')\n"


def write(
    folder: Path,
    *cells: str,
    name: str = PRUNING,
    kinds: dict[int, dict[str, Any]] | None = None,
) -> Path:
    body = [code_cell(cell, {"nbgrader": (kinds or {}).get(i, {})}) for i, cell in enumerate(cells)]
    return save(folder, {"cells": body}, name)


def code_cell(source: str, metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": metadata, "source": source.splitlines(keepends=True)}


def save(folder: Path, content: dict[str, Any], name: str = PRUNING) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LABKIT_REFERENCE", raising=False)
    return tmp_path


def prunes(function: Any) -> bool:
    from labkit.check import report

    return report("prune_by_percentage", function).all_passed


def test_the_students_own_function_comes_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, RIGHT)
    assert prunes(from_notebook("01_percentile_pruning", "prune_by_percentage"))
    assert "yours, from 01_percentile_pruning.ipynb (3 of 3" in capsys.readouterr().out


def test_a_wrong_one_is_the_students_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, WRONG)
    assert not prunes(from_notebook("01_percentile_pruning", "prune_by_percentage"))
    printed = capsys.readouterr().out
    assert "of 3 public checks passed" in printed
    assert "! Fix prune_by_percentage there first" in printed


def test_helpers_constants_and_imports_come_along_but_no_experiment_runs(here: Path) -> None:
    path = write(
        here,
        "%matplotlib inline\nimport itertools\nEPS = 1e-8\n",
        "!pip install something\ndef twice(x):\n    return 2 * x + EPS\n",
        "%%time\nraise RuntimeError('a magic cell')\n",
        "expensive = twice(print('ran'))\nraise RuntimeError('an experiment')\n",
        "this is not python\n",
        "def f(x):\n    return next(itertools.repeat(twice(x)))\n",
        "def f(x):\n    return 'from a test cell'\n",
        "alias = nowhere\ndef g(x, y=nowhere):\n    pass\n",
        kinds={6: {"grade": True}},
    )
    names = definitions(path)
    assert names["f"](3) == 6 + 1e-8
    assert not {"expensive", "alias", "g"} & set(names)


def test_missing_and_unanswered_ones_say_so_when_called(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = from_notebook("01_percentile_pruning", "prune_by_percentage")
    with pytest.raises(LabError, match="not beside this notebook"):
        missing(None, q=3)
    write(here, STUB)
    unanswered = from_notebook("01_percentile_pruning", "prune_by_percentage")
    with pytest.raises(LabError, match="not written yet"):
        unanswered(None)
    with pytest.raises(LabError, match="not written yet"):
        unanswered.apply
    write(here, "x = 1")
    with pytest.raises(LabError, match="does not define prune_by_percentage"):
        from_notebook("01_percentile_pruning", "prune_by_percentage")(None)


def test_a_syntax_error_is_named(here: Path) -> None:
    write(here, RIGHT.replace("layer.weight.data", "layer.weight.data)"))
    found = from_notebook("01_percentile_pruning", "prune_by_percentage")
    with pytest.raises(LabError, match="has a syntax error in line 2"):
        found(None)


def test_device_and_profile_are_what_the_notebooks_call_so(here: Path) -> None:
    path = write(here, "def f():\n    return device, profile, device.type\n")
    assert definitions(path)["f"]() == (
        labkit.default_device(),
        labkit.profile(),
        labkit.default_device().type,
    )


def test_a_function_that_names_the_device_trains_the_same_run_in_a_later_notebook(here: Path) -> None:
    source = "def epoch(net, loader):\n    return net.to(device)\n"
    namespace: dict[str, Any] = {"__name__": "__main__", "device": labkit.default_device()}
    exec(source, namespace)
    over = definitions(write(here, source))["epoch"]
    assert code_fingerprint(over) == code_fingerprint(namespace["epoch"])


def test_in_colab_the_newer_copy_counts_and_a_missing_drive_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colab, "here", lambda: True)
    monkeypatch.setattr(colab, "FOLDERS", (here, here / "drive"))
    found = from_notebook("01_percentile_pruning", "prune_by_percentage")
    with pytest.raises(LabError, match="mount it"):
        found(None)
    stale, current = write(here, STUB), write(here / "drive", RIGHT)
    os.utime(stale, (1, 1))
    assert find_notebook("01_percentile_pruning") == current
    os.utime(current, (0, 0))
    assert find_notebook("01_percentile_pruning") == stale


@pytest.mark.parametrize("name", ["Copy of 01_percentile_pruning", "01_percentile_pruning (1)"])
def test_renamed_copies_are_found(here: Path, name: str) -> None:
    write(here, RIGHT, name=name)
    assert prunes(from_notebook("01_percentile_pruning", "prune_by_percentage"))


@pytest.mark.parametrize(
    "own", [WRONG, STUB, "x = 1", None, "def prune_by_percentage(l, q=1, undefined=nowhere): pass"]
)
def test_while_grading_the_reference_stands_in(
    here: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    write(here / "source", RIGHT)
    monkeypatch.setenv("LABKIT_REFERENCE", str(here / "source"))
    if own is not None:
        write(here, own)
    assert prunes(from_notebook("01_percentile_pruning", "prune_by_percentage"))


def test_while_grading_a_right_answer_is_still_the_students(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "source", RIGHT)
    write(here, RIGHT + "prune_by_percentage.mine = 1\n", "def mark(): pass\n")
    monkeypatch.setenv("LABKIT_REFERENCE", str(here / "source"))
    found = from_notebook("01_percentile_pruning", "prune_by_percentage")
    assert "mark" in found.__globals__


def test_code_beside_another_folders_notebook_is_imported(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "lab").mkdir()
    helper = "import numpy as np\ndef limit(w, q):\n    return np.percentile(w.abs().numpy(), q)\n"
    (here / "lab" / "my_limits_of_01.py").write_text(helper)
    own = RIGHT.replace("np.percentile(w.abs().numpy(), q)", "limit(w, q)")
    write(here / "lab", f"from my_limits_of_01 import limit\n{own}")
    monkeypatch.setattr(colab, "FOLDERS", (here / "lab",))
    assert prunes(from_notebook(PRUNING, "prune_by_percentage"))


class Shell:
    def __init__(self, starting_dir: Path, **user_ns: object) -> None:
        self.starting_dir, self.user_ns = str(starting_dir), user_ns


@pytest.mark.parametrize(
    "shell", [lambda at: Shell(at), lambda at: Shell(at / "no", __vsc_ipynb_file__=str(at / "02.ipynb"))]
)
def test_the_notebooks_own_folder_counts_when_its_code_has_moved_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, shell: Callable[[Path], Shell]
) -> None:
    ipython = pytest.importorskip("IPython")
    write(here, RIGHT)
    (here / "data").mkdir()
    monkeypatch.chdir(here / "data")
    monkeypatch.setattr(ipython, "get_ipython", lambda: shell(here))
    assert find_notebook(PRUNING) == here / f"{PRUNING}.ipynb"


def test_a_function_finds_what_its_notebook_takes_from_another(here: Path) -> None:
    write(here, RIGHT)
    take = f"prune_by_percentage = labkit.from_notebook({PRUNING!r}, 'prune_by_percentage')\n"
    path = write(here, take, "def whole(layer):\n    prune_by_percentage(layer, 100.0)\n", name="02_next")
    layer = torch.nn.Linear(3, 2)
    _taken(path, "whole").names["whole"](layer)
    assert int((layer.weight != 0).sum()) == 1


def test_two_notebooks_that_need_each_other_say_so(here: Path) -> None:
    for name, other in (("01_a", "02_b"), ("02_b", "01_a")):
        write(
            here,
            f"g = labkit.from_notebook({other!r}, 'f')\ndef f():\n    return g()\n",
            name=name,
        )
    with pytest.raises(LabError, match="takes f from a notebook that takes it from there"):
        from_notebook("01_a", "f")()
