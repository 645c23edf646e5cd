"""Cells that a student merged with one of the release's, taken apart again.

Jupyter's "merge cells" puts texts below each other and keeps one of the marks. What the release says of
its part is known word for word; the rest is the student's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from labkit.cells import EXPERIMENT, Cell, lines_of, same

SHORTEST = 20  # characters: less than that is no sign of a merged cell


def taken_apart(cells: Sequence[Cell], released: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
    """The cells; in place of one that holds all of a released cell, and more, its parts. With a phrase
    for each.

    Only where the released cell is nowhere else: a copy of it in another one is the student's own.
    """
    whole = {_plain(cell) for cell in released}
    pieces, notes = list(cells), []
    # the longest first: a short one may be a part of it
    for block in sorted(released, key=lambda cell: -len(cell.source)):
        if (
            block.is_answer
            or len(_plain(block)) < SHORTEST
            or any(same(cell.source, block.source) for cell in pieces)
        ):
            continue
        for at, cell in enumerate(pieces):
            if block.source.strip() in cell.source and _plain(cell) not in whole:
                parts = list(_parts(cell, block))
                if len(parts) > 1 and not _is_elsewhere(block, pieces, cell):
                    pieces[at : at + 1] = parts
                    notes.append(f"what was added to {block.name or block.id} became a cell of its own")
                    break
    return pieces, notes


def _parts(cell: Cell, block: Cell) -> Iterator[Cell]:
    """What stands before the block, the block, and what stands after it."""
    before, found, after = f"\n{_plain(cell)}\n".partition(f"\n{_plain(block)}\n")
    if not found:
        return
    # the mark goes to the rest, unless it is the block's
    rest = replace(cell, tags=tuple(tag for tag in cell.tags if tag != EXPERIMENT))
    bare = replace(rest, id="", marks={}, tags=())
    if _is_it(cell, block):
        rest = bare
    if before.strip():
        yield replace(rest, source=before.strip("\n"))
        rest = bare
    yield replace(block, origin=cell.origin)
    if after.strip():
        yield replace(rest, source=after.strip("\n"))


def _is_elsewhere(block: Cell, cells: Sequence[Cell], merged: Cell) -> bool:
    return any(_is_it(cell, block) for cell in cells if cell is not merged)


def _is_it(cell: Cell, block: Cell) -> bool:
    return (block.name is not None and cell.name == block.name) or cell.has_id_of(block)


def _plain(cell: Cell) -> str:
    return "\n".join(lines_of(cell.source))
