"""A notebook of helpers is imported as a module, whichever package the student does that with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.grading.notebook_import import NotebookFinder


@pytest.fixture(autouse=True)
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    cells = [
        "EPS = 1e-8\ndef shifted(x):\n    return x + EPS + np.zeros(1)[0]",
        "raise RuntimeError('an experiment')",
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(nb, "my_helpers_p0.ipynb")
    known = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, NotebookFinder()])
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    "source",
    [
        "from my_helpers_p0 import shifted",
        "import nbimporter\nfrom my_helpers_p0 import *",
        "import import_ipynb\nimport my_helpers_p0\nshifted = my_helpers_p0.shifted",
        "from ipynb.fs.full.my_helpers_p0 import shifted",
        "import ipynb.fs.defs.my_helpers_p0 as h\nshifted = h.shifted",
    ],
)
def test_a_notebook_is_a_module(source: str) -> None:
    namespace: dict[str, object] = {}
    exec(source, namespace)
    assert namespace["shifted"](2) == 2 + 1e-8


@pytest.mark.parametrize(
    "source", ["import no_such_helpers", "import nbimporter_of_nobody", "import json.my_helpers_p0"]
)
def test_what_is_not_there_is_not_found(source: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        exec(source)
