"""A file that a student handed in -> a notebook in format 4.5, or a sentence that says why not.

Editors and learning platforms leave byte order marks, Windows line ends, old formats, odd cells. What can
be read is read; what cannot be is `Unreadable`, with a reason that the student can act on.
"""

from __future__ import annotations

import json
import re
from typing import Any

import nbformat
from nbformat import NotebookNode

CELL_TYPES = ("code", "markdown", "raw")
GOOD_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Unreadable(Exception):  # noqa: N818 (it says what the file is)
    """Why a file cannot be read as a notebook."""


def read_notebook(data: bytes) -> tuple[NotebookNode, list[str]]:
    """The notebook in a file's bytes, and what had to be mended in it. Raises Unreadable."""
    notes: list[str] = []
    content = _json(_text(data))
    if not isinstance(content, dict) or not ({"cells", "worksheets"} & content.keys()):
        raise Unreadable("it is JSON, but not a notebook: it has no cells")
    major = content.get("nbformat", 4)
    if not isinstance(major, int) or not 1 <= major <= 4:
        raise Unreadable(f"it is in notebook format {major}, which is newer than this grader knows")
    if major < 4 or "worksheets" in content:
        content = _upgraded(content)
        notes.append(f"was in notebook format {major}")
    cells = content["cells"]
    if not isinstance(cells, list):
        raise Unreadable("its list of cells is damaged")
    whole = [cell for cell in cells if isinstance(cell, dict) and cell.get("cell_type") in CELL_TYPES]
    if len(whole) < len(cells):
        notes.append(f"{_count(len(cells) - len(whole), 'cell')} of no known kind left out")
    taken: set[str] = set()
    plain = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}}
    nb = nbformat.from_dict(plain | {"cells": [_cell(cell, taken) for cell in whole]})
    metadata = content.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    if isinstance(kernel, dict) and {"name", "display_name"} <= kernel.keys():
        nb.metadata["kernelspec"] = nbformat.from_dict(kernel)
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError:
        notes.append("damaged outputs left out")
        for cell in nb.cells:
            cell.metadata = nbformat.from_dict(
                {key: value for key, value in cell.metadata.items() if key in ("nbgrader", "tags")}
            )
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        try:
            nbformat.validate(nb)
        except nbformat.ValidationError:
            raise Unreadable("its cells are damaged") from None
    return nb, notes


def _text(data: bytes) -> str:
    if not data.strip():
        raise Unreadable("the file is empty")
    if data.startswith(b"PK\x03\x04"):
        raise Unreadable("it is a zip file under a notebook's name")
    coding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(coding)
    except UnicodeDecodeError:
        raise Unreadable("it is no text, so no notebook") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise Unreadable("its JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        if not text.lstrip().startswith(("{", "[")):
            raise Unreadable("it is no notebook: it does not begin as one") from None
        if not text[error.pos :].strip() or error.msg.startswith("Unterminated string"):
            raise Unreadable(f"it breaks off at {where}: the file was cut short") from None
        before = text[: error.pos].rstrip()
        if (text[error.pos] in "]}" and before.endswith(",")) or "trailing comma" in error.msg:
            raise Unreadable(f"it has a comma too many before {where}") from None
        raise Unreadable(f"its JSON is damaged at {where} ({error.msg})") from None


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    try:
        converted: dict[str, Any] = nbformat.convert(nbformat.from_dict(content), 4)
    except Exception as error:  # whatever an old converter trips over
        raise Unreadable(f"it is in an old notebook format that cannot be converted ({error})") from None
    return converted


def _cell(given: dict[str, Any], taken: set[str]) -> NotebookNode:
    """The cell with every part that format 4.5 asks for; `taken` holds the ids so far."""
    source = given.get("source", "")
    lines = source if isinstance(source, list) else [source]
    text = "".join(line for line in lines if isinstance(line, str)).replace("\r\n", "\n").replace("\r", "\n")
    cell_id = given.get("id")
    if not isinstance(cell_id, str) or not GOOD_ID.fullmatch(cell_id) or cell_id in taken:
        cell_id = next(name for n in range(len(taken) + 1) if (name := f"own-{n}") not in taken)
    taken.add(cell_id)
    metadata = given.get("metadata")
    cell: dict[str, Any] = {
        "cell_type": given["cell_type"],
        "id": cell_id,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "source": text,
    }
    if given["cell_type"] == "code":
        outputs, count = given.get("outputs"), given.get("execution_count")
        cell["outputs"] = outputs if isinstance(outputs, list) else []
        cell["execution_count"] = count if isinstance(count, int) else None
    elif isinstance(given.get("attachments"), dict):
        cell["attachments"] = given["attachments"]
    return nbformat.from_dict(cell)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
