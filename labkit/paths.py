"""Where labkit's own files lie: shipped weights and the report's tables."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_data() -> Path:
    """The folder with `checkpoints/` and `report/`: inside an installed package, `data/` in a checkout."""
    installed = _PACKAGE / "data"
    return installed if installed.is_dir() else _PACKAGE.parent / "data"
