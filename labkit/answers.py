"""What each answer in a notebook is: the one judgement of `labkit submit` and of the grader.

An answer is looked for in the cell with its grade_id, else with its cell id, else in one that defines the
same function or class, whatever its type, else in the only cell that stands in its place. Words may also
stand in a cell of their own beside an untouched stub. What is not an answer, and may have been meant as one,
is `unclear`: then a human is asked.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from labkit.cells import Cell, alike, cells_in, defined_names
from labkit.handed_out import Release, handed_out
from labkit.placing import Placed, placed
from labkit.written import Answer, has_words, is_untouched, is_words, judged, mentions

SIMILAR = 0.8  # the share of letters from which on a name may be another one misspelled


def find_answers(cells: Sequence[Cell], release: Release) -> tuple[dict[str, Answer], Placed]:
    """Each answer in the cells of a notebook, by grade_id, and where everything is."""
    found = placed(cells, release)
    return {name: _answer(name, found, release) for name in release.answers}, found


def answers_in(name: str, given: Iterable[object]) -> list[Answer]:
    """The answers in a student's notebook `name`, as the grader sees them. given: its cells, as in JSON."""
    cells = cells_in(given)
    return list(find_answers(cells, handed_out(name, cells))[0].values())


def _answer(name: str, found: Placed, release: Release) -> Answer:
    known, text = release.answers[name], found.answer(name)
    names = tuple(sorted(defined_names(known.source))) if known.type == "code" else ()
    remark, stub = found.remarks.get(name, ""), is_untouched(text, known.source)
    if not stub:
        state, why = judged(text, names) if known.type == "code" else ("written", "")
        return Answer(name, names, state, why, remark)
    if name in found.place and has_words(text, known):
        why = "its cell holds words instead of code"
    else:
        why = _traces(name, names, found, release)
    return Answer(name, names, "unclear" if why else "unanswered", why, remark, stub=True)


def _traces(name: str, names: Sequence[str], found: Placed, release: Release) -> str:
    """What may have been meant as the answer whose own cell is empty: a phrase, or nothing."""
    known = release.answers[name]
    own = [i for i in found.free() if found.cells[i].source.strip() and release.is_own(found.cells[i])]
    if known.type != "code":
        if any(is_words(found.cells[i]) for i in own):
            return "its cell is empty, and words are in a cell of their own"
        longer = any(_is_longer(cell, found.cells) for cell in release.texts)
        return "its cell is empty, and something was written into a text of the lab" if longer else ""
    others = (cell for i, cell in enumerate(found.cells) if i != found.place.get(name))
    for cell in (cell for cell in others if any(mentions(cell.source, one) for one in names)):
        if not release.holds(cell) and not is_untouched(cell.source, known.source):
            return f"its cell is empty, and a {cell.type} cell holds what may be its code"
    section = _section(name, found, release)
    if any(i in section for i in own):
        return "its cell is empty, and something was written beside it"
    code = (found.cells[i].source for i in own if found.cells[i].type == "code")
    defined = {one for source in code for one in defined_names(source)}
    near = [close for one in names for close in difflib.get_close_matches(one, defined, 1, SIMILAR)]
    return f"its cell is empty, and another one defines {near[0]}" if near else ""


def _section(name: str, found: Placed, release: Release) -> range:
    """The cells from the answer before it to the one after it."""
    order = list(release.answers)
    here = order.index(name)
    before = [found.place[one] for one in order[:here] if one in found.place]
    after = [found.place[one] for one in order[here + 1 :] if one in found.place]
    return range(max(before, default=-1) + 1, min(after, default=len(found.cells)))


def _is_longer(known: Cell, cells: Sequence[Cell]) -> bool:
    """Whether a text of the lab holds more words than it was released with."""
    released = known.source.split()
    return any(
        len(words) > len(released) and (cell.has_id_of(known) or alike(words, released))
        for cell in cells
        if cell.type != "code" and (words := cell.source.split())
    )
