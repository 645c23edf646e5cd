"""The instructor's source notebooks: which files they are, and what keeps one from being released.

nbgrader tells of a mistake in a notebook by a traceback, or not at all: a marker with a typing error is an
ordinary comment to it, and what was to be hidden is handed out. So each is looked at before nbgrader is, and
a mistake is named with its notebook and its cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import from_dict
from nbgrader.nbgraderformat import MetadataValidator, SchemaTooNewError, SchemaTooOldError, ValidationError

from labkit.errors import LabError
from labkit.grading.reading import Unreadable, notebook_json
from labkit.submit import ZIP_NAME

LEAVINGS = {".ipynb_checkpoints", "__pycache__", "runs", ZIP_NAME}  # of running notebooks in place
SCRATCH = re.compile(r"(Untitled[\d-]*|.+-Copy\d+)\.ipynb")  # Jupyter's own names: nobody's lesson yet
REGIONS = {
    "SOLUTION": "solution",
    "HIDDEN TESTS": "grade",
    "MARK SCHEME": "grade",
}  # where nbgrader takes them
# a line that is meant as a marker, however it is written
MEANT = re.compile(
    r"\W*(?P<end>begin|end)[\W_]*(?P<what>solutions?|hidden[\W_]*tests?|mark[\W_]*scheme)\W*", re.I
)


def source_notebooks(course: Path, assignment: str) -> list[Path]:
    """The source notebooks of an assignment in order. Raises LabError if there are none."""
    folder = course / "source" / assignment
    found = sorted(path for path in folder.glob("*.ipynb") if not SCRATCH.fullmatch(path.name))
    if not found:
        raise LabError(
            f"no notebooks in {folder}.\n"
            f"Check the assignment's name ({assignment}) or name the course folder: --course FOLDER"
        )
    return found


def left_aside(course: Path, assignment: str) -> list[str]:
    """The names of notebooks beside the source that are not part of it."""
    names = (path.name for path in (course / "source" / assignment).glob("*.ipynb"))
    return sorted(name for name in names if SCRATCH.fullmatch(name))


def leavings(folder: str, names: list[str]) -> set[str]:
    """What is not copied along with the source, for `shutil.copytree`."""
    return {name for name in names if name in LEAVINGS or name.endswith(".part") or SCRATCH.fullmatch(name)}


def check_source(path: Path) -> None:
    """Raise LabError, with the cell, unless a source notebook can be released as it is meant.

    Every cell needs an id of its own, on which a reproducible release depends.
    """
    for trouble in _troubles(_content(path)["cells"]):
        raise LabError(f"{path.name}: {trouble}")


def _content(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if data.startswith(b"\xef\xbb\xbf"):
        raise LabError(
            f"{path.name} begins with a byte order mark, which Jupyter and nbgrader cannot read.\n"
            f"To remove it: python -m labkit.grading.hygiene {path}"
        )
    try:
        content = notebook_json(data)
    except Unreadable as why:
        raise LabError(f"{path.name} cannot be read: {why}") from None
    cells = content.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise LabError(f"{path.name} cannot be read: its list of cells is damaged")
    if (content.get("nbformat"), content.get("nbformat_minor")) != (4, 5):
        raise LabError(f"{path.name} is not in notebook format 4.5: open and save it in a current Jupyter")
    return content


def _troubles(cells: list[dict[str, Any]]) -> Iterator[str]:
    ids: set[str] = set()
    named: dict[str, str] = {}  # grade_id -> where
    for number, cell in enumerate(cells, start=1):
        cell_id, where = cell.get("id"), _where(number, cell)
        if cell_id is None or cell_id in ids:
            yield f"{where} has no id of its own: give it one, such as its grade_id"
        ids.add(str(cell_id))
        marks = (cell.get("metadata") or {}).get("nbgrader") or {}
        kinds = [kind for kind in ("grade", "solution", "locked", "task") if marks.get(kind)]
        for found in (*_regions(_source(cell), kinds, cell["cell_type"] == "code"), *_metadata(cell, kinds)):
            yield f"{where} {found}"
        grade_id = str(marks.get("grade_id"))
        if kinds and grade_id in named:
            yield f"{where} has the same grade_id as {named[grade_id].rstrip(',')}: give one of them another"
        named[grade_id] = where


def _where(number: int, cell: dict[str, Any]) -> str:
    """A cell as its author finds it: by its place and its name, or its first words."""
    marks = (cell.get("metadata") or {}).get("nbgrader") or {}
    words = marks.get("grade_id") or next(iter(_source(cell).strip().splitlines()), "")
    return f"cell {number}, {words[:50]!r}," if words else f"cell {number}"


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(map(str, source))


def _regions(source: str, kinds: list[str], code: bool) -> Iterator[str]:
    """What is wrong with a cell's markers: nbgrader finds them by these very words."""
    lines = source.splitlines()
    for line in lines:
        meant = MEANT.fullmatch(line)
        if meant and not any(f"{end} {what}" in line for what in REGIONS for end in ("BEGIN", "END")):
            right = next(what for what in REGIONS if what[0] == meant["what"][0].upper())
            yield f"has the line {line.strip()!r}, which hides nothing: write {meant['end'].upper()} {right}"
    for what, kind in REGIONS.items():
        begin, end, inside = f"BEGIN {what}", f"END {what}", False
        for line in lines:
            if begin in line:
                if inside:
                    yield f"has a second {begin} before the {end} of the first"
                inside = True
            elif end in line:
                if not inside:
                    yield f"has {end} without a {begin} above it"
                inside = False
        if inside:
            yield f"has no {end} below its {begin}"
        if begin in source and kind not in kinds:
            yield f"has {begin}, but is not marked for it: nbgrader's `{kind}` has to be true"
    if code and "solution" in kinds and source.strip() and "BEGIN SOLUTION" not in source:
        yield "is an answer without ### BEGIN SOLUTION and ### END SOLUTION around what students write"


def _metadata(cell: dict[str, Any], kinds: list[str]) -> Iterator[str]:
    """What nbgrader does not take of a cell's own metadata."""
    if kinds == ["solution"] and cell["cell_type"] != "code":
        yield "is a text cell, but marked as an answer of code: turn it into a code cell, or give it points"
        return
    if not kinds:
        return
    try:
        MetadataValidator().validate_cell(from_dict(cell))
    except (SchemaTooOldError, SchemaTooNewError):
        yield "has the metadata of another version of nbgrader: run `nbgrader update` on its folder"
    except ValidationError as error:
        yield f"has metadata that nbgrader does not take: {str(error).partition(chr(10))[0]}"
    except (KeyError, TypeError, ValueError) as error:
        yield f"has metadata that nbgrader does not take: {error!r}"
