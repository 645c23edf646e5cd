"""How the suite runs: its environment, its markers, and the order of its tests.

`tests/conftest.py` and `notebooks/conftest.py` hand these to pytest, so that one file run by hand gets the
same as the whole suite.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STUDENT = "student"  # the marker of the tests that stand in tests/ itself
# Tests whose files share something that takes seconds to start, the longest first: with `--dist loadgroup`
# pytest-xdist gives whole groups to a process, in this order, and short ones fill up the end.
LONGEST_FIRST = (
    "browser", "roundtrip", "lab", "notebooks", "colab", "attacks", "reproduce", "project", "cluster",
    "postgresql", "border", "grader", STUDENT,
)  # fmt: skip


def set_environment(own: Path = ROOT / ".venv" / "own") -> None:
    """Small experiments, one thread a process (there is one a core), nobody's own settings of Jupyter.

    Before torch is imported, which reads the number of threads once.
    """
    os.environ["LABKIT_PROFILE"] = "quick"
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("config", "data", "runtime"):
        os.environ[f"JUPYTER_{name.upper()}_DIR"] = str(own / name)
    os.environ["IPYTHONDIR"] = str(own / "ipython")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    for name in ("JUPYTER_PATH", "PYTHONPATH"):
        os.environ.pop(name, None)


def folder_of(item: pytest.Item) -> str:
    """The marker of a test: its folder in tests/, `notebooks`, or `student` for tests/ itself."""
    parts = item.path.relative_to(ROOT).parts
    if parts[0] == "notebooks":
        return "notebooks"
    return parts[1] if len(parts) > 2 else STUDENT


def arrange(items: list[pytest.Item], shuffled: bool = False) -> None:
    """Mark each test by its folder, keep the cells of a notebook in order, and put the longest folders first.

    A test that names no group of its own is in that of its file: what a file starts is started once.
    shuffled: the order is pytest-randomly's; only the cells of a notebook go back into theirs.
    """
    for item in items:
        folder = folder_of(item)
        if item.get_closest_marker(folder) is None:
            item.add_marker(folder)
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))
    cells: dict[Path, Iterator[pytest.Item]] = {}
    for path in {item.path for item in items if item.path.suffix == ".ipynb"}:
        ordered = sorted((item for item in items if item.path == path), key=_number)
        cells[path] = iter(ordered)
    items[:] = [next(cells[item.path]) if item.path in cells else item for item in items]
    if not shuffled:
        items.sort(key=lambda item: LONGEST_FIRST.index(folder_of(item)))


def _number(item: pytest.Item) -> int:
    """Which cell of its notebook this is; nbval calls them `Cell 0`, `Cell 1` and so on."""
    return int(item.name.rpartition(" ")[2])
