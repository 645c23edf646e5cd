"""A downloaded folder, and a course's, in which somebody has put what is no plain file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.errors import LabError
from labkit.grading import collect as module
from labkit.grading.collect import collect
from labkit.grading.files import remove
from labkit.grading.opening import LEFT_OUT

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="links need rights on Windows, and it has no pipes"
)


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """Ada's and Mal's folders, with a notebook each."""
    for student in ("ada", "mal"):
        (tmp_path / "download" / student).mkdir(parents=True)
        (tmp_path / "download" / student / "01.ipynb").write_text(student)
    return tmp_path / "download"


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """pytest itself cannot remove what is nested too deeply."""
    yield
    remove(tmp_path)


def deep(path: Path, depth: int = 1500) -> Path:
    """Folders in folders, as `path`."""
    for number in range(depth):
        path.with_name(f"{number}").mkdir()
        if number:
            path.with_name(f"{number - 1}").rename(path.with_name(f"{number}") / "d")
    return path.with_name(f"{depth - 1}").rename(path)


def test_what_cannot_be_opened_is_told_and_stops_nobody(download: Path, tmp_path: Path) -> None:
    mal = download / "mal"
    (mal / "a.ipynb").symlink_to("/dev/zero")
    (mal / "b").symlink_to(download / "ada")
    os.mkfifo(mal / "c.ipynb")
    with (mal / "d.ipynb").open("wb") as file:
        file.truncate(2**36)
    deep(mal / "e")
    found = collect(download, tmp_path / "course", "lab")
    assert found.new == ["ada", "mal"]
    assert [line.partition(": ")[2] for line in found.left_out] == [
        "larger than 64 MB",
        "is a link and was not opened",
        "is a link and was not opened",
        "is a named pipe and was not opened",
        "is nested too deeply and was not opened",
    ]
    submitted = tmp_path / "course" / "submitted"
    told = (submitted / "mal" / "lab" / LEFT_OUT).read_text().splitlines()
    assert [line.partition(" ")[0][:8] for line in told] == ["d.ipynb", "a.ipynb", "b", "c.ipynb", "e/d/d/d/"]
    assert (submitted / "ada" / "lab" / "01.ipynb").read_text() == "ada"
    assert not (submitted / "ada" / "lab" / LEFT_OUT).exists()
    assert collect(download, tmp_path / "course", "lab").unchanged == ["ada", "mal"]


@pytest.mark.parametrize("which", ["mal", "mal/lab"])
def test_files_are_put_into_nobody_elses_folder(download: Path, tmp_path: Path, which: str) -> None:
    submitted = tmp_path / "course" / "submitted"
    collect(download, tmp_path / "course", "lab")
    link = submitted / which
    remove(link)
    link.symlink_to(submitted / which.replace("mal", "ada"))
    (download / "mal" / "01.ipynb").write_text("malicious")
    found = collect(download, tmp_path / "course", "lab")
    assert (submitted / "ada" / "lab" / "01.ipynb").read_text() == "ada"
    if which == "mal":
        assert found.left_out == ["mal: cannot be put into its place (mal is a link)"]
    else:
        assert found.replaced == ["mal"]
        assert (submitted / "mal" / "lab" / "01.ipynb").read_text() == "malicious"
    assert sorted(path.name for path in (submitted / "ada").iterdir()) == ["lab"]


def test_what_lies_in_the_course_stops_no_collecting(download: Path, tmp_path: Path) -> None:
    mal = tmp_path / "course" / "submitted" / "mal" / "lab"
    mal.mkdir(parents=True)
    with (mal / "big.ipynb").open("wb") as file:
        file.truncate(2**36)
    os.mkfifo(mal / "pipe.ipynb")
    deep(mal / "d")
    found = collect(download, tmp_path / "course", "lab")
    assert (found.new, found.replaced) == (["ada"], ["mal"])
    assert [path.name for path in mal.iterdir()] == ["01.ipynb"]
    assert [path.name for path in mal.parent.iterdir()] == ["lab"]


def test_one_students_files_are_copied_up_to_a_bound(
    download: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TOTAL", 25)
    for number in range(4):
        (download / "mal" / f"{number + 2:02}.ipynb").write_text("x" * 10)
    found = collect(download, tmp_path / "course", "lab")
    assert found.new == ["ada", "mal"]
    assert found.left_out == [f"mal/0{n}.ipynb: more than 0 MB of one student" for n in (4, 5)]


def test_if_nobodys_files_are_left_the_reasons_are_said(tmp_path: Path) -> None:
    (tmp_path / "download" / "mal").mkdir(parents=True)
    (tmp_path / "download" / "mal" / "01.ipynb").symlink_to("/dev/zero")
    with pytest.raises(LabError, match=r"was found in .*\nmal/01.ipynb: is a link and was not opened"):
        collect(tmp_path / "download", tmp_path / "course", "lab")
