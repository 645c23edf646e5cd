"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from labkit.errors import LabError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then put that file in place at once.

    Whoever reads sees the old file or the new one, also after a kill in between. Who may read it stays as
    it was; for a new file the umask says so, as for any other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        if path.is_file():
            part.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWUSR)
        write(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def expect_writable(path: Path) -> None:
    """Raise LabError unless a file `path` can be written; makes its folder."""
    if path.is_dir():
        raise LabError(f"{path} is a folder: name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise LabError(f"{path} cannot be written ({error.strerror}): name another place.") from None
