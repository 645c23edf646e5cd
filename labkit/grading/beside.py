"""What a student handed in beside a notebook, as it lies around that notebook when its cells run.

A module, data, a notebook of helpers: small files, and not many of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

MOST_FILES = 100
MOST_BYTES = 8 * 2**20  # of all of them; a student's folder holds 64 MB
MOST_NAME = 200


def beside(notebook: str, files: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """(the files by their place as seen from the notebook's folder, the places of those that are left out).

    notebook, files: by their place in the submission, such as `work.zip/hw/01.ipynb`. What is in another
    folder is found by its name alone, if that is free: somebody may have moved the notebook only.

    Example:
        beside("work.zip/hw/01.ipynb", {"work.zip/hw/mine.py": b"x = 1"})  # ({"mine.py": b"x = 1"}, [])
    """
    folder = PurePosixPath(notebook).parent
    near = {path: place for place in sorted(files) if (path := _within(folder, place)) is not None}
    far = {PurePosixPath(place).name: place for place in sorted(files) if place not in near.values()}
    kept: dict[str, bytes] = {}
    left_out, size = [], 0
    for path, place in {**far, **near}.items():
        size += len(files[place])
        if len(kept) < MOST_FILES and size <= MOST_BYTES and len(path) <= MOST_NAME:
            kept[path] = files[place]
        else:
            size -= len(files[place])
            left_out.append(place)
    return kept, sorted(left_out)


def _within(folder: PurePosixPath, place: str) -> str | None:
    """The path of a file below that folder, as seen from it."""
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or not path.is_relative_to(folder):
        return None
    return str(path.relative_to(folder))
