"""A course of two small notebooks, without torch, that has every kind of cell the real one has."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode

SECRET = "a_number_only_the_hidden_tests_know"
SIGN = """\
def sign(x):
    ### BEGIN SOLUTION
    return math.copysign(1.0, x)
    ### END SOLUTION"""
TEST_SIGN = """\
assert sign(2.0) == 1.0
### BEGIN HIDDEN TESTS
3.0 if sign(-2.0) == -1.0 else 1.5
### END HIDDEN TESTS"""


def write_course(course: Path, assignment: str = "compression") -> Path:
    """Write `source/<assignment>`: two notebooks of 10 automatic and 3 manual points, an optional one."""
    folder = course / "source" / assignment
    folder.mkdir(parents=True)
    for name, function, factor in (("01_double", "double", 2), ("02_triple", "triple", 3)):
        nbformat.write(_notebook(name, function, factor), folder / f"{name}.ipynb")
    optional = nbformat.v4.new_notebook(cells=[_markdown("# 03_more", "title")])  # nothing in it is graded
    optional.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(optional, folder / "03_more.ipynb")
    return course


def _notebook(name: str, function: str, factor: int) -> NotebookNode:
    answer = f"""\
def {function}(x):
    ### BEGIN SOLUTION
    return {factor} * x
    ### END SOLUTION"""
    test = f"""\
assert {function}(1) == {factor}, "{function}(1) is not {factor}"
### BEGIN HIDDEN TESTS
{SECRET} = 21
assert {function}({SECRET}) == {factor * 21}, "{function} is wrong for a larger number"
7.0 if {function}(-1) == -{factor} else 3.5
### END HIDDEN TESTS"""
    question = """\
Why?

### BEGIN SOLUTION
Because of the model answer.
### END SOLUTION"""
    cells = [
        _markdown(f"# {name}", "title"),
        _code("import math\nimport warnings", "setup", locked=True, grade_id="set_up"),
        _code(answer, "answer", solution=True, grade_id=function),
        _code(test, "test", grade=True, locked=True, points=7, grade_id=f"test_{function}"),
        _code(SIGN, "answer", solution=True, grade_id="sign"),
        _code(TEST_SIGN, "test", grade=True, locked=True, points=3, grade_id="test_sign"),
        _code("print('the experiment ran')\nopen('ran.txt', 'w').close()", "experiment", cell_id="run"),
        _markdown(question, "why", points=3),
    ]
    return nbformat.v4.new_notebook(
        cells=cells,
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


def _code(
    source: str, tag: str, grade_id: str | None = None, cell_id: str = "", **kinds: object
) -> NotebookNode:
    metadata = {"tags": [tag], **({"nbgrader": _nbgrader(grade_id, **kinds)} if grade_id else {})}
    return nbformat.v4.new_code_cell(source, id=(grade_id or cell_id).replace("_", "-"), metadata=metadata)


def _markdown(source: str, name: str, points: int | None = None) -> NotebookNode:
    metadata = {}
    if points is not None:
        kinds = _nbgrader(name, grade=True, solution=True, points=points)
        metadata = {"tags": ["question"], "nbgrader": kinds}
    return nbformat.v4.new_markdown_cell(source, id=name, metadata=metadata)


def _nbgrader(grade_id: str, **kinds: object) -> dict[str, object]:
    plain = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
    return {**plain, "grade_id": grade_id, **kinds}
