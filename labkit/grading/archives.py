"""What is packed in an archive that Python's standard library opens: zip, tar, gz, bz2, xz.

Nothing is written to disk, and nothing is unpacked that is not asked for. Links in a tar are not followed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import IO, cast

from labkit.grading.files import reason

PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# damaged, encrypted, packed in a way that Python does not know; sizes and places that are no numbers of bytes
UNPACKING_FAILS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, RuntimeError,
    NotImplementedError, OSError, EOFError, ValueError, LookupError, OverflowError, MemoryError,
)  # fmt: skip
_PACKED: tuple[tuple[bytes, Callable[[IO[bytes]], object]], ...] = (
    (b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open),
)  # fmt: skip

MOST_STREAMS = 10_000  # that are packed one behind the other; pbzip2 makes one of 900 kB

Open = Callable[[], IO[bytes]]
TWICE = "is in its archive more than once: the last one counts"


class TooMany(Exception):  # noqa: N818 (it says what the archive is)
    """There are more entries in an archive than may be listed."""


@dataclass(frozen=True)
class Member:
    """A file in an archive. written: when, as the archive says, the largest part first; empty if unknown.

    refused: why it is not opened; empty for a plain file. name: empty for the archive itself.
    """

    name: str
    open: Open
    written: tuple[int, ...] = ()
    refused: str = ""


def packed_alone(data: bytes) -> Open | None:
    """How to unpack a file that is packed by itself, as `01.ipynb.gz` and `.tar.gz`; None if it is not.

    Raises TooMany.
    """
    for magic, opener in _PACKED:
        if data.startswith(magic):
            if data.count(magic) > MOST_STREAMS:  # each empty one costs time, and nothing else bounds them
                raise TooMany
            return cast(Open, partial(opener, io.BytesIO(data)))
    return None


def is_tar(data: bytes) -> bool:
    """Whether these bytes are a tar, of which only the modern kinds name themselves."""
    if data[257:262] == b"ustar":
        return True
    try:
        return tarfile.TarInfo.frombuf(data[:512], "utf-8", "surrogateescape").isfile()
    except (*UNPACKING_FAILS, tarfile.HeaderError):
        return False


def members(data: bytes, most: int) -> list[Member]:
    """The files in a zip or a tar, folders left out. Raises TooMany, or one of UNPACKING_FAILS.

    Of entries with one name the last counts, as it does where they are unpacked; the others are refused.
    """
    found = _in_tar(data, most) if is_tar(data) and not data.startswith(b"PK") else _in_zip(data, most)
    last = {member.name: member for member in found if not member.refused}
    return [
        member
        if member.refused or last[member.name] is member
        else Member(member.name, member.open, refused=TWICE)
        for member in found
    ]


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A file in a zip. It, and reading from it, raises UNPACKING_FAILS."""
    if member.compress_type not in PACKINGS:  # what a newer Python may know fails with errors of its own
        raise NotImplementedError("it is packed in a way that is not known here")
    return archive.open(member)


def place_in(name: str) -> str:
    """A member's name as a place below its archive, with `/`."""
    return re.sub(r"^(\./)+|^/+", "", name.replace("\\", "/"))


def _in_zip(data: bytes, most: int) -> list[Member]:
    # zipfile makes an object of each entry before one can look at the first: a million in 64 MB
    if data.count(b"PK\x01\x02") > most:
        raise TooMany
    archive = zipfile.ZipFile(io.BytesIO(data))
    return [
        Member(place_in(one.filename), partial(open_member, archive, one), tuple(one.date_time))
        for one in archive.infolist()
        if not one.is_dir()
    ]


def _in_tar(data: bytes, most: int) -> list[Member]:
    archive = tarfile.open(fileobj=io.BytesIO(data), mode="r:")  # noqa: SIM115 (its members are opened later)
    found: list[Member] = []
    rest = ""
    try:
        for one in archive:
            if len(found) >= most:
                raise TooMany
            if not one.isdir():
                refused = "" if one.isreg() else "is not a plain file and was not opened"
                opening = partial(_open_tarred, archive, one)
                found.append(Member(place_in(one.name), opening, _date(one.mtime), refused))
    except UNPACKING_FAILS as error:
        rest = reason(error)
    # a damaged header ends the list as if the archive ended there
    if not rest and data[archive.offset :].strip(b"\0"):
        rest = "damaged header"
    if rest and not found:
        raise tarfile.ReadError(rest)
    if rest:
        why = f"cannot be unpacked behind {found[-1].name} ({rest})"
        found.append(Member("", partial(io.BytesIO, b""), refused=why))
    return found


def _open_tarred(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    if stream is None:
        raise ValueError("it is not a plain file")
    return stream


def _date(seconds: float) -> tuple[int, ...]:
    try:
        return tuple(time.gmtime(seconds)[:6])
    except (ValueError, OverflowError, OSError):
        return ()
