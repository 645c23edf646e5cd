"""Why a name of the student's is not there: which of their cells should have made it, and how that ended.

Told by the tests' process, from the text of the cells and from what they put out before any test ran.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.definitions import bound_in_text
from labkit.grading.outputs import safe_line
from labkit.grading.verdicts import Cell

MOST_ERROR, MOST_HEAD = 150, 60
_CELL_MAGIC = re.compile(r"\s*(%%\w+)")


class Missing:
    """The student's cells of a notebook, in order, and what each of them put out."""

    def __init__(self, cells: Sequence[Cell], outputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._cells = cells
        self._outputs = outputs

    def why(self, name: str, place: str) -> str | None:
        """A sentence about `name`, missed in the test cell with the id `place`; None if no cell makes it."""
        before, further_down = "", ""
        passed = False
        for cell in self._cells:
            passed |= cell.id == place
            if cell.kind not in ("answer", "own") or name not in bound_in_text(cell.source):
                continue
            if passed:
                further_down = f"{name} is defined only further down: restart the kernel and run all cells."
            else:
                before = self._ended(name, cell)
        return before or further_down or None

    def _ended(self, name: str, cell: Cell) -> str:
        """How the cell that should have made it ended."""
        which = "its cell" if cell.kind == "answer" else f"your cell that begins `{_head(cell.source)}`"
        errors = [one for one in self._outputs.get(cell.id, ()) if one.get("output_type") == "error"]
        if errors:
            said = safe_line(f"{errors[-1].get('ename')}: {errors[-1].get('evalue')}", MOST_ERROR)
            return f"{name} is not defined: {which} stopped with {said}"
        if magic := _CELL_MAGIC.match(cell.source):
            return f"{name} is not defined: {which} begins with {magic[1]}, which keeps none of its names."
        return ""


def _head(source: str) -> str:
    return safe_line(next((line for line in source.splitlines() if line.strip()), "").strip(), MOST_HEAD)
