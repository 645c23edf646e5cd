"""Which of the files that a student handed in is which notebook, wherever it lies and whatever it is called.

Learning platforms and students rename files, put them into folders, and zip folders that hold zips. What
cannot be opened is told, so that a human looks for the notebooks that may be in it.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from nbformat import NotebookNode

from labkit.grading.files import (
    MOST_BYTES,
    MOST_ENTRIES,
    MOST_TOTAL,
    Found,
    beginning,
    in_steps,
    open_plain,
    printable,
    reason,
    skipped,
    submission_files,
)
from labkit.grading.reading import Unreadable, read_notebook
from labkit.grading.repair import defined_names, grade_id_of, repair
from labkit.notebooks import called

MOST_FILES = 200  # of a submission, over its zips in zips, that are opened
MOST_COPIES = 20  # of a notebook, that are looked into
ZIPS_DEEP = 3
LEFT_OUT = "left_out.txt"  # what `collect` did not take of a student's files, beside those it took
USABLE = (".py", ".txt", ".csv", ".json", ".yaml", ".yml", ".npy", ".npz", ".pt", ".pth", ".safetensors")
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# damaged, encrypted, packed in a way that Python does not know; sizes and places that are no numbers of bytes
UNPACKING_FAILS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, RuntimeError, NotImplementedError, OSError,
    EOFError, ValueError, LookupError, OverflowError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """A file of a submission: where it lies (`work.zip/01.ipynb`), and its bytes."""

    where: str
    data: bytes


@dataclass
class Intake:
    """The file for each notebook, and what to say about the files: by notebook, and in general.

    unopened: the phrases of `general` that say what could not be opened, and why. A notebook may be in it.
    beside: what the cells of the notebooks may use, by its place: modules, data, notebooks of helpers.
    """

    files: dict[str, File] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    general: list[str] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)
    beside: dict[str, bytes] = field(default_factory=dict)

    def not_opened(self, what: str) -> None:
        self.general.append(what)
        self.unopened.append(what)


def take_in(folder: Path, released: Mapping[str, NotebookNode]) -> Intake:
    """Find the notebooks of `released` among everything under `folder`."""
    intake = Intake()
    candidates: dict[str, list[tuple[int, File]]] = {}
    for file in _Opening(intake).files(folder):
        if not file.where.lower().endswith(".ipynb"):
            intake.beside[file.where] = file.data
            continue
        try:
            name, how = _which(file, released)
        except Unreadable as why:
            if not file.data.strip():  # no notebook can be in it
                intake.general.append(f"{printable(file.where)} is empty")
                continue
            intake.not_opened(f"{printable(file.where)} cannot be read ({printable(str(why))})")
            continue
        if name is None:
            intake.general.append(f"{printable(file.where)} is none of the notebooks")
            intake.beside[file.where] = file.data
        else:
            candidates.setdefault(name, []).append((how, file))
    for name, found in candidates.items():
        # the exact name first, then the least packed, then the alphabet: the same choice each time
        found.sort(key=lambda one: (one[0], one[1].where.count("/"), one[1].where))
        copies = [file for _, file in found]
        chosen = copies[0]
        if len(copies) > 1:
            # a browser puts `01 (1).ipynb` beside the untouched `01.ipynb`; of equals `min` takes the first
            chosen = min(copies[:MOST_COPIES], key=lambda file: _emptiness(file.data, released[name]))
        intake.files[name] = chosen
        # not by its name a copy: it may be a notebook of helpers
        intake.beside |= {file.where: file.data for how, file in found if how == 2 and file is not chosen}
        notes = intake.notes.setdefault(name, [])
        # a zip with the notebooks in it, such as `labkit submit` makes, needs no mending
        if re.fullmatch(rf"([^/]+\.zip/)?{re.escape(name)}\.ipynb", chosen.where) is None:
            notes.append(f"was handed in as {printable(chosen.where)}")
        notes += [
            f"{printable(file.where)} is another copy and was not graded"
            for file in copies
            if file is not chosen
        ]
    return intake


def handed_in(folder: Path) -> bool:
    """Whether anything below `folder` could be a notebook, or could hold one."""
    return any(file.refused or _wanted(file.where) for file in submission_files(folder))


def matters(file: Found) -> bool:
    """Whether what is in a file can change how a submission is graded."""
    return _wanted(file.where) or _usable(file.where) or file.where in (LEFT_OUT, "timestamp.txt")


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A file in a zip. It, and reading from it, raises UNPACKING_FAILS."""
    if member.compress_type not in PACKINGS:  # what a newer Python may know fails with errors of its own
        raise NotImplementedError("it is packed in a way that is not known here")
    return archive.open(member)


class _Enough(Exception):  # noqa: N818 (it is no error)
    """The submission has cost what it may."""


class _Opening:
    """Opens a submission's files, and its zips, until that has cost what one submission may cost.

    What counts is what was opened and read, not what came of it: an 80 KB zip can hold 400 zips of 64 MB.
    """

    def __init__(self, intake: Intake) -> None:
        self._not_opened = intake.not_opened
        self._files, self._bytes, self._entries = MOST_FILES, MOST_TOTAL, MOST_ENTRIES

    def files(self, folder: Path) -> Iterator[File]:
        """Every notebook below `folder`, also from zips, in the order of their names."""
        for line in beginning(folder, LEFT_OUT, 2**16).splitlines():
            self._not_opened(printable(line))
        try:
            for file in submission_files(folder):
                if file.refused:
                    self._not_opened(str(file))
                elif _wanted(file.where) or _usable(file.where):
                    yield from self._opened(file.where, partial(open_plain, file.path), ZIPS_DEEP)
        except _Enough:
            self._not_opened(
                f"more than {MOST_FILES} files or {MOST_TOTAL >> 20} MB: the rest was not opened"
            )

    def _opened(self, where: str, opening: Callable[[], IO[bytes]], deep: int) -> Iterator[File]:
        """The notebooks in a zip, and in the zips in it; a notebook is itself."""
        data = self._read(where, opening)
        if data is None:
            return
        if not where.lower().endswith(".zip"):
            yield File(where, data)
            return
        if not deep:
            self._not_opened(f"{printable(where)} is packed too deeply and was not opened")
            return
        # zipfile makes an object of each entry before one can look at the first: a million in 64 MB
        self._entries -= data.count(b"PK\x01\x02")
        if self._entries < 0:
            raise _Enough
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
        except UNPACKING_FAILS as error:
            self._not_opened(f"{printable(where)} cannot be unpacked ({reason(error)})")
            return
        for member in archive.infolist():
            if _wanted(member.filename) or _usable(member.filename):
                opening = partial(open_member, archive, member)
                yield from self._opened(f"{where}/{member.filename}", opening, deep - 1)

    def _read(self, where: str, opening: Callable[[], IO[bytes]]) -> bytes | None:
        """A file's bytes; None if that does not work. Raises _Enough when nothing more may be read."""
        self._files -= 1
        if self._files < 0:
            raise _Enough
        parts: list[bytes] = []
        try:
            with opening() as stream:
                for part in in_steps(stream, MOST_BYTES + 1):
                    self._bytes -= len(part)
                    if self._bytes < 0:
                        raise _Enough
                    parts.append(part)
        except UNPACKING_FAILS as error:  # one that is damaged costs only itself
            how = "unpacked" if ".zip/" in where.lower() else "read"
            self._not_opened(f"{printable(where)} cannot be {how} ({reason(error)})")
            return None
        if sum(map(len, parts)) > MOST_BYTES:
            self._not_opened(f"{printable(where)} is larger than {MOST_BYTES >> 20} MB and was not opened")
            return None
        return b"".join(parts)


def _wanted(where: str) -> bool:
    return where.lower().endswith((".ipynb", ".zip")) and not skipped(where)


def _usable(where: str) -> bool:
    """Whether cells may import or read it."""
    return where.lower().endswith(USABLE) and where not in (LEFT_OUT, "timestamp.txt") and not skipped(where)


def _which(file: File, released: Mapping[str, NotebookNode]) -> tuple[str | None, int]:
    """The notebook that a file is, and how it was told: 0 by its name, 1 by a changed name, 2 by content.

    Raises Unreadable if the name does not tell, and the content cannot be read.
    """
    stem = Path(file.where).stem
    name = called(stem, released)
    if name is not None:
        return name, int(name != stem)
    return _by_content(file.data, released), 2


def _by_content(data: bytes, released: Mapping[str, NotebookNode]) -> str | None:
    """The notebook whose cells, or whose answers' functions, the file shares; None if that is unclear."""
    nb, _ = read_notebook(data)
    marks = {name for cell in nb.cells if (name := grade_id_of(cell)) is not None}
    names = {name for cell in nb.cells if cell.cell_type == "code" for name in defined_names(cell.source)}
    scores = {name: _shared(marks, names, known) for name, known in released.items()}
    best = max(scores.values(), default=0)
    winners = [name for name, score in scores.items() if score == best]
    return winners[0] if best and len(winners) == 1 else None


def _shared(marks: set[str], names: set[str], known: NotebookNode) -> int:
    score = 0
    for cell in known.cells:
        name = grade_id_of(cell)
        score += name in marks
        if name is not None and cell.metadata["nbgrader"].get("solution") and cell.cell_type == "code":
            score += len(names & defined_names(cell.source))
    return score


def _emptiness(data: bytes, known: NotebookNode) -> int:
    """0: something is answered; 1: it cannot be read, so it may be; 2: it is as it was released."""
    try:
        nb, _ = read_notebook(data)
    except Unreadable:
        return 1
    mended = {grade_id_of(cell): cell.source.split() for cell in repair(nb, known).notebook.cells}
    answers = [
        cell for cell in known.cells if grade_id_of(cell) and cell.metadata["nbgrader"].get("solution")
    ]
    return 2 if all(mended.get(grade_id_of(cell)) == cell.source.split() for cell in answers) else 0
