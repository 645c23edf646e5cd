"""Whole notebooks whose cells worked in Jupyter: they work at grading, and what cannot costs only itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.grading.engine import Engine
from labkit.grading.verdicts import Graded
from tests.attacks.case import GOOD, Case
from tests.attacks.inside import GLOBAL, ITERATIVE, Inside

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="grading needs Linux or macOS")

COPIES = GOOD.replace("weight = layer.weight.data\n", "copy.copy(1)\n    weight = layer.weight.data\n")
BROKEN_COPIES = GOOD.replace(
    "weight = layer.weight.data\n", "tool.check(1)\n    weight = layer.weight.data\n"
)


@dataclass(frozen=True)
class Way:
    """An answer with a cell before it, cells after the tests, and files beside the notebook."""

    answer: str = COPIES
    before: str = ""
    after: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def notebook(source: str) -> str:
    cells = [nbformat.v4.new_code_cell(source)]
    return str(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))


FROM_MINE = "from mine import prune_by_percentage"
MODULE = f"import numpy as np\n\n{GOOD}"
WORKS = {
    "a folder is made": Way(before="!mkdir -p out\nopen('out/x', 'w').close()\nimport copy"),
    "a folder is entered": Way(before="!mkdir -p out\n%cd out\n%cd ..\nimport copy\nopen('out/x', 'w')"),
    "a list of files": Way(before="!touch a.txt\nfiles = !ls *.txt\nassert files == ['a.txt']\nimport copy"),
    "a GPU is looked for": Way(before="!nvidia-smi\nimport copy"),
    "packages are installed": Way(before="%pip install -q torchinfo\n!pip install -q einops\nimport copy"),
    "Drive is mounted": Way(
        before="from google.colab import drive\ndrive.mount('/content')\nimport copy\n%cd /content/drive"
    ),
    "extensions": Way(before="%load_ext tensorboard\n%tensorboard --logdir x\n%matplotlib qt\nimport copy"),
    "an own cell asks for a GPU": Way(before="net = nn.Linear(2, 2).cuda()\nimport copy"),
    "above the answer itself": Way("!mkdir x\n%pip install einops\nimport einops\nimport copy\n" + COPIES),
    "a module is written": Way(FROM_MINE, before=f"%%writefile mine.py\n{MODULE}"),
    "a module is handed in": Way(FROM_MINE, files={"mine.py": MODULE}),
    "a package is handed in": Way(
        "from lib.mine import prune_by_percentage", files={"lib/__init__.py": "", "lib/mine.py": MODULE}
    ),
    "data is handed in": Way(
        GOOD.replace("(layer, q=70.0):\n", "(layer, q=70.0):\n    q = q + offset\n"),
        before="offset = float(open('data/offset.txt').read())",
        files={"data/offset.txt": "0.0"},
    ),
    "a notebook of helpers": Way(
        "import nbimporter\nfrom P0 import limit\n"
        + GOOD.replace("np.percentile(weight.abs().cpu().numpy(), q)", "limit(weight, q)"),
        files={"P0.ipynb": notebook("def limit(w, q):\n    return np.percentile(w.abs().numpy(), q)")},
    ),
    "a notebook is run": Way(
        GOOD.replace("np.percentile(weight.abs().cpu().numpy(), q)", "limit(weight, q)"),
        before="%run P0.ipynb",
        files={"P0.ipynb": notebook("def limit(w, q):\n    return np.percentile(w.abs(), q)")},
    ),
    "compiled": Way(f"@torch.compile\n{GOOD}"),
    "compiled with options": Way(f"@torch.compile(mode='reduce-overhead', fullgraph=True)\n{GOOD}"),
    "faulthandler": Way(f"import faulthandler, sys\nfaulthandler.enable()\nsys.stdout.fileno()\n{GOOD}"),
    "the shell is asked": Way(
        "get_ipython().system('true')\nassert 'ZMQ' in type(get_ipython()).__name__\n"
        f"assert get_ipython().kernel is not None\n{GOOD}"
    ),
    "a zero byte": Way(GOOD + "\0"),
}  # fmt: skip


def grade(engine: Engine, way: Way, folder: Path) -> Graded:
    case = Case("a way", way.answer, before=way.before, after=way.after)
    case.hand_in(folder)
    for place, text in way.files.items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(text)
    job, _ = case.job(folder)
    return engine.grade(job)


@pytest.mark.parametrize("way", WORKS.values(), ids=WORKS)
def test_what_worked_in_jupyter_gets_its_points(shared_engine: Engine, tmp_path: Path, way: Way) -> None:
    graded = grade(shared_engine, way, tmp_path / "work")
    assert graded.points == 10, graded
    assert graded.attempts == ()


NAMED = {
    "a cell that stopped": (
        Way(BROKEN_COPIES, before="1 / 0\nimport json as tool"),
        "tool is not defined: your cell that begins `1 / 0` stopped with ZeroDivisionError: division by zero",
    ),
    "a package that is not here": (
        Way(BROKEN_COPIES, before="import no_such_tool as tool"),
        "your cell that begins `import no_such_tool as tool` stopped with ModuleNotFoundError",
    ),
    "a cell that never ended": (
        Way(BROKEN_COPIES, before="import os, json as tool\nos._exit(3)"),
        "your cell that begins `import os, json as tool` stopped with crashed",
    ),
    "a cell further down": (
        Way(BROKEN_COPIES, after="import json as tool"), "tool is defined only further down",
    ),
    "a GPU": (Way(GOOD.replace("layer.weight.data", "layer.weight.data.cuda()")), "grading has no GPU"),
    "a module that was not handed in": (
        Way(GOOD.replace("(layer, q=70.0):\n", "(layer, q=70.0):\n    import mine\n")), "beside the notebook",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("way", "sentence"), NAMED.values(), ids=NAMED)
def test_the_page_says_what_was_missing(
    shared_engine: Engine, tmp_path: Path, way: Way, sentence: str
) -> None:
    graded = grade(shared_engine, way, tmp_path / "work")
    assert graded.points == 0
    hints = [check.hint for verdict in graded.verdicts for check in verdict.checks if check.state == "failed"]
    assert hints and all(sentence in str(hint) for hint in hints), graded.verdicts


UNDEFINED = {
    f"%%timeit\n{GOOD}": "its cell begins with %%timeit, which keeps none of its names",
    f"{GOOD}    )": "its cell stopped with SyntaxError",
    f"1 / 0\n{GOOD}": "its cell stopped with ZeroDivisionError: division by zero",
    "x = 1": "prune_by_percentage is not defined in any cell",
}


@pytest.mark.parametrize(("answer", "sentence"), UNDEFINED.items())
def test_an_answer_that_was_not_defined_says_why(
    shared_engine: Engine, tmp_path: Path, answer: str, sentence: str
) -> None:
    graded = grade(shared_engine, Way(answer), tmp_path / "work")
    assert graded.points == 0
    assert all(sentence in verdict.sentence for verdict in graded.verdicts), graded.verdicts


ONE_LAYER = """\
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    one = nn.Linear(sum(layer.weight.numel() for layer in layers), 1, bias=False)
    one.weight.data = torch.cat([layer.weight.data.flatten() for layer in layers])[None]
    prune_by_percentage(one, q)
    parts = one.weight.data[0].split([layer.weight.numel() for layer in layers])
    for layer, part in zip(layers, parts):
        layer.weight.data.copy_(part.view_as(layer.weight))
"""
A_COPY = """\
import copy
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        other = copy.deepcopy(net)
        for _, layer in labkit.prunable_layers(other):
            prune_by_percentage(layer, sparsity_at(epoch, target, ramp_epochs))
            layer.register_buffer("keep", layer.weight != 0, persistent=False)
        net.load_state_dict(other.state_dict())
"""


@pytest.mark.parametrize(
    ("name", "cell", "answer"),
    [(GLOBAL, "global-prune-by-percentage", ONE_LAYER), (ITERATIVE, "iterative-prune", A_COPY)],
)
def test_own_objects_go_through_an_earlier_notebooks_reference(
    shared_engine: Engine, tmp_path: Path, name: str, cell: str, answer: str
) -> None:
    job, _ = Inside("own objects", name, {cell: answer}, ()).job(tmp_path / "work")  # 01 was not handed in
    graded = shared_engine.grade(job)
    assert [verdict.kind for verdict in graded.verdicts] == ["passed"] * len(graded.verdicts), graded.verdicts
