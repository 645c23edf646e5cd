"""What kind of file a student handed in, told by its first bytes and by its name.

The bytes decide where they say anything, since names are often changed on the way: a notebook arrives as
`01.ipynb.txt` from a browser, a zip as `work.ipynb`. Some formats are archives inside (`.docx`, `.npz`)
and are known by their name.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["notebook", "archive", "closed", "document", "script", "words", "data", "unknown"]

BEGINNING = 512  # bytes that are enough to tell; a tar names itself at byte 257
TOLD_BY_NAME: dict[Kind, str] = {
    "document": "html htm xhtml mhtml mht webarchive url webloc desktop gdoc pdf doc docx odt rtf pages key "
    "ppt pptx odp ps djvu epub",
    "data": "png jpg jpeg gif bmp svg webp tif tiff heic ico mp3 mp4 mov avi mkv wav ogg pt pth ckpt bin "
    "onnx safetensors npy npz pkl pickle h5 hdf5 mat parquet arrow feather xls xlsx ods sqlite db jar whl "
    "pyc so dll exe css js ts c h cpp hpp cu sh bat toml cfg ini yml yaml csv tsv lock map woff woff2 ttf",
}  # fmt: skip
ARCHIVES = "zip tar tgz gz tbz tbz2 bz2 txz xz"
CLOSED = "rar 7z zst tzst lz lz4 lzma z ace arj cab dmg iso sit sitx alz egg cpio xar pkg"
WORDS = "txt md markdown rst tex log out"
SCRIPTS = "py ipy pyw"
# the same in every hand-in of its kind: nobody answers in one of these
USUAL = re.compile(r"(?i)(readme|requirements|licen[cs]e|environment|timestamp|receipt|changelog)\b.*")
# what cells may import or read where it is beside their notebook
USABLE = "py txt csv json yaml yml npy npz pt pth safetensors"
_BY_SUFFIX: dict[str, Kind] = {
    suffix: kind
    for kind, suffixes in (
        *TOLD_BY_NAME.items(), ("archive", ARCHIVES), ("closed", CLOSED), ("words", WORDS),
        ("script", SCRIPTS), ("notebook", "ipynb"),
    )
    for suffix in suffixes.split()
}  # fmt: skip
_BY_BYTES: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "archive"), (b"PK\x05\x06", "archive"), (b"\x1f\x8b", "archive"), (b"BZh", "archive"),
    (b"\xfd7zXZ\x00", "archive"), (b"Rar!\x1a\x07", "closed"), (b"7z\xbc\xaf\x27\x1c", "closed"),
    (b"\x28\xb5\x2f\xfd", "closed"), (b"LZIP", "closed"), (b"%PDF-", "document"), (b"\x89PNG", "data"),
    (b"\xff\xd8\xff", "data"),
)  # fmt: skip
_PAGE = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.I)
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # of a text's encoding, before it begins


def by_name(where: str) -> Kind:
    """The kind that a file's name tells: `unknown` if it tells nothing."""
    return _BY_SUFFIX.get(PurePosixPath(where).suffix.lower().lstrip("."), "unknown")


def is_told(where: str) -> bool:
    """Whether the name alone tells what the file is, and nothing of it needs to be read."""
    return by_name(where) in TOLD_BY_NAME


def is_usable(where: str) -> bool:
    """Whether the cells of a notebook may import or read such a file."""
    return PurePosixPath(where).suffix.lower().lstrip(".") in USABLE.split()


def kind_of(where: str, start: bytes) -> Kind:
    """The kind of the file at `where`, which begins with the bytes `start`.

    Example: `kind_of("01.ipynb.txt", b'{"cells": [')` is `notebook`.
    """
    named = by_name(where)
    if named in TOLD_BY_NAME:
        return named
    for magic, kind in _BY_BYTES:
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return "archive"
    if named in ("notebook", "archive", "closed"):
        return named
    if _PAGE.match(start):
        return "document"
    return "notebook" if _text(start).startswith("{") else named


def is_usual(where: str) -> bool:
    """Whether it is a file like README.md, which is beside a student's work and not part of it."""
    return USUAL.fullmatch(PurePosixPath(where).name) is not None


def suffix_of(where: str) -> str:
    """How the name ends, as it is said in a sentence: `.rar`; empty if it has no ending."""
    return PurePosixPath(where).suffix.lower()[:12]


def _text(start: bytes) -> str:
    for mark in _MARKS:
        start = start.removeprefix(mark)
    return start.replace(b"\0", b"").decode("latin-1").lstrip()
