"""Of several files that are the same notebook, the one that counts, and what only another one answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import nbformat
from nbformat import NotebookNode

from labkit.grading.files import printable
from labkit.grading.opening import File
from labkit.grading.reading import Unreadable, read_notebook
from labkit.grading.repair import EXPERIMENT, Mended, grade_id_of, repair
from labkit.written import is_untouched

MOST_COPIES = 20  # of a notebook, that are looked into


@dataclass(eq=False)
class Copy:
    """A file as one of the notebooks. how: it was told, 0 by its exact name; the higher, the less sure."""

    file: File
    known: NotebookNode
    how: int

    @cached_property
    def mended(self) -> Mended | Unreadable:
        """On the release's cells, with everything that was mended; or why the file cannot be read."""
        try:
            nb, notes = read_notebook(self.file.data)
        except Unreadable as why:
            return why
        mended = repair(nb, self.known)
        return replace(mended, notes=[*notes, *mended.notes])

    @cached_property
    def answers(self) -> Mapping[str, NotebookNode]:
        """The answers, code and words, that are not as they were released, by grade_id."""
        if isinstance(self.mended, Unreadable):
            return {}
        stubs = {name: cell for cell in self.known.cells if (name := grade_id_of(cell)) and is_answer(cell)}
        cells = {name: cell for cell in self.mended.notebook.cells if (name := grade_id_of(cell)) in stubs}
        return {name: cell for name, cell in cells.items() if is_written(cell.source, stubs[name].source)}

    @cached_property
    def emptiness(self) -> int:
        """0: something is answered; 1: it cannot be read, so it may be; 2: it is as it was released."""
        return 0 if self.answers else 1 if isinstance(self.mended, Unreadable) else 2

    def forget(self) -> None:
        """Drop the notebook, of which there may be many copies, each of hundreds of MB; it is read again."""
        self.__dict__.pop("mended", None)


def may_be_answered(copies: Sequence[Copy]) -> bool:
    """Whether one of the copies is more than what was released, or cannot be read."""
    return any(_emptiness(copy, len(copies) == 1) < 2 for copy in copies[:MOST_COPIES])


def choose(copies: Sequence[Copy]) -> tuple[Copy, list[Copy]]:
    """The copy that is graded, and the others.

    One with answers goes before an untouched one: a browser puts `01 (1).ipynb` beside `01.ipynb`. Then the
    surest name counts, the least packed, the newest, and the last by its name: of v1 and v2, v2.
    """
    order = sorted(copies, key=_by_name, reverse=True)
    order.sort(key=lambda copy: copy.file.written, reverse=True)
    order.sort(key=lambda copy: (copy.how, copy.file.where.count("/")))
    chosen = min(order[:MOST_COPIES], key=lambda copy: _emptiness(copy, len(order) == 1))
    return chosen, [copy for copy in order if copy is not chosen]


def fill_in(chosen: Copy, others: Sequence[Copy]) -> list[Copy]:
    """Take over answers of other copies where the chosen one still has the stub; returns those copies.

    With them comes what their code cells define: a new notebook holds its own imports.
    """
    used = []
    for other in others[:MOST_COPIES]:
        lacking = {name: cell for name, cell in other.answers.items() if name not in chosen.answers}
        if lacking and isinstance(chosen.mended, Mended) and isinstance(other.mended, Mended):
            _put_in(chosen.mended.notebook, lacking, other.mended.notebook)
            chosen.answers = {**chosen.answers, **lacking}
            chosen.mended.answers.update((name, other.mended.answers[name]) for name in lacking)
            where = printable(other.file.where)
            chosen.mended.notes.append(f"the answer {', '.join(lacking)} was found in {where}")
            used.append(other)
        other.forget()
    return used


def is_answer(cell: NotebookNode) -> bool:
    """Whether a marked cell of the release is one that students write into."""
    return bool(cell.metadata["nbgrader"].get("solution"))


def is_written(source: str, stub: str) -> bool:
    """Whether an answer is more than what was released."""
    return not is_untouched(source, stub)


def _emptiness(copy: Copy, alone: bool) -> int:
    emptiness = copy.emptiness
    if not alone:
        copy.forget()
    return emptiness


def _put_in(nb: NotebookNode, lacking: Mapping[str, NotebookNode], other: NotebookNode) -> None:
    there, ids = {cell.source.strip() for cell in nb.cells}, {cell.id for cell in nb.cells}
    own = [
        nbformat.from_dict({**cell, "id": _free_id(cell.id, ids)})
        for cell in other.cells
        if cell.cell_type == "code"
        and grade_id_of(cell) is None
        and EXPERIMENT not in cell.metadata.get("tags", [])
        and cell.source.strip() not in there
    ]
    places = {name: at for at, cell in enumerate(nb.cells) if (name := grade_id_of(cell)) in lacking}
    for name, at in places.items():
        nb.cells[at] = nbformat.from_dict(lacking[str(name)])
    first = min(places.values())
    nb.cells[first:first] = own


def _free_id(name: str, ids: set[str]) -> str:
    name = f"copy-{name}"[:50]
    while name in ids:
        name += "-"
    ids.add(name)
    return name


def _by_name(copy: Copy) -> list[tuple[int, str]]:
    """As people sort names: `v10` behind `v9`."""
    parts = re.split(r"([0-9]{1,18})", copy.file.where[:1000])
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts]
