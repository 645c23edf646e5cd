"""Folders and names that somebody put into `submitted/` by hand: each costs its owner, and nobody else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import class_run
from labkit.grading.classreport import write_report
from labkit.grading.files import remove
from labkit.grading.grade import Options, grade_class
from labkit.grading.release import release
from labkit.grading.unchanged import Records
from tests.roundtrip import submissions as made
from tests.roundtrip.classes import ASSIGNMENT, FIRST, SECOND, feedback, graded_now, points
from tests.roundtrip.tiny_course import write_course

pytestmark = [
    pytest.mark.usefixtures("graded_by_the_shared_engine"),
    pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows, and it has no pipes"),
]


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ada and Ben with one notebook."""
    course = write_course(tmp_path_factory.mktemp("handed-in"))
    release(course, ASSIGNMENT)
    for student in ("ada", "ben"):
        made.only(made.hand_in(course, student, made.unchanged), FIRST)
    return course


@pytest.fixture
def small(handed_in: Path, tmp_path: Path) -> Iterator[Path]:
    """That class, for one test, not graded yet."""
    yield shutil.copytree(handed_in, tmp_path / "small")
    remove(tmp_path)  # pytest itself cannot remove what is nested too deeply


@pytest.mark.parametrize("link", ["mal", f"mal/{ASSIGNMENT}", f"mal/{ASSIGNMENT}/{FIRST}.ipynb"])
def test_a_link_takes_nobodys_points(small: Path, link: str) -> None:
    """Of a student's folder, a submission, a notebook: to another student's."""
    path, ada = small / "submitted" / link, small / "submitted" / link.replace("mal", "ada", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(ada)
    results = graded_now(small)
    why = f"{path.name} is a link and was not opened"
    assert points(results["mal"]) == (None, None)
    assert results["mal"].notes[0] == why
    assert why in feedback(small, "mal")
    assert points(results["ada"]) == (10, 0)


def test_no_folder_stops_the_class(small: Path) -> None:
    """Each of these did, or is of the same kind."""

    def of(student: str) -> Path:
        folder = small / "submitted" / student / ASSIGNMENT
        folder.mkdir(parents=True)
        return folder

    for name in ("cifar.bin", "timestamp.txt", f"{FIRST}.ipynb"):
        with (of(f"huge-{name}") / name).open("wb") as file:
            file.truncate(2**36)
    deep = small / "submitted" / "deep" / ASSIGNMENT
    deep.parent.mkdir()
    for number in range(2000):
        new = small / f"{number}"
        new.mkdir()
        if number:
            (small / f"{number - 1}").rename(new / "d")
    (small / "1999").rename(deep)
    for name in ("timestamp.txt", f"{FIRST}.ipynb", "left_out.txt"):
        os.mkfifo(of(f"pipe-{name}") / name)
        (of(f"zero-{name}") / name).symlink_to("/dev/zero")
    long = small / "submitted" / ("l" * 250)
    made.hand_in(small, "long", made.unchanged).parent.rename(long)
    said: list[str] = []
    results = {one.student: one for one in grade_class(small, ASSIGNMENT, Options(2), say=said.append)}
    assert points(results["ada"]) == (10, 0) and points(results["ben"]) == (10, 0)
    assert any("llll was left out: rename this folder, its name is longer" in line for line in said)
    assert points(results["deep"]) == points(results[f"pipe-{FIRST}.ipynb"]) == (None, None)
    assert any(line.endswith("is nested too deeply and was not opened") for line in results["deep"].notes)


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", 'a";alert(1)', "a\\", "a\nb", "a\u202eb"])
def test_a_folder_whose_name_could_act_in_formgrader_is_left_out(small: Path, name: str) -> None:
    made.hand_in(small, name, made.unchanged)
    made.hand_in(small, "Zoë O'Brien & Co", made.unchanged)
    said: list[str] = []
    results = grade_class(small, ASSIGNMENT, Options(2), say=said.append)
    assert [one.student for one in results] == ["Zoë O'Brien & Co", "ada", "ben"]
    (line,) = (line for line in said if "left out" in line)
    assert "was left out: rename this folder, its name could act in a page." in line
    assert line.isprintable()


def test_nothing_handed_in_disappears(small: Path) -> None:
    submitted = small / "submitted"
    dan = submitted / "dan" / ASSIGNMENT
    dan.mkdir(parents=True)
    (dan / "essay.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    cleo = made.hand_in(small, "cleo", made.unchanged)
    cleo.rename(cleo.with_name(ASSIGNMENT.upper()))
    said: list[str] = []
    results = {one.student: one for one in grade_class(small, ASSIGNMENT, Options(2), say=said.append)}
    assert sorted(results) == ["ada", "ben", "dan"]
    why = "essay.rar is a .rar archive that cannot be opened here: ask for a .zip"
    assert points(results["dan"]) == (None, None)
    assert results["dan"].notes[0] == why
    assert why in feedback(small, "dan")
    left_out = f"submitted/cleo/{ASSIGNMENT.upper()} was left out: rename it to submitted/cleo/{ASSIGNMENT}."
    assert left_out in said
    page = write_report(small, ASSIGNMENT).read_text(encoding="utf-8")
    assert why in page and left_out in page
    record = Records(small, ASSIGNMENT, [FIRST, SECOND]).read("dan")
    assert record.files == [why]


def test_whatever_fails_with_one_folder_costs_nobody_else(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints, write = Records.fingerprints, class_run.write_atomically

    def fails_for_ada(self: Records, student: str) -> dict[str, str]:
        if student == "ada":
            raise RecursionError("who would have thought")
        return fingerprints(self, student)

    def refused(path: Path, what: Any) -> None:
        if path.suffix == ".log":
            raise OSError(36, "File name too long", str(path))
        write(path, what)

    monkeypatch.setattr(Records, "fingerprints", fails_for_ada)
    monkeypatch.setattr(class_run, "write_atomically", refused)
    results = graded_now(small)
    assert results["ada"].notes == ["grading broke off; logs/ada.log cannot be written (File name too long)"]
    assert points(results["ben"]) == (10, 0)
