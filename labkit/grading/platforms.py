"""Whose a file in a learning platform's download is, as its place there tells.

Everything below a student's own part of the download was named by that student, who may have chosen names
that look like the platform's: they never decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import IO, Any

from labkit.errors import LabError
from labkit.grading.files import MOST_BYTES, in_steps, printable
from labkit.grading.intake import UNPACKING_FAILS

KINDS = (".ipynb", ".zip")

CANVAS = re.compile(r"(?P<who>[^_/]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<file>[^/]+)")
# the first number counts: what comes after it, a student may have written (Moodle's names have no `_`)
MOODLE = re.compile(r"(?P<who>[^/]+?)_(?P<id>\d+)_assignsubmission_file_?/?(?P<file>.+)")
SUBMISSION = r"(?P<id>submission_\d+)/(?P<file>.+)"
ONE, EXPORT = re.compile(r"submission_\d+"), re.compile(r"assignment_\d+_export")
DEEP = 4  # folders that an export may lie in; below that nobody unpacks one
BELOW = re.compile(rf"(?P<folder>[^/]+(?:/[^/]+){{0,{DEEP - 1}}}?)/submission_\d+/")
GRADESCOPE_LIST = "submission_metadata.yml"

Open = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Owned:
    """Whose a file is. source: what of the download is this student's alone, such as `submission_11`."""

    student: str
    source: str
    name: str


Sorter = Callable[[str], "Owned | None"]


def is_kind(where: str) -> bool:
    """Whether a file can be a submission, or a part of one."""
    return where.lower().endswith(KINDS)


def platform_of(files: dict[str, Open]) -> tuple[str, Sorter]:
    """Whose download it is, and the function that tells whose a file is."""
    kind = [where for where in files if is_kind(where)]
    listing = _gradescope_list(files, kind)
    if listing is not None:
        students = _gradescope_students(files[listing])
        folders = re.compile(re.escape(listing.removesuffix(GRADESCOPE_LIST)) + SUBMISSION)
        return "Gradescope", lambda where: _by(folders, where, lambda match: students.get(match["id"]))
    for platform, pattern in (("Moodle", MOODLE), ("Canvas", CANVAS)):
        if kind and sum(pattern.fullmatch(where) is not None for where in kind) > len(kind) / 2:
            return platform, lambda where, pattern=pattern: _by(
                pattern, where, lambda match: f"{match['who']}_{match['id']}"
            )
    exports = hidden_exports(files)
    if exports and len(_parts(kind)) == 1:  # they would be one student's, and hold everybody's notebooks
        raise LabError(
            f"this looks like a Gradescope export, but its {GRADESCOPE_LIST} lies in "
            f"{printable(min(exports))}: name that folder instead (of a zip: unpack it first)."
        )
    return "folders", lambda where: None if exports.intersection(_above(where)) else _by_folder(where)


def hidden_exports(files: dict[str, Open]) -> set[str]:
    """Folders that look like an export of Gradescope's, but are not all that there is.

    Among others such a folder may be what one student has made up: it neither counts nor stops the class.
    """
    found = {match["folder"] for where in filter(is_kind, files) if (match := BELOW.match(where))}
    return {
        folder
        for folder in found
        if f"{folder}/{GRADESCOPE_LIST}" in files
        and not any(MOODLE.match(f"{part}/x") or ONE.fullmatch(part) for part in folder.split("/"))
    }


def _above(where: str) -> Iterator[str]:
    """`a`, `a/b`, ..., as deep as an export may lie."""
    return accumulate(where.split("/", DEEP)[:DEEP], "{}/{}".format)


def _parts(kind: list[str]) -> set[str]:
    """What can be students' own parts of a download: its folders, and the zips beside them.

    A zip that one of the folders was unpacked from is no other part; a notebook beside them is nobody's.
    """
    folders = {where.partition("/")[0] for where in kind if "/" in where}
    zips = {
        PurePosixPath(where).stem
        for where in kind
        if "/" not in where and not where.lower().endswith(".ipynb")
    }
    # a browser adds ` (1)`; and a folder can be given another name
    zips = {re.sub(r" ?\(\d{1,9}\)$", "", name) for name in zips}
    return folders | ({name for name in zips if not EXPORT.fullmatch(name)} if folders else zips)


def _gradescope_list(files: dict[str, Open], kind: list[str]) -> str | None:
    """Where Gradescope's list lies: beside the submissions' folders, which are all that there is.

    The zip that they were unpacked from may lie beside their folder, and notebooks, which are nobody's.
    Anywhere else it is a student's, who would like to say whose submission is whose.
    """
    if GRADESCOPE_LIST in files:
        return GRADESCOPE_LIST
    top, *others = _parts(kind) or {""}
    listing, inside = f"{top}/{GRADESCOPE_LIST}", re.compile(re.escape(top) + "/" + SUBMISSION)
    if others or listing not in files or ONE.fullmatch(top) or MOODLE.match(f"{top}/x"):
        return None
    return listing if any(map(inside.fullmatch, kind)) else None


def _by(pattern: re.Pattern[str], where: str, who: Callable[[re.Match[str]], str | None]) -> Owned | None:
    match = pattern.fullmatch(where)
    student = who(match) if match is not None else None
    if match is None or not student:
        return None
    # of a student who is in Gradescope's list twice, one submission counts
    source = match["id"] if match["id"].startswith("submission_") else student
    return Owned(student, source, match["file"])


def _by_folder(where: str) -> Owned | None:
    """`jane/lab/01.ipynb` and `jane.zip` are Jane's; a notebook beside them is nobody's."""
    first, *rest = PurePosixPath(where).parts
    if rest:
        return Owned(first, first, "/".join(rest))
    path = PurePosixPath(where)
    return Owned(path.stem, path.stem, path.name) if path.suffix.lower() == ".zip" else None


def _gradescope_students(opening: Open) -> dict[str, str]:
    """`submission_1234` -> the student, by number if Gradescope knows one, else by address, else by name."""
    import yaml  # comes with nbgrader

    try:
        with opening() as stream:
            content: Any = yaml.safe_load(b"".join(in_steps(stream, MOST_BYTES)))
        found = {}
        for submission, about in content.items():
            people = about[":submitters"]
            # a group hands in one submission; it is graded under its first name
            person = people[0]
            who = person.get(":sid") or person.get(":email") or person.get(":name")
            if who:
                found[str(submission)] = f"{who}"
        return found
    except (yaml.YAMLError, AttributeError, TypeError, *UNPACKING_FAILS) as error:
        raise LabError(
            f"{GRADESCOPE_LIST} is not as Gradescope writes it ({type(error).__name__}: {error})."
        ) from None
