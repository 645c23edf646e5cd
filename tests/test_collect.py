"""Downloads as Canvas, Moodle and Gradescope make them, sorted into a course."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import collect as module
from labkit.grading.collect import collect

GRADESCOPE = """\
---
submission_11:
  :submitters:
  - :name: Ada Lovelace
    :sid: '4711'
    :email: ada@example.org
  :created_at: 2026-11-20 10:00:00 Z
submission_12:
  :submitters:
  - :name: Zoë Ü
    :sid:
    :email: zoe@example.org
"""


def zipped(files: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def download(tmp_path: Path, files: dict[str, bytes | str]) -> Path:
    path = tmp_path / "download.zip"
    path.write_bytes(zipped(files))
    return path


def sorted_files(course: Path) -> dict[str, bytes]:
    return {
        path.relative_to(course / "submitted").as_posix(): path.read_bytes()
        for path in sorted((course / "submitted").rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("platform", "files", "expected"),
    [
        (
            "Canvas",
            {
                "doejane_1234_900_01_percentile_pruning.ipynb": b"a",
                "doejane_1234_901_02_masked_finetuning-1.ipynb": b"b",
                "roemax_LATE_77_902_work.zip": b"c",
                "roemax_LATE_77_903_notes.pdf": b"not taken",
            },
            {
                "doejane_1234/lab/01_percentile_pruning.ipynb": b"a",
                "doejane_1234/lab/02_masked_finetuning-1.ipynb": b"b",
                "roemax_77/lab/work.zip": b"c",
            },
        ),
        (
            "Moodle",
            {
                "Jane Doe_55_assignsubmission_file_/01.ipynb": b"a",
                "Jane Doe_55_assignsubmission_file_/lab/02.ipynb": b"b",
                "Zoë Ü_56_assignsubmission_file_01.ipynb": b"c",
                "__MACOSX/Jane Doe_55_assignsubmission_file_/._01.ipynb": b"x",
            },
            {
                "Jane-Doe_55/lab/01.ipynb": b"a",
                "Jane-Doe_55/lab/lab/02.ipynb": b"b",
                "Zoë-Ü_56/lab/01.ipynb": b"c",
            },
        ),
        (
            "Gradescope",
            {
                "assignment_1_export/submission_metadata.yml": GRADESCOPE,
                "assignment_1_export/submission_11/01.ipynb": b"a",
                "assignment_1_export/submission_12/lab/01.ipynb": b"b",
            },
            {"4711/lab/01.ipynb": b"a", "zoe@example.org/lab/lab/01.ipynb": b"b"},
        ),
        (
            "folders",
            {"ada/01.ipynb": b"a", "ben/part/01.ipynb": b"b", "cleo.zip": b"c"},
            {"ada/lab/01.ipynb": b"a", "ben/lab/part/01.ipynb": b"b", "cleo/lab/cleo.zip": b"c"},
        ),
    ],
)
def test_each_platforms_download_is_sorted_by_student(
    tmp_path: Path, platform: str, files: dict[str, bytes | str], expected: dict[str, bytes]
) -> None:
    course = tmp_path / "course"
    found = collect(download(tmp_path, files), course, "lab")
    assert found.platform == platform
    assert found.left_out == []
    assert sorted_files(course) == expected
    assert found.new == sorted({name.partition("/")[0] for name in expected})


def test_a_folder_is_read_like_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(download(tmp_path, {"ada/01.ipynb": b"a", "stray.ipynb": b"x"})) as archive:
        archive.extractall(tmp_path / "unpacked")
    found = collect(tmp_path / "unpacked", tmp_path / "course", "lab")
    assert (found.new, found.left_out) == (["ada"], ["stray.ipynb: nobody's"])


def test_collecting_again_replaces_what_changed_and_keeps_the_rest(tmp_path: Path) -> None:
    course = tmp_path / "course"
    collect(
        download(tmp_path, {"ada/01.ipynb": b"a", "ben/01.ipynb": b"b", "ben/02.ipynb": b"b"}), course, "lab"
    )
    kept = course / "submitted" / "ada" / "lab" / "timestamp.txt"
    kept.write_text("2026-11-22 10:00:00 UTC")
    found = collect(
        download(tmp_path, {"ada/01.ipynb": b"a", "ben/01.ipynb": b"new", "c/1.ipynb": b"c"}), course, "lab"
    )
    assert (found.unchanged, found.replaced, found.new) == (["ada"], ["ben"], ["c"])
    assert kept.exists()
    del (files := sorted_files(course))["ada/lab/timestamp.txt"]
    assert files == {"ada/lab/01.ipynb": b"a", "ben/lab/01.ipynb": b"new", "c/lab/1.ipynb": b"c"}
    assert sorted(path.name for path in (course / "submitted" / "ben").iterdir()) == [
        "lab"
    ]  # nothing left over


def test_no_name_leads_out_of_the_course(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "../../evil/01.ipynb": b"x",
        "ada/../../../out.ipynb": b"x",
        f"{tmp_path / 'outside'}/01.ipynb": b"x",
        "be\\n/01.ipynb": b"x",
        ". ./01.ipynb": b"x",
    }
    collect(download(tmp_path, files), tmp_path / "a" / "b" / "course", "lab")
    inside = tmp_path / "a" / "b" / "course" / "submitted"
    everywhere = list(tmp_path.rglob("*.ipynb"))
    assert len(everywhere) >= 3 and all(path.is_relative_to(inside) for path in everywhere)
    assert all(path.parent.name == "lab" or "lab" in path.parts for path in everywhere)


def test_two_students_never_share_a_folder(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"Jane Doe/01.ipynb": b"a", "Jane-Doe/01.ipynb": b"b"}
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    assert found.left_out == ["Jane-Doe/01.ipynb: Jane-Doe is already Jane Doe's folder"]
    assert sorted_files(tmp_path / "course") == {"Jane-Doe/lab/01.ipynb": b"a"}


def test_what_is_too_large_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    found = collect(
        download(tmp_path, {"ada/1.ipynb": b"x" * 11, "ben/1.ipynb": b"x"}), tmp_path / "c", "lab"
    )
    assert found.new == ["ben"]
    assert found.left_out == ["ada/1.ipynb: larger than 0 MB"]


def test_a_damaged_file_costs_only_itself(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ada/01.ipynb", b"a" * 1000)
        archive.writestr("ben/01.ipynb", b"b")
    data = bytearray(buffer.getvalue())
    start = data.index(b"ada/01.ipynb") + len(b"ada/01.ipynb")
    data[start : start + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "download.zip"
    path.write_bytes(bytes(data))
    found = collect(path, tmp_path / "course", "lab")
    assert found.new == ["ben"]
    assert found.left_out[0].startswith("ada/01.ipynb: cannot be read (")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no zip", "is no zip that can be opened"),
        (zipped({"readme.txt": b"x"}), "no notebook and no zip of a student was found"),
        (
            zipped({"submission_metadata.yml": b"- 3", "submission_1/a.ipynb": b"x"}),
            "not as Gradescope writes it",
        ),
        (
            zipped({"submission_metadata.yml": b"a: [", "submission_1/a.ipynb": b"x"}),
            "not as Gradescope writes it",
        ),
    ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(LabError, match=why):
        collect(path, tmp_path / "course", "lab")
    assert not (tmp_path / "course" / "submitted").exists()


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    arguments = ["collect", str(download(tmp_path, {"ada/01.ipynb": b"a", "x.ipynb": b"b"})), "lab"]
    done = CliRunner().invoke(app, [*arguments, "--course", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "left out: x.ipynb: nobody's"
    assert "    1 new" in done.output and "read as folders" in done.output
    missing = CliRunner().invoke(app, ["collect", "nowhere.zip", "--course", str(tmp_path)])
    assert missing.exit_code == 2 and "there is no nowhere.zip" in missing.output
