"""A student's files, put into their place in the course: whole or not at all, and nothing lost by it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from labkit.errors import LabError
from labkit.grading.files import Hashes, beginning, printable, reason, remove, walk
from labkit.grading.kinds import by_name
from labkit.grading.opening import LEFT_OUT, NOT_TAKEN, OURS
from labkit.notebooks import called

EARLIER = "it was in an earlier hand-in, and the newest one is without it"


def put(new: Path, target: Path, notebooks: Collection[str] = ()) -> tuple[str, list[str]]:
    """Move a student's files into place: `new`, `replaced` or `unchanged`, and what the new ones lack.

    Whenever this is interrupted, the old files or the new ones are there: see `settle`. notebooks: the names
    of the assignment's; where an earlier hand-in had one and this one has not, that is said beside the files,
    and the earlier ones are kept in a hidden folder: nobody's work disappears by handing in the rest again.
    """
    if target.parent.is_symlink():  # it may lead to another student's files
        raise OSError(errno.ELOOP, f"{target.parent.name} is a link", str(target.parent))
    there = os.path.lexists(target)
    if there and not target.is_symlink() and _contents(new) == _contents(target):
        return "unchanged", []
    old, fresh, earlier = _beside(target)
    lacking = list(_lacking(new, target, notebooks)) if there and not target.is_symlink() else []
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _copy_tree(new, fresh)
        if lacking:
            lines = "".join(f"{line}\n" for line in [*_left_out(new), *lacking])
            (fresh / LEFT_OUT).write_text(lines, encoding="utf-8")
        if there:
            target.rename(old)
        fresh.rename(target)
        if lacking:
            with suppress(FileNotFoundError):
                remove(earlier)
            old.rename(earlier)
    finally:
        settle(target)
    return "replaced" if there else "new", lacking


def settle(target: Path) -> None:
    """Put the old files back if a run ended between its two renames, and clear away what it left."""
    old, fresh, _ = _beside(target)
    if target.parent.is_symlink():
        return
    if os.path.lexists(old) and not os.path.lexists(target):
        old.rename(target)
    for rest in (old, fresh):
        with suppress(OSError):
            remove(rest)


def settle_all(course: Path, assignment: str) -> list[str]:
    """After a run that was killed, also for students who are not in this download; says what fails."""
    failed = []
    for folder in sorted((course / "submitted").glob("*")):
        try:
            settle(folder / assignment)
        except OSError as error:
            expect_room(error)
            failed.append(f"{printable(folder.name)}: the earlier files cannot be put back ({reason(error)})")
    return failed


def expect_room(error: OSError) -> None:
    """Raise LabError if the disk is full: that is no file's own fault, and nothing is to be lost by it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise LabError(f"there is no room left to write to ({reason(error)}).") from None


def _contents(folder: Path) -> dict[str, str]:
    """What was handed in, and what of it was left out, as hashes; not what others have put beside it."""
    hashes = Hashes()
    found = {file.where: hashes.of(file) for file in walk(folder) if file.refused or file.where not in OURS}
    return {**found, LEFT_OUT: "\n".join(line for line in _left_out(folder) if not line.endswith(EARLIER))}


def _left_out(folder: Path) -> list[str]:
    return beginning(folder, LEFT_OUT, 2**20).splitlines()


def _lacking(new: Path, old: Path, notebooks: Collection[str]) -> Iterator[str]:
    """The notebooks that were there before; none if the new files may hold them under other names."""
    now = [file.where for file in walk(new)]
    if any(by_name(where) in ("archive", "closed") for where in now):
        return
    names = {_notebook(where, notebooks) for where in now}
    for file in walk(old):
        if not file.refused and _notebook(file.where, notebooks) not in {*names, None}:
            yield f"{printable(file.where)}{NOT_TAKEN}{EARLIER}"


def _notebook(where: str, notebooks: Collection[str]) -> str | None:
    return called(PurePosixPath(where).stem, notebooks)


def _beside(target: Path) -> tuple[Path, Path, Path]:
    """Where a student's old and new files are while they change places, and where earlier ones are kept."""
    old, new, earlier = (target.with_name(f".{target.name}.{word}") for word in ("old", "new", "earlier"))
    return old, new, earlier


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a folder. The errors that shutil.copytree gathers have no number: it hides a full disk."""
    target.mkdir()
    for path in sorted(source.rglob("*")):  # a folder comes before what is in it
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copyfile(path, place)
