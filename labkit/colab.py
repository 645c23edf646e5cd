"""What Google Colab does differently: the notebook on the screen is no file, and files leave by the browser.

Colab's own modules are asked for by name: they exist there only, and what is not public may change.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

DRIVE = Path("/content/drive/MyDrive")
FOLDERS = (Path("/content"), DRIVE / "Colab Notebooks")
SECONDS = 60  # that a notebook with many pictures may take to arrive


def here() -> bool:
    """Whether this is Colab, in a cell or in its shell."""
    try:
        import_module("google.colab")
    except ImportError:
        return False
    return True


def drive() -> Path | None:
    """The student's Drive, if this is Colab and it is mounted: what lies there outlives the runtime."""
    return DRIVE if here() and DRIVE.is_dir() else None


def open_notebook() -> tuple[str, bytes] | None:
    """(file name, content) of the notebook that calls this, as it is on the screen; None if that fails."""
    try:
        message = import_module("google.colab._message")
        content = message.blocking_request("get_ipynb", timeout_sec=SECONDS)["ipynb"]
        name = content.get("metadata", {}).get("colab", {}).get("name")
        return f"{name or 'notebook.ipynb'}", json.dumps(content, indent=1, ensure_ascii=False).encode()
    except Exception:  # no cell, no answer, or another Colab than we know
        return None


def download(path: Path) -> bool:
    """Send a file to the student's browser; whether that could be done."""
    try:
        import_module("google.colab.files").download(str(path))
    except Exception:  # a program has no browser to send it to
        return False
    return True
