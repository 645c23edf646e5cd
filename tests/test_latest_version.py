"""Whether an instant check tells of what the answer cell holds now, in a real IPython."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ipykernel")

from ipykernel.compiler import XCachingCompiler
from IPython.core.interactiveshell import InteractiveShell

from labkit.check.session import outdated

PRUNE = """\
def prune_by_percentage(layer, q=70.0):
    w = layer.weight.data
    w.mul_(w.abs() >= np.percentile(w.abs().numpy(), q))
"""
NEWER = PRUNE + "    x = 1\n"
BROKEN = PRUNE + "    x = (1,\n"
STE = """\
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        return w

    @staticmethod
    def backward(ctx, g):
        return g, None, None
"""
CHECK = "labkit.check.prune_by_percentage(prune_by_percentage)"


class Session:
    """A notebook whose cells are run."""

    def __init__(self, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self._shell, self._capsys = shell, capsys

    def checked(self, *cells: str) -> str:
        """Run the cells; the last one is a check: "latest", or why it is not."""
        for cell in ("import numpy as np, torch, labkit", *cells):
            self._capsys.readouterr()
            self._shell.run_cell(cell, store_history=True)
        printed = " ".join(self._capsys.readouterr().out.split())
        assert "public checks passed" in printed
        found = re.search(r"✗ What is checked .+ not run to its end: (.+)\. An older version", printed)
        return found[1] if found else "latest"


@pytest.fixture(params=["IPython", "ipykernel"])
def session(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Session]:
    """With the names that each of them gives to cells in tracebacks."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance()
    if request.param == "ipykernel":
        shell.compile = XCachingCompiler()
    yield Session(shell, capsys)
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (PRUNE, BROKEN, "it has a syntax error in line 4"),
        (PRUNE, PRUNE.replace("70.0):", "70.0)"), "it has a syntax error in line 1"),
        (PRUNE, PRUNE + "   indented\n", "it has a syntax error in line 4"),
        (PRUNE, f"import nothing_like_it\n{NEWER}", "it stopped with an error before the definition"),
        (f"@torch.no_grad()\n{PRUNE}", f"@torch.no_grad()\n{BROKEN}", "it has a syntax error in line 5"),
    ],
)
def test_an_older_version_than_the_one_in_the_cell_is_not_checked(
    session: Session, before: str, after: str, why: str
) -> None:
    assert session.checked(before, CHECK, after, "1 + 1", CHECK) == why


@pytest.mark.parametrize("check", ["labkit.check.STE(STE)", "labkit.check.STE(STE, symmetric=True)"])
def test_neither_is_an_older_class(session: Session, check: str) -> None:
    broken = STE.replace("return w", "return w +")
    assert session.checked(STE, broken, check) == "it has a syntax error in line 4"


@pytest.mark.parametrize(
    "cells",
    [
        (PRUNE,),
        (PRUNE, BROKEN, NEWER),
        (PRUNE, BROKEN, PRUNE),
        (PRUNE, "old = prune_by_percentage", NEWER, "prune_by_percentage = old"),
        (PRUNE, "old = prune_by_percentage", f"{NEWER}prune_by_percentage = old"),
        (PRUNE, "old = prune_by_percentage", NEWER, "globals()['prune_by_percentage'] = old"),
        (PRUNE, "def other():\n    def prune_by_percentage(layer, q):\n        pass"),
        (PRUNE, f'text = """\n{PRUNE}"""'),
        (PRUNE, "labkit.check.prune_by_percentage(prune_by_percentage"),
        (PRUNE, BROKEN, f"exec({PRUNE!r})"),
        (PRUNE, f"%%time\n{NEWER}"),
    ],
)
def test_a_version_that_is_meant_raises_no_alarm(session: Session, cells: tuple[str, ...]) -> None:
    assert session.checked(*cells, CHECK) == "latest"


def test_another_function_than_the_one_of_that_name_raises_none(session: Session) -> None:
    mine = PRUNE.replace("prune_by_percentage", "mine")
    assert session.checked(mine, BROKEN, CHECK.replace("(prune_by_percentage)", "(mine)")) == "latest"


def test_where_no_notebook_runs_nothing_is_asked() -> None:
    assert outdated(test_where_no_notebook_runs_nothing_is_asked, "test") is None
