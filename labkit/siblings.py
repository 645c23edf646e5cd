"""Takes a function that a student wrote in one notebook into another.

Notebook 03 needs the `prune_by_percentage` of notebook 01. `from_notebook` reads what that notebook defines
(see `definitions`) and hands the function over. While grading, the reference solution stands in where the
student's own does not pass its public checks, so that one mistake costs its marks once.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F

from labkit import colab
from labkit import definitions as code
from labkit.definitions import definition_nodes
from labkit.errors import LabError
from labkit.notebooks import called

__all__ = ["define", "definition_nodes", "definitions", "find_notebook", "from_notebook", "reference"]

reference: Callable[[str, str], Any] | None = None
"""While grading: gives the `name` of a notebook's reference solution. None everywhere else."""

_underway: list[tuple[str, str]] = []
"""What is being taken over: a function may need one that its own notebook takes from another."""


def from_notebook(notebook: str, name: str) -> Any:
    """The student's `name` from the sibling notebook `notebook` (file name without `.ipynb`).

    Looked for beside this notebook, and in Google Drive's folder for Colab, also as a renamed copy.
    If it is missing or unanswered, what comes back raises a LabError with advice when it is called,
    so that the cells which do not need it still run.

    Example:
        >>> prune = labkit.from_notebook("01_percentile_pruning", "prune_by_percentage")  # doctest: +SKIP
        prune_by_percentage: yours, from 01_percentile_pruning.ipynb (3 of 3 public checks passed)
    """
    stand_in = None if _underway else _reference()
    try:
        path = find_notebook(notebook)
        taken = _taken(path, name)
        own = taken.names.get(name)
        why = f": {taken.lost[name]}" if name in taken.lost else ""
        advice = f"{path.name} does not define {name}{why}.\nWrite it there, or paste yours into a cell here."
    except LabError as error:
        own, advice = None, f"{error}\nOr paste your {name} into a cell here."
    if own is None:
        if stand_in is not None:
            return stand_in(notebook, name)
        return _stand_in(name, advice)
    if _underway:
        return own
    report = importlib.import_module("labkit.check").report(name, own)
    if stand_in is not None and not report.all_passed:
        return stand_in(notebook, name)
    if report.unanswered:
        return _stand_in(name, f"{name} is not written yet in {notebook}.ipynb: go there first.")
    lacking = {} if report.all_passed else taken.lacking()
    if lacking:  # then the checks say nothing of the function itself
        print(f"{name}: yours, from {path.name}")
    else:
        print(f"{name}: yours, from {path.name} ({report.summary})")
    for needed, cause in lacking.items():
        print(f"! It uses {needed}, which could not be taken over: {cause}.")
        print(f"  Define {needed} in the cell with {name} there, and run this cell again.")
    if not report.all_passed and not lacking:
        print(f"! Fix {name} there first: this notebook uses your version as is.")
    return own


def _taken(path: Path, name: str) -> code.Defined:
    """`name` of that notebook, with what it needs. Raises LabError, also for two that need each other."""
    if (path.name, name) in _underway:
        raise LabError(f"{path.name} takes {name} from a notebook that takes it from there.")
    _underway.append((path.name, name))
    try:
        with _beside(path):
            return code.take(path.stem, _content(path), name, _prelude())
    finally:
        _underway.pop()


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """With the notebook's own folder on the search path: its code may import what lies beside it."""
    folder = str(path.parent.resolve())
    added = folder not in sys.path and path.parent.resolve() != Path.cwd()
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror}).") from None


def _reference() -> Callable[[str, str], Any] | None:
    folder = os.environ.get("LABKIT_REFERENCE")  # set by nbgrader's configuration while it grades
    if reference is None and folder:
        return lambda notebook, name: definitions(Path(folder) / f"{notebook}.ipynb")[name]
    return reference


def find_notebook(notebook: str) -> Path:
    """The path of a sibling notebook, or of a renamed copy. Raises LabError if it is nowhere to be found."""
    places = _places()
    copies = [path for place in (*places, *colab.FOLDERS) if (path := _copy_in(place, notebook))]
    if copies:  # in Colab an upload of last week may lie beside what goes on in Drive
        return max(copies, key=lambda path: path.stat().st_mtime)
    looked = " and ".join(map(str, places))
    if colab.here() and colab.drive() is None:
        raise LabError(
            f"{notebook}.ipynb is not in {looked}, and no Drive is mounted. If it is in yours, mount it "
            "(the folder symbol on the left, then Mount Drive) and run this cell again."
        )
    raise LabError(f"{notebook}.ipynb is not beside this notebook (looked in {looked}).")


def _places() -> list[Path]:
    """This folder, and where the notebook itself is if its code has moved on to another folder."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    places = [Path.cwd()]
    if shell is not None:
        file = shell.user_ns.get("__vsc_ipynb_file__")  # VS Code's, which may start elsewhere
        places += [Path(file).parent] if isinstance(file, str) else []
        places.append(Path(shell.starting_dir))
    return list(dict.fromkeys(places))


def _copy_in(folder: Path, notebook: str) -> Path | None:
    """That notebook in this folder: the file of its name, else the first that was renamed."""
    named = folder / f"{notebook}.ipynb"
    with contextlib.suppress(OSError):  # a folder that was removed, or may not be read
        renamed = (path for path in sorted(folder.glob("*.ipynb")) if called(path.stem, (notebook,)))
        return next((path for path in (named, *renamed) if path.is_file()), None)
    return None


def definitions(path: Path) -> dict[str, Any]:
    """The names that a notebook's definitions make, with the lab's usual imports around them.

    Raises LabError if the file is no notebook.
    """
    return code.define(path.stem, _content(path), _prelude())


def define(
    notebook: str, text: str, given: Mapping[str, Any] | None = None, experiments: bool = False
) -> dict[str, Any]:
    """`definitions` of the notebook whose file holds `text`.

    given: further names that its functions find, such as those that it takes from other notebooks.
    experiments: also the functions that experiment cells define; the experiments themselves never run.
    """
    return code.define(notebook, text.encode(), _prelude() | dict(given or {}), experiments)


def _prelude() -> dict[str, Any]:
    """What the lab's set-up cells make available."""
    labkit = importlib.import_module("labkit")
    return {
        "__name__": "__main__", "math": math, "random": random, "time": time, "np": np, "torch": torch,
        "nn": nn, "F": F, "optim": optim, "plt": _LazyPyplot(), "labkit": labkit,
        "device": labkit.default_device(), "profile": labkit.profile(),
    }  # fmt: skip


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
