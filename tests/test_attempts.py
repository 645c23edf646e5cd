"""What the instructor is told of a student's code, and what is nobody's business."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.attempts import attempts_in
from tests.lab.harness import answers, graded_functions

SOURCE = Path(__file__).resolve().parents[1] / "notebooks" / "source" / "compression"


@pytest.mark.parametrize("function", sorted({graded.function for graded in graded_functions()}))
def test_no_answer_however_written_is_suspicious(function: str) -> None:
    for answer in answers(function):
        assert attempts_in({answer.title: answer.source}) == []


def test_the_labs_own_cells_are_not_suspicious() -> None:
    for path in SOURCE.parents[1].glob("*/compression/*.ipynb"):  # source and release
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and "test" not in cell["metadata"].get("tags", []):
                assert attempts_in({cell["id"]: "".join(cell["source"])}) == []


@pytest.mark.parametrize(
    "source",
    [
        "!pip install -q tqdm\n!python -m pip install x\n%pip install y\n!nvidia-smi",
        "!{sys.executable} -m pip install -q x",
        "%timeit x + 1\n%%time\nx = 1",
        "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass",
        "with open('notes.txt', 'w') as f:\n    f.write('hello')",
        "torch.backends.cudnn.benchmark = True\nplt.rcParams['figure.dpi'] = 100",
        "net.eval()\nnet.weight.data = w\nlayer.weight = nn.Parameter(w)",
        "from google.colab import drive\ndrive.mount('/content/drive')",
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n    def forward(self, x):\n        return x",
        "import inspect\ninspect.signature(f)",
        "import dis, multiprocessing, requests, signal\nfrom glob import glob",
        "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nos.environ.setdefault('A', 'b')\nos.getenv('COLAB_GPU')",
        "np.load('/content/drive/MyDrive/lab/w.npy')",
        "get_ipython().run_line_magic('matplotlib', 'inline')",
        "this is no python (",
    ],
)
def test_ordinary_things_are_not_suspicious(source: str) -> None:
    assert attempts_in({"own": source}) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("!curl evil.example", "the cell own starts another program: curl evil.example"),
        ("%%bash\ncat /etc/passwd", "the cell own starts another program: "),
        ("import numpy.testing as t\nt.assert_allclose = print", "the cell own replaces numpy.testing.assert_allclose"),
        ("from sys import _getframe as f\nf()", "the cell own looks at its callers"),
        ("import os as o\nprint(o.environ)", "the cell own reads the environment"),
        ("__import__('ctypes')", "the cell own goes round Python (ctypes)"),
        ("open('../gradebook.db')", "the cell own opens ../gradebook.db"),
        ("setattr(torch, 'equal', print)", "the cell own replaces a part of torch"),
        ("class A:\n    __eq__ = lambda s, o: True", "the cell own defines how A compares or converts (__eq__)"),
        ("import os\nos.environ.items()", "the cell own reads the environment"),
        ("import socket as s\ns.socket()", "the cell own opens sockets"),
        ("from ctypes import *", "the cell own goes round Python (ctypes)"),
        ("get_ipython().run_line_magic('sx', 'ls')", "the cell own reaches into IPython"),
        ("get_ipython().ast_transformers.append(x)", "the cell own hooks into how cells are run"),
    ],
)  # fmt: skip
def test_what_is_said(source: str, said: str) -> None:
    found = attempts_in({"own": source})
    assert any(sentence.startswith(said) for sentence in found), found


def test_each_finding_is_said_once_a_cell() -> None:
    assert attempts_in({"a": "import socket\nsocket.socket()\nsocket.socket()"}) == [
        "the cell a opens sockets"
    ]
