"""Takes a function that a student wrote in one notebook into another.

Notebook 03 needs the `prune_by_percentage` of notebook 01. `from_notebook` reads the definitions of
the sibling notebook (imports, functions, classes, constants: never its experiments) and hands the
function over. While grading, the reference solution stands in where the student's own does not pass
its public checks, so that one mistake costs its marks once.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import linecache
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F

from labkit import colab
from labkit.errors import LabError
from labkit.notebooks import called

reference: Callable[[str, str], Any] | None = None
"""While grading: gives the `name` of a notebook's reference solution. None everywhere else."""

DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def from_notebook(notebook: str, name: str) -> Any:
    """The student's `name` from the sibling notebook `notebook` (file name without `.ipynb`).

    Looked for beside this notebook, and in Google Drive's folder for Colab, also as a renamed copy.
    If it is missing or unanswered, what comes back raises a LabError with advice when it is called,
    so that the cells which do not need it still run.
    """
    stand_in = _reference()
    try:
        path = find_notebook(notebook)
        own = definitions(path).get(name)
        reason = "" if own is not None else _why_missing(path, name)
    except LabError as error:
        own, reason = None, str(error)
    if own is None:
        if stand_in is not None:
            return stand_in(notebook, name)
        return _stand_in(name, f"{reason}\nWrite {name} there first, or paste yours into a cell here.")
    report = importlib.import_module("labkit.check").report(name, own)
    if stand_in is not None and not report.all_passed:
        return stand_in(notebook, name)
    if report.unanswered:
        return _stand_in(name, f"{name} is not written yet in {notebook}.ipynb: go there first.")
    print(f"{name}: yours, from {path.name} ({report.summary})")
    if not report.all_passed:
        print(f"! Mend {name} there first: it is used here as it is.")
    return own


def _why_missing(path: Path, name: str) -> str:
    """Why a notebook's definitions lack this one: a cell that is no Python defines nothing."""
    for source in _code_cells(json.loads(path.read_text(encoding="utf-8"))["cells"], experiments=False):
        if name in source:
            try:
                ast.parse(source)
            except SyntaxError as error:
                return f"in {path.name} the cell with {name} has a syntax error in line {error.lineno}."
    return f"{path.name} does not define {name}, or its definition raises an error."


def _reference() -> Callable[[str, str], Any] | None:
    folder = os.environ.get("LABKIT_REFERENCE")  # set by nbgrader's configuration while it grades
    if reference is None and folder:
        return lambda notebook, name: definitions(Path(folder) / f"{notebook}.ipynb")[name]
    return reference


def find_notebook(notebook: str) -> Path:
    """The path of a sibling notebook, or of a renamed copy. Raises LabError if it is nowhere to be found."""
    copies = [path for place in (Path.cwd(), *colab.FOLDERS) if (path := _copy_in(place, notebook))]
    if copies:  # in Colab an upload of last week may lie beside what goes on in Drive
        return max(copies, key=lambda path: path.stat().st_mtime)
    if colab.here() and colab.drive() is None:
        raise LabError(
            f"{notebook}.ipynb is not in {Path.cwd()}, and no Drive is mounted. If it is in yours, mount it "
            "(the folder symbol on the left, then Mount Drive) and run this cell again."
        )
    raise LabError(f"{notebook}.ipynb is not beside this notebook (looked in {Path.cwd()}).")


def _copy_in(folder: Path, notebook: str) -> Path | None:
    """That notebook in this folder: the file of its name, else the first that was renamed."""
    named = folder / f"{notebook}.ipynb"
    renamed = (path for path in sorted(folder.glob("*.ipynb")) if called(path.stem, (notebook,)))
    return next((path for path in (named, *renamed) if path.is_file()), None)


def definitions(path: Path) -> dict[str, Any]:
    """The names that a notebook's definitions make, with the lab's usual imports around them.

    Raises LabError if the file is no notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise LabError(f"{path.name} cannot be read as a notebook.") from None
    return define(path.stem, text)


def define(
    notebook: str, text: str, given: Mapping[str, Any] | None = None, experiments: bool = False
) -> dict[str, Any]:
    """`definitions` of the notebook whose file holds `text`.

    given: further names that its functions find, such as those that it takes from other notebooks.
    experiments: also the functions that experiment cells define; the experiments themselves never run.
    """
    labkit = importlib.import_module("labkit")
    namespace: dict[str, Any] = {
        "__name__": notebook, "math": math, "random": random, "time": time, "np": np, "torch": torch,
        "nn": nn, "F": F, "optim": optim, "plt": _LazyPyplot(), "labkit": labkit,
        "device": labkit.default_device(), "profile": labkit.profile(), **(given or {}),
    }  # fmt: skip
    for file, node in definition_nodes(notebook, text, experiments):
        # one at a time: what fails takes only its own name along
        with contextlib.suppress(Exception):
            code = compile(ast.Module([node], []), file, "exec")
            exec(code, namespace)  # noqa: S102 (the student's own code, as in a cell)
    return namespace


def definition_nodes(notebook: str, text: str, experiments: bool = False) -> Iterator[tuple[str, ast.stmt]]:
    """The imports, functions, classes and constants of a notebook, each with a file name for tracebacks."""
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError):
        raise LabError(f"{notebook}.ipynb cannot be read as a notebook.") from None
    for number, source in enumerate(_code_cells(cells, experiments), start=1):
        file = f"<{notebook}, code cell {number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        for node in filter(_is_definition, _parse(source)):
            yield file, node


def _code_cells(cells: list[dict[str, Any]], experiments: bool) -> Iterator[str]:
    """Sources of the code cells but tests, without lines that only IPython understands."""
    for cell in cells:
        metadata = cell.get("metadata", {})
        if cell.get("cell_type") != "code" or metadata.get("nbgrader", {}).get("grade"):
            continue
        if "experiment" in metadata.get("tags", []) and not experiments:
            continue
        source = "".join(cell["source"])
        if not source.lstrip().startswith("%%"):
            lines = source.splitlines(keepends=True)
            yield "".join("\n" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)


def _parse(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []  # the notebook itself shows the student this error; here the name is then missing


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        # constants and aliases, but nothing that calculates: that could be an experiment
        if isinstance(node.value, ast.Lambda):
            return True
        return not any(isinstance(part, ast.Call | ast.Subscript) for part in ast.walk(node))
    return isinstance(node, DEFINITIONS)


class _LazyPyplot:
    """`plt`, imported when a student's function really draws."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("matplotlib.pyplot"), name)


def _stand_in(name: str, advice: str) -> Any:
    print(advice)

    class Missing:
        def __call__(self, *_: Any, **__: Any) -> Any:
            raise LabError(advice)

        def __getattr__(self, attribute: str) -> Any:
            raise LabError(advice)

        def __repr__(self) -> str:
            return f"<{name}: not written yet>"

    return Missing()
