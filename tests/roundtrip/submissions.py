"""Submissions for the grading tests: good ones, damaged ones, and ones that try to get marks for nothing."""

from __future__ import annotations

import ast
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.grading.samples import fill_in

Change = Callable[[NotebookNode], None]


def hand_in(
    course: Path, student: str, change: Change, answered: bool = True, assignment: str = "compression"
) -> Path:
    """Write one submission: the release, with the reference answers if `answered`, then changed.

    A notebook in which nothing is graded stays as it is.
    """
    folder = course / "submitted" / student / assignment
    folder.mkdir(parents=True)
    for path in sorted((course / "release" / assignment).glob("*.ipynb")):
        nb = nbformat.read(path, 4)
        if answered:
            fill_in(nb, nbformat.read(course / "source" / assignment / path.name, 4))
        if any(each.metadata.get("nbgrader", {}).get("grade") for each in nb.cells):
            change(nb)
        nbformat.write(nb, folder / path.name)
    return folder


def unchanged(nb: NotebookNode) -> None:
    """Leave it as it is."""


def cell(nb: NotebookNode, *grade_ids: str) -> NotebookNode:
    """The one cell with one of these grade_ids."""
    (found,) = [each for each in nb.cells if each.metadata.get("nbgrader", {}).get("grade_id") in grade_ids]
    return found


def answer(nb: NotebookNode) -> NotebookNode:
    """The tiny course's first answer, whichever notebook it is."""
    return cell(nb, "double", "triple")


def first_test(nb: NotebookNode) -> NotebookNode:
    return cell(nb, "test_double", "test_triple")


def wrong(nb: NotebookNode) -> None:
    answer(nb).source = "def double(x):\n    return x\n\ntriple = double"


def without(*grade_ids: str) -> Change:
    def change(nb: NotebookNode) -> None:
        nb.cells = [
            each for each in nb.cells if each.metadata.get("nbgrader", {}).get("grade_id") not in grade_ids
        ]

    return change


def noisy(nb: NotebookNode) -> None:
    """Every function of every answer warns and shows a progress bar, each time it is called."""
    for each in nb.cells:
        if each.cell_type == "code" and each.metadata.get("nbgrader", {}).get("solution"):
            tree = ast.parse(each.source)
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    node.body[:0] = ast.parse(
                        "import warnings, tqdm\n"
                        "warnings.simplefilter('always')\n"
                        "warnings.warn('this is only a warning')\n"
                        "for _ in tqdm.tqdm(range(2)): pass"
                    ).body
            each.source = ast.unparse(tree)


def raising(nb: NotebookNode) -> None:
    answer(nb).source = "raise ValueError('half finished')"
    nb.cells.insert(4, nbformat.v4.new_code_cell("1 / 0"))


def tagged_away(nb: NotebookNode) -> None:
    """Wrong, and every test cell tagged so that it would be skipped, with a saved output of full marks."""
    wrong(nb)
    for each in nb.cells:
        if each.metadata.get("nbgrader", {}).get("grade"):
            each.metadata["tags"] = ["experiment"]
        forge(each)


def with_answers(sources: dict[str, str]) -> Change:
    """These answers, by grade_id, in place of the reference's."""

    def change(nb: NotebookNode) -> None:
        for each in nb.cells:
            grade_id = each.metadata.get("nbgrader", {}).get("grade_id")
            if grade_id in sources:
                each.source = sources[grade_id].rstrip()

    return change


def forge(each: NotebookNode) -> None:
    if each.cell_type == "code":
        each.execution_count = 1
        each.outputs = [
            nbformat.v4.new_output("stream", text="forged"),
            nbformat.v4.new_output("execute_result", {"text/plain": "7.0"}, execution_count=1),
        ]


def stripped_and_tagged(nb: NotebookNode) -> None:
    """Wrong, and the test cell turned into a cell of the student's own that claims full marks."""
    wrong(nb)
    test = first_test(nb)
    forge(test)
    del test.metadata["nbgrader"]
    test.metadata["tags"] = ["experiment"]


def relabelled(nb: NotebookNode) -> None:
    """Wrong, and the test cell no longer says that it is graded, and says that it is worth 100."""
    wrong(nb)
    first_test(nb).metadata["nbgrader"].update(grade=False, locked=False, points=100)


def copied(nb: NotebookNode) -> None:
    """Right, but a test and an answer are there twice, as a notebook editor's split or copy leaves them."""
    for original in (first_test(nb), answer(nb)):
        twin = nbformat.from_dict(dict(original, id=f"{original.id}-2"))
        nb.cells.insert(nb.cells.index(original), twin)
    nb.cells.append(nbformat.v4.new_code_cell("x = 1", metadata={"nbgrader": {"grade_id": "no-such-cell"}}))


def dying(nb: NotebookNode) -> None:
    if cell(nb, "double", "triple").metadata.nbgrader.grade_id == "double":
        answer(nb).source = "import os\n\ndef double(x):\n    os._exit(1)"


def old_format(nb: NotebookNode) -> None:
    """Saved by an old editor that knows no cell ids, and without a test cell."""
    without("test_double", "test_triple")(nb)
    nb.nbformat_minor = 4
    for each in nb.cells:
        del each["id"]


def experiments_shown(nb: NotebookNode) -> None:
    """Right, with the saved output of the experiment, which grading must keep and not run again."""
    for each in nb.cells:
        if "experiment" in each.metadata.get("tags", []):
            each.outputs = [nbformat.v4.new_output("stream", text="accuracy 0.9151, as the student saw it")]


def unmarked(nb: NotebookNode) -> None:
    """Right, but every mark, tag and id is lost, as some editors lose them."""
    for number, each in enumerate(nb.cells):
        each.metadata, each.id = nbformat.from_dict({}), f"cell{number}"


def zip_up(folder: Path) -> None:
    """All notebooks of a submission in a folder of a zip."""
    with zipfile.ZipFile(folder / "work.zip", "w") as archive:
        for path in sorted(folder.glob("*.ipynb")):
            archive.write(path, f"lab/{path.name}")
            path.unlink()


def only(folder: Path, name: str) -> None:
    """Keep one notebook of a submission."""
    for path in folder.glob("*.ipynb"):
        if path.stem != name:
            path.unlink()


def copy_course(source: Path, course: Path) -> None:
    """A course folder of its own around the repository's source notebooks."""
    shutil.copytree(
        source, course / "source" / "compression", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
