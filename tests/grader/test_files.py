"""What may lie in a student's folder, and that reading it costs its owner only."""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.grading import files as module
from labkit.grading.files import Found, Hashes, beginning, hash_of, open_plain, remove, submission_files, walk

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="links need rights on Windows, and it has no pipes"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "submitted" / "ada" / "lab"
    path.mkdir(parents=True)
    return path


def found(folder: Path) -> list[str]:
    return [str(file) for file in submission_files(folder)]


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """A path from here on may be longer than systems take."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def nested(folder: Path, depth: int) -> None:
    with chdir(folder):
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end, chdir(path.parent):
        end.bind(path.name)


ODD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "link to a file": (lambda path: path.symlink_to("/etc/passwd"), "is a link and was not opened"),
    "link to a folder": (lambda path: path.symlink_to("/"), "is a link and was not opened"),
    "link without an end": (lambda path: path.symlink_to("/dev/zero"), "is a link and was not opened"),
    "loop": (lambda path: path.symlink_to(path), "is a link and was not opened"),
    "link to nothing": (lambda path: path.symlink_to("nowhere"), "is a link and was not opened"),
    "pipe": (lambda path: os.mkfifo(path), "is a named pipe and was not opened"),
    "socket": (bind, "is a socket and was not opened"),
}


@pytest.mark.parametrize("name", ["01.ipynb", "work.zip", "folder", "left_out.txt", "timestamp.txt"])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_plain_file_is_named_and_not_opened(folder: Path, kind: str, name: str) -> None:
    make, why = ODD[kind]
    make(folder / name)
    (folder / "z.ipynb").write_text("{}")
    assert found(folder) == [f"{name} {why}", "z.ipynb"]
    assert hash_of(submission_files(folder)) == hash_of(submission_files(folder))
    assert beginning(folder, name, 100) == ""
    with pytest.raises(OSError):
        open_plain(folder / name)


def test_a_device_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMED", 10**6)
    devices = {file.where: file for file in walk(Path("/dev"))}
    for name in ("null", "zero"):
        assert str(devices[name]) == f"{name} is a device and was not opened"
        with pytest.raises(OSError, match="it is not a plain file"):
            open_plain(Path("/dev") / name)


@pytest.mark.parametrize("which", ["student", "assignment"])
@pytest.mark.parametrize("to", ["another student", "nothing", "itself", "a file"])
def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path, which: str, to: str) -> None:
    ben = tmp_path / "submitted" / "ben" / "lab"
    ben.mkdir(parents=True)
    (ben / "01.ipynb").write_text("{}")
    (ben / "timestamp.txt").write_text("2026-11-20")
    ada = tmp_path / "submitted" / "ada"
    link = ada if which == "student" else ada / "lab"
    link.parent.mkdir(exist_ok=True)
    target = {"another student": ben.parent if which == "student" else ben, "itself": link}.get(to)
    link.symlink_to(target or (ben / "01.ipynb" if to == "a file" else "nowhere"))
    assert found(ada / "lab") == [f"{link.name} is a link and was not opened"]
    assert beginning(ada / "lab", "timestamp.txt", 100) == ""
    assert found(ben) == ["01.ipynb", "timestamp.txt"]


def test_a_submission_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "lab").write_text("{}")
    assert found(tmp_path / "ada" / "lab") == ["lab is not a folder and was not opened"]
    assert found(tmp_path / "ada" / "other") == ["other cannot be read (No such file or directory)"]


def test_a_huge_file_is_not_read(folder: Path) -> None:
    with (folder / "cifar.bin").open("wb") as file:
        file.truncate(2**36)  # of which the disk holds nothing
    began = time.process_time()
    first = hash_of(submission_files(folder))
    assert time.process_time() - began < 5
    with (folder / "cifar.bin").open("r+b") as file:
        file.truncate(2**36 + 1)
    assert hash_of(submission_files(folder)) != first


def test_all_files_together_are_read_up_to_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOTAL", 100)
    for number in range(9):
        (folder / f"{number}.bin").write_bytes(b"x" * 40)
    hashes = Hashes()
    values = [hashes.of(file) for file in submission_files(folder)]
    assert [value == "40 bytes" for value in values] == [False] * 2 + [True] * 7
    assert hashes.left == 20


def test_a_file_that_grows_while_it_is_read_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"\0" * min(size, 2**20)

    (folder / "01.ipynb").write_text("{}")
    (file,) = submission_files(folder)
    monkeypatch.setattr(module, "open_plain", lambda path: Endless())
    hashes = Hashes(left=3 * 2**20)
    hashes.of(file)
    assert hashes.left == 0


def test_a_file_that_has_gone_or_become_a_link_meanwhile_is_a_fact(folder: Path, tmp_path: Path) -> None:
    (folder / "01.ipynb").write_text("{}")
    (file,) = submission_files(folder)
    (folder / "01.ipynb").unlink()
    assert Hashes().of(file) == "cannot be read (No such file or directory)"
    (tmp_path / "secret").write_text("secret")
    (folder / "01.ipynb").symlink_to(tmp_path / "secret")
    assert Hashes().of(file).startswith("cannot be read (")


def test_what_may_not_be_read_is_a_fact(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for root, who may read everything."""
    (folder / "closed").mkdir()
    (folder / "01.ipynb").write_text("{}")
    scandir, open_ = os.scandir, os.open

    def refusing(function: Any) -> Any:
        def may(path: Any, *arguments: Any, **options: Any) -> Any:
            if Path(path).name in ("closed", "01.ipynb"):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return function(path, *arguments, **options)

        return may

    monkeypatch.setattr(os, "scandir", refusing(scandir))
    monkeypatch.setattr(os, "open", refusing(open_))
    assert found(folder) == ["01.ipynb", "closed cannot be read (Permission denied)"]
    assert Hashes().of(Found(folder, "01.ipynb", 2)) == "cannot be read (Permission denied)"


@pytest.mark.parametrize("depth", [60, 1500, 5000])
def test_folders_in_folders_end_nothing(folder: Path, depth: int) -> None:
    nested(folder, depth)
    (folder / "z.ipynb").write_text("{}")
    deep, last = found(folder)
    assert deep.endswith("d is nested too deeply and was not opened") and last == "z.ipynb"
    assert hash_of(submission_files(folder))
    remove(folder)
    assert not folder.exists()


def test_names_of_full_length_in_each_other_end_nothing(folder: Path) -> None:
    with chdir(folder):
        for _ in range(30):  # a path of 7,650 bytes, where systems take 4,096
            os.mkdir("n" * 255)
            os.chdir("n" * 255)
    (one,) = found(folder)
    assert "cannot be read (File name too long)" in one and len(one) < 400
    remove(folder)


def test_of_very_many_entries_some_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        (folder / f"{number:02}.txt").touch()
    monkeypatch.setattr(module, "MOST_ENTRIES", 50)
    seen = list(submission_files(folder))
    assert sum(not file.refused for file in seen) == 50
    (refused,) = (file for file in seen if file.refused)
    assert str(refused).endswith("was not opened, nor the rest: there are more than 50 files and folders")
    (folder / "in").mkdir()
    for number in range(60):
        (folder / "in" / f"{number}.txt").touch()
    assert len(list(submission_files(folder))) == 51  # over all folders


def test_of_very_many_links_some_are_named_and_the_rest_counted(folder: Path) -> None:
    for number in range(300):
        (folder / f"{number:03}.ipynb").symlink_to("nowhere")
    lines = found(folder)
    assert len(lines) == 101
    assert lines[-1] == "100.ipynb is one of 200 more that were not opened"


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes only there")
def test_a_name_that_is_no_utf8_can_be_shown_and_hashed(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff\n\x1b.ipynb")).symlink_to("nowhere")
    assert found(folder) == [r"\udcff\n\x1b.ipynb is a link and was not opened"]
    assert hash_of(submission_files(folder))


def test_the_order_is_that_of_names_and_leavings_are_passed_over(folder: Path) -> None:
    for where in ("b.txt", "a/z", "a/b/c", "a.txt", "__pycache__/x", "a/__MACOSX/y", "._b.txt"):
        (folder / where).parent.mkdir(parents=True, exist_ok=True)
        (folder / where).touch()
    assert found(folder) == ["a/b/c", "a/z", "a.txt", "b.txt"]


def test_in_a_download_the_bounds_are_for_each_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ENTRIES", 20)
    for student, number in (("ada", 15), ("mal", 40), ("zoe", 15)):
        (tmp_path / student).mkdir()
        for one in range(number):
            (tmp_path / student / f"{one}").touch()
    plain = [file.where for file in walk(tmp_path, shared=1) if not file.refused]
    counts = {name: sum(where.startswith(name) for where in plain) for name in ("ada", "mal", "zoe")}
    assert counts["ada"] == counts["zoe"] == 15 and counts["mal"] < 20


def test_removing_follows_no_link_and_takes_what_is_write_protected(tmp_path: Path) -> None:
    kept, path = tmp_path / "kept", tmp_path / "path"
    for where in (kept / "a", path / "in" / "0" / "1" / "b", path / "0" / "c"):
        where.parent.mkdir(parents=True)
        where.touch()
    (path / "in" / "link").symlink_to(kept)
    (path / "in" / "0").chmod(0)
    remove(path)
    assert not path.exists() and (kept / "a").exists()
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "link")
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """pytest itself cannot remove what is nested too deeply."""
    yield
    remove(tmp_path)
