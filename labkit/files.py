"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then put that file in place at once.

    Whoever reads sees the old file or the new one, also after a kill in between.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        write(Path(part))
        os.chmod(part, 0o644)  # mkstemp makes it private; shared course folders need it readable
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
