"""What a student handed in, as files: found and read within bounds, so that it costs its owner alone.

Every read that the instructor's side makes of a student's files goes through here. Only plain files are
opened. A link could lead to somebody else's work, a named pipe would wait for ever, a device has no end;
these, what cannot be read, and what is beyond the bounds is named with the reason instead.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from typing import IO

MOST_BYTES = 64 * 2**20  # of one file, unpacked; a notebook with all its pictures has a few
MOST_TOTAL = 256 * 2**20  # of a submission, over all its files and zips in zips
MOST_ENTRIES = 100_000  # files and folders of a submission, and what its zips list
MOST_DEEP = 50  # folders in folders
MOST_NAMED = 100  # things of a submission that are not opened; of more, the number
LEAVINGS = {"__MACOSX", "__pycache__", ".git", ".DS_Store", "Thumbs.db", "desktop.ini"}
CHECKPOINTS = ".ipynb_checkpoints"  # where Jupyter keeps what was saved last, beside the notebook
# what stands at a name may have changed since it was looked at: neither follow a link nor wait for a pipe
_PLAINLY = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _PLAINLY |= getattr(os, _flag, 0)
_KINDS = (
    (stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"), (stat.S_ISCHR, "a device"),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Something below a folder: a plain file, or what is not opened.

    where: its place below the folder, with `/`. refused: why it is not opened, behind that place: `is a link
    and was not opened`; empty for a plain file.
    """

    folder: Path
    where: str
    size: int = 0
    refused: str = ""

    @property
    def path(self) -> Path:
        return self.folder / self.where

    def __str__(self) -> str:
        return f"{printable(self.where)} {self.refused}".strip()


def submission_files(folder: Path) -> Iterator[Found]:
    """`walk`, for `submitted/<student>/<assignment>`: neither that folder nor the student's may be a link."""
    for place in (folder.parent, folder):
        if why := _why_no_folder(place):
            # what is not there is the same for every student
            name = place.name if os.path.lexists(place) else folder.name
            yield Found(place.parent, name, refused=why)
            return
    yield from walk(folder)


def walk(folder: Path, shared: int = 0) -> Iterator[Found]:
    """Every plain file below `folder`, and what is not opened, in the order of their names.

    What systems and editors leave there is passed over. shared: so many levels of folders hold several
    students' files; the bounds are for each folder or file in the last of these, else for the whole.
    """
    return _Walk(folder, shared).found()


def shared_levels(folder: Path, most: int) -> int:
    """How many levels of folders are the class's: 1, and one more for each folder that stands alone."""
    levels = 1
    while levels <= most:
        with suppress(OSError):  # then it is named later
            folders = (entry.name for entry in _entries(folder) if entry.is_dir(follow_symlinks=False))
            inside = [name for name in folders if not skipped(name)]
            if len(inside) == 1:
                folder /= inside[0]
                levels += 1
                continue
        break
    return levels


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading. Raises OSError, also if it is not a plain file."""
    descriptor = os.open(path, _PLAINLY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        return open(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def is_plain(path: Path) -> bool:
    """Whether there is a plain file, and not something that leads elsewhere."""
    with suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def in_steps(stream: IO[bytes], most: int) -> Iterator[bytes]:
    """A file's bytes, at most `most` of them.

    In small steps, because of bzip2 and lzma zipfile unpacks as many packed bytes at once as it is asked for.
    """
    while most > 0 and (part := stream.read(min(most, 4096))):
        yield part
        most -= len(part)


def beginning(folder: Path, name: str, most: int) -> str:
    """The first bytes of a submission's file as text; empty if it is none that can be opened."""
    if any(map(_why_no_folder, (folder.parent, folder))):
        return ""
    try:
        with open_plain(folder / name) as stream:
            return b"".join(in_steps(stream, most)).decode("utf-8", "replace")
    except OSError:
        return ""


@dataclass
class Hashes:
    """What tells whether files have changed: the contents, as far as they would be read at all."""

    left: int = field(default_factory=lambda: MOST_TOTAL)

    def of(self, file: Found) -> str:
        """A file's hash; its size, or why it is not opened, if it is not read."""
        if file.refused:
            return file.refused
        if file.size > min(self.left, MOST_BYTES):
            return f"{file.size} bytes"
        digest = hashlib.sha256()
        try:
            with open_plain(file.path) as stream:
                # it may have grown meanwhile
                for part in iter(lambda: stream.read(min(self.left, 2**20)), b""):
                    self.left -= len(part)
                    digest.update(part)
        except OSError as error:
            return f"cannot be read ({reason(error)})"
        return digest.hexdigest()


def hash_of(files: Iterable[Found], start: str = "") -> str:
    """One hash of all these files, names and contents."""
    hashes, digest = Hashes(), hashlib.sha256(start.encode())
    for file in files:
        digest.update(b"\n" + os.fsencode(file.where) + b"\n" + hashes.of(file).encode("utf-8", "replace"))
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, however deeply nested, or a file. Raises OSError."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        path.unlink()
    elif os.rename in os.supports_dir_fd:
        _remove_folder(path)
    else:
        shutil.rmtree(path)


def skipped(where: str) -> bool:
    """Whether a file is what a system leaves beside a student's work: nobody handed it in."""
    path = PurePosixPath(where)
    return bool(LEAVINGS & set(path.parts)) or path.name.startswith("._")


def printable(text: str, most: int = 300) -> str:
    """A name as it can be shown and stored: bytes that are no UTF-8 and control characters as escapes."""
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 2 :]}"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def reason(error: BaseException) -> str:
    """Why something failed, in a few words; not where on this machine."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return printable(error.strerror)
    return printable(str(error)) or type(error).__name__


class _Walk:
    def __init__(self, folder: Path, shared: int) -> None:
        self._folder, self._shared = folder, shared
        self._entries: dict[str, int] = {}  # part -> how many were seen in it

    def found(self) -> Iterator[Found]:
        waiting = [""]  # the last one is next; by calls it would end where Python ends a recursion
        refused: dict[str, int] = {}  # part -> how much of it is not opened
        unnamed: dict[str, str] = {}  # part -> the first of those that are only counted
        while waiting:
            for one in self._look(waiting.pop(), waiting):
                part = self._part(one.where)
                if one.refused:
                    refused[part] = refused.get(part, 0) + 1
                    if refused[part] > MOST_NAMED:
                        unnamed.setdefault(part, one.where)
                        continue
                yield one
        for part, first in unnamed.items():
            more = f"{refused[part] - MOST_NAMED:,} more that were not opened"
            yield Found(self._folder, first, refused=f"is one of {more}")

    def _look(self, where: str, waiting: list[str]) -> Iterator[Found]:
        """A file, or why it is none; what is in a folder is put in line."""
        path = self._folder / where
        try:
            mode = path.lstat() if where else path.stat()
        except OSError as error:
            yield self._refusal(where, f"cannot be read ({reason(error)})")
            return
        if stat.S_ISREG(mode.st_mode) and where:
            yield Found(self._folder, where, mode.st_size)
        elif not stat.S_ISDIR(mode.st_mode):
            yield self._refusal(where, f"is {_kind(mode.st_mode)} and was not opened")
        elif where.count("/") >= MOST_DEEP:
            yield self._refusal(where, "is nested too deeply and was not opened")
        else:
            yield from self._list(where, waiting)

    def _list(self, where: str, waiting: list[str]) -> Iterator[Found]:
        names: list[str] = []
        try:
            for entry in _entries(self._folder / where):
                inside = f"{where}/{entry.name}" if where else entry.name
                part = self._part(inside)
                self._entries[part] = seen = self._entries.get(part, 0) + 1
                if seen <= MOST_ENTRIES:
                    names += [] if skipped(entry.name) else [inside]
                    continue
                if seen == MOST_ENTRIES + 1:
                    much = f"{MOST_ENTRIES:,} files and folders"
                    yield self._refusal(inside, f"was not opened, nor the rest: there are more than {much}")
                break
        except OSError as error:
            yield self._refusal(where, f"cannot be read ({reason(error)})")
        waiting += sorted(names, reverse=True)

    def _refusal(self, where: str, why: str) -> Found:
        if where:
            return Found(self._folder, where, refused=why)
        return Found(self._folder.parent, self._folder.name, refused=why)

    def _part(self, where: str) -> str:
        return "/".join(where.split("/", self._shared)[: self._shared])


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _why_no_folder(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return f"cannot be read ({reason(error)})"
    return "" if stat.S_ISDIR(mode) else f"is {_kind(mode)} and was not opened"


def _kind(mode: int) -> str:
    return next((name for fits, name in _KINDS if fits(mode)), "not a folder")


def _remove_folder(path: Path) -> None:
    """Every folder is first moved to just below `path`, so no depth and no length of a path stops this.

    By descriptors: whoever the files belong to cannot make it follow a link meanwhile.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    top = os.open(path, flags)
    try:
        taken = set(os.listdir(top))
        free = (new for new in map(str, count()) if new not in taken)
        waiting = _emptied(top, top, free)
        while waiting:
            name = waiting.pop()
            try:
                inside = os.open(name, flags, dir_fd=top)
            except PermissionError:
                os.chmod(name, 0o700, dir_fd=top)
                inside = os.open(name, flags, dir_fd=top)
            try:
                waiting += _emptied(inside, top, free)
            finally:
                os.close(inside)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def _emptied(folder: int, top: int, free: Iterator[str]) -> list[str]:
    """Delete a folder's files and move its folders to `top`; returns their names there."""
    moved = []
    os.fchmod(folder, 0o700)
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            moved.append(next(free))
            try:
                os.rename(name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
            except PermissionError:  # a folder that is moved is written to
                os.chmod(name, 0o700, dir_fd=folder)
                os.rename(name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
        else:
            os.unlink(name, dir_fd=folder)
    return moved
