"""What is kept from run to run: what makes a notebook be graded again, and what does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import files, unchanged
from labkit.grading.unchanged import Record, Records

NAMES = ("01_a", "02_b")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    for path in ("source/lab/01_a.ipynb", "source/lab/02_b.ipynb", "submitted/ada/lab/01_a.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path


def fingerprints(course: Path, student: str = "ada") -> dict[str, str]:
    return Records(course, "lab", NAMES).fingerprints(student)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_each_notebook_has_its_own_and_it_stays(course: Path) -> None:
    first = fingerprints(course)
    assert set(first) == set(NAMES) and len(set(first.values())) == 2
    os.utime(course / "submitted/ada/lab/01_a.ipynb", (1, 1))
    os.utime(course / "source/lab/01_a.ipynb", (1, 1))
    assert fingerprints(course) == first
    assert fingerprints(course, "ben") != first  # who has handed in other files: none


@pytest.mark.parametrize("file", ["01_a.ipynb", "helper.py", "folder/work.zip"])
def test_any_of_a_students_files_counts_for_all_their_notebooks(course: Path, file: str) -> None:
    first = fingerprints(course)
    path = course / "submitted/ada/lab" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("another")
    assert changed(first, fingerprints(course)) == set(NAMES)
    assert fingerprints(course, "ben") == fingerprints(course, "cleo")


def test_a_file_that_is_renamed_or_gone_counts_too(course: Path) -> None:
    first, path = fingerprints(course), course / "submitted/ada/lab/01_a.ipynb"
    path.rename(path.with_name("renamed.ipynb"))
    renamed = fingerprints(course)
    path.with_name("renamed.ipynb").unlink()
    assert len({first["01_a"], renamed["01_a"], fingerprints(course)["01_a"]}) == 3


def test_a_source_notebook_counts_for_itself(course: Path) -> None:
    first = fingerprints(course)
    (course / "source/lab/02_b.ipynb").write_text("another test")
    assert changed(first, fingerprints(course)) == {"02_b"}


def test_labkits_code_and_version_count(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fingerprints(course)
    monkeypatch.setattr(unchanged.labkit, "__version__", "another")
    assert changed(first, fingerprints(course)) == set(NAMES)
    monkeypatch.undo()
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    monkeypatch.setattr(unchanged.labkit, "__file__", str(package / "__init__.py"))
    second = fingerprints(course)
    (package / "module.py").write_text("x = 2\n")
    assert changed(second, fingerprints(course)) == set(NAMES)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_counts_and_where_it_leads_does_not(course: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one")
    first = fingerprints(course)
    (course / "submitted/ada/lab/link").symlink_to(secret)
    second = fingerprints(course)
    assert changed(first, second) == set(NAMES)  # it is named, and was not before
    secret.write_text("another")
    assert fingerprints(course) == second


def test_notebooks_are_read_before_what_grading_does_not_read(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_TOTAL", 100)
    (course / "submitted/ada/lab/0.bin").write_bytes(b"x" * 99)
    first = fingerprints(course)
    (course / "submitted/ada/lab/01_a.ipynb").write_text("SUBMITTED/ada/lab/01_a.ipynb")
    assert changed(first, fingerprints(course)) == set(NAMES)


def test_a_record_comes_back_as_it_was_written(course: Path) -> None:
    records = Records(course, "lab", NAMES)
    record = Record(
        {"01_a": "f"}, {"01_a": ["a note, ü"]}, {"01_a": ["looked"]}, {"02_b": "why"}, ["general"],
        {"01_a": 1.5}, {"torch": "2"}, "hand",
    )  # fmt: skip
    records.write("ada", record)
    assert records.read("ada") == record
    assert [path.name for path in (course / "graded/lab").iterdir()] == ["ada.json"]  # nothing half-written


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"of": "another version"}', "\x00"])
def test_a_record_that_cannot_be_read_costs_time_only(course: Path, text: str) -> None:
    records = Records(course, "lab", NAMES)
    records.write("ada", Record({"01_a": "f"}))
    (course / "graded/lab/ada.json").write_text(text)
    assert records.read("ada") == Record()
    assert records.read("nobody") == Record()


def test_a_record_is_json_that_does_not_change_by_itself(course: Path) -> None:
    records, path = Records(course, "lab", NAMES), course / "graded/lab/ada.json"
    records.write("ada", Record({"b": "1", "a": "2"}))
    first = path.read_bytes()
    records.write("ada", Record({"a": "2", "b": "1"}))
    assert path.read_bytes() == first
    assert json.loads(first)["fingerprints"] == {"a": "2", "b": "1"}


def test_what_the_instructor_reads_is_in_order() -> None:
    record = Record(
        notes={"02_b": ["second"], "01_a": ["first", "then"]},
        not_graded={"03_c": "it is damaged"},
        general=["of the files"],
        attempts={"02_b": ["y"], "01_a": ["x"]},
    )
    assert record.lines() == [
        "of the files", "01_a: first", "01_a: then", "02_b: second", "03_c: not graded: it is damaged",
    ]  # fmt: skip
    assert record.suspicions() == ["01_a: x", "02_b: y"]


def test_a_file_that_concerns_many_notebooks_is_named_once() -> None:
    damaged, large = "it may be in what was not opened: a.zip", "it is too large"
    record = Record(not_graded={"03_c": damaged, "01_a": damaged, "02_b": large})
    assert record.lines() == [f"01_a, 03_c: not graded: {damaged}", f"02_b: not graded: {large}"]
