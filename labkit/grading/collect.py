"""What a learning platform lets an instructor download -> submitted/<student>/<assignment>/.

Whose a file is, `platforms` tells by its place. Anything else is read as one folder, or one archive, for each
student; a zip that `labkit submit` made may also come alone. Every file of a student is taken, whatever it
is: what can be graded is found out when it is graded, and only then can the rest be named to its owner.
"""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath

from labkit.errors import LabError
from labkit.grading.archives import UNPACKING_FAILS, Open, open_member, place_in
from labkit.grading.files import (
    MOST_BYTES,
    MOST_TOTAL,
    Found,
    in_steps,
    open_plain,
    printable,
    reason,
    shared_levels,
    skipped,
    walk,
)
from labkit.grading.kinds import by_name
from labkit.grading.opening import LEFT_OUT, MOST_FILES, NOT_TAKEN, OURS
from labkit.grading.placing import expect_room, put, settle_all
from labkit.grading.platforms import DEEP, Owned, hidden_exports, platform_of
from labkit.grading.scratch import scratch_folder, sweep
from labkit.notebooks import RECEIPT

MOST_OF_ONE = MOST_FILES + 1  # files of a student: one more than grading opens, so that it says so
MOST_SAID = 20  # lines about files that were left out, where there are no others
NAME_BYTES, FOLDERS_DEEP = 120, 8  # of a file's place; systems take names of 255 bytes


@dataclass
class Collected:
    """Students by what became of their files, and the files that were not taken, a line each.

    hint: what may be wrong with the download as a whole.
    """

    platform: str
    new: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    hint: str = ""


def collect(download: Path, course: Path, assignment: str) -> Collected:
    """Sort a zip or a folder into the course. A student's earlier files are replaced as a whole.

    Of several attempts of one student the newest counts. Raises LabError if there is no such file, if it is
    not a zip, or if nothing in it is a student's.
    """
    if not download.exists():
        raise LabError(f"there is no {download}: name the zip that the platform gave you, or a folder.")
    if download.is_dir() and course.resolve().is_relative_to(download.resolve()):
        raise LabError(f"{download} holds the course itself: name a folder with hand-ins and nothing else.")
    sweep()
    unsettled = settle_all(course, assignment)
    refused: list[Found] = []
    files, twice = _by_place(_in_zip(download) if download.is_file() else _in_folder(download, refused))
    if RECEIPT in files and download.is_file():  # what `labkit submit` made: one student's, by its name
        files = {download.name: partial(open_plain, download.resolve())}
    read_as = platform_of(files)
    collected = Collected(read_as.platform, left_out=[*unsettled, *twice])
    if read_as.platform == "folders":
        hint = "looks like a Gradescope export: collect that folder by itself"
        collected.left_out += [f"{printable(folder)}: {hint}" for folder in sorted(hidden_exports(files))]
    with scratch_folder("collect") as scratch:
        sorting = _Sorting(scratch, collected.left_out)
        newest = _Newest(owned for where in files for owned in read_as.owners(where))
        # what can be graded first: nothing else must use up what is taken of one student
        for where in sorted(files, key=_urgency):
            if where != read_as.own:
                sorting.take(where, read_as.owners(where), files[where], newest)
        for one in refused:
            owners = read_as.owners(one.where)
            for owned in owners:
                sorting.miss(one.where, owned, one.refused)
            if not owners:
                collected.left_out.append(f"{printable(one.where)}: {one.refused}")
        sorting.tell_students()
        if not sorting.students:
            why = "".join(f"\n{line}" for line in collected.left_out[:MOST_SAID])
            raise LabError(f"no file of a student was found in {download}.{why}")
        if read_as.platform == "folders" and len(sorting.students) == 1:
            only = min(sorting.students)
            collected.hint = (
                f"all of it is {only}'s, as one student; if it is a class's, name the folder in it"
            )
        notebooks = [path.stem for path in (course / "source" / assignment).glob("*.ipynb")]
        for student in sorted(sorting.students):
            try:
                state, lacking = put(
                    scratch / student, course / "submitted" / student / assignment, notebooks
                )
            except OSError as error:
                expect_room(error)
                collected.left_out.append(f"{student}: cannot be put into its place ({reason(error)})")
            else:
                getattr(collected, state).append(student)
                collected.left_out += [f"{student}: {line}" for line in lacking]
    return collected


class _Newest:
    """Each student's newest attempt, and the newest upload of each of their files."""

    def __init__(self, every: Iterable[Owned]) -> None:
        self._attempts: dict[str, tuple[int, ...]] = {}
        self._uploads: dict[tuple[str, str], str] = {}
        for owned in every:
            student, file = owned.source, (owned.source, owned.name)
            self._attempts[student] = max(self._attempts.get(student, ()), owned.attempt)
            self._uploads[file] = max(self._uploads.get(file, ""), owned.upload)

    def why_older(self, owned: Owned) -> str:
        """Why a file does not count; empty if it does."""
        if owned.attempt < self._attempts[owned.source]:
            return "it is in an earlier attempt, and the newest one counts"
        if owned.upload < self._uploads[owned.source, owned.name]:
            return "it was uploaded again later, and the newest one counts"
        return ""


class _Sorting:
    """Files on their way into a folder for each student. Nothing that one student hands in stops it."""

    def __init__(self, folder: Path, left_out: list[str]) -> None:
        self._folder, self._left_out = folder, left_out
        self.students: set[str] = set()  # of whom at least one file was taken
        self._places: dict[str, _Places] = {}
        self._owners: dict[str, str] = {}  # a folder's name, in small letters -> whose it is
        self._missed: dict[str, list[str]] = {}

    def take(self, where: str, owners: list[Owned], opening: Open, newest: _Newest) -> None:
        """Put a file into its student's folder, or into those of a group, or say why not."""
        if not owners:
            self._left_out.append(f"{printable(where)}: nobody's")
        for owned in owners:
            older = newest.why_older(owned)
            if older:
                self.miss(where, owned, older)
            else:
                self._take(where, owned, opening)

    def _take(self, where: str, owned: Owned, opening: Open) -> None:
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

    def miss(self, where: str, owned: Owned, why: str) -> None:
        """Tell the instructor of a file that was not taken and, beside those that were, the student."""
        self._left_out.append(f"{printable(where)}: {why}")
        student = _safe(owned.student)
        if self._owners.get(student.casefold(), owned.source) == owned.source:
            missed = f"{printable(owned.name)}{NOT_TAKEN}{why}"
            self._missed.setdefault(student, []).append(missed)

    def tell_students(self) -> None:
        """Write what was left out beside what was taken: grading must not take it for missing."""
        for student in self.students & self._missed.keys():
            text = "".join(f"{line}\n" for line in self._missed[student])
            try:
                (self._folder / student / LEFT_OUT).write_text(text, encoding="utf-8")
            except OSError as error:
                expect_room(error)
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
            expect_room(error)
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
    # what a student calls so is neither our list of what was left out nor the time of the hand-in
    taken: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(OURS, False))

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
    """The files by where they are, and a line for each that another one has replaced, as unpacking would."""
    files: dict[str, Open] = {}
    twice = []
    for where, opening in found:
        if where in files:
            twice.append(f"{printable(where)}: is there twice, and the last one counts")
        files[where] = opening
    return files, twice


def _in_zip(path: Path) -> Iterator[tuple[str, Open]]:
    try:
        archive = zipfile.ZipFile(path)
    except UNPACKING_FAILS as error:
        raise LabError(
            f"{path} is not a zip that can be opened ({reason(error)}): download it again, or unpack it "
            "and name the folder."
        ) from None
    for member in archive.infolist():
        where = place_in(member.filename)
        if not member.is_dir() and not skipped(where):
            yield where, partial(open_member, archive, member)


def _in_folder(folder: Path, refused: list[Found]) -> Iterator[tuple[str, Open]]:
    """The files of a folder; what cannot be opened is added to `refused`."""
    for file in walk(folder, shared=shared_levels(folder, DEEP)):
        if file.refused:
            refused.append(file)
        elif not skipped(file.where):
            yield file.where, partial(open_plain, file.path)


def _urgency(where: str) -> int:
    return {"notebook": 0, "archive": 0, "data": 2}.get(by_name(where), 1)


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
