"""A small class to try the grading on: the release, filled in four different ways.

ada: every answer right. ben: one function wrong. cleo: nothing answered. dan: two cells that raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

# Ben's mistake: the percentile of the signed weights, so most of the positive half survives.
WRONG_ANSWERS = {
    "prune_by_percentage": """\
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.detach()
    threshold = np.percentile(weight.cpu().numpy(), q)
    layer.weight.data = weight * (weight >= threshold)
"""
}
RAISING_ANSWER = 'raise ValueError("this cell was left half finished")'


def make_class(
    course: Path,
    assignment: str,
    released: Path,
    executed: Mapping[str, NotebookNode] | None = None,
    wrong: Mapping[str, str] = WRONG_ANSWERS,
) -> list[str]:
    """Write the four submissions into `course/submitted`; returns the students' names.

    released: the folder with the release. executed: reference notebooks that were run, by name; their
    experiments' outputs stand in for what the students' own runs would have saved.
    """
    source = {path.stem: nbformat.read(path, 4) for path in (course / "source" / assignment).glob("*.ipynb")}
    students = ("ada", "ben", "cleo", "dan")
    for student in students:
        folder = course / "submitted" / student / assignment
        folder.mkdir(parents=True)
        for path in sorted(released.glob("*.ipynb")):
            nb = nbformat.read(path, 4)
            if student != "cleo":
                fill_in(nb, source[path.stem])
                _copy_outputs(nb, (executed or {}).get(path.stem))
            if student == "ben":
                _replace(nb, wrong)
            nbformat.write(nb, folder / path.name)
    broken = _first_with_answer(course / "submitted" / "dan" / assignment)
    if broken is not None:
        nb = nbformat.read(broken, 4)
        _break(nb)
        nbformat.write(nb, broken)
    return list(students)


def fill_in(nb: NotebookNode, source: NotebookNode) -> None:
    """Write the reference answers into a released notebook, as a student would: without the markers."""
    answers = {cell.id: cell.source for cell in source.cells if _is_answer(cell)}
    for cell in nb.cells:
        if cell.id in answers:
            lines = answers[cell.id].splitlines()
            cell.source = "\n".join(line for line in lines if " SOLUTION" not in line)


def _copy_outputs(nb: NotebookNode, executed: NotebookNode | None) -> None:
    outputs = {cell.id: cell.get("outputs", []) for cell in executed.cells} if executed is not None else {}
    for cell in nb.cells:
        if "experiment" in cell.metadata.get("tags", []) and cell.cell_type == "code":
            cell.outputs = outputs.get(cell.id, [])


def _replace(nb: NotebookNode, wrong: Mapping[str, str]) -> None:
    for cell in nb.cells:
        for name, answer in wrong.items():
            if _is_answer(cell) and cell.cell_type == "code" and f"def {name}(" in cell.source:
                cell.source = answer.rstrip()


def _break(nb: NotebookNode) -> None:
    """An answer cell that raises, and one more cell that does."""
    place, answer = next((i, cell) for i, cell in enumerate(nb.cells) if _is_code_answer(cell))
    answer.source = RAISING_ANSWER
    nb.cells.insert(place + 1, nbformat.v4.new_code_cell("1 / 0", id="dans-own-cell"))


def _first_with_answer(folder: Path) -> Path | None:
    paths = sorted(folder.glob("*.ipynb"))
    return next((p for p in paths if any(map(_is_code_answer, nbformat.read(p, 4).cells))), None)


def _is_answer(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _is_code_answer(cell: NotebookNode) -> bool:
    return _is_answer(cell) and cell.cell_type == "code"
