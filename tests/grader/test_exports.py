from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import exports
from labkit.grading.exports import Check, Grades, canvas_csv, grades_csv, gradescope_json, moodle_csv


def check(notebook: str, name: str, score: float | None, possible: float, waits: bool = False) -> Check:
    return Check(notebook, name, score, possible, waits, comment="")


CLASS = (
    Grades(
        "ada_12",
        (
            check("01", "test_a", 7.0, 10.0),
            check("01", "q_why", None, 4.0, waits=True),
            check("02", "test_b", 12.0, 12.0),
        ),
    ),
    Grades(
        "jane-doe_9",
        (
            check("01", "test_a", None, 10.0, waits=True),  # could not be read
            check("01", "q_why", None, 4.0, waits=True),
            check("02", "test_b", 0.0, 12.0),
        ),
    ),
    Grades("=cmd()", (check("02", "test_b", 1.5, 12.0),)),
)


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_the_plain_table_tells_no_grade_from_zero() -> None:
    assert table(grades_csv(CLASS)) == [
        ["student", "01", "02", "total", "out of", "to mark"],
        ["ada_12", "7", "12", "19", "26", "4"],
        ["jane-doe_9", "", "0", "0", "26", "14"],
        ["'=cmd()", "", "1.5", "1.5", "12", "0"],
    ]


def test_canvas_knows_its_own_students_by_number() -> None:
    rows = table(canvas_csv(CLASS, "compression"))
    assert rows[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "compression"]
    assert rows[1] == ["    Points Possible", "", "", "", "", "26"]
    assert rows[2] == ["ada", "12", "", "", "", "19"]
    assert rows[4][:4] == ["'=cmd()", "", "", "'=cmd()"]


def test_moodle_knows_its_own_students_by_participant() -> None:
    rows = table(moodle_csv(CLASS))
    assert rows[0] == ["Identifier", "Full name", "Grade", "Maximum Grade"]
    assert rows[2] == ["Participant 9", "jane doe", "0.00", "26.00"]


def test_gradescope_gets_a_test_for_each_graded_cell() -> None:
    content = json.loads(gradescope_json(CLASS[0]))
    assert content["score"] == 19.0
    assert [test["name"] for test in content["tests"]] == ["01: test_a", "01: q_why", "02: test_b"]
    assert content["tests"][1] == {
        "name": "01: q_why", "score": 0.0, "max_score": 4.0,
        "output": "waits for a human", "visibility": "after_published",
    }  # fmt: skip


def test_an_empty_class_is_an_empty_table() -> None:
    assert grades_csv(()) == "student,total,out of,to mark\n"


def test_a_formula_is_quoted_behind_a_control_character_too() -> None:
    rows = table(grades_csv([Grades("\x00=cmd()", CLASS[2].checks), Grades("l\udcf6", ())]))
    assert [row[0] for row in rows] == ["student", "'=cmd()", "l?"]


def test_half_a_character_does_not_keep_the_tables_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Check("01", "q", 1.0, 1.0, False, comment="\ud800 well done")
    monkeypatch.setattr(exports, "read_grades", lambda course, assignment: [Grades("ada", (odd,))])
    folder = exports.write_exports(tmp_path, "compression")
    text = (folder / "gradescope" / "ada" / "results.json").read_text(encoding="utf-8")
    assert json.loads(text)["tests"][0]["output"] == "? well done"
    assert (folder / "grades.csv").read_bytes().startswith(b"\xef\xbb\xbf")
