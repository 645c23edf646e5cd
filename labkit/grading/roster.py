"""Who has handed in an assignment, and what is in `submitted/` where grading does not look for it.

A submission is `submitted/<student>/<assignment>`. Files in another place are graded by nobody, so each such
place is named with what to do about it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from labkit.grading.files import printable, skipped, submission_files, walk
from labkit.grading.kinds import by_name
from labkit.grading.opening import OURS
from labkit.grading.outputs import safe_line, safe_text

LONGEST_NAME = 200  # bytes of a student's; files are called after it, and systems take names of 255 bytes
ACTS = re.compile(r"[<>\"\\]")
HIDDEN = re.compile(r"\.[^.].*", re.S)  # as .ipynb_checkpoints, .git
MOST_SEEN = 1000  # files that are looked at in a folder that is not a submission
MOST_EMPTY = 20  # empty folders that are named
WORK = ("notebook", "archive", "closed", "script", "document")


@dataclass
class Roster:
    """students: who is graded. elsewhere: what is not, a sentence each. empty: folders without a file."""

    students: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What is not graded, and why."""
        named = ", ".join(self.empty[:MOST_EMPTY])
        more = f" and {len(self.empty) - MOST_EMPTY} more" if len(self.empty) > MOST_EMPTY else ""
        return [*self.elsewhere, *([f"nothing was handed in: no file in {named}{more}"] if named else [])]


def roster(course: Path, assignment: str) -> Roster:
    """Everyone whose folder holds at least one file, in alphabetical order, and what is left out."""
    found = Roster()
    known = {path.name for kind in ("source", "release") for path in (course / kind).glob("*")} | {assignment}
    for path in sorted((course / "submitted").glob("*"), key=lambda path: path.name):
        # whether something is there may be asked through a link; it is opened without
        if not os.path.isdir(path):
            if not os.path.isfile(path) or path.is_symlink() or _is_work(path.name):
                found.elsewhere.append(_left_out(path, f"put it into submitted/<student>/{assignment}"))
        else:
            _look_into(path, assignment, known, found)
    return found


def _look_into(student: Path, assignment: str, known: set[str], found: Roster) -> None:
    """A folder directly in `submitted/`."""
    folder, why = student / assignment, _why_not_a_name(student.name)
    if HIDDEN.fullmatch(student.name):
        if _is_there(folder):
            found.elsewhere.append(_left_out(student, "it is hidden: rename it if it is a student's"))
        return
    misplaced = [] if student.is_symlink() else list(_misplaced(student, assignment, known))
    found.elsewhere += misplaced
    if _is_there(folder):
        if not any(file.refused or file.where not in OURS for file in submission_files(folder)):
            found.empty.append(f"submitted/{_shown(student.name)}/{assignment}")
        elif why:
            found.elsewhere.append(_left_out(student, f"rename this folder, {why}"))
        else:
            found.students.append(student.name)
    elif not misplaced and not any(student.iterdir() if os.access(student, os.R_OK) else ()):
        found.empty.append(f"submitted/{_shown(student.name)}")


def _misplaced(student: Path, assignment: str, known: set[str]) -> Iterator[str]:
    """What is beside the assignment's folder, or in place of it."""
    is_swapped = _plain(student.name) == _plain(assignment) and not _is_there(student / assignment)
    if is_swapped and any(path.is_dir() for path in student.glob("*")):
        yield _left_out(student, f"a student's folder comes first: submitted/<student>/{assignment}")
        return
    try:
        paths = sorted(student.iterdir(), key=lambda path: path.name)
    except OSError:  # then it is named where it is read
        return
    here = f"submitted/{_shown(student.name)}/{assignment}"
    loose = [path for path in paths if not path.is_dir() and _is_work(path.name)]
    if loose:
        more = f", with {len(loose) - 1} more files there" if len(loose) > 1 else ""
        yield _left_out(loose[0], f"put it into {here}{more}", student)
    for path in paths:
        if path.is_symlink() or not path.is_dir() or path.name in known or HIDDEN.fullmatch(path.name):
            continue
        alike = _plain(path.name) == _plain(assignment)
        if (alike or not _is_there(student / assignment)) and _holds_work(path):
            do = "put its files into" if _is_there(student / assignment) else "rename it to"
            unsure = "" if alike else f"if it is {assignment}, "
            yield _left_out(path, f"{unsure}{do} {here}", student)


def _left_out(path: Path, why: str, student: Path | None = None) -> str:
    place = f"{_shown(student.name)}/{_shown(path.name)}" if student is not None else _shown(path.name)
    return f"submitted/{place} was left out: {why}."


def _shown(name: str) -> str:
    return printable(ascii(name)[1:-1])


def _is_work(name: str) -> bool:
    return by_name(name) in WORK and not skipped(name)


def _holds_work(folder: Path) -> bool:
    return any(file.refused or _is_work(file.where) for file in islice(walk(folder), MOST_SEEN))


def _plain(name: str) -> str:
    """A name as people confuse names: `Compression (1)`, `compression-2` and `COMPRESSION` are one."""
    name = re.sub(r"[ _-]?(\(\d{1,9}\)|copy|\d{1,2})$", "", unicodedata.normalize("NFKC", name).strip())
    return re.sub(r"[\W_]+", "", name.casefold())


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # then it is named as one that cannot be read
        return True
    return True


def _why_not_a_name(student: str) -> str:
    """Why a folder's name cannot be a student's in the gradebook and the pages; empty if it can."""
    if student != safe_text(student):  # such as Latin-1 from an old zip
        return "its name is no UTF-8"
    if len(student.encode()) > LONGEST_NAME:
        return f"its name is longer than {LONGEST_NAME} bytes"
    if ACTS.search(student) or student != safe_line(student):
        # formgrader writes it into its pages and their scripts as it is
        return "its name could act in a page"
    return ""
