"""A file system of a process's own, in which only what it needs exists: as bubblewrap's, without bubblewrap.

Landlock keeps a process from a file's contents, not from its mode, its times or a socket that stands at its
path. Here these files have no path: what may be read is there, read-only, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from labkit.grading import kernel_calls

MEGABYTES = 1  # for folders and empty files: places to mount at


def enter(folder: Path, readable: Sequence[Path], writable: Sequence[Path]) -> None:
    """For this process and all that it starts, in a mount namespace of theirs. OSError if it is refused.

    folder: a small disk of its own, where the new root is put together. There is no /proc in that root.
    """
    kernel_calls.unshare(kernel_calls.NEWNS)
    root = folder / "root"
    root.mkdir()
    kernel_calls.mount_tmpfs(root, MEGABYTES)
    for path in filter(os.path.exists, readable):  # False, too, for what one may not look at
        kernel_calls.bind(path, _place(root, path), recursive=True)
    places = {path: _place(root, path) for path in writable}
    kernel_calls.make_read_only(root)
    for path, place in places.items():
        kernel_calls.bind(path, place)
    outside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    kernel_calls.change_root(root)
    os.rmdir("root", dir_fd=outside)
    os.close(outside)


def _place(root: Path, path: Path) -> Path:
    """An empty file or folder in the new root, at the path that it has outside."""
    place = root / path.relative_to("/")
    folder = place if path.is_dir() else place.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        place.touch()
    return place
