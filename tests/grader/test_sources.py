"""A mistake in a source notebook is named with its notebook and its cell, and nothing of it is handed out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from typer.testing import CliRunner

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import hygiene
from labkit.grading.grade import prepared_release
from labkit.grading.release import release
from labkit.grading.sources import check_source, source_notebooks
from tests.roundtrip.tiny_course import SECRET, write_course

ASSIGNMENT = "compression"
DOUBLE, TEST, WHY = 2, 3, 7  # where these cells are, counted from 0
Cells = list[dict[str, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_course(tmp_path) / "source" / ASSIGNMENT / "01_double.ipynb"


def edit(path: Path, change: Callable[[Cells], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
    change(content["cells"])
    path.write_text(json.dumps(content), encoding="utf-8")


def replaced(number: int, old: str, new: str) -> Callable[[Cells], None]:
    def change(cells: Cells) -> None:
        assert old in cells[number]["source"]
        cells[number]["source"] = cells[number]["source"].replace(old, new)

    return change


def marked(number: int, **marks: object) -> Callable[[Cells], None]:
    return lambda cells: cells[number]["metadata"]["nbgrader"].update(marks)


def as_text(cells: Cells) -> None:
    cells[DOUBLE] = {key: cells[DOUBLE][key] for key in ("id", "metadata", "source")} | {
        "cell_type": "markdown"
    }


ANSWER, TESTS = "cell 3, 'double', ", "cell 4, 'test_double', "
MISTAKES: list[tuple[Callable[[Cells], object], str]] = [
    (replaced(DOUBLE, "### END SOLUTION", ""), ANSWER + "has no END SOLUTION"),
    (replaced(DOUBLE, "### BEGIN SOLUTION", ""), ANSWER + "has END SOLUTION without"),
    (replaced(DOUBLE, "    return", "    ### BEGIN SOLUTION\n    return"), ANSWER + "has a second BEGIN"),
    (replaced(DOUBLE, "BEGIN SOLUTION", "begin solution"), ANSWER + "has the line '### begin solution'"),
    (replaced(DOUBLE, "BEGIN SOLUTION", "Begin_Solution"), "write BEGIN SOLUTION"),
    (replaced(TEST, "HIDDEN TESTS", "hidden tests"), TESTS + "has the line '### BEGIN hidden tests'"),
    (replaced(TEST, "HIDDEN TESTS", "HIDDEN TEST"), "write BEGIN HIDDEN TESTS"),
    (replaced(TEST, "### END HIDDEN TESTS", "# done"), TESTS + "has no END HIDDEN TESTS"),
    (replaced(TEST, "### BEGIN HIDDEN TESTS", "#"), TESTS + "has END HIDDEN TESTS without"),
    (replaced(WHY, "### END SOLUTION", "### end solution"), "cell 8, 'why', has the line"),
    (
        lambda cells: cells[DOUBLE].update(source="def double(x):\n    return 2 * x"),
        ANSWER + "is an answer without",
    ),
    (marked(DOUBLE, solution=False), ANSWER + "has BEGIN SOLUTION, but is not marked"),
    (marked(TEST, grade=False), TESTS + "has BEGIN HIDDEN TESTS, but is not marked"),
    (marked(TEST, grade_id="double"), "cell 4, 'double', has the same grade_id as cell 3, 'double':"),
    (lambda cells: cells[TEST]["metadata"]["nbgrader"].pop("points"), TESTS + ".* does not have points"),
    (marked(TEST, schema_version=1), TESTS + ".*nbgrader update"),
    (as_text, ANSWER + "is a text cell"),
    (lambda cells: cells[DOUBLE].update(id=cells[TEST]["id"]), TESTS + "has no id of its own"),
]


@pytest.mark.parametrize(("change", "sentence"), MISTAKES, ids=[sentence for _, sentence in MISTAKES])
def test_a_mistake_is_named_with_its_cell(
    path: Path, change: Callable[[Cells], object], sentence: str
) -> None:
    edit(path, change)
    with pytest.raises(LabError, match=rf"^01_double\.ipynb: .*{sentence}"):
        release(path.parents[2], ASSIGNMENT)
    assert not (path.parents[2] / "release").exists()


CONFLICT = "<<<<<<< HEAD\n=======\n>>>>>>> main\n"
FILES: list[tuple[Callable[[str], bytes], str]] = [
    (lambda text: b"\xef\xbb\xbf" + text.encode(), "byte order mark.*\n.*labkit.grading.hygiene"),
    (
        lambda text: text.replace("{\n", "{\n" + CONFLICT, 1).encode(),
        "Git's conflict markers, the first in line 2",
    ),
    (lambda text: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "Git LFS pointer"),
    (lambda text: b"<!DOCTYPE html><html></html>", "web page"),
    (lambda text: b"", "empty"),
    (lambda text: b"{}", "no cells"),
    (lambda text: text[: len(text) // 2].encode(), "breaks off"),
    (lambda text: b'{"cells": [3], "nbformat": 4, "nbformat_minor": 5}', "list of cells is damaged"),
]


@pytest.mark.parametrize(("write", "sentence"), FILES, ids=[sentence for _, sentence in FILES])
def test_a_file_that_is_no_notebook_is_told_when_it_is_released_and_graded(
    path: Path, write: Callable[[str], bytes], sentence: str
) -> None:
    path.write_bytes(write(path.read_text(encoding="utf-8")))
    with pytest.raises(LabError, match=rf"01_double\.ipynb .*{sentence}"):
        release(path.parents[2], ASSIGNMENT)
    with pytest.raises(LabError, match=sentence), prepared_release(path.parents[2], ASSIGNMENT):
        pass


def test_what_the_sentence_advises_removes_a_byte_order_mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert hygiene.main([str(path)]) == 1
    check_source(path)


def test_what_nbgrader_takes_is_taken(path: Path) -> None:
    edit(path, replaced(DOUBLE, "### BEGIN SOLUTION", "# BEGIN SOLUTION: the factor"))
    data = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(data)
    (made, *_) = release(path.parents[2], ASSIGNMENT)
    assert SECRET not in made.read_text() and "return 2 * x" not in made.read_text()


def test_what_jupyter_leaves_beside_the_source_is_no_trouble(path: Path) -> None:
    course, folder = path.parents[2], path.parent
    (folder / ".ipynb_checkpoints").mkdir()
    shutil.copy(path, folder / ".ipynb_checkpoints" / "01_double-checkpoint.ipynb")
    (folder / "Untitled.ipynb").write_text("{}")
    shutil.copy(path, folder / "01_double-Copy1.ipynb")
    assert [one.stem for one in source_notebooks(course, ASSIGNMENT)] == ["01_double", "02_triple", "03_more"]
    with prepared_release(course, ASSIGNMENT) as released:
        assert len(list(released.glob("*.ipynb"))) == 3
    done = CliRunner().invoke(app, ["release", "--course", str(course)])
    assert done.exit_code == 0
    assert "01_double-Copy1.ipynb was left aside" in done.output and "Untitled.ipynb was left" in done.output
    assert len(list((course / "release" / ASSIGNMENT).iterdir())) == 3


@pytest.mark.parametrize(
    "name", ["hw+4", "hw [1]", "hw*", "hw?", "a/b", "..", ".hw", "hw{1}", " hw", "50%", ""]
)
def test_a_name_that_nbgrader_cannot_use_is_refused(tmp_path: Path, name: str) -> None:
    write_course(tmp_path)
    for command in ("release", "grade", "report", "regrade"):
        done = CliRunner().invoke(app, [command, name, "--course", str(tmp_path)])
        assert done.exit_code == 2
        assert "cannot be the name of an assignment" in done.stderr
        assert "letters, digits" in done.stderr
    made = CliRunner().invoke(app, ["new", "halve", "--assignment", name, "--course", str(tmp_path)])
    assert "cannot be the name of an assignment" in made.stderr


@pytest.mark.parametrize("name", ["hw.4", "my lab", "lab (1)", "Übung-1"])
def test_other_names_and_any_course_folder_work(tmp_path: Path, name: str) -> None:
    course = write_course(tmp_path / "my [course] + more", name)
    assert len(release(course, name)) == 3
    with prepared_release(course, name) as released:
        assert len(list(released.glob("*.ipynb"))) == 3
