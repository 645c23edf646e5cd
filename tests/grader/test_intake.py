"""Damaged, hostile and doubled files of one submission, and what becomes of the notebooks in them."""

from __future__ import annotations

import io
import os
import struct
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import opening
from labkit.grading.class_run import ClassRun
from labkit.grading.intake import Intake, take_in
from labkit.grading.opening import LEFT_OUT
from labkit.grading.submission import Assignment, read_submission
from labkit.notebooks import called
from tests import graded_course
from tests.graded_course import ASSIGNMENT, FIRST, SECOND
from tests.grader.test_repair import ALL, NAMES, answered, folder_of, released, written, zipped

NAME, OTHER = "03_iterative_pruning", "04_global_pruning"
GRADED = [name for name in NAMES if name[:2] != "08"]


def damaged(data: bytes, member: str) -> bytes:
    """The zip with a byte of one file in it flipped."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.getinfo(member).header_offset + 30 + len(member)
    return data[: start + 9] + bytes([data[start + 9] ^ 0xFF]) + data[start + 10 :]


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_words(name: str) -> bytes:
    """A notebook with nothing but an answer in words."""
    nb = released(name)
    question = next(cell for cell in nb.cells if "question" in cell.metadata.get("tags", []))
    question.source = "Because."
    return written(nb)


def unopened(taken: Intake) -> list[str]:
    """The lines about files that no notebook can be said to be missing for."""
    return taken.account.why_not_missing(NAME)


# what cannot be opened is no zero


def test_a_damaged_file_in_a_zip_costs_neither_the_others_nor_a_zero(tmp_path: Path) -> None:
    both = {f"{NAME}.ipynb": written(answered()), f"{OTHER}.ipynb": with_words(OTHER)}
    folder = folder_of(tmp_path, {"work.zip": damaged(packed(both), f"{NAME}.ipynb")})
    submission = read_submission("ada", folder, ALL)
    assert list(submission.notebooks) == [OTHER]
    assert submission.missing == []
    assert list(submission.not_graded) == [name for name in GRADED if name != OTHER]
    why = submission.not_graded[NAME]
    assert why.startswith(f"it may be in what was not opened: work.zip/{NAME}.ipynb cannot be unpacked (")
    assert len(submission.general) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"work.zip": packed({f"{NAME}.ipynb": b"x" * 9999})[:-30]},
        {"homework.ipynb": written(answered())[:-100].replace(b"iterative", b"")},
        {"deep.zip": zipped({"2.zip": zipped({"3.zip": zipped({"4.zip": zipped({})})})})},
        {
            f"{OTHER}.ipynb": written(released(OTHER)),
            LEFT_OUT: b"b.zip was not collected: larger than 64 MB\n",
        },
    ],
    ids=["cut", "unreadable", "too deep", "left out by collect"],
)
def test_what_is_not_there_waits_for_a_human_if_something_was_not_opened(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    submission = read_submission("ada", folder_of(tmp_path, files), ALL)
    assert submission.missing == []
    assert NAME in submission.not_graded


def test_a_notebook_above_the_limit_waits_for_a_human(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MOST_BYTES", 2**20)
    submission = read_submission("ada", folder_of(tmp_path, {f"{NAME}.ipynb": b" " * (2**20 + 1)}), ALL)
    assert submission.general == [f"{NAME}.ipynb is larger than 1 MB and was not opened"]
    assert list(submission.not_graded) == GRADED


def test_an_encrypted_zip_waits_for_a_human(tmp_path: Path) -> None:
    data = bytearray(packed({f"{NAME}.ipynb": written(answered())}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    submission = read_submission("ada", folder_of(tmp_path, {"w.zip": bytes(data)}), ALL)
    assert "encrypted" in submission.not_graded[NAME]


def test_in_a_sound_submission_what_is_not_there_is_missing(tmp_path: Path) -> None:
    files = {"work.zip": packed({f"{NAME}.ipynb": written(answered()), "notes.txt": b"x"})}
    submission = read_submission("ada", folder_of(tmp_path, files), ALL)
    assert submission.not_graded == {}
    assert submission.missing == [name for name in GRADED if name != NAME]


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_an_empty_file_keeps_nobody_waiting(tmp_path: Path, content: bytes) -> None:
    files = {f"{NAME}.ipynb": written(answered()), "Untitled.ipynb": content}
    submission = read_submission("ada", folder_of(tmp_path, files), ALL)
    assert submission.not_graded == {}
    assert submission.missing == [name for name in GRADED if name != NAME]
    assert submission.general == ["Untitled.ipynb is empty"]


def test_an_empty_file_with_a_notebooks_name_is_looked_at(tmp_path: Path) -> None:
    submission = read_submission("ada", folder_of(tmp_path, {f"{NAME}.ipynb": b""}), ALL)
    assert list(submission.not_graded) == [NAME]
    assert OTHER in submission.missing


@pytest.mark.slow
def test_the_gradebook_asks_a_human_about_a_damaged_zip(tmp_path: Path) -> None:
    course = graded_course.make(tmp_path / "course")
    folder = course.root / "submitted" / "ada" / ASSIGNMENT
    data = packed({f"{FIRST}.ipynb": written(course.answered(FIRST))})
    folder_of(folder, {"work.zip": damaged(data, f"{FIRST}.ipynb")})
    lab = Assignment(course.released, course.released)
    with course.writer() as book:
        run = ClassRun(course.root, ASSIGNMENT, lab, book, done=lambda student: None)
        assert list(run.jobs(["ada"])) == []
        grades = book.grades("ada")
    for name in (FIRST, SECOND):
        assert {(cell.auto, cell.waits) for cell in grades[name].cells.values()} == {(None, True)}


# whatever zipfile raises


def test_a_member_packed_with_lzma_may_be_damaged(tmp_path: Path) -> None:
    data = packed({f"{NAME}.ipynb": b"x" * 5000, f"{OTHER}.ipynb": b"{}"}, zipfile.ZIP_LZMA)
    taken = take_in(folder_of(tmp_path, {"w.zip": damaged(data, f"{NAME}.ipynb")}), ALL)
    assert list(taken.files) == [OTHER]
    assert len(unopened(taken)) == 1


def test_a_place_in_a_zip_that_is_no_place(tmp_path: Path) -> None:
    data = bytearray(zipped({"01.ipynb": b"x"}))
    entry, extra = data.index(b"PK\x01\x02"), struct.pack("<HHQ", 1, 8, 2**64 - 5)
    data[entry + 42 : entry + 46] = b"\xff" * 4  # the true place is in the extra field, says this
    data[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
    data[entry + 46 + 8 : entry + 46 + 8] = extra
    size = data.index(b"PK\x05\x06") + 12
    data[size : size + 4] = struct.pack("<L", struct.unpack("<L", data[size : size + 4])[0] + len(extra))
    taken = take_in(folder_of(tmp_path, {"w.zip": bytes(data)}), ALL)
    assert unopened(taken)[0].startswith("w.zip/01.ipynb cannot be unpacked (")


# what a submission may cost


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("suffix", ["ipynb", "zip"])
@pytest.mark.slow
def test_what_is_read_counts_and_not_what_comes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int, suffix: str
) -> None:
    monkeypatch.setattr(opening, "MOST_BYTES", 2**20)
    monkeypatch.setattr(opening, "MOST_TOTAL", 5 * 2**20)
    read = 0

    def counted(stream: io.BufferedIOBase, most: int) -> object:
        nonlocal read
        for part in module_in_steps(stream, most):  # type: ignore[arg-type]
            read += len(part)
            yield part

    module_in_steps = opening.in_steps
    monkeypatch.setattr(opening, "in_steps", counted)
    inner = packed({f"{n}.{suffix}": b" " * 2**21 for n in range(50)}, method)
    outer = packed({f"{n}.zip": inner for n in range(20)}, method)
    taken = take_in(folder_of(tmp_path, {"w.zip": outer}), ALL)
    assert taken.general[-1] == "more than 200 files or 5 MB: the rest was not opened"
    assert read < 5 * 2**20 + 5000


def test_members_count_over_all_zips(tmp_path: Path) -> None:
    inner = packed({f"{n}.ipynb": b"" for n in range(150)})
    taken = take_in(folder_of(tmp_path, {"w.zip": packed({"a.zip": inner, "b.zip": inner})}), ALL)
    assert unopened(taken)[-1].startswith("more than 200 files")
    assert len(taken.general) < 210
    submission = read_submission("ada", tmp_path, ALL)
    assert list(submission.not_graded) == GRADED


def test_a_zip_that_lists_a_million_files_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []

    class Listed(zipfile.ZipInfo):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            listed.append(self.filename)

    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, *[0] * 8, 1, *[0] * 6) + b"a"
    entries = entry * 300_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(entries), 0, 0)
    folder_of(tmp_path, {"w.zip": packed({"in.zip": entries + end})})
    monkeypatch.setattr(zipfile, "ZipInfo", Listed)
    taken = take_in(tmp_path, ALL)
    assert unopened(taken)[-1].startswith("more than")
    assert listed == ["in.zip"]


def test_a_name_of_a_million_blanks_takes_no_time() -> None:
    began = time.process_time()
    assert called("01" + " " * 10**6 + "x", ALL) is None
    assert called(NAME + " " * 10**6 + "(1)", ALL) == NAME
    assert time.process_time() - began < 60  # half an hour where blanks cost their square


# copies and names


@pytest.mark.parametrize("kind", ["code", "words", "unmarked"])
def test_the_filled_in_copy_is_graded_and_not_the_untouched_one(tmp_path: Path, kind: str) -> None:
    nb = answered()
    if kind == "words":
        nb = released()
        next(cell for cell in nb.cells if cell.id == "q-schedule").source = "Because."
    if kind == "unmarked":
        for cell in nb.cells:
            cell.metadata.clear()
    copies = {f"{NAME}.ipynb": written(released()), f"{NAME} (1).ipynb": written(nb)}
    taken = take_in(folder_of(tmp_path, copies), ALL)
    assert taken.files[NAME].where == f"{NAME} (1).ipynb"
    assert taken.notes[NAME] == [
        f"was handed in as {NAME} (1).ipynb",
        f"{NAME}.ipynb is another copy and was not graded",
    ]


def test_a_copy_that_cannot_be_read_goes_before_an_untouched_one_and_after_answers(tmp_path: Path) -> None:
    cut = written(answered())[:-50]
    folder_of(tmp_path, {f"{NAME}.ipynb": written(released()), f"{NAME} (1).ipynb": cut})
    assert NAME in read_submission("ada", tmp_path, ALL).not_graded
    folder_of(tmp_path, {f"{NAME} (2).ipynb": written(answered())})
    assert take_in(tmp_path, ALL).files[NAME].where == f"{NAME} (2).ipynb"


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes only there")
def test_a_name_that_is_no_utf8_is_taken_in_and_shown(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.ipynb")).write_bytes(b"{}")
    (tmp_path / os.fsdecode(f"{NAME} ".encode() + b"\xe4.ipynb")).write_bytes(written(answered()))
    submission = read_submission("ada", tmp_path, ALL)
    assert list(submission.notebooks) == [NAME]
    assert submission.notes[NAME] == [rf"was handed in as {NAME} \udce4.ipynb"]
    assert "\\udcff\\udcfe.ipynb" in "".join(submission.general)
    assert "".join(submission.general).encode()
