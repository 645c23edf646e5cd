"""The gradebook's database: whether it can be used, and a sentence where it cannot."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nbgrader.converters import NbGraderException
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, OperationalError

from labkit.errors import LabError
from labkit.files import expect_writable
from labkit.grading.settings import gradebook_url

LOCK_SECONDS = 10.0  # that a run waits, before it starts, for another program to let go of the gradebook
ANOTHER = "Close the other program (nbgrader's formgrader, a second labkit) and run this again."
DAMAGED = "Put a copy back, or move it away and grade the class anew."
# a database's own words -> what to do
REMEDIES = {
    r"is locked": ANOTHER,
    r"not a database|malformed": DAMAGED,
    r"no such (column|table)": "An older nbgrader made it: keep a copy, then run `nbgrader db upgrade`.",
    r"readonly|read-only|unable to open|permission": "Allow writing to it and to its folder.",
    r"is full|no space": "Free some space and run this again.",
}


def check_reachable(course: Path) -> None:
    """Raise LabError unless the gradebook can be read and written; one that is not there yet, made."""
    url = make_url(gradebook_url(course))
    if url.get_backend_name() == "sqlite" and url.database:
        _check_file(Path(url.database))
        return
    engine = create_engine(url)
    try:
        engine.connect().close()
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()
        raise LabError(f"the gradebook {url!r} does not answer: {reason[0] if reason else error}") from None
    finally:
        engine.dispose()


@contextmanager
def explained(course: Path) -> Iterator[None]:
    """Tell what the database refuses as a sentence; a wrong question to it is a bug of ours."""
    try:
        yield
    except NbGraderException as error:
        if not isinstance(error.__context__, DatabaseError):
            raise
        raise _refused(course, error.__context__) from None
    except DatabaseError as error:
        if type(error) not in (OperationalError, DatabaseError):
            raise
        raise _refused(course, error) from None


def _refused(course: Path, error: DatabaseError) -> LabError:
    url = make_url(gradebook_url(course))
    return _unusable(url.database if url.get_backend_name() == "sqlite" else repr(url), error.orig)


def _check_file(path: Path) -> None:
    """For SQLite, of which a run would notice a damage or a lock only on its way."""
    if path.is_dir():
        raise LabError(f"the gradebook {path} is a folder: move it away, a file belongs there.")
    expect_writable(path)  # and so its folder, where SQLite keeps its journal
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError("it is malformed")
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise _unusable(path, error) from None


def _unusable(where: object, error: BaseException | None) -> LabError:
    said = str(error).strip().partition("\n")[0]
    remedy = next((do for words, do in REMEDIES.items() if re.search(words, said, re.I)), ANOTHER)
    return LabError(f"the gradebook {where} cannot be used ({said}). {remedy}")
