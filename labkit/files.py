"""Files that are there as a whole or not at all, and the sentence where one cannot be written or read."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from labkit.errors import LabError

ELSEWHERE = "Name another place, or change who may write there."
# What a system answers where its disk or the user's path is at fault, and never our code: what to do.
REMEDIES = {
    errno.ENOSPC: "Free some space, or name another place.",
    errno.EFBIG: "The system lets you write no larger file there: name another place.",
    errno.EDQUOT: "Your quota is used up: delete what you no longer need, or name another place.",
    errno.ENAMETOOLONG: "Name a shorter one.",
    errno.EIO: "The disk or network drive fails: try again, or name another place.",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), ELSEWHERE),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP), "Name another place."),
}


class NotWritten(LabError, OSError):  # noqa: N818 (it says what became of the file)
    """A file that could not be written: errno, strerror and filename as in the OSError that it stands for."""

    def __str__(self) -> str:
        remedy = REMEDIES.get(self.errno or 0, ELSEWHERE)
        return f"{self.filename} cannot be written ({self.strerror}). {remedy}"

    @classmethod
    def of(cls, path: Path, error: OSError) -> NotWritten:
        return cls(error.errno, error.strerror or str(error), str(path))


def trouble_with_files(error: OSError) -> str | None:
    """A sentence for an error that the system is to blame for; None for one that may be a bug of ours."""
    if error.errno not in REMEDIES:
        return None
    what = error.filename if error.filename is not None else "a file or this command's output"
    return f"{what} cannot be used ({error.strerror}). {REMEDIES[error.errno]}"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then put that file in place at once.

    Whoever reads sees the old file or the new one, also after a kill in between. Who may read it stays as
    it was; for a new file the umask says so, as for any other. Raises NotWritten.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            if path.is_file():
                part.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWUSR)
            write(part)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise NotWritten.of(path, error) from None


def expect_writable(path: Path) -> None:
    """Raise LabError unless a file `path` can be written; makes its folder."""
    if path.is_dir():
        raise LabError(f"{path} is a folder: name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(b"\0")  # a full disk has room for names
    except OSError as error:
        raise NotWritten.of(path, error) from None


def disguise(start: bytes) -> str:
    """What a file is instead of what its name says, told by its first bytes; empty if they do not tell."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text:
        return "an empty file"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which stands for a file that was not downloaded"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page"
    return ""
