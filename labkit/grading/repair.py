"""A damaged notebook -> its answers on the release's own cells, with a list of what was mended.

Cells that the release marks come from the release: tests and set-up as they were, in their order. An
answer's text comes from the student's cell: the one with its grade_id, else with its cell id, else one
that defines the same function or class, else the only cell that stands in its place; words may also stand
in a cell of their own beside an untouched stub. The student's other cells stay, each before the cell that
it stood before.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import nbformat
from nbformat import NotebookNode

EXPERIMENT = "experiment"  # the tag
ALIKE = 0.6  # the share of lines from which on two cells are versions of one
MOST_PARTS = 10  # cells that are put together to one answer
MOST_PARSED = 100_000  # characters of a cell that are read as Python: about 90 MB of memory


@dataclass(frozen=True)
class Mended:
    """A notebook that grading can rely on, and what was done to it, a phrase each."""

    notebook: NotebookNode
    notes: list[str]


def repair(submitted: NotebookNode, released: NotebookNode) -> Mended:
    """Both in format 4.5; neither is changed."""
    return _Repair(submitted, released).result()


def grade_id_of(cell: NotebookNode) -> str | None:
    """The name that nbgrader's metadata give a cell."""
    meta = cell.metadata.get("nbgrader")
    name = meta.get("grade_id") if isinstance(meta, dict) else None
    return name if isinstance(name, str) else None


def defined_names(source: str) -> set[str]:
    """The functions and classes that a cell defines at its top level; none if it is no Python."""
    tree = _parsed(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)} if tree is not None else set()


@dataclass
class _Repair:
    submitted: NotebookNode
    released: NotebookNode
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cells: list[NotebookNode] = list(self.submitted.cells)
        self.known = {name: cell for cell in self.released.cells if (name := grade_id_of(cell)) is not None}
        self.place: dict[str, int] = {}  # grade_id -> which of self.cells is that cell
        self.text: dict[str, str] = {}  # grade_id -> the answer, where it is not simply that cell's text
        self.pictures: dict[str, NotebookNode] = {}  # grade_id -> the attachments of an answer put together
        self.gone: set[int] = set()  # cells that live on in another one, or are copies of trusted ones
        self.defined: dict[int, set[str]] = {}  # what a cell defines, once it was asked for

    def result(self) -> Mended:
        for name, cell in self.known.items():
            self._claim_by_mark(name, cell)
        for name, cell in self.known.items():
            if name not in self.place:
                self._claim_by_id_or_text(name, cell)
        for name, cell in self.known.items():
            if _is_answer(cell) and cell.cell_type == "code":
                self._claim_by_definition(name, cell)
        for name, cell in self.known.items():
            if _is_answer(cell) and name not in self.place:
                self._claim_by_place(name, cell)
        for name, cell in self.known.items():
            if _is_answer(cell) and cell.cell_type == "markdown":
                self._claim_beside(name, cell)
        return Mended(self._assembled(), self.notes)

    def _claim_by_mark(self, name: str, known: NotebookNode) -> None:
        copies = [
            i
            for i, cell in enumerate(self.cells)
            if grade_id_of(cell) == name and cell.cell_type == known.cell_type
        ]
        if not copies:
            return
        if not _is_answer(known):
            self.place[name] = copies[0]
            self.gone.update(i for i in copies[1:] if _same(self.cells[i], known))
            if len(copies) > 1:
                self.notes.append(f"{name} was there {len(copies)} times")
            return
        if len(copies) > 1:
            self._settle_copies(name, known, copies)
        self.place.setdefault(name, copies[-1])
        if known.cell_type == "code":
            self._rejoin(name)

    def _rejoin(self, name: str) -> None:
        """Take back the rest of an answer that was split, where only its first part kept the mark."""
        start = self.place[name]
        text = self.text.get(name, self.cells[start].source)
        # each part is read together with those before it: not more of them than somebody would make
        for i in range(start + 1, min(start + MOST_PARTS, len(self.cells))):
            rest = self.cells[i]
            longer = f"{text}\n{rest.source}"
            alone = rest.cell_type != "code" or grade_id_of(rest) in self.known or _parsed(rest.source)
            if alone or _parsed(longer) is None:
                return
            self.text[name] = text = longer
            self.gone.add(i)
            if i == start + 1:
                self.notes.append(f"the answer {name} was split: put together again")

    def _settle_copies(self, name: str, known: NotebookNode, copies: list[int]) -> None:
        """Several cells with one answer's mark: a cell that was copied, or one that was split."""
        texts = [self.cells[i].source for i in copies]
        whole = "\n".join(texts)
        if known.cell_type == "code" and None in map(_parsed, texts) and _parsed(whole) is not None:
            self.text[name], self.place[name] = whole, copies[-1]
            self.gone.update(copies[:-1])
            self.notes.append(f"the answer {name} was split into {len(copies)} cells: put together again")
            return
        wanted = defined_names(known.source)
        written = [i for i in copies if not _same(self.cells[i], known)] or copies
        defining = [i for i in written if wanted & self._defines(i)] or written
        self.place[name] = defining[-1]
        self.gone.update(i for i in copies if _same(self.cells[i], known) and i != defining[-1])
        self.notes.append(f"the answer {name} was there {len(copies)} times: the last one written in counts")

    def _claim_by_id_or_text(self, name: str, known: NotebookNode) -> None:
        for i in self._free(known.cell_type):
            if self.cells[i].id == known.id or (not _is_answer(known) and _same(self.cells[i], known)):
                self.place[name] = i
                self.notes.append(f"{name} had lost its mark")
                return

    def _claim_by_definition(self, name: str, known: NotebookNode) -> None:
        """For an answer without a cell, or whose cell was left as it was released."""
        wanted = defined_names(known.source)
        current = self.place.get(name)
        if not wanted or (current is not None and not _same(self.cells[current], known)):
            return
        defining = [i for i in self._free("code") if wanted <= self._defines(i)]
        if not defining:
            return
        if current is not None:
            self.gone.add(current)
        self.place[name] = defining[-1]
        self.notes.append(f"the answer {name} was found by what it defines")

    def _claim_by_place(self, name: str, known: NotebookNode) -> None:
        """The student's own cells between the neighbours that the answer has in the release."""
        matched = self._positions()
        here = next(i for i, cell in enumerate(self.released.cells) if cell is known)
        before = max((at for i, at in matched.items() if i < here), default=-1)
        after = min((at for i, at in matched.items() if i > here and at > before), default=len(self.cells))
        texts = {cell.source.strip() for cell in self.released.cells}
        between = [
            i
            for i in self._free(known.cell_type)
            if before < i < after and self.cells[i].source.strip() not in texts
        ]
        if not between or (known.cell_type == "code" and len(between) > 1):
            return
        self._put_together(name, between, between[-1])
        self.notes.append(f"the answer {name} was found by where it stood")

    def _claim_beside(self, name: str, known: NotebookNode) -> None:
        """Words in cells of their own below a stub that was left as it is, or between it and its question.

        Otherwise nobody would read them: an untouched stub gets no points without being looked at.
        """
        at = self.place.get(name)
        if at is None or name in self.text or not _is_untouched(self.cells[at], known):
            return
        above, question = self._own_words(at, -1)
        below, follower = self._own_words(at, 1)
        here = next(i for i, cell in enumerate(self.released.cells) if cell is known)
        if self._positions().get(here - 1) != question:
            above = []  # something else comes before, which the words may belong to
        others = {self.place[other] for other in self.place if _is_answer(self.known[other])}
        own = [*([] if question in others else above[::-1]), *([] if follower in others else below)]
        if own:
            self._put_together(name, own, at)
            self.notes.append(f"the answer {name} stood in a cell of its own beside the one for it")

    def _own_words(self, at: int, step: int) -> tuple[list[int], int]:
        """The student's own text cells next to a cell, the nearest first, and the index where they end."""
        free = set(self._free("markdown"))
        found: list[int] = []
        at += step
        while at in free and len(found) < MOST_PARTS and not self._is_released_text(self.cells[at]):
            found.append(at)
            at += step
        return [i for i in found if self.cells[i].source.strip()], at

    def _is_released_text(self, cell: NotebookNode) -> bool:
        """Whether it is one of the release's headings and explanations, as it was or edited."""
        words = cell.source.split()
        return any(
            cell.id == known.id or _alike(words, known.source.split())
            for known in self.released.cells
            if known.cell_type == "markdown"
        )

    def _put_together(self, name: str, parts: Sequence[int], at: int) -> None:
        """The answer is what these cells say one after the other; it stands in the place of the cell `at`."""
        self.place[name] = at
        self.text[name] = "\n\n".join(self.cells[i].source for i in parts)
        self.pictures[name] = NotebookNode()
        for i in {at, *parts}:
            self.pictures[name].update(self.cells[i].get("attachments", {}))
        self.gone.update(i for i in parts if i != at)

    def _defines(self, index: int) -> set[str]:
        if index not in self.defined:
            self.defined[index] = defined_names(self.cells[index].source)
        return self.defined[index]

    def _positions(self) -> dict[int, int]:
        """Index in the release -> index in the submission, for cells that are known or read the same."""
        unmarked: dict[str, list[int]] = {}
        for at, cell in enumerate(self.cells):
            unmarked.setdefault(cell.source.strip(), []).append(at)
        found = {}
        for i, cell in enumerate(self.released.cells):
            name = grade_id_of(cell)
            if name in self.place:
                found[i] = self.place[name]
            elif name is None and len(places := unmarked.get(cell.source.strip(), [])) == 1:
                found[i] = places[0]
        return found

    def _free(self, cell_type: str) -> Iterator[int]:
        """The cells of that type that are nobody's yet; a mark of another cell says nothing."""
        taken = set(self.place.values()) | self.gone
        return (i for i, cell in enumerate(self.cells) if i not in taken and cell.cell_type == cell_type)

    def _assembled(self) -> NotebookNode:
        order = [self.place[name] for name in self.known if name in self.place]
        if order != sorted(order):
            self.notes.append("its cells were in another order")
        claimed = set(self.place.values())
        leading: dict[int, list[int]] = {}  # cell -> the student's own cells right before it
        waiting: list[int] = []
        for i in range(len(self.cells)):
            if i in claimed:
                leading[i] = waiting
                waiting = []
            elif i not in self.gone:
                waiting.append(i)
        ids = {cell.id for cell in self.known.values()}
        cells: list[NotebookNode] = []
        for name, known in self.known.items():
            at = self.place.get(name)
            if at is not None:
                cells += [self._own(i, ids) for i in leading[at]]
            cells += self._marked(name, known, at, ids)
        cells += [self._own(i, ids) for i in waiting]
        nb: NotebookNode = nbformat.v4.new_notebook(cells=cells, metadata=self.submitted.metadata)
        return nb

    def _marked(self, name: str, known: NotebookNode, at: int | None, ids: set[str]) -> list[NotebookNode]:
        """The release's cell, an answer with the student's text, and an edited set-up cell after ours."""
        cell = nbformat.from_dict(known)
        if at is None:
            self.notes.append(f"{name} was missing: put back")
            return [cell]
        theirs = self.cells[at]
        if _is_answer(known):
            cell.source = self.text.get(name, theirs.source)
            pictures = self.pictures.get(name, theirs.get("attachments"))  # pasted into an answer in words
            if pictures:
                cell.attachments = pictures
            return [cell]
        if _same(theirs, known):
            return [cell]
        self.notes.append(f"{name} was edited: it is run as released")
        is_test = bool(known.metadata["nbgrader"].get("grade"))
        # what somebody added to the set-up, an import say, may be what their answer needs
        return [cell] if is_test or known.cell_type != "code" else [cell, self._own(at, ids)]

    def _own(self, index: int, ids: set[str]) -> NotebookNode:
        """A cell of the student's own, or one that the release does not mark: text or an experiment."""
        cell = nbformat.from_dict(self.cells[index])
        cell.metadata.pop("nbgrader", None)
        tags = cell.metadata.get("tags") or []
        if cell.cell_type == "code" and EXPERIMENT not in tags and self._is_experiment(cell):
            cell.metadata["tags"] = [EXPERIMENT]
        if cell.id in ids:
            cell.id = next(name for n in count(index) if (name := f"own-{n}") not in ids)
        ids.add(cell.id)
        return cell

    def _is_experiment(self, cell: NotebookNode) -> bool:
        """Whether it is a released experiment that has lost its tag: those are not run while grading."""
        lines = _lines(cell.source)
        return any(
            cell.id == known.id or _alike(lines, _lines(known.source))
            for known in self.released.cells
            if EXPERIMENT in known.metadata.get("tags", [])
        )


def _is_answer(cell: NotebookNode) -> bool:
    return bool(cell.metadata["nbgrader"].get("solution"))


def _same(cell: NotebookNode, other: NotebookNode) -> bool:
    return bool(_lines(cell.source) == _lines(other.source))


def _lines(source: str) -> Sequence[str]:
    return [line.rstrip() for line in source.strip().splitlines()]


def _is_untouched(answer: NotebookNode, known: NotebookNode) -> bool:
    return _same(answer, known) or not answer.source.strip()


def _alike(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two cells, in lines or in words, are versions of one."""
    # so much longer that the ratio cannot be reached: the comparison would take the product of the lengths
    if 2 * min(len(ours), len(theirs)) < ALIKE * (len(ours) + len(theirs)):
        return False
    matcher = difflib.SequenceMatcher(None, ours, theirs)
    return matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE


def _parsed(source: str) -> ast.Module | None:
    """The cell as Python, lines for IPython left out; None if that is not Python, or too long."""
    if len(source) > MOST_PARSED:
        return None
    lines = ("" if line.lstrip().startswith(("%", "!", "?")) else line for line in source.splitlines())
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
