"""What a learning platform lets an instructor download -> submitted/<student>/<assignment>/.

Canvas packs all files into one zip, `doejane_LATE_1234_5678_name.ipynb`. Moodle has a folder or a name for
each participant, `Jane Doe_1234_assignsubmission_file_`. Gradescope exports folders `submission_1234` and a
list of who they belong to. Anything else is read as one folder, or one zip, for each student; a zip that
`labkit submit` made may also come alone. Files are only sorted here; which notebook they are is found out
when they are graded.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from labkit.errors import LabError
from labkit.grading.intake import MOST_BYTES, UNPACKING_FAILS, skipped
from labkit.notebooks import RECEIPT

MOST_FILES = 20_000  # of a whole download
KINDS = (".ipynb", ".zip")

CANVAS = re.compile(r"(?P<who>[^_/]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<file>[^/]+)")
MOODLE = re.compile(r"(?P<who>[^/]+)_(?P<id>\d+)_assignsubmission_file_?/?(?P<file>.+)")
GRADESCOPE = re.compile(r"(?:[^/]+/)?(?P<id>submission_\d+)/(?P<file>.+)")
GRADESCOPE_LIST = "submission_metadata.yml"


@dataclass
class Collected:
    """Students by what became of their files, and files that belong to nobody."""

    platform: str
    new: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


Open = Callable[[], bytes]


def collect(download: Path, course: Path, assignment: str) -> Collected:
    """Sort a zip or a folder into the course. A student's earlier files are replaced as a whole.

    Raises LabError if there is no such file, if it is no zip, or if nothing in it can be a submission.
    """
    if not download.exists():
        raise LabError(f"there is no {download}: name the zip that the platform gave you, or a folder.")
    with tempfile.TemporaryDirectory(prefix="labkit-collect-") as scratch:
        files = dict(_in_zip(download) if download.is_file() else _in_folder(download))
        if RECEIPT in files and download.is_file():  # what `labkit submit` made: one student's, by its name
            files = {download.name: download.read_bytes}
        platform, sorter = _platform(files)
        collected, owners = Collected(platform), dict[str, str]()
        for where, read in files.items():
            if PurePosixPath(where).suffix.lower() not in KINDS:
                continue
            found = sorter(where)
            if found is None:
                collected.left_out.append(f"{where}: nobody's")
                continue
            try:
                data = read()
            except UNPACKING_FAILS as error:
                collected.left_out.append(f"{where}: cannot be read ({error})")
                continue
            if len(data) > MOST_BYTES:
                collected.left_out.append(f"{where}: larger than {MOST_BYTES >> 20} MB")
                continue
            student, name = _safe(found[0]), found[1]
            if owners.setdefault(student, found[0]) != found[0]:
                collected.left_out.append(f"{where}: {student} is already {owners[student]}'s folder")
                continue
            path = Path(scratch) / student / _safe_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        students = sorted(path.name for path in Path(scratch).iterdir())
        if not students:
            raise LabError(f"no notebook and no zip of a student was found in {download}.")
        for student in students:
            state = _put(Path(scratch) / student, course / "submitted" / student / assignment)
            getattr(collected, state).append(student)
    return collected


def _in_zip(path: Path) -> Iterator[tuple[str, Open]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise LabError(f"{path} is no zip that can be opened ({error}).") from None
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > MOST_FILES:
        raise LabError(f"{path} holds {len(members):,} files; {MOST_FILES:,} are the most that are taken.")
    for member in members:
        if not skipped(member.filename):

            def read(member: zipfile.ZipInfo = member) -> bytes:
                with archive.open(member) as packed:
                    return packed.read(MOST_BYTES + 1)  # the header's size is only a claim

            yield member.filename.replace("\\", "/"), read


def _in_folder(folder: Path) -> Iterator[tuple[str, Open]]:
    for path in sorted(folder.rglob("*")):
        where = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and not skipped(where):
            yield where, path.read_bytes


Sorter = Callable[[str], "tuple[str, str] | None"]


def _platform(files: dict[str, Open]) -> tuple[str, Sorter]:
    """Whose download it is, and the function that tells a file's student and name."""
    listing = next((where for where in files if PurePosixPath(where).name == GRADESCOPE_LIST), None)
    if listing is not None:
        students = _gradescope_students(files[listing]())
        return "Gradescope", lambda where: _by(GRADESCOPE, where, lambda match: students.get(match["id"]))
    kind = [where for where in files if where.lower().endswith(KINDS)]
    for platform, pattern in (("Moodle", MOODLE), ("Canvas", CANVAS)):
        if kind and sum(pattern.fullmatch(where) is not None for where in kind) > len(kind) / 2:
            return platform, lambda where, pattern=pattern: _by(
                pattern, where, lambda match: f"{match['who']}_{match['id']}"
            )
    return "folders", _by_folder


def _by(
    pattern: re.Pattern[str], where: str, who: Callable[[re.Match[str]], str | None]
) -> tuple[str, str] | None:
    match = pattern.fullmatch(where)
    student = who(match) if match is not None else None
    return (student, match["file"]) if match is not None and student else None


def _by_folder(where: str) -> tuple[str, str] | None:
    """`jane/lab/01.ipynb` and `jane.zip` are Jane's; a notebook beside them is nobody's."""
    parts = PurePosixPath(where).parts
    if len(parts) > 1:
        return parts[0], "/".join(parts[1:])
    path = PurePosixPath(where)
    return (path.stem, path.name) if path.suffix.lower() == ".zip" else None


def _gradescope_students(data: bytes) -> dict[str, str]:
    """`submission_1234` -> the student, by number if Gradescope knows one, else by address, else by name."""
    import yaml  # comes with nbgrader

    try:
        content: Any = yaml.safe_load(data)
        found = {}
        for submission, about in content.items():
            people = about[":submitters"]
            # a group hands in one submission; it is graded under its first name
            person = people[0]
            who = person.get(":sid") or person.get(":email") or person.get(":name")
            found[str(submission)] = f"{who}"
        return found
    except (yaml.YAMLError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise LabError(
            f"{GRADESCOPE_LIST} is not as Gradescope writes it ({type(error).__name__}: {error})."
        ) from None


def _safe(name: str) -> str:
    """A student's name as one folder's name, the same on every system."""
    plain = unicodedata.normalize("NFC", name).strip()
    return re.sub(r"[^\w.@-]+", "-", plain).strip(".-")[:100] or "unnamed"


def _safe_path(where: str) -> Path:
    """A file's place in its student's folder; `..` and roots lead nowhere."""
    parts = [re.sub(r"[^\w.() @-]+", "-", part) for part in PurePosixPath(where).parts]
    return Path(*[part[-120:] for part in parts if part not in ("/", ".", "..", "-")] or ["file"])


def _contents(folder: Path) -> dict[str, bytes]:
    """What was handed in; not what others have put beside it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix.lower() in KINDS and path.is_file()
    }


def _put(new: Path, target: Path) -> str:
    """Move a student's files into place, whole or not at all; `new`, `replaced` or `unchanged`."""
    there = target.exists()
    if there and _contents(new) == _contents(target):
        return "unchanged"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        shutil.copytree(new, Path(aside) / "new")
        if there:
            target.rename(Path(aside) / "old")
        (Path(aside) / "new").rename(target)
    return "replaced" if there else "new"
