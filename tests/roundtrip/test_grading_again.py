"""A small class graded more than once: what changed is graded again, and one bad case costs nobody else."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import nbformat
import pytest
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from nbgrader.api import Gradebook

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import files, opening, schedule
from labkit.grading import verdicts as verdicts_module
from labkit.grading.grade import Options, grade_class
from labkit.grading.gradebook import GradebookWriter
from labkit.grading.marks import Result
from labkit.grading.release import release
from labkit.grading.settings import course_directory
from labkit.grading.verdicts import Verdict
from tests.roundtrip import submissions as made
from tests.roundtrip.classes import ASSIGNMENT, FIRST, SECOND, feedback, graded_now, points
from tests.roundtrip.tiny_course import write_course

pytestmark = pytest.mark.usefixtures("graded_by_the_shared_engine")


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three students with one notebook; one of them cannot be read."""
    course = write_course(tmp_path_factory.mktemp("handed-in"))
    release(course, ASSIGNMENT)
    for student in ("ada", "ben"):
        made.only(made.hand_in(course, student, made.unchanged), FIRST)
    (course / "submitted" / "cleo" / ASSIGNMENT).mkdir(parents=True)
    (course / "submitted" / "cleo" / ASSIGNMENT / f"{FIRST}.ipynb").write_text("no notebook")
    return course


@pytest.fixture
def small(handed_in: Path, tmp_path: Path) -> Path:
    """That class, for one test, not graded yet."""
    return shutil.copytree(handed_in, tmp_path / "small")


@pytest.fixture(scope="module")
def graded_once(
    handed_in: Path, tmp_path_factory: pytest.TempPathFactory, graded_by_the_shared_engine: None
) -> Path:
    course = shutil.copytree(handed_in, tmp_path_factory.mktemp("graded") / "course")
    graded_now(course)
    return course


@pytest.fixture
def graded(graded_once: Path, tmp_path: Path) -> Path:
    """That class, for one test, graded once."""
    return shutil.copytree(graded_once, tmp_path / "graded")


def test_only_what_changed_is_graded_again(small: Path) -> None:
    def run(results: dict[str, Result]) -> dict[str, int]:
        return {name: result.graded for name, result in results.items()}

    first = graded_now(small)
    assert run(first) == {"ada": 1, "ben": 1, "cleo": 0}
    again = graded_now(small)
    assert run(again) == {"ada": 0, "ben": 0, "cleo": 0}
    assert [result.marks for result in again.values()] == [result.marks for result in first.values()]
    assert [result.notes for result in again.values()] == [result.notes for result in first.values()]

    path = small / "submitted" / "ben" / ASSIGNMENT / f"{FIRST}.ipynb"
    nb = nbformat.read(path, 4)
    made.wrong(nb)
    nbformat.write(nb, path)
    second = graded_now(small)
    assert run(second) == {"ada": 0, "ben": 1, "cleo": 0}
    assert second["ben"].notes == [f"missing {SECOND}", "10 points by code before, 3 now"]

    source = small / "source" / ASSIGNMENT / f"{FIRST}.ipynb"
    source.write_text(source.read_text().replace("7.0 if double(-1)", "6.0 if double(-1)"))
    third = graded_now(small)
    assert run(third) == {"ada": 1, "ben": 1, "cleo": 0}
    assert third["ada"].notes[-1] == "10 points by code before, 9 now"
    assert third["ben"].notes == [f"missing {SECOND}"]
    assert [result.student for result in third.values() if result.moved] == ["ada"]

    source.write_text(source.read_text().replace("6.0 if double(-1)", "7.0 if double(-1)"))
    regraded = CliRunner().invoke(app, ["regrade", ASSIGNMENT, "--course", str(small)])
    assert "1 of 3 scores moved" in regraded.output
    (row,) = [line.split() for line in regraded.output.splitlines() if "ada" in line]
    assert row == ["ada", "9", "10", "+1"]

    (small / "graded" / ASSIGNMENT / "ada.json").write_text("{")  # cut short: only time is lost
    assert run(graded_now(small)) == {"ada": 1, "ben": 0, "cleo": 0}
    assert run(graded_now(small, notebook=SECOND, force=True)) == {"ada": 0, "ben": 0, "cleo": 0}
    with pytest.raises(LabError, match="compression has no notebook 03: it has 01_double, 02_triple"):
        graded_now(small, notebook="03")


def test_grading_twice_gives_the_same_tables(graded: Path) -> None:
    tables = {path: path.read_bytes() for path in (graded / "exports").rglob("*") if path.is_file()}
    pages = {path: path.read_bytes() for path in (graded / "feedback").rglob("*.html")}
    assert {name: one.graded for name, one in graded_now(graded, force=True).items()}["ada"] == 1
    assert tables and all(path.read_bytes() == text for path, text in tables.items())
    assert pages and all(path.read_bytes() == text for path, text in pages.items())


def test_one_bad_case_costs_nobody_else(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = GradebookWriter.write

    def fails_for_ada(self: GradebookWriter, student: str, *arguments: Any) -> None:
        if student == "ada":
            raise RuntimeError("who would have thought")
        write(self, student, *arguments)

    monkeypatch.setattr(GradebookWriter, "write", fails_for_ada)
    results = graded_now(small)
    assert results["ada"].notes == ["grading broke off, see logs/ada.log"]
    assert "who would have thought" in (small / "logs" / "ada.log").read_text()
    assert points(results["ben"]) == (10, 0)
    monkeypatch.undo()
    assert points(graded_now(small)["ada"]) == (10, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_name_in_latin_1_costs_nobody_anything(small: Path) -> None:
    """From an old zip: of a file, which is graded by what it holds, and of a student's folder."""
    ada = small / "submitted" / "ada" / ASSIGNMENT
    (ada / f"{FIRST}.ipynb").rename(os.fsdecode(os.fsencode(ada) + b"/01_double Jos\xe9.ipynb"))
    dan = made.hand_in(small, "dan", made.unchanged).parent
    dan.rename(os.fsdecode(os.fsencode(dan.parent) + b"/Jos\xe9"))
    said: list[str] = []
    results = grade_class(small, ASSIGNMENT, Options(2), say=said.append)
    got = {one.student: points(one) for one in results}
    assert got == {"ada": (10, 0), "ben": (10, 0), "cleo": (None, 0)}
    assert any(line.startswith("submitted/Jos\\udce9 was left out: rename this folder") for line in said)


def test_a_file_that_cannot_be_read_is_told(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = files.open_plain

    def refused(path: Path) -> IO[bytes]:
        if "ben" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    for module in (files, opening):
        monkeypatch.setattr(module, "open_plain", refused)
    results = graded_now(small)
    assert results["ben"].notes[0] == f"{FIRST}.ipynb cannot be read (Permission denied)"
    assert points(results["ben"]) == (None, None)
    assert "cannot be read (Permission denied)" in feedback(small, "ben")
    assert points(results["ada"]) == (10, 0)


def test_a_grading_that_broke_off_is_tried_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "grade_here", _broken_off)
    assert points(graded_now(small, student="ada")["ada"]) == (0, 0)
    monkeypatch.undo()
    assert points(graded_now(small, student="ada")["ada"]) == (10, 0)


def _broken_off(jobs: Any, *arguments: Any) -> Iterator[Any]:
    for key, job in jobs:
        verdicts = [Verdict(c.grade_id, "error", 0.0, c.points, "broke off") for c in job.cells if c.points]
        yield key, verdicts_module.Graded(job.notebook, tuple(verdicts), {}, complete=False)


def test_a_humans_comment_reaches_the_page_without_grading_again(graded: Path) -> None:
    url = course_directory(graded, ASSIGNMENT).db_url
    with Gradebook(url, "compression-lab") as gradebook:
        gradebook.find_comment("double", FIRST, ASSIGNMENT, "ada").manual_comment = "Well found."
        gradebook.db.commit()
    assert "Well found." not in feedback(graded, "ada")
    assert graded_now(graded)["ada"].graded == 0
    assert "Well found." in feedback(graded, "ada")
