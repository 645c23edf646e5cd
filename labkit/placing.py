"""Where in a notebook each of the release's cells is, and each answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from labkit.cells import (
    Cell,
    bound_names,
    code_among_words,
    defined_names,
    definitions,
    definitions_among,
    is_unwritten,
    parsed,
    same,
)
from labkit.handed_out import Release
from labkit.merged import taken_apart
from labkit.written import is_untouched, is_words

MOST_PARTS = 10  # cells that are put together to one answer


@dataclass
class Placed:
    """The cells of a notebook, and which of them is what.

    cells: the notebook's, those that were merged taken apart. place: grade_id -> which of the cells it is.
    text: grade_id -> the answer, where it is not simply that cell's text. parts: grade_id -> the cells that
    it was put together from. gone: cells that live on in another one, or are copies of the release's.
    remarks: grade_id -> where an answer was, if not in a cell of its own kind. notes: what was done, a
    phrase each.
    """

    cells: list[Cell]
    place: dict[str, int] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[int]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    remarks: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def answer(self, name: str) -> str:
        """The text of an answer; empty if it is nowhere."""
        at = self.place.get(name)
        return self.text.get(name, self.cells[at].source if at is not None else "")

    def free(self) -> Iterator[int]:
        """The cells that are nobody's yet; a mark of another cell says nothing."""
        taken = set(self.place.values()) | self.gone
        return (i for i in range(len(self.cells)) if i not in taken)


def placed(cells: Sequence[Cell], release: Release) -> Placed:
    """Find the cells of `release` among those of a notebook."""
    return _Placing(cells, release).found


class _Placing:
    def __init__(self, cells: Sequence[Cell], release: Release) -> None:
        pieces, notes = taken_apart(cells, release.cells)
        self.release, self.found = release, Placed(pieces, notes=notes)
        self.cells, self.place, self.text = self.found.cells, self.found.place, self.found.text
        self.gone, self.notes, self._free = self.found.gone, self.found.notes, self.found.free
        self.bound: dict[str, set[str]] = {}  # text -> the names that it defines, once it was asked for
        self._place()

    def _place(self) -> None:
        for name, cell in self.release.marked.items():
            self._claim_by_mark(name, cell)
        for name, cell in self.release.marked.items():
            if name not in self.place:
                self._claim_by_id_or_text(name, cell)
        for name, cell in self.release.answers.items():
            if cell.type == "code":
                self._claim_by_definition(name, cell)
        for name, cell in self.release.answers.items():
            if name not in self.place and name not in self.text:
                self._claim_by_place(name, cell)
        for name, cell in self.release.answers.items():
            if cell.type != "code":
                self._claim_beside(name, cell)
        for name, cell in self.release.answers.items():
            at = self.place.get(name)
            if at is not None and self.cells[at].type != cell.type and name not in self.found.remarks:
                self._remark(name, f"stood in a {self.cells[at].type} cell")
            if not is_untouched(self.found.answer(name), cell.source):
                self._drop_stubs(cell)

    def _claim_by_mark(self, name: str, known: Cell) -> None:
        copies = [i for i, cell in enumerate(self.cells) if cell.name == name]
        copies = [i for i in copies if self.cells[i].type == known.type] or copies
        if not copies:
            return
        if not known.is_answer:
            self.place[name] = copies[0]
            self.gone.update(i for i in copies[1:] if same(self.cells[i].source, known.source))
            if len(copies) > 1:
                self.notes.append(f"{name} was there {len(copies)} times")
            return
        if len(copies) > 1:
            self._settle_copies(name, known, copies)
        self.place.setdefault(name, copies[-1])
        if known.type == "code" == self.cells[self.place[name]].type:
            self._rejoin(name)

    def _rejoin(self, name: str) -> None:
        """Take back the rest of an answer that was split, where only its first part kept the mark."""
        start = self.place[name]
        text = self.text.get(name, self.cells[start].source)
        # each part is read together with those before it: not more of them than somebody would make
        for i in range(start + 1, min(start + MOST_PARTS, len(self.cells))):
            rest = self.cells[i]
            longer = f"{text}\n{rest.source}"
            alone = rest.type != "code" or rest.name in self.release.marked or parsed(rest.source) is not None
            if alone or parsed(longer) is None:
                return
            self.text[name] = text = longer
            self.gone.add(i)
            if i == start + 1:
                self.notes.append(f"the answer {name} was split: put together again")

    def _settle_copies(self, name: str, known: Cell, copies: list[int]) -> None:
        """Several cells with one answer's mark: a cell that was copied, or one that was split."""
        texts = [self.cells[i].source for i in copies]
        whole = "\n".join(texts)
        if known.type == "code" and None in map(parsed, texts) and parsed(whole) is not None:
            self.text[name], self.place[name] = whole, copies[-1]
            self.gone.update(copies[:-1])
            self.notes.append(f"the answer {name} was split into {len(copies)} cells: put together again")
            return
        wanted = defined_names(known.source)
        untouched = [i for i in copies if is_untouched(self.cells[i].source, known.source)]
        written = [i for i in copies if i not in untouched] or copies
        defining = [i for i in written if wanted & self._bound(self.cells[i].source, wanted)] or written
        self.place[name] = defining[-1]
        self.gone.update(i for i in untouched if i != defining[-1])
        self.notes.append(f"the answer {name} was there {len(copies)} times: the last one written in counts")

    def _claim_by_id_or_text(self, name: str, known: Cell) -> None:
        def is_it(cell: Cell) -> bool:
            return cell.has_id_of(known) or (not known.is_answer and same(cell.source, known.source))

        free = [i for i in self._free() if is_it(self.cells[i])]
        if free:
            self.place[name] = next((i for i in free if self.cells[i].type == known.type), free[0])
            self.notes.append(f"{name} had lost its mark")

    def _claim_by_definition(self, name: str, known: Cell) -> None:
        """For an answer without a cell, or whose cell does not define what it should."""
        wanted = defined_names(known.source)
        current = self.place.get(name)
        if not wanted or (current is not None and self._is_settled(name, wanted)):
            return
        candidates = {one: self._best(one, wanted) for one in wanted}
        chosen = sorted({best for best in candidates.values() if best is not None}, key=lambda best: best[1])
        if None in candidates.values():
            return
        texts, indices = [text for _, _, text in chosen], [i for _, i, _ in chosen]
        if current in indices or all(rank for rank, _, _ in chosen):
            # out of cells that stay what they are: the answer's own place is where it was, or was released
            self.text[name] = "\n\n".join(texts)
        else:
            at = max(i for rank, i, _ in chosen if not rank)
            if current is not None and is_untouched(self.cells[current].source, known.source):
                self.gone.add(current)
            self.place[name] = at
            if len(texts) > 1:
                self.text[name] = "\n\n".join(texts)
                self.gone.update(i for rank, i, _ in chosen if not rank and i != at)
        if current not in indices:
            self.notes.append(f"the answer {name} was found by what it defines")
        kinds = {self.cells[i].type for i in indices} - {"code"}
        if kinds or any(text != self.cells[i].source for _, i, text in chosen):
            self._remark(
                name, f"stood in a {min(kinds, default='code')} cell" + " with other text" * (not kinds)
            )

    def _is_settled(self, name: str, wanted: set[str]) -> bool:
        cell = self.cells[self.place[name]]
        text = self.text.get(name, cell.source)
        return cell.type == "code" and wanted <= self._bound(text, wanted)

    def _best(self, name: str, wanted: set[str]) -> tuple[int, int, str] | None:
        """The cell that defines `name`: (how far it is from a cell of its own, which one, the code in it).

        A code cell comes first, then one that is something else besides, then code that stands in a text. The
        last one of a kind counts, as it does in Jupyter.
        """
        found: list[tuple[int, int, str]] = []
        claimed = {i: self.release.marked[one] for one, i in self.place.items()}
        for i, cell in enumerate(self.cells):
            owner = claimed.get(i)
            if i in self.gone or name not in cell.source:
                continue
            if owner is not None and not owner.is_answer and same(cell.source, owner.source):
                continue
            experiment = cell.is_experiment or self.release.is_experiment(cell)  # which is not to be run
            if cell.type == "code" and not experiment and name in self._bound(cell.source, wanted):
                found.append((0 if owner is None else 1, i, cell.source))
                continue
            code = definitions_among(cell.source) if experiment else code_among_words(cell.source)
            if name in self._bound(code, wanted):
                found.append((2 if cell.type == "code" else 3, i, code))
        least = min((rank for rank, _, _ in found), default=0)
        return max((one for one in found if one[0] == least), default=None)

    def _claim_by_place(self, name: str, known: Cell) -> None:
        """The student's own cells between the neighbours that the answer has in the release."""
        near = [i for i in self._around(known) if self.cells[i].source.strip()]
        own = [i for i in near if not self.release.holds(self.cells[i])]
        between = [i for i in own if self.cells[i].type == known.type]
        between = between or [i for i in own if known.type == "code" or is_words(self.cells[i])]
        if not between or (known.type == "code" and len(between) > 1):
            return
        self._put_together(name, between, between[-1])
        self.notes.append(f"the answer {name} was found by where it stood")

    def _around(self, known: Cell) -> list[int]:
        """The cells that are nobody's yet between those that come before and after `known` in the release."""
        matched = self._positions()
        here = self.release.cells.index(known)
        before = max((at for i, at in matched.items() if i < here), default=-1)
        after = min((at for i, at in matched.items() if i > here and at > before), default=len(self.cells))
        return [i for i in self._free() if before < i < after]

    def _claim_beside(self, name: str, known: Cell) -> None:
        """Words in cells of their own below a stub that was left as it is, or between it and its question.

        Otherwise nobody would read them: an untouched stub gets no points without being looked at.
        """
        at = self.place.get(name)
        if at is None or name in self.text or not is_untouched(self.cells[at].source, known.source):
            return
        above, question = self._own_words(at, -1)
        below, follower = self._own_words(at, 1)
        if self._positions().get(self.release.cells.index(known) - 1) != question:
            above = []  # something else comes before, which the words may belong to
        others = {self.place[other] for other in self.place if self.release.marked[other].is_answer}
        own = [*([] if question in others else above[::-1]), *([] if follower in others else below)]
        if own:
            self._put_together(name, own, at)
            self.notes.append(f"the answer {name} stood in a cell of its own beside the one for it")

    def _own_words(self, at: int, step: int) -> tuple[list[int], int]:
        """The student's own text cells next to a cell, the nearest first, and the index where they end."""
        free = set(self._free())
        found: list[int] = []
        at += step
        while at in free and len(found) < MOST_PARTS and self._is_own_words(at):
            found.append(at)
            at += step
        return [i for i in found if self.cells[i].source.strip()], at

    def _is_own_words(self, at: int) -> bool:
        return is_words(self.cells[at]) and self.release.is_own(self.cells[at])

    def _put_together(self, name: str, parts: Sequence[int], at: int) -> None:
        """The answer is what these cells say one after the other; it stands in the place of the cell `at`."""
        self.place[name] = at
        self.text[name] = "\n\n".join(self.cells[i].source for i in parts)
        self.found.parts[name] = list({at: None, **dict.fromkeys(parts)})
        self.gone.update(i for i in parts if i != at)

    def _remark(self, name: str, remark: str) -> None:
        self.found.remarks[name] = remark
        self.notes.append(f"the answer {name} {remark}")

    def _drop_stubs(self, known: Cell) -> None:
        """A copy of the stub among the student's own cells would overwrite the answer that they wrote."""
        wanted = defined_names(known.source)
        free = (i for i in self._free() if self.cells[i].type == "code")
        near = (i for i in free if any(name in self.cells[i].source for name in wanted))
        self.gone.update([i for i in near if is_untouched(self.cells[i].source, known.source)])

    def _bound(self, source: str, wanted: Iterable[str]) -> set[str]:
        """Those of `wanted` that a text defines, and not as a stub."""
        if not any(name in source for name in wanted):
            return set()
        if source not in self.bound:
            tree = parsed(source)
            body = tree.body if tree is not None else []
            stubs = {node.name for node in (definitions(tree) if tree else []) if is_unwritten(node)}
            self.bound[source] = bound_names(body) - stubs
        return self.bound[source] & set(wanted)

    def _positions(self) -> dict[int, int]:
        """Index in the release -> index in the submission, for cells that are known or read the same."""
        unmarked: dict[str, list[int]] = {}
        for at, cell in enumerate(self.cells):
            unmarked.setdefault(cell.source.strip(), []).append(at)
        found = {}
        for i, cell in enumerate(self.release.cells):
            if cell.name in self.place:
                found[i] = self.place[cell.name]
            elif cell.name is None and len(places := unmarked.get(cell.source.strip(), [])) == 1:
                found[i] = places[0]
        return found
