"""Whose a file in a learning platform's download is, as its place there tells.

Everything below a student's own part of the download was named by that student, who may have chosen names
that look like the platform's: they never decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

from labkit.errors import LabError
from labkit.grading.archives import UNPACKING_FAILS, Open
from labkit.grading.files import MOST_BYTES, in_steps, printable
from labkit.grading.kinds import by_name

# who, id: the student. time: of several attempts the newest counts; of several files with one name, too.
# The first number and the first time count: what comes after them, a student may have written.
CANVAS = re.compile(
    r"(?P<who>[^_/]+)_(?:LATE_)?(?P<id>\d+)_(?:\d+_(?P<file>[^/]+)|(?P<text>(?:text|link)\.html))"
)
MOODLE = re.compile(r"(?P<who>[^/]+?)_(?P<id>\d+)_assignsubmission_[a-z]+_?/?(?P<file>.+)")
BLACKBOARD = re.compile(r"(?P<head>[^/]+?)_attempt_(?P<time>\d{4}(?:-\d\d){5})(?:_(?P<file>.+)|\.txt)")
BRIGHTSPACE = re.compile(r"(?P<id>\d+)-\d+ - (?P<who>[^/]+?) - (?P<time>[^/]*\d{4}[^/]*)/(?P<file>.+)")
ILIAS = re.compile(r"(?P<who>[^/]+?)_(?P<id>\d+)/(?P<upload>\d{14})_(?P<file>.+)")
OLAT = re.compile(r"(?P<who>[^/]+)/\d_(?:submissions?|dropboxes|abgaben?)/(?P<file>.+)")
CLASSROOM = re.compile(r"(?P<who>[^/]+?) - (?P<file>[^/]+)")
PLATFORMS = {
    "Moodle": MOODLE, "Canvas": CANVAS, "Blackboard": BLACKBOARD, "Brightspace": BRIGHTSPACE, "ILIAS": ILIAS,
    "OLAT": OLAT, "Google Classroom": CLASSROOM,
}  # fmt: skip
SUBMISSION = r"(?P<id>submission_\d+)/(?P<file>.+)"
ONE, EXPORT = re.compile(r"submission_\d+"), re.compile(r"assignment_\d+_export")
DEEP = 4  # folders that an export may lie in; below that nobody unpacks one
BELOW = re.compile(rf"(?P<folder>[^/]+(?:/[^/]+){{0,{DEEP - 1}}}?)/submission_\d+/")
GRADESCOPE_LIST = "submission_metadata.yml"


@dataclass(frozen=True)
class Owned:
    """Whose a file is. source: what of the download is this student's alone, such as `submission_11`.

    attempt: which of the student's hand-ins it is in, the newest is the greatest. upload: the same of files
    with one name.
    """

    student: str
    source: str
    name: str
    attempt: tuple[int, ...] = ()
    upload: str = ""


@dataclass(frozen=True)
class Download:
    """How a download is to be read. owners: whose a file is, nobody's, a student's, all members' of a group.

    own: the file that is the platform's, such as its list of submissions; empty if there is none.
    """

    platform: str
    owners: Callable[[str], list[Owned]]
    own: str = ""


def is_kind(where: str) -> bool:
    """Whether a file can be a submission by itself: a notebook, or an archive."""
    return by_name(where) in ("notebook", "archive", "closed")


def platform_of(files: dict[str, Open]) -> Download:
    """Which platform made a download of these files.

    Raises LabError if a list of the platform's cannot be read, or is deeper in it than it should be.
    """
    kind = [where for where in files if is_kind(where)]
    listing = _gradescope_list(files, kind)
    if listing is not None:
        students = _gradescope_students(files[listing])
        folders = re.compile(re.escape(listing.removesuffix(GRADESCOPE_LIST)) + SUBMISSION)
        return Download("Gradescope", partial(_by_list, folders, students), listing)
    for top in _tops(list(files)):
        inside = [where.removeprefix(top) for where in files]
        for platform, pattern in PLATFORMS.items():
            matches = [match for where in inside if (match := pattern.fullmatch(where))]
            if len(matches) > len(inside) / 2 and _is_class(matches, pattern):
                lab = _lab([match["head"] for match in matches]) if pattern is BLACKBOARD else ""
                own = f"{top}index.html" if pattern is BRIGHTSPACE else ""
                return Download(platform, partial(_by_pattern, pattern, top, lab), own)
    exports = hidden_exports(files)
    if exports and len(_parts(kind)) == 1:  # they would be one student's, and hold everybody's notebooks
        raise LabError(
            f"this looks like a Gradescope export, but its {GRADESCOPE_LIST} lies in "
            f"{printable(min(exports))}: name that folder instead (of a zip: unpack it first)."
        )
    return Download("folders", lambda where: [] if exports.intersection(_above(where)) else _by_folder(where))


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


def _tops(wheres: list[str]) -> Iterator[str]:
    """The folders that the whole download may be in, `` first: a Mac adds one around what it packs again."""
    top = ""
    for _ in range(DEEP):
        yield top
        parts = {where.removeprefix(top).partition("/")[::2] for where in wheres}
        names = {first for first, _ in parts}
        if len(names) != 1 or not all(rest for _, rest in parts):
            return
        top += f"{names.pop()}/"


def _is_class(matches: list[re.Match[str]], pattern: re.Pattern[str]) -> bool:
    """`Jane Doe - 01.ipynb` says little: it is a platform's name only if somebody else has handed in, too."""
    return pattern is not CLASSROOM or len({match["who"] for match in matches}) > 1


def _lab(heads: list[str]) -> str:
    """What all of `Lab 3_jdoe`, `Lab 3_roe` begin with, up to a `_`; the lab's name may have one, too."""
    first, last = min(heads), max(heads)
    same = next((i for i, letter in enumerate(first) if letter != last[i : i + 1]), len(first))
    return first[: first.rfind("_", 0, same) + 1]


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


def _by_list(pattern: re.Pattern[str], students: dict[str, list[str]], where: str) -> list[Owned]:
    """Of a group, everybody gets the files. Of a student who is in the list twice, one submission counts."""
    match = pattern.fullmatch(where)
    if match is None:
        return []
    return [Owned(student, match["id"], match["file"]) for student in students.get(match["id"], [])]


def _by_pattern(pattern: re.Pattern[str], top: str, lab: str, where: str) -> list[Owned]:
    """top: the folder that the whole download is in. lab: what every name begins with."""
    match = pattern.fullmatch(where.removeprefix(top))
    if match is None:
        return []
    parts: dict[str, Any] = {"file": None, "time": "", "upload": "", **match.groupdict()}
    if pattern is BLACKBOARD:
        student = match["head"].removeprefix(lab)
        name = parts["file"] or "receipt.txt"
    else:
        student = "_".join(filter(None, (parts["who"], parts.get("id"))))
        name = parts["file"] or match["text"]
    return [Owned(student, student, name, _moment(parts["time"]), parts["upload"])]


def _moment(text: str) -> tuple[int, ...]:
    """A platform's time, so that it can be compared; empty if it is written in a way that is not known."""
    for form in ("%Y-%m-%d-%H-%M-%S", "%b %d, %Y %I%M %p"):
        try:
            return tuple(datetime.strptime(text, form).timetuple()[:6])
        except ValueError:
            continue
    return ()


def _by_folder(where: str) -> list[Owned]:
    """`jane/lab/01.ipynb`, `jane.zip` and `jane.rar` are Jane's; any other file beside them is nobody's."""
    first, *rest = PurePosixPath(where).parts
    if first.startswith("."):
        return []
    if rest:
        return [Owned(first, first, "/".join(rest))]
    stem = re.sub(r"(?i)\.tar$", "", PurePosixPath(where).stem)
    return [Owned(stem, stem, first)] if by_name(where) in ("archive", "closed") else []


def _gradescope_students(opening: Open) -> dict[str, list[str]]:
    """`submission_1234` -> its students, by number if Gradescope knows one, else by address, else by name."""
    import yaml  # comes with nbgrader

    try:
        with opening() as stream:
            content: Any = yaml.safe_load(b"".join(in_steps(stream, MOST_BYTES)))
        found = {}
        for submission, about in content.items():
            people = about[":submitters"]
            named = (one.get(":sid") or one.get(":email") or one.get(":name") for one in people)
            found[str(submission)] = [f"{who}" for who in named if who]
        return found
    except (yaml.YAMLError, AttributeError, TypeError, *UNPACKING_FAILS) as error:
        raise LabError(
            f"{GRADESCOPE_LIST} is not as Gradescope writes it ({type(error).__name__}: {error})."
        ) from None
