"""Which of the files that a student handed in is which notebook, wherever it lies and whatever it is called.

Learning platforms and students rename files, put them into folders, and zip folders that hold zips.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nbformat import NotebookNode

from labkit.grading.reading import Unreadable, read_notebook
from labkit.grading.repair import defined_names, grade_id_of
from labkit.notebooks import called

MOST_BYTES = 64 * 2**20  # of one file, unpacked; a notebook with all its pictures has a few
MOST_FILES, MOST_TOTAL = 200, 256 * 2**20
ZIPS_DEEP = 3
SKIPPED = {"__MACOSX", ".ipynb_checkpoints"}
# damaged, encrypted, packed in a way that Python does not know
UNPACKING_FAILS = (
    zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OSError, EOFError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """A file of a submission: where it lies (`work.zip/01.ipynb`), and its bytes."""

    where: str
    data: bytes


@dataclass
class Intake:
    """The file for each notebook, and what to say about the files: by notebook, and in general."""

    files: dict[str, File] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    general: list[str] = field(default_factory=list)


def take_in(folder: Path, released: Mapping[str, NotebookNode]) -> Intake:
    """Find the notebooks of `released` among everything under `folder`."""
    intake = Intake()
    candidates: dict[str, list[tuple[int, File]]] = {}
    for file in _files(folder, intake.general):
        name, how = _which(file, released)
        if name is None:
            intake.general.append(f"{file.where} is none of the notebooks")
        else:
            candidates.setdefault(name, []).append((how, file))
    for name, found in candidates.items():
        # the exact name first, then the least packed, then the alphabet: the same choice each time
        found.sort(key=lambda one: (one[0], one[1].where.count("/"), one[1].where))
        (how, chosen), others = found[0], found[1:]
        intake.files[name] = chosen
        notes = intake.notes.setdefault(name, [])
        # a zip with the notebooks in it, such as `labkit submit` makes, needs no mending
        if re.fullmatch(rf"([^/]+\.zip/)?{re.escape(name)}\.ipynb", chosen.where) is None:
            notes.append(f"was handed in as {chosen.where}")
        notes += [f"{file.where} is another copy and was not graded" for _, file in others]
    return intake


def handed_in(folder: Path) -> bool:
    """Whether anything below `folder` could be a notebook."""
    return any(path.suffix.lower() in (".ipynb", ".zip") for path in folder.rglob("*"))


def skipped(where: str) -> bool:
    """Whether a file is what a system or an editor leaves beside a student's work."""
    path = PurePosixPath(where)
    return bool(SKIPPED & set(path.parts)) or path.name.startswith("._")


def _files(folder: Path, notes: list[str]) -> Iterator[File]:
    count = total = 0
    for path in sorted(folder.rglob("*")):
        where = path.relative_to(folder)
        # a link could lead to somebody else's work
        if (
            path.is_symlink()
            or not path.is_file()
            or SKIPPED & set(where.parts)
            or path.name.startswith("._")
        ):
            continue
        if path.suffix.lower() not in (".ipynb", ".zip"):
            continue
        if path.stat().st_size > MOST_BYTES:
            notes.append(f"{where} is larger than {MOST_BYTES >> 20} MB and was not opened")
            continue
        for file in _unpacked(File(where.as_posix(), path.read_bytes()), ZIPS_DEEP, notes):
            count, total = count + 1, total + len(file.data)
            if count > MOST_FILES or total > MOST_TOTAL:
                notes.append(
                    f"more than {MOST_FILES} files or {MOST_TOTAL >> 20} MB: the rest was not opened"
                )
                return
            yield file


def _unpacked(file: File, deep: int, notes: list[str]) -> Iterator[File]:
    """The notebooks in a zip, and in the zips in it; a notebook is itself."""
    if not file.where.lower().endswith(".zip"):
        yield file
        return
    if not deep:
        notes.append(f"{file.where} is packed too deeply and was not opened")
        return
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            for member in archive.infolist()[: 10 * MOST_FILES]:
                if skipped(member.filename) or not member.filename.lower().endswith((".ipynb", ".zip")):
                    continue
                where = f"{file.where}/{member.filename}"
                with archive.open(member) as packed:
                    data = packed.read(MOST_BYTES + 1)  # the header's size is only a claim
                if len(data) > MOST_BYTES:
                    notes.append(f"{where} is larger than {MOST_BYTES >> 20} MB and was not opened")
                    continue
                yield from _unpacked(File(where, data), deep - 1, notes)
    except UNPACKING_FAILS as error:
        notes.append(f"{file.where} cannot be unpacked ({error})")


def _which(file: File, released: Mapping[str, NotebookNode]) -> tuple[str | None, int]:
    """The notebook that a file is, and how it was told: 0 by its name, 1 by a changed name, 2 by content."""
    stem = Path(file.where).stem
    name = called(stem, released)
    if name is not None:
        return name, int(name != stem)
    return _by_content(file.data, released), 2


def _by_content(data: bytes, released: Mapping[str, NotebookNode]) -> str | None:
    """The notebook whose cells, or whose answers' functions, the file shares; None if that is unclear."""
    try:
        nb, _ = read_notebook(data)
    except Unreadable:
        return None
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
