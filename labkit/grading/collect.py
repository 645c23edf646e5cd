"""What a learning platform lets an instructor download -> submitted/<student>/<assignment>/.

Canvas packs all files into one zip, `doejane_LATE_1234_5678_name.ipynb`. Moodle has a folder or a name for
each participant, `Jane Doe_1234_assignsubmission_file_`. Gradescope exports folders `submission_1234` and a
list of who they belong to. Anything else is read as one folder, or one zip, for each student; a zip that
`labkit submit` made may also come alone. Files are only sorted here; which notebook they are is found out
when they are graded.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath

from labkit.errors import LabError
from labkit.grading.files import (
    MOST_BYTES,
    MOST_TOTAL,
    Found,
    Hashes,
    in_steps,
    open_plain,
    printable,
    reason,
    remove,
    shared_levels,
    skipped,
    walk,
)
from labkit.grading.intake import LEFT_OUT, MOST_FILES, UNPACKING_FAILS, open_member
from labkit.grading.platforms import (
    DEEP,
    GRADESCOPE_LIST,
    Open,
    Owned,
    hidden_exports,
    is_kind,
    platform_of,
)
from labkit.grading.scratch import scratch_folder, sweep
from labkit.notebooks import RECEIPT

MOST_OF_ONE = MOST_FILES + 1  # files of a student: one more than grading opens, so that it says so
MOST_SAID = 20  # lines about files that were left out, where there are no others
NAME_BYTES, FOLDERS_DEEP = 120, 8  # of a file's place; systems take names of 255 bytes


@dataclass
class Collected:
    """Students by what became of their files, and files that belong to nobody."""

    platform: str
    new: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(download: Path, course: Path, assignment: str) -> Collected:
    """Sort a zip or a folder into the course. A student's earlier files are replaced as a whole.

    Raises LabError if there is no such file, if it is no zip, or if nothing in it can be a submission.
    """
    if not download.exists():
        raise LabError(f"there is no {download}: name the zip that the platform gave you, or a folder.")
    sweep()
    unsettled = _settle_all(course, assignment)
    refused: list[Found] = []
    files, twice = _by_place(_in_zip(download) if download.is_file() else _in_folder(download, refused))
    if RECEIPT in files and download.is_file():  # what `labkit submit` made: one student's, by its name
        files = {download.name: partial(open_plain, download.resolve())}
    platform, owner_of = platform_of(files)
    collected = Collected(platform, left_out=[*unsettled, *twice])
    if platform == "folders":
        hint = "looks like a Gradescope export: collect that folder by itself"
        collected.left_out += [f"{printable(folder)}: {hint}" for folder in sorted(hidden_exports(files))]
    with scratch_folder("collect") as scratch:
        sorting = _Sorting(scratch, collected.left_out)
        for where in filter(is_kind, files):
            sorting.take(where, owner_of(where), files[where])
        for one in refused:
            sorting.miss(one.where, owner_of(one.where), one.refused)
        sorting.tell_students()
        if not sorting.students:
            why = "".join(f"\n{line}" for line in collected.left_out[:MOST_SAID])
            raise LabError(f"no notebook and no zip of a student was found in {download}.{why}")
        for student in sorted(sorting.students):
            try:
                state = _put(scratch / student, course / "submitted" / student / assignment)
            except OSError as error:
                _expect_room(error)
                collected.left_out.append(f"{student}: cannot be put into its place ({reason(error)})")
            else:
                getattr(collected, state).append(student)
    return collected


class _Sorting:
    """Files on their way into a folder for each student. Nothing that one student hands in stops it."""

    def __init__(self, folder: Path, left_out: list[str]) -> None:
        self._folder, self._left_out = folder, left_out
        self.students: set[str] = set()  # of whom at least one file was taken
        self._places: dict[str, _Places] = {}
        self._owners: dict[str, str] = {}  # a folder's name, in small letters -> whose it is
        self._missed: dict[str, list[str]] = {}

    def take(self, where: str, owned: Owned | None, opening: Open) -> None:
        """Put a file into its student's folder, or say why not."""
        if owned is None:
            self._left_out.append(f"{printable(where)}: nobody's")
            return
        student = _safe(owned.student)
        # for Windows and macOS, Ada's folder and ada's are one
        owner = self._owners.setdefault(student.casefold(), owned.source)
        if owner != owned.source:
            self._left_out.append(f"{printable(where)}: {student} is already {printable(owner)}'s folder")
            return
        places = self._places.setdefault(student, _Places())
        places.files += 1
        if places.files > MOST_OF_ONE:
            why = f"more than {MOST_FILES} files of one student" if places.files == MOST_OF_ONE + 1 else ""
        else:
            why = self._copy(student, places, _safe_parts(owned.name), opening)
        if why:
            self.miss(where, owned, why)

    def miss(self, where: str, owned: Owned | None, why: str) -> None:
        """Tell the instructor of a file that was not taken and, beside those that were, the student."""
        self._left_out.append(f"{printable(where)}: {why}")
        student = _safe(owned.student) if owned is not None else ""
        if owned is not None and self._owners.get(student.casefold(), owned.source) == owned.source:
            missed = f"{printable(owned.name)} was not collected: {why}"
            self._missed.setdefault(student, []).append(missed)

    def tell_students(self) -> None:
        """Write what was left out beside what was taken: grading must not take it for missing."""
        for student in self.students & self._missed.keys():
            text = "".join(f"{line}\n" for line in self._missed[student])
            try:
                (self._folder / student / LEFT_OUT).write_text(text, encoding="utf-8")
            except OSError as error:
                _expect_room(error)
                self._left_out.append(f"{student}: {LEFT_OUT} cannot be written ({reason(error)})")

    def _copy(self, student: str, places: _Places, parts: list[str], opening: Open) -> str:
        """Why it could not be done; empty if it was."""
        path = self._folder / student / places.place(parts)
        try:
            with opening() as stream:
                data = b"".join(in_steps(stream, min(MOST_BYTES, places.bytes) + 1))
        except UNPACKING_FAILS as error:
            return f"cannot be read ({reason(error)})"
        if len(data) > MOST_BYTES:
            return f"larger than {MOST_BYTES >> 20} MB"
        if len(data) > places.bytes:
            return f"more than {MOST_TOTAL >> 20} MB of one student"
        places.bytes -= len(data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            _expect_room(error)
            return f"cannot be written ({reason(error)})"
        self.students.add(student)
        return ""


@dataclass
class _Places:
    """What is in a student's folder, and how many bytes may still be put there.

    taken: names in small letters, and whether that is a folder.
    """

    files: int = 0
    bytes: int = field(default_factory=lambda: MOST_TOTAL)
    # `collect` itself may write LEFT_OUT, and a student may have a folder of that name
    taken: dict[str, bool] = field(default_factory=lambda: {LEFT_OUT: False})

    def place(self, parts: list[str]) -> Path:
        """Where a file can lie: of names that have become the same, the later ones get a number."""
        path = Path()
        for depth, part in enumerate(parts, 1):
            path /= self._free(path, part, is_folder=depth < len(parts))
        return path

    def _free(self, folder: Path, part: str, is_folder: bool) -> str:
        suffix = PurePosixPath(part).suffix
        for number in count(1):
            name = part if number == 1 else f"{part.removesuffix(suffix)}-{number}{suffix}"
            key = (folder / name).as_posix().casefold()  # as Windows and macOS compare names
            if key not in self.taken or (is_folder and self.taken[key]):
                self.taken[key] = is_folder
                return name
        raise AssertionError("count() has no end")


def _by_place(found: Iterator[tuple[str, Open]]) -> tuple[dict[str, Open], list[str]]:
    """The files by where they lie, and a line for each whose place was taken."""
    files: dict[str, Open] = {}
    twice = []
    for where, opening in found:
        if where in files:
            twice.append(f"{printable(where)}: is there twice, and the first one counts")
        files.setdefault(where, opening)
    return files, twice


def _in_zip(path: Path) -> Iterator[tuple[str, Open]]:
    try:
        archive = zipfile.ZipFile(path)
    except UNPACKING_FAILS as error:
        raise LabError(f"{path} is no zip that can be opened ({reason(error)}).") from None
    for member in archive.infolist():
        if not member.is_dir() and _matters(member.filename):
            yield member.filename.replace("\\", "/"), partial(open_member, archive, member)


def _in_folder(folder: Path, refused: list[Found]) -> Iterator[tuple[str, Open]]:
    """The files of a folder; what cannot be opened is added to `refused`."""
    for file in walk(folder, shared=shared_levels(folder, DEEP)):
        if file.refused:
            refused.append(file)
        elif _matters(file.where):
            yield file.where, partial(open_plain, file.path)


def _matters(where: str) -> bool:
    return (is_kind(where) or where.endswith((GRADESCOPE_LIST, RECEIPT))) and not skipped(where)


def _safe(name: str) -> str:
    """A student's name as one folder's name, the same on every system."""
    plain = unicodedata.normalize("NFC", name).strip()
    plain = re.sub(r"[^\w.@-]+", "-", plain).strip(".-")
    number = re.search(r"(_\d{1,20})?$", plain)  # what tells two students of one name apart
    return _cut(plain, number[0] if number else "").strip(".-") or "unnamed"


def _safe_parts(where: str) -> list[str]:
    """A file's place in its student's folder, part by part; `..` and roots lead nowhere."""
    plain = unicodedata.normalize("NFC", where)
    parts = [re.sub(r"[^\w.() @-]+", "-", part).rstrip(" .") for part in PurePosixPath(plain).parts]
    *folders, file = [part for part in parts if part not in ("", "-")] or ["file"]
    return [*map(_cut, folders[-FOLDERS_DEEP:]), _cut(file, PurePosixPath(file).suffix)]


def _cut(name: str, suffix: str = "") -> str:
    """At most NAME_BYTES: the beginning, and the suffix. In bytes, because that is what systems count."""
    head = name.removesuffix(suffix).encode()[: NAME_BYTES - len(suffix.encode())]
    return head.decode(errors="ignore") + suffix


def _expect_room(error: OSError) -> None:
    """Raise LabError if the disk is full: that is no file's own fault, and nothing is to be lost by it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise LabError(f"there is no room left to write to ({reason(error)}).") from None


def _contents(folder: Path) -> dict[str, str]:
    """What was handed in, and what of it was left out, as hashes; not what others have put beside it."""
    hashes = Hashes()
    return {
        file.where: hashes.of(file)
        for file in walk(folder)
        if file.refused or is_kind(file.where) or file.path.name == LEFT_OUT
    }


def _put(new: Path, target: Path) -> str:
    """Move a student's files into place, whole or not at all; `new`, `replaced` or `unchanged`.

    Whenever this is interrupted, the old files or the new ones are there: see `_settle`.
    """
    if target.parent.is_symlink():  # it may lead to another student's files
        raise OSError(errno.ELOOP, f"{target.parent.name} is a link", str(target.parent))
    there = os.path.lexists(target)
    if there and not target.is_symlink() and _contents(new) == _contents(target):
        return "unchanged"
    old, fresh = _beside(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _copy_tree(new, fresh)
        if there:
            target.rename(old)
        fresh.rename(target)
    finally:
        _settle(target)
    return "replaced" if there else "new"


def _beside(target: Path) -> tuple[Path, Path]:
    """Where a student's old and new files lie while they change places."""
    return target.with_name(f".{target.name}.old"), target.with_name(f".{target.name}.new")


def _settle(target: Path) -> None:
    """Put the old files back if a run ended between its two renames, and clear away what it left."""
    old, fresh = _beside(target)
    if target.parent.is_symlink():
        return
    if os.path.lexists(old) and not os.path.lexists(target):
        old.rename(target)
    for rest in (old, fresh):
        with suppress(OSError):
            remove(rest)


def _settle_all(course: Path, assignment: str) -> list[str]:
    """After a run that was killed, also for students who are not in this download; says what fails."""
    failed = []
    for folder in sorted((course / "submitted").glob("*")):
        try:
            _settle(folder / assignment)
        except OSError as error:
            _expect_room(error)
            failed.append(f"{printable(folder.name)}: the earlier files cannot be put back ({reason(error)})")
    return failed


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a folder. The errors that shutil.copytree gathers have no number: it hides a full disk."""
    target.mkdir()
    for path in sorted(source.rglob("*")):  # a folder comes before what is in it
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copyfile(path, place)
