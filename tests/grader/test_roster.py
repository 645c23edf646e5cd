"""Who has handed in, and what is named because grading does not look where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.roster import roster


def course_of(tmp_path: Path, *files: str) -> Path:
    """A course with the assignment `lab`, an older one, and Ada's submission; and these files below it."""
    for name in ("source/lab/01.ipynb", "source/warmup/01.ipynb", "submitted/ada/lab/01.ipynb", *files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("ben/01.ipynb", "ben/01.ipynb was left out: put it into submitted/ben/lab."),
        ("ben/work.rar", "ben/work.rar was left out: put it into submitted/ben/lab."),
        ("ben/Lab/01.ipynb", "ben/Lab was left out: rename it to submitted/ben/lab."),
        ("ben/lab (1)/01.ipynb", "ben/lab (1) was left out: rename it to submitted/ben/lab."),
        ("ben/LAB-2/work.zip", "ben/LAB-2 was left out: rename it to submitted/ben/lab."),
        ("ben/week3/01.ipynb", "ben/week3 was left out: if it is lab, rename it to submitted/ben/lab."),
        ("ada/Lab/01.ipynb", "ada/Lab was left out: put its files into submitted/ada/lab."),
        ("ada/02.ipynb", "ada/02.ipynb was left out: put it into submitted/ada/lab."),
        ("lab/ben/01.ipynb", "lab was left out: a student's folder comes first: submitted/<student>/lab."),
        ("ben.zip", "ben.zip was left out: put it into submitted/<student>/lab."),
        (
            ".ipynb_checkpoints/lab/01.ipynb",
            ".ipynb_checkpoints was left out: it is hidden: rename it if it is a student's.",
        ),
    ],
)
def test_what_is_in_another_place_is_named_with_what_to_do(tmp_path: Path, file: str, line: str) -> None:
    found = roster(course_of(tmp_path, f"submitted/{file}"), "lab")
    assert found.students == ["ada"]
    assert found.lines() == [f"submitted/{line}"]


def test_of_many_files_in_the_wrong_place_one_is_named_and_the_others_counted(tmp_path: Path) -> None:
    files = [f"submitted/ben/0{number}.ipynb" for number in range(1, 4)]
    (line,) = roster(course_of(tmp_path, *files), "lab").lines()
    assert (
        line == "submitted/ben/01.ipynb was left out: put it into submitted/ben/lab, with 2 more files there."
    )


@pytest.mark.parametrize(
    "name", ["work.rar", "work.7z", "words.txt", "essay.pdf", "01.py", "page.html", "photo.png"]
)
def test_whoever_has_handed_in_any_file_is_in_the_table(tmp_path: Path, name: str) -> None:
    found = roster(course_of(tmp_path, f"submitted/ben/lab/{name}"), "lab")
    assert (found.students, found.lines()) == (["ada", "ben"], [])


@pytest.mark.parametrize("student", ["..x", "-rf", "a b", "o'neil", "#1", "name@uni.edu", "ends."])
def test_an_odd_name_is_a_name(tmp_path: Path, student: str) -> None:
    found = roster(course_of(tmp_path, f"submitted/{student}/lab/01.ipynb"), "lab")
    assert sorted(found.students) == sorted(["ada", student])


def test_who_has_handed_in_nothing_is_named_in_one_line(tmp_path: Path) -> None:
    course = course_of(tmp_path, "submitted/ben/lab/timestamp.txt", "submitted/cleo/warmup/01.ipynb")
    for empty in ("submitted/dan", "submitted/eve/lab"):
        (course / empty).mkdir(parents=True)
    found = roster(course, "lab")
    assert found.students == ["ada"]
    places = "submitted/ben/lab, submitted/dan, submitted/eve/lab"
    assert found.lines() == [f"nothing was handed in: no file in {places}"]


def test_what_is_no_submission_is_passed_over(tmp_path: Path) -> None:
    files = ["README.md", ".gitkeep", ".git/config", "ada/warmup/01.ipynb", "ada/.lab.earlier/01.ipynb"]
    course = course_of(tmp_path, *(f"submitted/{name}" for name in files))
    assert roster(course, "lab").lines() == []


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows, and it has no pipes")
def test_a_link_and_a_pipe_are_named(tmp_path: Path) -> None:
    submitted = course_of(tmp_path) / "submitted"
    (submitted / "gil").symlink_to("nowhere")
    os.mkfifo(submitted / "hal")
    (submitted / "mal").symlink_to(submitted / "ada")
    found = roster(tmp_path, "lab")
    assert found.students == ["ada", "mal"]  # whose link is named where it would be read
    assert found.lines() == [
        f"submitted/{name} was left out: put it into submitted/<student>/lab." for name in ("gil", "hal")
    ]
