"""`labkit new`: a source notebook of the house's shape, to be edited into a lesson of one's own.

What it writes is a small complete lesson, `templates/lesson.txt`: its release, its reference solution and
its hidden tests work at once, and an instructor replaces the parts one by one. The public checks stand in
the notebook itself, because `labkit.check` knows only the functions that come with the lab.
"""

from __future__ import annotations

import builtins
import keyword
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.errors import LabError
from labkit.files import write_atomically
from labkit.grading.hygiene import strip

LESSON = Path(__file__).parent / "templates" / "lesson.txt"
# a line before each cell: its kind, its name, and its points if it is graded
CELL = re.compile(r"^=== (\w+) ([\w-]+)(?: (\d+))?\n", re.M)
MARKS: dict[str, dict[str, bool]] = {  # for nbgrader, by the kind of cell
    "setup": {"locked": True},
    "answer": {"solution": True},
    "test": {"grade": True, "locked": True},
    "question": {"grade": True, "solution": True},
}
LONGEST = 40  # letters of a name: it becomes part of file names and cell ids


def new_notebook(course: Path, assignment: str, name: str, title: str | None = None) -> Path:
    """Write `source/<assignment>/<next number>_<name>.ipynb`, in which students write a function `name`.

    title: its heading, by default made from the name. Raises LabError for a name or a title that will not
    do, and if there is a notebook of that name.
    """
    folder = course / "source" / assignment
    _check_name(name, folder)
    title = name.replace("_", " ").capitalize() if title is None else title.strip()
    if len(title.splitlines()) != 1:
        raise LabError("the title has to be one line of text: it becomes the notebook's heading.")
    numbers = [int(path.name[:2]) for path in folder.glob("[0-9][0-9]_*.ipynb")]
    number = f"{max(numbers, default=-1) + 1:02}"
    cells = _cells({"NUMBER": number, "HEADING": title, "NAME": name})

    def write(part: Path) -> None:
        nbformat.write(nbformat.v4.new_notebook(cells=cells), part)
        strip(part)  # as it is committed

    path = folder / f"{number}_{name}.ipynb"
    write_atomically(path, write)
    return path


def _check_name(name: str, folder: Path) -> None:
    """Raise LabError unless `name` can be a function's, and a new one."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > LONGEST or keyword.iskeyword(name):
        raise LabError(
            f"{name!r} will not do as the name of a function and of a file: "
            f"take small letters, digits and _, {LONGEST} at most, such as soft_threshold."
        )
    if name in re.findall(r"\w+", LESSON.read_text(encoding="utf-8")) or hasattr(builtins, name):
        raise LabError(f"{name} means something else in the notebook already: take a longer name.")
    there = next(folder.glob(f"*_{name}.ipynb"), None)
    if there is not None:
        raise LabError(f"{there.name} is in {folder} already: edit that one, or take another name.")


def _cells(words: dict[str, str]) -> list[NotebookNode]:
    """The lesson's cells with these words in the places of its capitals."""

    def put_in(text: str) -> str:
        return re.sub(r"(NUMBER|HEADING|NAME)", lambda found: words[found[1]], text)

    parts = CELL.split(LESSON.read_text(encoding="utf-8"))[1:]
    return [
        _cell(kind, put_in(name), points, put_in(text).strip())
        for kind, name, points, text in zip(*(parts[i::4] for i in range(4)), strict=True)
    ]


def _cell(kind: str, name: str, points: str | None, text: str) -> NotebookNode:
    metadata: dict[str, Any] = {} if kind == "text" else {"tags": [kind]}
    if kind in MARKS:
        plain = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
        metadata["nbgrader"] = {**plain, **MARKS[kind], "grade_id": name}
        if points is not None:
            metadata["nbgrader"]["points"] = int(points)
    make = nbformat.v4.new_markdown_cell if kind in ("text", "question") else nbformat.v4.new_code_cell
    return make(text, id=name.replace("_", "-"), metadata=metadata)
