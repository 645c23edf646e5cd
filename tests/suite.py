"""How the suite runs: its environment, its markers, the order of its tests, and which share a process.

`tests/conftest.py` and `notebooks/conftest.py` import the hooks of this module, so that one file run by hand
gets the same as the whole suite.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
STUDENT = "student"  # the marker of the tests that stand in tests/ itself
# Files are handed out in this order, so that short ones fill up the end.
LONGEST_FIRST = (
    "browser", "roundtrip", "lab", "notebooks", "colab", "attacks", "reproduce", "project", "cluster",
    "postgresql", "border", "grader", STUDENT,
)  # fmt: skip

# A file goes to one process, so that what it starts is started once. These are long enough to be shared out:
# a part is the first pattern that is found in a test's id, or what is left.
PARTS: dict[str, tuple[str, ...]] = {
    "tests/attacks/test_attacks.py": ("test_failures", "test_every_level"),
    "tests/lab/test_answers.py": (r"\[02", r"\[0[34]", r"\[0[156]", r"\[07"),
}


def set_environment(own: Path = ROOT / ".venv" / "own") -> None:
    """Small experiments, one thread a process (there is one a core), nobody's own settings of Jupyter.

    Before torch is imported, which reads the number of threads once.
    """
    os.environ["LABKIT_PROFILE"] = "quick"
    os.environ["OMP_NUM_THREADS"] = "1"
    own.mkdir(parents=True, exist_ok=True)  # IPython warns of a folder that it cannot make
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


def in_order(items: list[pytest.Item], shuffled: bool) -> list[pytest.Item]:
    """The longest folders first. Shuffled by pytest-randomly: the cells of a notebook back in their order."""
    cells: dict[Path, Iterator[pytest.Item]] = {}
    for path in {item.path for item in items if item.path.suffix == ".ipynb"}:
        ordered = sorted((item for item in items if item.path == path), key=_number)
        cells[path] = iter(ordered)
    placed = [next(cells[item.path]) if item.path in cells else item for item in items]
    return placed if shuffled else sorted(placed, key=lambda item: LONGEST_FIRST.index(folder_of(item)))


def group_of(test: str) -> str:
    """Tests of one group run in the same process: those of a file, or of a part of it. test: pytest's id."""
    file = test.partition("::")[0]
    part = next((part for part in PARTS.get(file, ()) if re.search(part, test)), "")
    return file + part


def _number(item: pytest.Item) -> int:
    """Which cell of its notebook this is; nbval calls them `Cell 0`, `Cell 1` and so on."""
    return int(item.name.rpartition(" ")[2])


# ---- what pytest calls


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(folder_of(item))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = in_order(items, shuffled=config.pluginmanager.has_plugin("randomly"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Whole groups. (pytest-xdist's marks for groups do not reach it with the newest pytest.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # which ships no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)
