"""A submission's files, also those in archives in archives, opened and read within bounds.

What cannot be opened is named in the account, so that a human looks for the notebooks that may be in it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from labkit.grading.accounting import Account
from labkit.grading.archives import TWICE, UNPACKING_FAILS, Member, TooMany, is_tar, members, packed_alone
from labkit.grading.files import (
    MOST_BYTES,
    MOST_ENTRIES,
    MOST_TOTAL,
    beginning,
    in_steps,
    open_plain,
    printable,
    reason,
    skipped,
    submission_files,
)
from labkit.grading.kinds import BEGINNING, Kind, by_name, is_told, is_usable, kind_of, suffix_of

MOST_FILES = 200  # of a submission, over its archives in archives, that are opened
ARCHIVES_DEEP = 3
MOST_SMALL = 8 * 2**20  # bytes of a file that cells may read; a larger one is only named
LEFT_OUT = "left_out.txt"  # what `collect` did not take of a student's files, beside those it took
OURS = (LEFT_OUT, "timestamp.txt")
NOT_TAKEN = " was not collected: "  # between a file's name and the reason, in a line of LEFT_OUT


@dataclass(frozen=True, eq=False)
class File:
    """A file of a submission: where it is (`work.zip/01.ipynb`), its kind, and its bytes if they are read.

    written: when, as the archive that it was in says; empty if unknown.
    """

    where: str
    kind: Kind
    data: bytes = b""
    written: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A file that has not been opened. packed: how many archives may still be opened in it."""

    where: str
    open: Callable[[], IO[bytes]]
    packed: int = ARCHIVES_DEEP
    written: tuple[int, ...] = ()


class _Enough(Exception):  # noqa: N818 (it is no error)
    """The submission has cost what it may."""


class Opening:
    """Opens a submission's files until that has cost what one submission may cost.

    What counts is what was opened and read, not what came of it: an 80 KB zip can hold 400 zips of 64 MB.
    Notebooks and archives come first: a folder full of other files must not use up what is read.
    """

    def __init__(self, account: Account, notebooks: frozenset[str]) -> None:
        self._account, self._notebooks = account, notebooks
        self._files, self._bytes, self._entries = MOST_FILES, MOST_TOTAL, MOST_ENTRIES
        self._later: list[_Source] = []
        self._last: list[_Source] = []

    def files(self, folder: Path) -> Iterator[File]:
        """Every file below `folder` that can be read, also from archives, each in the order of the names."""
        self._not_collected(folder)
        try:
            for found in submission_files(folder):
                if found.refused:
                    self._not_opened(found.where, found.refused)
                elif found.where not in OURS:
                    yield from self._sorted(_Source(found.where, partial(open_plain, found.path)))
            for source in self._later:  # what is in an archive that turns up here comes behind the others
                yield from self._looked_into(source)
            for source in self._last:
                yield from self._small(source, by_name(source.where))
        except _Enough:
            much = f"more than {MOST_FILES} files or {MOST_TOTAL >> 20} MB: the rest was not opened"
            self._not_opened("", much)

    def _not_collected(self, folder: Path) -> None:
        for line in beginning(folder, LEFT_OUT, 2**16).splitlines():
            where, said, _ = line.partition(NOT_TAKEN)
            holds = () if said and by_name(where) == "data" else self._notebooks
            self._account.name("", printable(line), holds)

    def _not_opened(self, where: str, why: str) -> None:
        self._account.name(where, why, self._notebooks)

    def _sorted(self, source: _Source) -> Iterator[File]:
        """The file, or the files in it, if it is worth a look now; what no name tells comes later."""
        if is_told(source.where) and is_usable(source.where):
            self._last.append(source)
        elif is_told(source.where):
            yield File(source.where, by_name(source.where), written=source.written)
        elif by_name(source.where) in ("notebook", "archive"):
            self._count()
            yield from self._opened(source)
        else:
            self._later.append(source)

    def _looked_into(self, source: _Source) -> Iterator[File]:
        self._count()
        start = self._read(source, BEGINNING)
        if start is None:
            return
        kind = kind_of(source.where, start)
        if kind in ("notebook", "archive", "script"):
            yield from self._opened(source)
        elif kind == "closed":
            self._closed(source.where)
        elif is_usable(source.where):
            yield from self._small(source, kind)
        else:
            yield File(source.where, kind, written=source.written)

    def _small(self, source: _Source, kind: Kind) -> Iterator[File]:
        """A file that may be used from where it is, with its bytes if those are not too many."""
        if self._bytes <= MOST_SMALL:
            yield File(source.where, kind, written=source.written)
        elif (data := self._read(source, MOST_SMALL + 1)) is not None:
            yield File(source.where, kind, data if len(data) <= MOST_SMALL else b"", source.written)

    def _opened(self, source: _Source) -> Iterator[File]:
        data = self._read(source)
        if data is None:
            return
        kind = kind_of(source.where, data[:BEGINNING])
        if kind == "closed":
            self._closed(source.where)
        elif kind == "archive":
            yield from self._unpacked(source, data)
        else:
            yield File(source.where, kind, data, source.written)

    def _closed(self, where: str) -> None:
        what = f"a {suffix_of(where)} archive" if by_name(where) == "closed" else "an archive"
        self._not_opened(where, f"is {what} that cannot be opened here: ask for a .zip")

    def _count(self) -> None:
        self._files -= 1
        if self._files < 0:
            raise _Enough

    def _unpacked(self, source: _Source, data: bytes) -> Iterator[File]:
        """The files in an archive. One that is packed by itself is the only one in it."""
        if not source.packed:
            self._not_opened(source.where, "is packed too deeply and was not opened")
            return
        try:
            alone = packed_alone(data)
        except TooMany:
            raise _Enough from None
        if alone is not None:
            unpacked = self._read(replace(source, open=alone), how="unpacked")
            if unpacked is None:
                return
            if not is_tar(unpacked):
                name = PurePosixPath(source.where).stem
                yield from self._inside(source, Member(name, partial(io.BytesIO, unpacked), source.written))
                return
            data = unpacked
        try:
            found = members(data, self._entries)
        except TooMany:
            raise _Enough from None
        except UNPACKING_FAILS as error:
            self._not_opened(source.where, f"cannot be unpacked ({reason(error)})")
            return
        self._entries -= len(found)
        if not found:
            self._account.name(source.where, "is an empty archive")
        for member in found:
            yield from self._inside(source, member)

    def _inside(self, source: _Source, member: Member) -> Iterator[File]:
        if skipped(member.name):
            return
        where = f"{source.where}/{member.name}" if member.name else source.where
        if member.refused:
            self._account.name(where, member.refused, () if member.refused == TWICE else self._notebooks)
            return
        yield from self._sorted(_Source(where, member.open, source.packed - 1, member.written))

    def _read(self, source: _Source, most: int | None = None, how: str = "") -> bytes | None:
        """A file's bytes, or the first `most`; None if they cannot be read. Raises _Enough, as `_count`."""
        parts: list[bytes] = []
        try:
            with source.open() as stream:
                for part in in_steps(stream, MOST_BYTES + 1 if most is None else most):
                    self._bytes -= len(part)
                    if self._bytes < 0:
                        raise _Enough
                    parts.append(part)
        except UNPACKING_FAILS as error:  # one that is damaged costs only itself
            how = how or ("read" if source.packed == ARCHIVES_DEEP else "unpacked")
            self._not_opened(source.where, f"cannot be {how} ({reason(error)})")
            return None
        if sum(map(len, parts)) > MOST_BYTES:
            self._not_opened(source.where, f"is larger than {MOST_BYTES >> 20} MB and was not opened")
            return None
        return b"".join(parts)
