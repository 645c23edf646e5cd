"""A class of every kind of submission, graded once: points, notes, tables, pages, notebooks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbgrader")

from nbgrader.api import Gradebook

from labkit.grading.marks import Result
from labkit.grading.release import release
from labkit.grading.settings import course_directory
from tests.roundtrip import submissions as made
from tests.roundtrip.classes import ASSIGNMENT, FIRST, SECOND, feedback, graded_now, points
from tests.roundtrip.tiny_course import SECRET, write_course

pytestmark = pytest.mark.usefixtures("graded_by_the_shared_engine")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    course = write_course(tmp_path_factory.mktemp("tiny"))
    release(course, ASSIGNMENT)
    made.hand_in(course, "right", made.experiments_shown)
    made.hand_in(course, "untouched", made.unchanged, answered=False)
    made.hand_in(course, "noisy", made.noisy)
    made.hand_in(course, "raising", made.raising)
    made.hand_in(course, "deleted", made.without("test_double", "set_up", "triple", "test_triple", "why"))
    made.hand_in(course, "tagged", made.tagged_away)
    made.hand_in(course, "stripped", made.stripped_and_tagged)
    made.hand_in(course, "relabelled", made.relabelled)
    made.hand_in(course, "copied", made.copied)
    made.hand_in(course, "dying", made.dying)
    made.hand_in(course, "old", made.old_format)
    made.only(made.hand_in(course, "half", made.unchanged), FIRST)
    broken = made.hand_in(course, "broken", made.unchanged)
    (broken / f"{FIRST}.ipynb").write_text("this is no notebook")
    made.hand_in(course, "unmarked", made.unmarked)
    made.zip_up(made.hand_in(course, "zipped", made.unchanged))
    return course


@pytest.fixture(scope="module")
def graded(tiny: Path, graded_by_the_shared_engine: None) -> dict[str, Result]:
    return graded_now(tiny)


def autograded(course: Path, student: str, name: str = FIRST) -> nbformat.NotebookNode:
    return nbformat.read(course / "autograded" / student / ASSIGNMENT / f"{name}.ipynb", 4)


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        ("right", (10, 10)),
        ("untouched", (0, 0)),
        ("noisy", (10, 10)),
        ("raising", (3, 3)),  # its own cell's 7 points lost, the 3 of the other kept
        ("deleted", (10, 3)),  # a deleted test comes back; a deleted answer earns nothing
        ("tagged", (3, 3)),
        ("stripped", (3, 3)),
        ("relabelled", (3, 3)),
        ("copied", (10, 10)),
        ("dying", (3, 10)),  # what it crashed is lost, nothing else
        ("old", (10, 10)),
        ("half", (10, 0)),
        ("broken", (None, 10)),  # not graded, which is no zero
        ("unmarked", (10, 10)),
        ("zipped", (10, 10)),
    ],
)
def test_every_submission_gets_its_points(
    graded: dict[str, Result], student: str, expected: tuple[float | None, float]
) -> None:
    assert points(graded[student]) == expected
    assert graded[student].possible == 20


def test_notes_tell_the_instructor_what_went_wrong(graded: dict[str, Result]) -> None:
    assert graded["right"].notes == []
    (note,) = graded["dying"].notes
    assert note == f"{FIRST}: test_double: crashed: Its process ended (exit status 1)."
    assert graded["half"].notes == [f"missing {SECOND}"]  # and nothing of the optional notebook
    assert all(set(result.marks) == {FIRST, SECOND} for result in graded.values())
    assert graded["broken"].notes == [f"{FIRST}: not graded: it is no notebook: it does not begin as one"]
    assert graded["zipped"].notes[0] == f"{FIRST}: was handed in as work.zip/lab/{FIRST}.ipynb"
    assert f"{FIRST}: the answer double was found by what it defines" in graded["unmarked"].notes


def test_the_whole_class_is_in_the_tables(tiny: Path, graded: dict[str, Result]) -> None:
    folder = tiny / "exports" / ASSIGNMENT
    with (folder / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows.keys() == graded.keys()
    assert (rows["right"][FIRST], rows["right"]["total"], rows["right"]["to mark"]) == ("10", "20", "6")
    assert (rows["broken"][FIRST], rows["broken"][SECOND]) == ("", "10")
    assert (rows["half"][FIRST], rows["half"][SECOND]) == ("10", "0")
    gradescope = json.loads((folder / "gradescope" / "noisy" / "results.json").read_text())
    assert gradescope["score"] == 20.0


def test_students_are_told_what_was_mended_and_why_not(tiny: Path, graded: dict[str, Result]) -> None:
    assert "the answer double was found by what it defines" in feedback(tiny, "unmarked")
    assert "mended" not in feedback(tiny, "right")
    page = feedback(tiny, "broken")
    assert "it is no notebook: it does not begin as one" in page


def test_grading_again_keeps_what_a_human_wrote(
    tiny: Path, graded: dict[str, Result], tmp_path: Path
) -> None:
    course = shutil.copytree(tiny, tmp_path / "course")  # the other tests read what it was

    def of_broken(gradebook: Gradebook) -> tuple[Any, Any]:
        notebooks = (
            gradebook.find_submission_notebook(name, ASSIGNMENT, "broken") for name in (FIRST, SECOND)
        )
        first, second = ({grade.cell.name: grade for grade in one.grades} for one in notebooks)
        return first[f"test_{FIRST[3:]}"], second["why"]

    url = course_directory(course, ASSIGNMENT).db_url
    with Gradebook(url, "compression-lab") as gradebook:
        unread, question = of_broken(gradebook)
        assert unread.auto_score is None and unread.needs_manual_grade
        unread.manual_score, question.manual_score = 5.0, 2.0
        gradebook.db.commit()
    again = graded_now(course, student="broken", force=True)["broken"]
    assert again.marks[FIRST].got is None
    with Gradebook(url, "compression-lab") as gradebook:
        assert [grade.manual_score for grade in of_broken(gradebook)] == [5.0, 2.0]


def test_written_answers_wait_for_a_human(graded: dict[str, Result]) -> None:
    assert graded["right"].outstanding == 6
    assert graded["untouched"].outstanding == 0  # nothing written: nothing to read


def test_hidden_tests_stay_hidden(tiny: Path, graded: dict[str, Result]) -> None:
    pages = [*(tiny / "release").rglob("*.ipynb"), *(tiny / "feedback").rglob("*.html")]
    assert len(pages) == 3 + 3 * len(graded) - 1  # with an index each; one notebook is missing
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert SECRET not in text, page
        assert "HIDDEN TESTS" not in text, page


def test_feedback_says_what_a_failed_check_found(tiny: Path, graded: dict[str, Result]) -> None:
    assert "is not 2" in feedback(tiny, "tagged")


def test_experiments_are_not_run_and_keep_their_saved_output(tiny: Path, graded: dict[str, Result]) -> None:
    cells = autograded(tiny, "right").cells
    assert any("accuracy 0.9151, as the student saw it" in str(cell.get("outputs")) for cell in cells)
    assert not list((tiny / "autograded").rglob("ran.txt"))


def test_forged_outputs_of_test_cells_are_dropped(tiny: Path, graded: dict[str, Result]) -> None:
    for cell in autograded(tiny, "tagged").cells:
        if cell.metadata.get("nbgrader", {}).get("grade") and cell.cell_type == "code":
            assert "forged" not in str(cell.outputs)
            assert cell.metadata.tags == ["test"]


def test_deleted_cells_come_back_in_their_places(tiny: Path, graded: dict[str, Result]) -> None:
    ids = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in autograded(tiny, "deleted").cells]
    expected = ["colab_bootstrap", "set_up", "double", "test_double", "sign", "test_sign", "why"]
    assert [grade_id for grade_id in ids if grade_id] == expected


def test_the_submissions_themselves_are_left_alone(tiny: Path, graded: dict[str, Result]) -> None:
    text = (tiny / "submitted" / "tagged" / ASSIGNMENT / f"{FIRST}.ipynb").read_text()
    assert "forged" in text
