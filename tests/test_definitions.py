"""What a notebook's code defines is what Jupyter would have defined, of every editor and in every style."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import LabError
from labkit.siblings import _taken, from_notebook
from tests.test_siblings import PRUNING, RIGHT, code_cell, here, prunes, save, write

__all__ = ["here"]

HELPED = RIGHT.replace("np.percentile(w.abs().numpy(), q)", "limit(w, q)")
LIMIT = "def limit(w, q):\n    return np.percentile(w.abs().numpy(), q)\n"
WAYS = {
    "a computed constant": f"WHOLE = float(100)\n{RIGHT.replace('q))', 'WHOLE * q / 100))')}",
    "a table that is filled": "share = {}\nfor q in range(101):\n    share[q] = q\nshare.update(a=1)\n"
    + RIGHT.replace("q))", "share[int(q)] if q == int(q) else q))"),
    "partial": "import functools\ndef _p(layer, q, strict):\n    w = layer.weight.data\n"
    "    w.mul_(w.abs() >= np.percentile(w.abs().numpy(), q))\n"
    "prune_by_percentage = functools.partial(_p, q=70.0, strict=False)\n",
    "a helper under if": "if True:\n" + "".join(f"    {line}\n" for line in LIMIT.splitlines()) + HELPED,
    "a helper in try": "try:\n    import no_such_package as fast\nexcept ImportError:\n    fast = np\n"
    + RIGHT.replace("np.", "fast."),
    "a helper in with": "with torch.no_grad():\n"
    "    limit = lambda w, q: np.percentile(w.abs().numpy(), q)\n" + HELPED,
    "the main program": f"if __name__ == '__main__':\n    WHOLE = 1\n{RIGHT.replace('q))', 'q * WHOLE))')}",
    "a made function": f"def made(sign):\n    {LIMIT.replace(chr(10), chr(10) + '    ')}return limit\n"
    f"limit = made(1)\n{HELPED}",
    "two names at once": "limit, other = (lambda w, q: np.percentile(w.abs().numpy(), q)), len('ab')\n"
    + HELPED,
    "a decorator": "import functools\n@functools.lru_cache\ndef one():\n    return 1\n"
    + RIGHT.replace("q))", "q * one()))"),
    "annotations of the future": "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    "@dataclass\nclass Share:\n    q: Percent\n" + RIGHT.replace("q))", "Share(q).q))"),
    "a cell magic": f"%%time\n{RIGHT}",
    "two cell magics": f"\n%%capture out\n%%time\n{RIGHT}",
    "a line magic": f"%matplotlib inline\n%config InlineBackend.figure_format = 'retina'\n{RIGHT}",
    "a timed constant": f"%time WHOLE = 100\n{RIGHT.replace('q))', 'q * WHOLE / 100))')}",
    "output of a command": f"files = !ls\nhere = %pwd\n{RIGHT}",
    "a command in a block": f"if not True:\n    !pip install numpy\n{RIGHT}",
    "a question": f"np.percentile?\n?np\n{RIGHT}",
    "a line that goes on with a percent sign": RIGHT.replace("q))", "(q\n        % 101)))"),
    "that and a magic": "%matplotlib inline\n" + RIGHT.replace("q))", "(q\n        % 101)))"),
    "text with marks": '%matplotlib inline\nTEXT = """\n!not a command\n%not a magic\n"""\n' + RIGHT,
    "Windows' line ends": f"%matplotlib inline\n{RIGHT}".replace("\n", "\r\n"),
    "a zero byte": RIGHT + "\0",
    "an indented cell": "".join(f"  {line}\n" for line in RIGHT.splitlines()),
}  # fmt: skip


@pytest.mark.parametrize("source", WAYS.values(), ids=WAYS)
def test_what_a_notebook_runs_is_taken_over(
    here: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, "raise RuntimeError('an experiment')\n", source, "net = print('trained')\n")
    assert prunes(from_notebook(PRUNING, "prune_by_percentage"))
    printed = capsys.readouterr().out
    assert "(3 of 3 public checks passed)" in printed and "trained" not in printed


def test_only_what_is_needed_is_computed(here: Path) -> None:
    path = write(
        here, "import sys\nsys.path.append('x')\ncache = dict(ran=[])\ncache['ran'].append(1)\n" + RIGHT
    )
    assert "cache" not in _taken(path, "prune_by_percentage").names
    used = write(
        here,
        "cache = dict(ran=[])\ncache['ran'].append(1)\ndef f():\n    return cache\nf()['ran'].append(2)\n",
    )
    assert _taken(used, "f").names["f"]() == {"ran": [1]}


def old(source: str) -> dict[str, Any]:
    cell = {"cell_type": "code", "input": source.splitlines(keepends=True), "prompt_number": 3}
    return {"nbformat": 3, "worksheets": [{"cells": [cell]}]}


FORMATS = {
    "nothing but a source": {"cells": [{"cell_type": "code", "source": RIGHT}]},
    "null metadata": {"cells": [code_cell(RIGHT, None), {"cell_type": "markdown", "metadata": None}]},
    "null marks and tags": {"cells": [code_cell(RIGHT, {"nbgrader": None, "tags": None})]},
    "format 3": old(RIGHT),
    "format 1": {"cells": [{"cell_type": "code", "code": RIGHT}]},
    "no cells but one": {"cells": [None, 3, {}, code_cell(RIGHT, {})]},
    "an answer marked by a human": {
        "cells": [code_cell(RIGHT, {"nbgrader": {"grade": True, "solution": True}})]
    },
}  # fmt: skip


@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_notebooks_of_every_editor_are_read(here: Path, content: dict[str, Any]) -> None:
    save(here, content)
    assert prunes(from_notebook(PRUNING, "prune_by_percentage"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_files_of_every_encoding_are_read(here: Path, encoding: str) -> None:
    path = write(here, f"# für alle\n{RIGHT}")
    path.write_bytes(path.read_text().encode(encoding))
    assert prunes(from_notebook(PRUNING, "prune_by_percentage"))


def text_cell(kind: str) -> Callable[[Path], Path]:
    return lambda folder: save(folder, {"cells": [{"cell_type": kind, "source": RIGHT}]})


def written(text: str) -> Callable[[Path], int]:
    return lambda folder: (folder / f"{PRUNING}.ipynb").write_text(text)


WHOLE_FILE = json.dumps({"cells": [code_cell(RIGHT, {})]}, indent=1)
MISSING = {
    "a raw cell": (text_cell("raw"), "in a raw cell: turn that into a code cell"),
    "a text cell": (text_cell("markdown"), "in a markdown cell"),
    "%%timeit": (lambda folder: write(folder, f"%%timeit -n1\n{RIGHT}"), "begins with %%timeit"),
    "%%writefile": (lambda folder: write(folder, f"%%writefile mine.py\n{RIGHT}"), "begins with %%writefile"),
    "an experiment": (
        lambda folder: save(folder, {"cells": [code_cell(RIGHT, {"tags": ["experiment"]})]}),
        "experiment cell",
    ),
    "a definition that fails": (
        lambda folder: write(folder, RIGHT.replace("70.0", "1 / 0")),
        "its definition raises ZeroDivisionError",
    ),
    "a module that is not there": (
        lambda folder: write(folder, "from no_such_module import prune_by_percentage"),
        "No module named 'no_such_module'",
    ),
    "an empty file": (written(""), "is empty: save that notebook again"),
    "half a file": (written(WHOLE_FILE[:-30]), "ends in the middle"),
    "a merge": (written(WHOLE_FILE.replace("{", "{\n<<<<<<< HEAD", 1)), "conflict markers, first in line 2"),
    "no notebook": (written("hello"), "cannot be read as a notebook"),
    "no cells": (written('{"cells": 3}'), "cannot be read as a notebook"),
    "a folder": (lambda folder: (folder / f"{PRUNING}.ipynb").mkdir(), "not beside this notebook"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), MISSING.values(), ids=MISSING)
def test_what_cannot_be_taken_is_named(here: Path, make: Callable[[Path], object], sentence: str) -> None:
    make(here)
    with pytest.raises(LabError) as caught:
        from_notebook(PRUNING, "prune_by_percentage")(None)
    assert sentence in str(caught.value)


def test_a_helper_that_could_not_be_taken_is_no_mistake_of_the_function(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, "limit = open('no such file').read\n", HELPED)
    from_notebook(PRUNING, "prune_by_percentage")
    printed = capsys.readouterr().out
    assert "It uses limit, which could not be taken over: its definition raises FileNotFoundError" in printed
    assert "public checks" not in printed and "Fix" not in printed
