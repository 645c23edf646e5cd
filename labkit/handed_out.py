"""The cells of a notebook as it was handed out: what tells the student's own cells from the lab's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from labkit.cells import Cell, alike, cells_in, lines_of
from labkit.paths import shipped_notebooks

TEXT_STUB = "*Your answer here.*"


@dataclass(frozen=True)
class Release:
    """A notebook as students got it."""

    cells: Sequence[Cell]

    @cached_property
    def marked(self) -> dict[str, Cell]:
        """The cells with a grade_id, by it."""
        return {cell.name: cell for cell in self.cells if cell.name is not None}

    @cached_property
    def answers(self) -> dict[str, Cell]:
        """The cells that students write into, by grade_id."""
        return {name: cell for name, cell in self.marked.items() if cell.is_answer}

    @cached_property
    def texts(self) -> list[Cell]:
        """The headings and explanations."""
        return [cell for cell in self.cells if cell.type == "markdown" and not cell.is_answer]

    @cached_property
    def _experiments(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_experiment]

    @cached_property
    def _sources(self) -> set[tuple[str, ...]]:
        return {tuple(lines_of(cell.source)) for cell in self.cells}

    def holds(self, cell: Cell) -> bool:
        """Whether one of its cells reads the same."""
        return tuple(lines_of(cell.source)) in self._sources

    def is_experiment(self, cell: Cell) -> bool:
        """Whether it is one of the experiments, as it was or edited, with its tag or without."""
        lines = lines_of(cell.source)
        return any(cell.has_id_of(one) or alike(lines, lines_of(one.source)) for one in self._experiments)

    def is_own(self, cell: Cell) -> bool:
        """Whether a cell is the student's: not a text or an experiment of the lab, as it was or edited."""
        words = cell.source.split()
        return (
            not self.holds(cell)
            and not self.is_experiment(cell)
            and not any(cell.has_id_of(one) or alike(words, one.source.split()) for one in self.texts)
        )


def handed_out(name: str, cells: Sequence[Cell]) -> Release:
    """The lab's own notebook of that name; of another course, what the marks in `cells` tell of it."""
    known = _shipped(name)
    names = {cell.name for cell in known}
    if known and all(cell.name in names for cell in cells if cell.is_answer):
        return Release(known)
    stubs = {"code": "", "markdown": TEXT_STUB}
    return Release(
        [replace(cell, source=stubs.get(cell.type, "")) if cell.is_answer else cell for cell in cells]
    )


@lru_cache
def _shipped(name: str) -> tuple[Cell, ...]:
    path = shipped_notebooks() / f"{name}.ipynb"
    if not path.is_file():
        return ()
    return tuple(cells_in(json.loads(path.read_text(encoding="utf-8"))["cells"]))
