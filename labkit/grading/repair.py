"""A damaged notebook -> its answers on the release's own cells, with a list of what was mended.

Cells that the release marks come from the release: tests and set-up as they were, in their order. Which
of the student's cells is the answer to what, `labkit.answers` finds. The student's other cells stay,
each before the cell that it stood before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.answers import find_answers
from labkit.cells import EXPERIMENT, Cell, cells_in, defined_names, same
from labkit.handed_out import Release
from labkit.placing import Placed
from labkit.written import Answer

__all__ = ["EXPERIMENT", "Mended", "defined_names", "grade_id_of", "repair"]


@dataclass(frozen=True)
class Mended:
    """A notebook that grading can rely on, what was done to it, a phrase each, and what its answers are."""

    notebook: NotebookNode
    notes: list[str]
    answers: dict[str, Answer] = field(default_factory=dict)


def repair(submitted: NotebookNode, released: NotebookNode) -> Mended:
    """Both in format 4.5; neither is changed."""
    release = Release(cells_in(released.cells))
    answers, found = find_answers(cells_in(submitted.cells), release)
    return Mended(_Assembly(submitted, released, release, found).notebook(), found.notes, answers)


def grade_id_of(cell: NotebookNode) -> str | None:
    """The name that nbgrader's metadata give a cell."""
    meta = cell.metadata.get("nbgrader")
    name = meta.get("grade_id") if isinstance(meta, dict) else None
    return name if isinstance(name, str) else None


class _Assembly:
    def __init__(
        self, submitted: NotebookNode, released: NotebookNode, release: Release, found: Placed
    ) -> None:
        self.submitted, self.release, self.found = submitted, release, found
        self.known = {name: cell for cell in released.cells if (name := grade_id_of(cell)) is not None}
        self.ids = {cell.id for cell in self.known.values()}

    def notebook(self) -> NotebookNode:
        found = self.found
        order = [found.place[name] for name in self.known if name in found.place]
        if order != sorted(order):
            found.notes.append("its cells were in another order")
        claimed = set(order)
        leading: dict[int, list[int]] = {}  # cell -> the student's own cells right before it
        waiting: list[int] = []
        for i in range(len(found.cells)):
            if i in claimed:
                leading[i] = waiting
                waiting = []
            elif i not in found.gone:
                waiting.append(i)
        cells: list[NotebookNode] = []
        for name, known in self.known.items():
            at = found.place.get(name)
            if at is not None:
                cells += [self._own(i) for i in leading[at]]
            cells += self._marked(name, known, at)
        cells += [self._own(i) for i in waiting]
        nb: NotebookNode = nbformat.v4.new_notebook(cells=cells, metadata=self.submitted.metadata)
        return nb

    def _marked(self, name: str, known: NotebookNode, at: int | None) -> list[NotebookNode]:
        """The release's cell, an answer with the student's text, and an edited set-up cell after ours."""
        cell = nbformat.from_dict(known)
        if known.metadata["nbgrader"].get("solution"):
            if name in self.found.text:
                cell.source = self.found.text[name]
            elif at is not None:
                cell.source = self.found.cells[at].source
            else:
                self.found.notes.append(f"{name} was missing: put back")
            if at is not None and known.cell_type != "code" and (pictures := self._pictures(name, at)):
                cell.attachments = pictures
            return [cell]
        if at is None:
            self.found.notes.append(f"{name} was missing: put back")
            return [cell]
        if same(self.found.cells[at].source, known.source):
            return [cell]
        self.found.notes.append(f"{name} was edited: it is run as released")
        is_test = bool(known.metadata["nbgrader"].get("grade"))
        # what somebody added to the set-up, an import say, may be what their answer needs
        return [cell] if is_test or known.cell_type != "code" else [cell, self._own(at)]

    def _pictures(self, name: str, at: int) -> NotebookNode:
        """Pasted into an answer in words."""
        pictures = NotebookNode()
        for i in self.found.parts.get(name, [at]):
            pictures.update(self._given(self.found.cells[i]).get("attachments", {}))
        return pictures

    def _own(self, index: int) -> NotebookNode:
        """A cell of the student's own, or one that the release does not mark: text or an experiment."""
        theirs = self.found.cells[index]
        cell = self._node(theirs)
        cell.metadata.pop("nbgrader", None)
        if cell.cell_type == "code" and not theirs.is_experiment and self.release.is_experiment(theirs):
            cell.metadata["tags"] = [EXPERIMENT]
        if cell.id in self.ids:
            cell.id = next(name for n in count(index) if (name := f"own-{n}") not in self.ids)
        self.ids.add(cell.id)
        return cell

    def _node(self, theirs: Cell) -> NotebookNode:
        given = self._given(theirs)
        if given.source == theirs.source and given.cell_type == theirs.type:
            return nbformat.from_dict(given)
        parts: dict[str, Any] = {
            "cell_type": theirs.type,
            "id": theirs.id or given.id,
            "metadata": {"tags": list(theirs.tags)} if theirs.tags else {},
            "source": theirs.source,
        }
        if theirs.type == "code":
            kept = given.get("outputs", []) if theirs.is_experiment else []
            parts |= {"outputs": kept, "execution_count": None}
        return nbformat.from_dict(parts)

    def _given(self, cell: Cell) -> NotebookNode:
        return self.submitted.cells[cell.origin]
