"""Downloads as Canvas, Moodle and Gradescope make them, sorted into a course."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import collect as module
from labkit.grading.collect import collect
from labkit.grading.opening import LEFT_OUT
from labkit.grading.platforms import GRADESCOPE_LIST

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
                "roemax_LATE_77_903_notes.pdf": b"d",
                "linkliz_78_link.html": b"e",
            },
            {
                "doejane_1234/lab/01_percentile_pruning.ipynb": b"a",
                "doejane_1234/lab/02_masked_finetuning-1.ipynb": b"b",
                "roemax_77/lab/work.zip": b"c",
                "roemax_77/lab/notes.pdf": b"d",
                "linkliz_78/lab/link.html": b"e",
            },
        ),
        (
            "Moodle",
            {
                "Jane Doe_55_assignsubmission_file_/01.ipynb": b"a",
                "Jane Doe_55_assignsubmission_file_/lab/02.ipynb": b"b",
                "Zoë Ü_56_assignsubmission_file_01.ipynb": b"c",
                "Li_57_assignsubmission_onlinetext/onlinetext.html": b"d",
                "__MACOSX/Jane Doe_55_assignsubmission_file_/._01.ipynb": b"x",
            },
            {
                "Jane-Doe_55/lab/01.ipynb": b"a",
                "Jane-Doe_55/lab/lab/02.ipynb": b"b",
                "Zoë-Ü_56/lab/01.ipynb": b"c",
                "Li_57/lab/onlinetext.html": b"d",
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
            {"ada/01.ipynb": b"a", "ben/part/01.ipynb": b"b", "cleo.zip": b"c", "dee.tar.gz": b"d"},
            {
                "ada/lab/01.ipynb": b"a",
                "ben/lab/part/01.ipynb": b"b",
                "cleo/lab/cleo.zip": b"c",
                "dee/lab/dee.tar.gz": b"d",
            },
        ),
        (
            "Blackboard",
            {
                "Lab_3_jdoe_attempt_2026-01-05-10-23-11.txt": b"Name: Jane Doe",
                "Lab_3_jdoe_attempt_2026-01-05-10-23-11_01.ipynb": b"a",
                "Lab_3_zm_attempt_2026-01-05-10-23-11_x_attempt_2027-01-05-10-23-11_y.ipynb": b"b",
            },
            {
                "jdoe/lab/receipt.txt": b"Name: Jane Doe",
                "jdoe/lab/01.ipynb": b"a",
                "zm/lab/x_attempt_2027-01-05-10-23-11_y.ipynb": b"b",
            },
        ),
        (
            "Brightspace",
            {
                "index.html": b"a list",
                "23-9 - Mary-Ann Smith - Jan 5, 2026 1023 AM/work.zip": b"a",
                "24-9 - Zoë Ü - Jan 5, 2026 1130 PM/lab/01.ipynb": b"b",
            },
            {"Mary-Ann-Smith_23/lab/work.zip": b"a", "Zoë-Ü_24/lab/lab/01.ipynb": b"b"},
        ),
        (
            "ILIAS",
            {
                "Sheet 3/Hand-ins/Doe_Jane_jdoe_47/20260105102311_01.ipynb": b"a",
                "Sheet 3/Hand-ins/Roe_Max_mroe_48/20260105102311_work.rar": b"b",
            },
            {"Doe_Jane_jdoe_47/lab/01.ipynb": b"a", "Roe_Max_mroe_48/lab/work.rar": b"b"},
        ),
        (
            "OLAT",
            {
                "Sheet_3/Doe_Jane_jdoe/2_submissions/01.ipynb": b"a",
                "Sheet_3/Roe_Max_mroe/2_submissions/lab/01.ipynb": b"b",
            },
            {"Doe_Jane_jdoe/lab/01.ipynb": b"a", "Roe_Max_mroe/lab/lab/01.ipynb": b"b"},
        ),
        (
            "Google Classroom",
            {"Lab 3/Jane Doe - 01.ipynb": b"a", "Lab 3/Max Roe - 01 - final.ipynb": b"b"},
            {"Jane-Doe/lab/01.ipynb": b"a", "Max-Roe/lab/01 - final.ipynb": b"b"},
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
    assert found.hint.startswith("all of it is ada's, as one student")


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
        (b"no zip", "is not a zip that can be opened"),
        (zipped({"readme.txt": b"x"}), "no file of a student was found"),
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


# nobody who has handed in disappears


@pytest.mark.parametrize("around", ["submissions/", "Downloads/submissions/"])
@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("Canvas", "{who}_{id}_900_01.ipynb"),
        ("Moodle", "{who}_{id}_assignsubmission_file_/01.ipynb"),
        ("Blackboard", "Lab_{who}{id}_attempt_2026-01-05-10-23-11_01.ipynb"),
        ("Brightspace", "{id}-9 - {who} - Jan 5, 2026 1023 AM/01.ipynb"),
    ],
)
def test_a_download_that_was_packed_again_is_read_as_it_was(
    tmp_path: Path, platform: str, name: str, around: str
) -> None:
    files: dict[str, bytes | str] = {
        around + name.format(who=who, id=number): who for who, number in (("ada", 1), ("ben", 2))
    }
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    assert (found.platform, found.left_out) == (platform, [])
    assert len(found.new) == 2
    assert sorted(sorted_files(tmp_path / "course").values()) == [b"ada", b"ben"]


KINDS = [
    "lab.pdf", "lab.rar", "lab.7z", "lab.tar.gz", "01.json", "01.py", "01.html", "01.ipynb.txt", "photo.heic",
    "noending", "01.IPYNB", "x.docx",
]  # fmt: skip


@pytest.mark.parametrize(
    "place", ["{who}_{id}_900_{file}", "{who}_{id}_assignsubmission_file_/{file}", "{who}/{file}"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_whoever_hands_in_one_file_of_any_kind_is_collected(tmp_path: Path, kind: str, place: str) -> None:
    files: dict[str, bytes | str] = {
        place.format(who="ada", id=1, file=kind): b"x",
        place.format(who="ben", id=2, file="01.ipynb"): b"{}",
    }
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    assert len(found.new) == 2 and found.left_out == []
    assert [name.rpartition("/")[2] for name in sorted_files(tmp_path / "course")] == [kind, "01.ipynb"]


@pytest.mark.parametrize("newest", [0, 1])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("7-9 - Ada - Jan 9, 2026 1023 AM", "7-9 - Ada - Feb 2, 2026 809 PM"),
        ("7-9 - Ada - Mar 1, 2026 859 AM", "7-9 - Ada - Mar 1, 2026 1201 PM"),
    ],
)
def test_of_two_attempts_the_newest_counts_and_the_other_is_named(
    tmp_path: Path, first: str, second: str, newest: int
) -> None:
    files: dict[str, bytes | str] = {f"{first}/01.ipynb": b"old", f"{second}/01.ipynb": b"new"}
    in_order = dict(sorted(files.items(), reverse=bool(newest)))
    found = collect(
        download(tmp_path, {**in_order, "8-9 - Ben - Jan 5, 2026 1023 AM/1.ipynb": b"b"}), tmp_path, "lab"
    )
    assert found.new == ["Ada_7", "Ben_8"]
    assert found.left_out == [f"{first}/01.ipynb: it is in an earlier attempt, and the newest one counts"]
    kept = sorted_files(tmp_path)
    assert kept["Ada_7/lab/01.ipynb"] == b"new"
    assert b"01.ipynb was not collected: it is in an earlier attempt" in kept[f"Ada_7/lab/{LEFT_OUT}"]


def test_of_two_uploads_of_a_file_the_newest_counts(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "S/Doe_Jane_47/20260106000000_01.ipynb": b"new",
        "S/Doe_Jane_47/20260105000000_01.ipynb": b"old",
        "S/Doe_Jane_47/20260105000000_02.ipynb": b"other",
    }
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    why = "it was uploaded again later, and the newest one counts"
    assert found.left_out == [f"S/Doe_Jane_47/20260105000000_01.ipynb: {why}"]
    kept = sorted_files(tmp_path / "course")
    assert (kept["Doe_Jane_47/lab/01.ipynb"], kept["Doe_Jane_47/lab/02.ipynb"]) == (b"new", b"other")


def test_everybody_in_a_group_gets_its_files(tmp_path: Path) -> None:
    listing = GRADESCOPE.replace("  :created_at", "  - :name: Grace\n    :sid: '4712'\n  :created_at")
    files: dict[str, bytes | str] = {"submission_11/01.ipynb": b"a", "submission_12/01.ipynb": b"b"}
    found = collect(download(tmp_path, exported(listing, files)), tmp_path / "course", "lab")
    assert (found.new, found.left_out) == (["4711", "4712", "zoe@example.org"], [])
    assert sorted_files(tmp_path / "course")["4712/lab/01.ipynb"] == b"a"


def test_who_hands_in_one_notebook_again_does_not_lose_the_others(tmp_path: Path) -> None:
    course, source = tmp_path / "course", tmp_path / "course" / "source" / "lab"
    source.mkdir(parents=True)
    for name in ("01_double", "02_triple"):
        (source / f"{name}.ipynb").touch()
    first = {"ada/01_double.ipynb": b"1", "ada/02_triple.ipynb": b"2", "ada/notes.txt": b"n", "b.zip": b"b"}
    collect(download(tmp_path, dict(first)), course, "lab")
    again = download(tmp_path, {"ada/01_double (2).ipynb": b"new", "b.zip": b"b"})
    line = "02_triple.ipynb was not collected: it was in an earlier hand-in, and the newest one is without it"
    found = collect(again, course, "lab")
    assert (found.replaced, found.unchanged, found.left_out) == (["ada"], ["b"], [f"ada: {line}"])
    kept = sorted_files(course)
    assert kept[f"ada/lab/{LEFT_OUT}"].decode() == f"{line}\n"  # and so grading asks a human about it
    assert kept["ada/.lab.earlier/02_triple.ipynb"] == b"2"
    found = collect(again, course, "lab")
    assert (found.unchanged, found.left_out) == (["ada", "b"], [])
    assert sorted_files(course) == kept
    whole = collect(download(tmp_path, {"ada/all.zip": b"z", "b.zip": b"b"}), course, "lab")
    assert (whole.replaced, whole.left_out) == (["ada"], [])  # the others may be in it
    assert f"ada/lab/{LEFT_OUT}" not in sorted_files(course)


def test_no_file_of_a_students_says_when_it_was_handed_in(tmp_path: Path) -> None:
    collect(download(tmp_path, {"ada/timestamp.txt": "1999", "ben/1.ipynb": b""}), tmp_path / "course", "lab")
    assert list(sorted_files(tmp_path / "course")) == ["ada/lab/timestamp-2.txt", "ben/lab/1.ipynb"]


def test_a_folder_that_holds_the_course_is_not_a_download(tmp_path: Path) -> None:
    (tmp_path / "course" / "source").mkdir(parents=True)
    with pytest.raises(LabError, match="holds the course itself"):
        collect(tmp_path, tmp_path / "course", "lab")


# names that students give


def exported(listing: str, files: dict[str, bytes | str]) -> dict[str, bytes | str]:
    return {f"export/{GRADESCOPE_LIST}": listing, **{f"export/{name}": data for name, data in files.items()}}


def as_download(tmp_path: Path, files: dict[str, bytes | str], unpacked: bool) -> Path:
    path = download(tmp_path, files)
    if not unpacked:
        return path
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("top", ["", "export/"])
@pytest.mark.parametrize("below", ["submission_11", "submission_11/a", "submission_12/submission_11"])
def test_only_the_platforms_own_list_says_who_is_who(
    tmp_path: Path, below: str, top: str, unpacked: bool
) -> None:
    swapped = GRADESCOPE.replace("_11", "_X").replace("_12", "_11").replace("_X", "_12")
    files: dict[str, bytes | str] = {
        f"{top}{below}/{GRADESCOPE_LIST}": swapped,  # first, as an archive may have it
        f"{top}submission_11/01.ipynb": b"a",
        f"{top}submission_12/01.ipynb": b"b",
        f"{top}{GRADESCOPE_LIST}": GRADESCOPE,
    }
    found = collect(as_download(tmp_path, files, unpacked), tmp_path / "course", "lab")
    assert found.left_out == []
    kept = sorted_files(tmp_path / "course")
    (planted,) = (name for name in kept if name.endswith(GRADESCOPE_LIST))  # a file like any other
    assert kept == {
        "4711/lab/01.ipynb": b"a",
        "zoe@example.org/lab/01.ipynb": b"b",
        planted: swapped.encode(),
    }


@pytest.mark.parametrize(
    ("platform", "files"),
    [
        ("Moodle", {"Ada_1_assignsubmission_file_/1.ipynb": b"a", "Ben_2_assignsubmission_file_/": b""}),
        ("Moodle", {"Ada_1_assignsubmission_file_/submission_3/1.ipynb": b"a"}),
        ("folders", {"Ada_1/1.ipynb": b"a", "Ben_2/1.ipynb": b"b"}),
        ("folders", {"Ada_1/1.ipynb": b"a", "Ben_2/submission_3/1.ipynb": b"b"}),
    ],
)
def test_elsewhere_a_file_named_as_gradescopes_list_is_a_students_file(
    tmp_path: Path, platform: str, files: dict[str, bytes | str]
) -> None:
    first = next(iter(files)).partition("/")[0]
    found = collect(
        download(tmp_path, {f"{first}/{GRADESCOPE_LIST}": "x: 1", **files}), tmp_path / "c", "lab"
    )
    assert found.platform == platform
    assert "Ada_1" in found.new


@pytest.mark.slow
def test_a_damaged_list_of_gradescopes_is_a_sentence(tmp_path: Path) -> None:
    for listing in ("a: 2026-13-45", "[" * 5000, "\x00"):
        files = exported(listing, {"submission_11/01.ipynb": b"x"})
        with pytest.raises(LabError, match="not as Gradescope writes it"):
            collect(download(tmp_path, files), tmp_path / "course", "lab")


EXPORT: dict[str, bytes | str] = {
    f"assignment_1_export/{GRADESCOPE_LIST}": GRADESCOPE,
    "assignment_1_export/submission_11/01.ipynb": b"a",
    "assignment_1_export/submission_12/01.ipynb": b"b",
}


@pytest.mark.parametrize("beside", ["assignment_1_export.zip", "assignment_1_export (1).zip", "mine.ipynb"])
def test_an_unpacked_export_may_have_its_zip_beside_it(tmp_path: Path, beside: str) -> None:
    files: dict[str, bytes | str] = {**EXPORT, beside: b"PK"}
    found = collect(as_download(tmp_path, files, True), tmp_path / "course", "lab")
    assert (found.platform, found.left_out) == ("Gradescope", [f"{beside}: nobody's"])
    assert found.new == ["4711", "zoe@example.org"]


@pytest.mark.parametrize("beside", [None, "downloads/assignment_1_export.zip", "assignment_1_export.zip"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_an_export_one_folder_deeper_is_no_student(
    tmp_path: Path, beside: str | None, unpacked: bool
) -> None:
    files: dict[str, bytes | str] = {f"downloads/{name}": data for name, data in EXPORT.items()}
    path = as_download(tmp_path, {**files, **({beside: b"PK"} if beside else {})}, unpacked)
    with pytest.raises(LabError, match="lies in downloads/assignment_1_export: name that folder instead"):
        collect(path, tmp_path / "course", "lab")
    assert not (tmp_path / "course").exists()


@pytest.mark.parametrize("planted", ["mal", "mal/export"])
@pytest.mark.parametrize(
    "others", [{"ada.zip": b"a", "ben.zip": b"b"}, {"ada/1.ipynb": b"a", "ben/1.ipynb": b"b"}]
)
def test_a_planted_export_neither_counts_nor_stops_the_class(
    tmp_path: Path, planted: str, others: dict[str, bytes | str]
) -> None:
    files: dict[str, bytes | str] = {
        f"{planted}/{GRADESCOPE_LIST}": GRADESCOPE,
        f"{planted}/submission_11/01.ipynb": b"m",
    }
    found = collect(download(tmp_path, {**files, **others}), tmp_path / "course", "lab")
    assert (found.platform, found.new) == ("folders", ["ada", "ben"])
    assert found.left_out == [
        f"{planted}: looks like a Gradescope export: collect that folder by itself",
        f"{planted}/submission_11/01.ipynb: nobody's",
        f"{planted}/{GRADESCOPE_LIST}: nobody's",
    ]


@pytest.mark.slow
def test_many_planted_exports_take_no_time(tmp_path: Path) -> None:
    files = {
        f"mal/{n}/{name}": name for n in range(15_000) for name in (GRADESCOPE_LIST, "submission_1/a.ipynb")
    }
    path = download(tmp_path, {**files, "x/" * 30_000 + "a.ipynb": "a", "ada/1.ipynb": "a"})
    began = time.process_time()
    assert collect(path, tmp_path / "course", "lab").new == ["ada", "x"]
    assert time.process_time() - began < 20  # one; 450 million steps were each file held against each export


@pytest.mark.parametrize("top", ["", "export/"])
def test_a_folder_named_as_anothers_submission_stays_its_owners(tmp_path: Path, top: str) -> None:
    files: dict[str, bytes | str] = {
        f"{top}{GRADESCOPE_LIST}": GRADESCOPE,
        f"{top}submission_12/01.ipynb": b"b",
        f"{top}submission_11/submission_12/01.ipynb": b"planted",
    }
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    assert found.left_out == []
    assert sorted_files(tmp_path / "course") == {
        "4711/lab/submission_12/01.ipynb": b"planted",
        "zoe@example.org/lab/01.ipynb": b"b",
    }


def test_of_two_submissions_of_one_student_the_second_is_left_out_with_a_note(tmp_path: Path) -> None:
    listing = GRADESCOPE.replace("zoe@", "ada@").replace(":sid: '4711'", ":sid:")
    files: dict[str, bytes | str] = {"submission_11/01.ipynb": b"a", "submission_12/01.ipynb": b"b"}
    found = collect(download(tmp_path, exported(listing, files)), tmp_path / "course", "lab")
    assert found.left_out == [
        "export/submission_12/01.ipynb: ada@example.org is already submission_11's folder"
    ]
    assert sorted_files(tmp_path / "course") == {"ada@example.org/lab/01.ipynb": b"a"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_files_in_one_place_the_last_counts_and_it_is_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for data in (b"a", b"b"):
            archive.writestr("ada/01.ipynb", data)
    found = collect(tmp_path / "d.zip", tmp_path / "course", "lab")
    assert found.left_out == ["ada/01.ipynb: is there twice, and the last one counts"]
    assert sorted_files(tmp_path / "course") == {"ada/lab/01.ipynb": b"b"}


def test_no_file_name_invents_a_student(tmp_path: Path) -> None:
    planted = "Zed_5678_assignsubmission_file_01.ipynb"
    files: dict[str, bytes | str] = {
        "Bob_5678_assignsubmission_file_01.ipynb": b"b",
        f"Mal_1234_assignsubmission_file_{planted}": b"m",
        f"Max_1235_assignsubmission_file_/{planted}": b"n",
    }
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    assert found.platform == "Moodle"
    assert sorted_files(tmp_path / "course") == {
        "Bob_5678/lab/01.ipynb": b"b",
        f"Mal_1234/lab/{planted}": b"m",
        f"Max_1235/lab/{planted}": b"n",
    }


def test_no_file_name_is_lost_or_stops_the_class(tmp_path: Path) -> None:
    names = {
        "01_double!.ipynb": b"1",
        "01_double?.ipynb": b"2",
        "01_DOUBLE-.ipynb": b"3",
        "a!.ipynb": b"4",
        "a?.ipynb/b.ipynb": b"5",
        "a?.ipynb/c.ipynb": b"6",
        "03_iterative_" + "作" * 90 + ".ipynb": b"7",
        "03_iterative_" + "作" * 91 + ".ipynb": b"8",
        "z/" * 3000 + "deep.ipynb": b"9",
        ".. /.. /up.ipynb": b"10",
        ".ipynb": b"11",
    }
    files: dict[str, bytes | str] = {f"ada/{name}": data for name, data in names.items()}
    found = collect(download(tmp_path, {**files, "ben/1.ipynb": b"b"}), tmp_path / "course", "lab")
    assert (found.new, found.left_out) == (["ada", "ben"], [])
    kept = {name.removeprefix("ada/lab/"): data for name, data in sorted_files(tmp_path / "course").items()}
    assert sorted(kept.values()) == sorted([*names.values(), b"b"])
    assert kept["01_double-.ipynb"] == b"1" and kept["01_double--2.ipynb"] == b"2"
    assert kept["01_DOUBLE--3.ipynb"] == b"3"
    assert kept["a--2.ipynb/b.ipynb"] == b"5"
    assert kept["up.ipynb"] == b"10" and kept[".ipynb"] == b"11"
    assert len({name.casefold() for name in kept}) == len(kept)
    assert all(len(part.encode()) <= 130 for name in kept for part in name.split("/"))
    assert all(
        name.startswith("03_iterative_") and name.endswith(".ipynb")
        for name, data in kept.items()
        if data in (b"7", b"8")
    )


def test_students_with_long_names_keep_their_numbers(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        f"{'作' * 80}_{number}_assignsubmission_file_/01.ipynb": b"x" for number in (5, 6)
    }
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    assert found.left_out == []
    assert [name[-2:] for name in found.new] == ["_5", "_6"]


def test_a_file_that_the_system_refuses_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes
    error = OSError(errno.EINVAL, "no such name here")

    def refusing(path: Path, data: bytes) -> int:
        if data == b"bad":
            raise error
        return write(path, data)

    files: dict[str, bytes | str] = {"ada/1.ipynb": b"bad", "ada/2.ipynb": b"a", "ben/1.ipynb": b"b"}
    path = download(tmp_path, files)
    monkeypatch.setattr(Path, "write_bytes", refusing)
    found = collect(path, tmp_path / "course", "lab")
    assert found.new == ["ada", "ben"]
    assert found.left_out == ["ada/1.ipynb: cannot be written ([Errno 22] no such name here)"]
    # and grading hears of it
    told = tmp_path / "course" / "submitted" / "ada" / "lab" / LEFT_OUT
    assert told.read_text() == "1.ipynb was not collected: cannot be written ([Errno 22] no such name here)\n"
    assert collect(path, tmp_path / "course", "lab").unchanged == ["ada", "ben"]
    error = OSError(
        errno.ENOSPC, "full"
    )  # is no file's own fault: nobody's files are replaced by half of them
    with pytest.raises(LabError, match="no room left"):
        collect(path, tmp_path / "course", "lab")


@pytest.mark.parametrize("name", ["left_out.txt", "Left_Out.TXT"])
def test_a_folder_may_be_called_as_the_list_of_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    files: dict[str, bytes | str] = {
        "ada/1.ipynb": b"a",
        f"bob/{name}/01.ipynb": b"b",
        "bob/big.ipynb": b"x" * 11,
    }
    found = collect(download(tmp_path, files), tmp_path / "course", "lab")
    assert found.new == ["ada", "bob"]
    kept = sorted_files(tmp_path / "course")
    assert kept["bob/lab/left_out.txt"] == b"big.ipynb was not collected: larger than 0 MB\n"
    assert b"b" in kept.values()


def test_a_list_of_what_was_left_out_that_cannot_be_written_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = errno.EINVAL

    def refusing(*arguments: object, **options: object) -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr(module, "MOST_BYTES", 10)
    monkeypatch.setattr(Path, "write_text", refusing)
    path = download(tmp_path, {"ada/1.ipynb": b"a", "ada/big.ipynb": b"x" * 11, "ben/1.ipynb": b"b"})
    found = collect(path, tmp_path / "course", "lab")
    assert found.new == ["ada", "ben"]
    assert found.left_out[-1] == "ada: left_out.txt cannot be written ([Errno 22] refused)"
    number = errno.ENOSPC
    with pytest.raises(LabError, match="no room left"):
        collect(path, tmp_path / "course", "lab")


def test_a_disk_that_is_full_when_files_are_put_into_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, copyfile = tmp_path / "course", shutil.copyfile
    collect(download(tmp_path, {"ada/part/1.ipynb": b"old", "ada/2.ipynb": b"old"}), course, "lab")
    path = download(tmp_path, {"ada/part/1.ipynb": b"new", "ada/2.ipynb": b"new"})

    def full(source: Path, target: Path, **options: bool) -> object:
        if Path(target).name == "1.ipynb":
            raise OSError(errno.ENOSPC, "No space left on device")
        return copyfile(source, target, **options)

    for name in ("copyfile", "copy2"):
        monkeypatch.setattr(shutil, name, full)
    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    with pytest.raises(LabError, match="no room left"):
        collect(path, course, "lab")
    assert sorted_files(course) == {"ada/lab/part/1.ipynb": b"old", "ada/lab/2.ipynb": b"old"}


@pytest.mark.slow
def test_one_student_with_thousands_of_files_stops_nobody(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"ada/{n}.ipynb": b"" for n in range(20_001)}
    found = collect(download(tmp_path, {**files, "ben/1.ipynb": b"b"}), tmp_path / "course", "lab")
    assert found.new == ["ada", "ben"]
    assert found.left_out == ["ada/201.ipynb: more than 200 files of one student"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes only there")
def test_a_name_that_is_no_utf8_is_collected(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked" / "ada"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"01_\xe4.ipynb")).write_bytes(b"a")
    (tmp_path / "unpacked" / os.fsdecode(b"stray\xe4.ipynb")).write_bytes(b"a")
    found = collect(tmp_path / "unpacked", tmp_path / "course", "lab")
    assert found.left_out == ["stray\\udce4.ipynb: nobody's"]
    assert sorted_files(tmp_path / "course") == {"ada/lab/01_-.ipynb": b"a"}


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_run_loses_neither_the_old_files_nor_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, killed: bool
) -> None:
    course = tmp_path / "course"
    collect(download(tmp_path, {"ada/01.ipynb": b"old"}), course, "lab")
    again, rename, calls = download(tmp_path, {"ada/01.ipynb": b"new"}), Path.rename, 0

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == stop or (killed and calls > stop):  # killed: the mending does not come about either
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(again, course, "lab")
    assert b"old" in sorted_files(course).values()
    if not killed:
        assert sorted_files(course) == {"ada/lab/01.ipynb": b"old"}
    monkeypatch.undo()
    # already a run in which she does not occur puts her files back, and clears away what was half made
    assert collect(download(tmp_path, {"ben/01.ipynb": b"b"}), course, "lab").new == ["ben"]
    assert sorted_files(course) == {"ada/lab/01.ipynb": b"old", "ben/lab/01.ipynb": b"b"}
    again = download(tmp_path, {"ada/01.ipynb": b"new", "ben/01.ipynb": b"b"})
    assert collect(again, course, "lab").replaced == ["ada"]
    assert sorted_files(course) == {"ada/lab/01.ipynb": b"new", "ben/lab/01.ipynb": b"b"}
