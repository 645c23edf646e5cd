"""A gradebook that cannot be used is a sentence with its path, before anything is graded."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from nbgrader.converters import NbGraderException
from sqlalchemy.exc import IntegrityError, OperationalError
from typer.testing import CliRunner

from labkit import files
from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import database
from labkit.grading.database import check_reachable, explained
from labkit.grading.grade import prepared_release
from tests import graded_course as made
from tests.graded_course import ASSIGNMENT


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A gradebook that knows the tiny course."""
    return (made.make(tmp_path_factory.mktemp("course")).root / "gradebook.db").read_bytes()


def scrambled(book: bytes) -> bytes:
    return book[:5000] + bytes(range(250)) * 16 + book[9000:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "noise": lambda book: bytes(range(256)) * 16,
    "text": lambda book: b"student,points\nada,10\n" * 50,
    "half of it": lambda book: book[: len(book) // 2],
    "a page of it": scrambled,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gradebook_is_named(tmp_path: Path, book: bytes, damage: str) -> None:
    made.write_course(tmp_path)
    (tmp_path / "gradebook.db").write_bytes(DAMAGES[damage](book))
    with pytest.raises(LabError, match=r"gradebook\.db cannot be used .*Put a copy back"):
        check_reachable(tmp_path)
    with pytest.raises(LabError, match=r"gradebook\.db"), prepared_release(tmp_path, ASSIGNMENT):
        pass
    done = CliRunner().invoke(app, ["report", "--course", str(tmp_path)])
    assert done.exit_code == 2 and "gradebook.db cannot be used" in done.stderr


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "gradebook.db").mkdir()
    with pytest.raises(LabError, match=r"gradebook\.db is a folder"):
        check_reachable(tmp_path)


def test_one_that_another_program_holds_is_named(
    tmp_path: Path, book: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    (tmp_path / "gradebook.db").write_bytes(book)
    with closing(sqlite3.connect(tmp_path / "gradebook.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LabError, match=r"is locked.*Close the other program"):
            check_reachable(tmp_path)
    check_reachable(tmp_path)


def test_a_course_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write_course(tmp_path)

    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    with pytest.raises(LabError, match=r"gradebook\.db cannot be written \(Read-only"):
        check_reachable(tmp_path)


@pytest.mark.parametrize("content", [None, b""], ids=["none", "an empty file"])
def test_a_new_gradebook_is_no_trouble(tmp_path: Path, content: bytes | None) -> None:
    made.write_course(tmp_path)
    if content is not None:
        (tmp_path / "gradebook.db").write_bytes(content)
    with prepared_release(tmp_path, ASSIGNMENT) as released:
        assert len(list(released.glob("*.ipynb"))) == 3


def test_what_the_database_refuses_meanwhile_is_told_and_a_bug_of_ours_is_not(tmp_path: Path) -> None:
    full = OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
    with (
        pytest.raises(LabError, match=r"gradebook\.db cannot be used .*is full.*Free some space"),
        explained(tmp_path),
    ):
        raise full
    with pytest.raises(LabError, match="is full"), explained(tmp_path):  # as nbgrader passes it on
        try:
            raise full
        except OperationalError:
            raise NbGraderException("an error accessing the database")  # noqa: B904
    with pytest.raises(IntegrityError), explained(tmp_path):
        raise IntegrityError("INSERT", {}, sqlite3.IntegrityError("twice the same"))
