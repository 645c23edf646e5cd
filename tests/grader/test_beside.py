"""What lies beside a notebook when its cells run: the files around it, not too many, and nothing above it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import beside as module
from labkit.grading.beside import MOST_FILES, MOST_NAME, beside
from labkit.grading.submission import job_of, read_submission
from tests.attacks.case import ASSIGNMENT, REFERENCE, Case

PRUNING = "01_percentile_pruning"


def test_files_lie_as_they_did_around_the_notebook() -> None:
    files = {"a.zip/hw/mine.py": b"1", "a.zip/hw/lib/deep.py": b"2", "a.zip/hw/lib/__init__.py": b""}
    kept, left_out = beside("a.zip/hw/01.ipynb", files)
    assert kept == {"mine.py": b"1", "lib/deep.py": b"2", "lib/__init__.py": b""} and left_out == []


def test_a_file_of_another_folder_is_found_by_its_name_if_that_is_free() -> None:
    files = {"mine.py": b"far", "src/other.py": b"also far", "nb/mine.py": b"near"}
    assert beside("nb/01.ipynb", files)[0] == {"mine.py": b"near", "other.py": b"also far"}


@pytest.mark.parametrize("place", ["../up.py", "/etc/up.py", "a.zip/../../up.py", "hw/../up.py"])
def test_no_path_leads_out_of_the_folder(place: str) -> None:
    assert beside("01.ipynb", {place: b"x"})[0] == {"up.py": b"x"}


def test_many_files_large_ones_and_long_names_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    kept, left_out = beside("01.ipynb", {"a.py": b"x", "b.npy": b"y" * 1000, "c.py": b"z" * 999})
    assert kept.keys() == {"a.py", "c.py"} and left_out == ["b.npy"]
    many = {f"m{number:04}.py": b"" for number in range(MOST_FILES + 3)}
    kept, left_out = beside("01.ipynb", many)
    assert len(kept) == MOST_FILES and left_out == sorted(many)[MOST_FILES:]
    assert beside("01.ipynb", {"n" * MOST_NAME + ".py": b""}) == ({}, ["n" * MOST_NAME + ".py"])


@pytest.mark.parametrize("packed", [False, True])
def test_a_module_handed_in_beside_the_notebook_goes_with_its_job(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "work"
    Case("it").hand_in(folder)
    (folder / "mine.py").write_text("x = 1\n")
    (folder / "lib").mkdir()
    (folder / "lib" / "data.csv").write_text("1,2\n")
    if packed:
        shutil.make_archive(str(tmp_path / "packed" / "work"), "zip", folder)
        folder = tmp_path / "packed"
    submission = read_submission("ada", folder, ASSIGNMENT.released)
    job = job_of(PRUNING, submission, ASSIGNMENT, REFERENCE)
    assert job.beside == {"mine.py": b"x = 1\n", "lib/data.csv": b"1,2\n"}
    assert submission.modules(PRUNING) == {"mine.py": "x = 1\n"}
    assert submission.notes[PRUNING] == []


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    Case("it").hand_in(tmp_path / "work")
    for number in range(MOST_FILES + 1):
        (tmp_path / "work" / f"m{number:03}.py").write_text("")
    submission = read_submission("ada", tmp_path / "work", ASSIGNMENT.released)
    (note,) = submission.notes[PRUNING]
    assert note == f"beside it are more than 100 files or 8 MB: its cells ran without m{MOST_FILES}.py"
