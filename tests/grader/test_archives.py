"""Archives that Python opens, damaged and hostile ones, and what is read beside the notebooks."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import opening
from labkit.grading.intake import take_in
from tests.grader.test_intake import NAME, OTHER, unopened
from tests.grader.test_repair import ALL, answered, folder_of, written


def tarred(*members: tarfile.TarInfo, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return buffer.getvalue()


def tar_entry(name: str, size: int = 0, **about: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    for key, value in about.items():
        setattr(entry, key, value)
    return entry


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_plain_files_are_taken_from_a_tar(tmp_path: Path, kind: bytes) -> None:
    entry = tar_entry(f"{NAME}.ipynb", type=kind, linkname="/etc/passwd")
    taken = take_in(folder_of(tmp_path, {"w.tar": tarred(entry)}), ALL)
    assert taken.files == {}
    assert unopened(taken) == [f"w.tar/{NAME}.ipynb is not a plain file and was not opened"]


@pytest.mark.parametrize("cut", [100, 700, None])
def test_of_a_damaged_tar_the_rest_is_named(tmp_path: Path, cut: int | None) -> None:
    data = written(answered())
    whole = tarred(tar_entry(f"{NAME}.ipynb", len(data)), tar_entry(f"{OTHER}.ipynb", len(data)), data=data)
    start = 512 + -(-len(data) // 512) * 512  # of the second header
    end = 2 * start if cut is None else start + cut  # None: all but the marks of the end
    taken = take_in(folder_of(tmp_path, {"w.tar": whole[:end]}), ALL)
    assert NAME in taken.files
    assert bool(unopened(taken)) == (cut is not None)


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_that_swells_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packer: Any
) -> None:
    monkeypatch.setattr(opening, "MOST_BYTES", 2**20)
    taken = take_in(folder_of(tmp_path, {f"{NAME}.ipynb.gz": packer(b" " * 2**24)}), ALL)
    assert unopened(taken) == [f"{NAME}.ipynb.gz is larger than 1 MB and was not opened"]


def test_a_file_of_a_hundred_thousand_packed_streams_takes_no_time(tmp_path: Path) -> None:
    began = time.process_time()
    taken = take_in(folder_of(tmp_path, {"w.tar.gz": gzip.compress(b"") * 500_000}), ALL)
    assert unopened(taken)[0].startswith("more than 200 files")
    assert time.process_time() - began < 20  # a minute where each is opened


def test_what_no_cell_can_use_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_SMALL", 10)
    files = {
        f"{NAME}.ipynb": written(answered()),
        "a.csv": b"1,2",
        "big.csv": b"1" * 11,
        "b.png": b"x",
    }
    taken = take_in(folder_of(tmp_path, files), ALL)
    assert taken.beside == {"a.csv": b"1,2"}
    assert {fate.where: fate.end for fate in taken.account.fates} == {
        f"{NAME}.ipynb": "graded", "a.csv": "beside", "big.csv": "beside", "b.png": "beside",
    }  # fmt: skip
