"""Why a name is not there: the cell of the student's that should have made it, and how that ended."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("nbgrader")

from labkit.definitions import bound_in_text
from labkit.grading.missing import Missing
from labkit.grading.verdicts import Cell, CellKind

Outputs = dict[str, list[dict[str, Any]]]


def cell(kind: CellKind, source: str, id: str = "") -> Cell:
    return Cell(id or source, kind, source)


def why(name: str, *cells: Cell, **errors: str) -> str | None:
    """At the test cell `t`. errors: by a cell's id, what it ended with."""
    outputs: Outputs = {
        id: [{"output_type": "error", "ename": "E", "evalue": said, "traceback": []}]
        for id, said in errors.items()
    }
    return Missing(cells, outputs).why(name, "t")


TEST = cell("test", "score()", "t")
ANSWER = cell("answer", "import os\ndef prune():\n    helper()", "a")


def test_an_own_cell_that_stopped_is_named_by_its_first_line() -> None:
    own = cell("own", "\n!nvidia-smi\nimport copy, re as regex", "o")
    told = "is not defined: your cell that begins `!nvidia-smi` stopped with E: broke"
    assert why("copy", own, ANSWER, TEST, o="broke") == f"copy {told}"
    assert why("regex", own, ANSWER, TEST, o="broke") == f"regex {told}"
    assert why("re", own, ANSWER, TEST, o="broke") is None


def test_an_answer_cell_that_stopped_is_the_names_own() -> None:
    assert why("prune", ANSWER, TEST, a="broke") == "prune is not defined: its cell stopped with E: broke"


def test_a_cell_magic_that_keeps_nothing_is_named() -> None:
    timed = cell("answer", "%%timeit -n1\ndef prune():\n    pass", "a")
    told = why("prune", timed, TEST)
    assert told == "prune is not defined: its cell begins with %%timeit, which keeps none of its names."


def test_a_name_that_is_made_further_down_is_named() -> None:
    later = cell("own", "def helper():\n    pass", "o")
    assert why("helper", ANSWER, TEST, later) == (
        "helper is defined only further down: restart the kernel and run all cells."
    )
    # a test of the notebook's, or a set-up cell, is nobody's mistake
    assert why("helper", ANSWER, TEST, cell("test", "helper = 1"), cell("setup", "helper = 1")) is None


def test_what_stopped_before_counts_more_than_what_comes_later() -> None:
    early, later = cell("own", "helper = open('x')", "o"), cell("own", "helper = 1", "p")
    assert "stopped with E: no file" in str(why("helper", early, ANSWER, TEST, later, o="no file"))


def test_a_name_that_nothing_makes_has_no_reason() -> None:
    assert why("helper", cell("own", "x = helper()\nhelper(3)\nif helper == 3: pass"), ANSWER, TEST) is None


def test_a_long_error_and_a_long_line_are_cut() -> None:
    own = cell("own", f"x = '{'y' * 500}'", "o")
    assert len(str(why("x", own, TEST, o="z" * 5000))) < 350


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x):\n    y = 1", {"f"}),
        ("class A:\n    def g(self): pass", {"A", "g"}),
        ("if 1:\n    async def f(): pass", {"f"}),
        ("a: int = 3\nb = c = 4\nd == 5\ne += 1\nf.g = 3", {"a", "b"}),
        ("import a.b, c as d\nfrom e import f, g as h  # i", {"a", "d", "f", "h"}),
        ("%%time\nx = 3\n!ls\nfiles = !ls\n", {"x", "files"}),
        ("def broken(:\n    pass", {"broken"}),
    ],
)
def test_the_names_that_a_cell_seems_to_bind(source: str, names: set[str]) -> None:
    assert bound_in_text(source) == names
