"""The lab's notebooks as files: what they are called, and what a student has done in them.

Reads JSON and runs nothing; whatever is damaged or missing in a file is simply not there.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.answers import answers_in
from labkit.errors import LabError
from labkit.files import write_atomically
from labkit.outcomes import MARKS
from labkit.paths import shipped_notebooks
from labkit.written import Answer

GRADED = (
    "00_baseline", "01_percentile_pruning", "02_masked_finetuning", "03_iterative_pruning",
    "04_global_pruning", "05_asymmetric_quantization", "06_symmetric_quantization", "07_prune_and_quantize",
)  # fmt: skip
OPTIONAL = ("08_in_the_libraries",)
RECEIPT = "receipt.json"  # what `labkit submit` says of the notebooks, beside them in the zip

_BADGE = re.compile(r"/release/[^/\s]+/([^/\s]+)\.ipynb\)")
_REPORT = re.compile(r"^(\S.*)\n((?: .*\n)*)\d+ of \d+ public checks passed", re.M)
_CHECK = re.compile(rf"^  ([{''.join(MARKS.values())}]) (.+)$", re.M)
_STATES = {mark: state for state, mark in MARKS.items()}

Cell = dict[str, Any]
Checks = dict[str, str]  # what a check says -> passed, failed or skipped


def hand_out(folder: Path) -> tuple[list[str], list[str]]:
    """Copy the lab's notebooks into `folder`; returns the names written, and those that were there already.

    What is there stays as it is: a student's work is never written over. Raises LabError if the folder
    cannot be written.
    """
    written, kept = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(shipped_notebooks().glob("*.ipynb")):
            if (folder / path.name).exists():
                kept.append(path.name)
                continue
            data = path.read_bytes()
            write_atomically(folder / path.name, lambda part, data=data: part.write_bytes(data))  # type: ignore[misc]
            written.append(path.name)
    except OSError as error:
        raise LabError(f"{folder} cannot be written ({error.strerror}): name another folder.") from None
    return written, kept


def called(stem: str, names: Collection[str]) -> str | None:
    """Which of `names` a file is that somebody may have renamed; None if none, or more than one.

    `Copy of 01_Percentile pruning (2)` and `123_smith_01_percentile_pruning-Copy1` are found.
    """
    if stem in names:
        return stem
    known, plain = {_plain(name): name for name in names}, _plain(stem)
    inside = [name for key, name in known.items() if key in plain]
    return known.get(plain) or (inside[0] if len(inside) == 1 else None)


def _plain(stem: str) -> str:
    stem = stem[:255]  # of a file in a zip it may have 64,000 letters, and blanks cost their square below
    stem = re.sub(r"(?i)^copy of |\s*\(\d+\)$|[-_ ]copy\d*$", "", stem.strip())
    return re.sub(r"[\W_]+", "", stem.lower())


def identify(file: str, data: bytes) -> Notebook | None:
    """The lab's notebook that a file is, by its own name or by the Colab badge in it; None if it is none."""
    cells = _cells(data)
    badge = next((found for cell in cells or [] if (found := _BADGE.search(_text(cell.get("source"))))), None)
    name = called(Path(file).stem, GRADED + OPTIONAL) or (badge[1] if badge else None)
    return Notebook(name, file, data, cells) if name else None


@dataclass(frozen=True)
class Notebook:
    """A file: the lab's name for it, its own name, its bytes, and its cells; None if it cannot be read."""

    name: str
    file: str
    data: bytes
    cells: list[Cell] | None

    @cached_property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells or [] if cell.get("cell_type") == "code"]

    @cached_property
    def answers(self) -> list[Answer]:
        """What is there of each answer, code or words, as the grader sees it."""
        return answers_in(self.name, self.cells) if self.cells is not None else []

    @cached_property
    def checks(self) -> dict[str, Checks | None]:
        """By title, what the notebook's public checks came to as its saved outputs show; None: not run."""
        found: dict[str, Checks | None] = {title: None for cell in self.code for title in _titles(cell)}
        for cell in sorted(self.code, key=_count):
            texts = (_text(output.get("text")) for output in _outputs(cell) if output.get("name") == "stdout")
            for title, lines in _REPORT.findall("".join(texts)):
                found[title] = {sentence: _STATES[mark] for mark, sentence in _CHECK.findall(lines)}
        return found

    def holds(self, source: str) -> bool:
        """Whether these lines stand in one of the code cells."""
        return any(source in _text(cell.get("source")) for cell in self.code)

    def ran_as(self, count: int) -> str | None:
        """The text of the cell that was run as this number."""
        found = (_text(cell.get("source")).strip() for cell in self.code if _count(cell) == count)
        return next(found, None)

    def stopped(self) -> list[str]:
        """The code cells that ended in an error."""
        return [
            self._label(cell)
            for cell in self.code
            if any(output.get("output_type") == "error" for output in _outputs(cell))
        ]

    def largest_output(self) -> str:
        """The code cell whose outputs take the most room."""
        sizes = {self._label(cell): len(json.dumps(cell.get("outputs"))) for cell in self.code}
        return max(sizes, key=lambda label: sizes[label], default="none")

    def _label(self, cell: Cell) -> str:
        """As the student sees it, `[7]`; of a cell without a number the first line."""
        first = next(iter(_text(cell.get("source")).splitlines()), "")
        return f"[{_count(cell)}]" if _count(cell) else f"`{first[:40]}`"


def cells_in(file: str, data: bytes) -> list[Cell]:
    """The cells of a notebook's file. Raises LabError, which says what is wrong with the file."""
    cells = _cells(data)
    if cells is not None:
        return cells
    if not data.strip():
        raise LabError(f"{file} is empty: save that notebook again, and run this cell once more.")
    marks = [number for number, line in enumerate(data.splitlines(), 1) if line.startswith(b"<<<<<<< ")]
    if marks:
        raise LabError(
            f"{file} has git's conflict markers, first in line {marks[0]}: keep one version of each."
        )
    if data.lstrip().startswith(b"{") and not data.rstrip().endswith(b"}"):
        raise LabError(f"{file} ends in the middle: save that notebook again, and run this cell once more.")
    raise LabError(f"{file} cannot be read as a notebook.")


def source_of(cell: Cell) -> str:
    """A cell's text."""
    return _text(cell.get("source"))


def why_unreadable(data: bytes) -> str:
    """What is wrong with a file that is not a notebook, and what to do about it."""
    if not data.strip():
        return "is empty: save it in Jupyter and submit again"
    marks = [number for number, line in enumerate(data.splitlines(), 1) if line.startswith(b"<<<<<<< ")]
    if marks:
        return f"has git's conflict markers, the first in line {marks[0]}: keep one version of each part"
    return "cannot be read as a notebook: open it in Jupyter, save it and submit again"


def _cells(data: bytes) -> list[Cell] | None:
    """The cells in today's format; None if it is no notebook."""
    try:
        content = json.loads(data)  # bytes: any of Unicode's encodings, with a byte-order mark or without
        sheets = [sheet["cells"] for sheet in content.get("worksheets", [content])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(sheet, list) for sheet in sheets):
        return None
    cells = [cell for sheet in sheets for cell in sheet if isinstance(cell, dict)]
    # formats 1 to 3 have a code cell's text under other names
    return [{"source": cell.get("input", cell.get("code")), **cell} for cell in cells]


def _titles(cell: Cell) -> Iterator[str]:
    """What the public checks that a test cell calls are called when they print."""
    if "test" not in (_dict(cell.get("metadata")).get("tags") or []):
        return
    try:
        tree = ast.parse(_text(cell.get("source")))
    except (SyntaxError, ValueError, RecursionError):
        return
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args):
        function, first = ast.unparse(call.func), ast.unparse(call.args[0])
        if function == f"labkit.check.{first}":  # labkit.check.STE(STE, symmetric=True)
            yes = (one.arg for one in call.keywords if ast.unparse(one.value) == "True")
            yield ", ".join([first, *filter(None, yes)])
        elif function == "labkit.check.Suite":  # an instructor's own checks
            title = call.args[1] if len(call.args) > 1 else None
            yield str(title.value) if isinstance(title, ast.Constant) else first


def _outputs(cell: Cell) -> list[Cell]:
    outputs = cell.get("outputs")
    return [one for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []


def _count(cell: Cell) -> int:
    count = cell.get("execution_count")
    return count if isinstance(count, int) else 0


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """A cell's or an output's text: a string, or a list of lines."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""
