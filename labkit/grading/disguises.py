"""What a file is that should be a notebook and is not: told by how it begins, with what to do."""

from __future__ import annotations

import re

_LFS = re.compile(r"version https?://(git-lfs|hawser)\.")
_PAGE = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.I)
_CONFLICT = re.compile(r"^(<{7}|>{7})( |$)|^={7}$", re.M)
BEGINNING = 4096  # characters that are looked at


def disguise(text: str) -> str:
    """What the text of a file that cannot be read as a notebook is instead; empty if that is not known.

    Example: `disguise("version https://git-lfs.github.com/spec/v1")` names Git LFS.
    """
    start = text[:BEGINNING].lstrip()
    if _LFS.match(start):
        return "it is a Git LFS pointer, not the notebook itself: run `git lfs pull` and hand it in again"
    if start.startswith("<") and _PAGE.search(start):
        return "it is a web page, such as one to sign in: download the notebook itself and hand in that file"
    if start.startswith("%PDF-"):
        return "it is a PDF under a notebook's name: hand in the .ipynb file"
    if len(_CONFLICT.findall(text)) >= 3:
        return "git's conflict markers (<<<<<<<) are in it: resolve the conflict and hand it in again"
    return ""
