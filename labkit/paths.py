"""Where things are: shipped weights, the report's tables, the course, the user's own folders."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

from labkit import colab
from labkit.errors import LabError

_PACKAGE = Path(__file__).resolve().parent


def expanded(path: str | os.PathLike[str]) -> Path:
    """`path` with `~` as the user's home. Raises LabError where the user has none, as in some containers."""
    found = os.path.expanduser(path)
    if found == "~" or found.startswith(("~/", "~\\")):
        raise LabError(f"{found} cannot be found: this user has no home folder. Write the whole path.")
    return Path(found)


def user_cache() -> Path:
    """labkit's folder in the user's cache; among the temporary files where the user has no home."""
    try:
        cache = platformdirs.user_cache_path("labkit")
    except RuntimeError:
        cache = Path()
    return cache if cache.is_absolute() else Path(tempfile.gettempdir()) / "labkit"


def shipped_data() -> Path:
    """The folder of weights and tables: inside an installed package, `data/` in a checkout."""
    installed = _PACKAGE / "data"
    return installed if installed.is_dir() else _PACKAGE.parent / "data"


def shipped_notebooks() -> Path:
    """The folder of the released notebooks."""
    installed = _PACKAGE / "data" / "notebooks"
    return installed if installed.is_dir() else _PACKAGE.parent / "notebooks" / "release" / "compression"


def runs_folder() -> Path:
    """Where runs keep their checkpoints and records.

    LABKIT_RUNS if it is set; in Colab the student's Drive if it is mounted; else `runs`, beside the notebook.
    """
    if named := os.environ.get("LABKIT_RUNS"):
        return expanded(named)
    drive = colab.drive()
    return Path("runs") if drive is None else drive / "compression-lab" / "runs"


def default_course() -> Path:
    """The course folder: LABKIT_COURSE if it is set, else `notebooks/` here or in labkit's own checkout."""
    if named := os.environ.get("LABKIT_COURSE"):
        return expanded(named).resolve()
    for folder in (Path.cwd(), Path(__file__).resolve().parents[1]):
        if (folder / "notebooks" / "source").is_dir():
            return folder / "notebooks"
    raise LabError(
        "no course folder: there is no notebooks/source here.\n"
        "Run this in a checkout of the lab, or name the folder that holds source/: --course FOLDER"
    )
