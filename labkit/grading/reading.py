"""A file that a student handed in -> a notebook in format 4.5, or a sentence that says why not.

Editors and learning platforms leave byte order marks, Windows line ends, old formats, odd cells. What can
be read is read; what cannot be is `Unreadable`, with a reason that the student can act on.

The notebook is built anew from the parts that grading reads, each of a known shape and size, and so is
valid as it is built. To have nbformat check the student's own would cost the instructor dearly: jsonschema
takes 45 KB of memory for each output `{}`, and a notebook of 3 MB full of them 22 GB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import count, islice
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.files import disguise
from labkit.grading.outputs import safe_attachments, safe_outputs

CELL_TYPES = ("code", "markdown", "raw")
OUTPUT_TYPES = ("stream", "display_data", "execute_result", "error")
GOOD_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CONFLICT = re.compile(r"^(<{7}|>{7})( |$)", re.M)  # of Git
GOOD_TAG = re.compile(r"[^,\ud800-\udfff]{1,100}")
NBGRADER = (
    "grade_id", "grade", "solution", "locked", "task", "points", "schema_version", "cell_type", "checksum",
)  # fmt: skip
KERNEL = ("name", "display_name", "language")

# What is read of one notebook. The lab's have up to 45 cells with 30,000 characters of code.
MOST_VALUES = 2_000_000  # lists, mappings and what is in them, about: a few hundred MB of memory
MOST_CELLS = 2_000
MOST_CODE = 1_000_000  # characters
MOST_WORDS = 20_000_000  # characters in text cells: Colab writes a pasted picture into the text
MOST_OUTPUTS = 5_000
MOST_PICTURES = 100  # attached to one cell
MOST_TAGS = 50  # of one cell
AGAIN = "and hand it in again"


class Unreadable(Exception):  # noqa: N818 (it says what the file is)
    """Why a file cannot be read as a notebook."""


def read_notebook(data: bytes) -> tuple[NotebookNode, list[str]]:
    """The notebook in a file's bytes, and what had to be mended in it. Raises Unreadable."""
    notes: list[str] = []
    content = notebook_json(data)
    major = _major(content)
    if major < 4 or "cells" not in content:
        given = _old_cells(content)
        notes.append(f"was in notebook format {major}, whose outputs are not read")
    else:
        given = content["cells"]
    if not isinstance(given, list):
        raise Unreadable("its list of cells is damaged")
    whole = [cell for cell in given if isinstance(cell, dict) and cell.get("cell_type") in CELL_TYPES]
    if len(whole) < len(given):
        notes.append(f"{_count(len(given) - len(whole), 'cell')} of no known kind left out")
    if len(whole) > MOST_CELLS:
        least = f"{len(whole):,} cells, and {MOST_CELLS:,} are the most that are read"
        raise Unreadable(f"it has {least}: delete those that it can do without {AGAIN}")
    ids = _Ids()
    cells = [_cell(cell, ids) for cell in whole]
    _check_length(cells)
    notes += _add_outputs(cells, whole)
    plain = {"nbformat": 4, "nbformat_minor": 5, "metadata": _notebook_metadata(content.get("metadata"))}
    return nbformat.from_dict(plain | {"cells": cells}), notes


def notebook_json(data: bytes) -> dict[str, Any]:
    """A notebook file's content, as JSON has it. Raises Unreadable."""
    content = _json(_text(data))
    if not isinstance(content, dict) or not ({"cells", "worksheets"} & content.keys()):
        raise Unreadable("it is JSON, but not a notebook: it has no cells")
    return content


def _text(data: bytes) -> str:
    if not data.strip():
        raise Unreadable("the file is empty")
    if instead := disguise(data[:1000]):
        raise Unreadable(f"it is {instead}, and not a notebook")
    if data.startswith(b"PK\x03\x04"):
        raise Unreadable("it is a zip file under a notebook's name")
    coding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(coding)
    except UnicodeDecodeError:
        raise Unreadable("it is no text, so no notebook") from None


def _json(text: str) -> Any:
    # `{},` takes 3 bytes in the file and 72 in memory; base64, the bulk of honest ones, has no such signs
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise Unreadable(f"it holds more than {MOST_VALUES:,} values: clear its outputs {AGAIN}")
    try:
        return json.loads(text)
    except RecursionError:
        raise Unreadable("its JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        if conflict := CONFLICT.search(text):
            line = text.count("\n", 0, conflict.start()) + 1
            raise Unreadable(
                f"it holds Git's conflict markers, the first in line {line}: resolve the conflict"
            ) from None
        where = f"line {error.lineno}, column {error.colno}"
        if not text.lstrip().startswith(("{", "[")):
            raise Unreadable("it is no notebook: it does not begin as one") from None
        if not text[error.pos :].strip() or error.msg.startswith("Unterminated string"):
            raise Unreadable(f"it breaks off at {where}: the file was cut short") from None
        before = text[: error.pos].rstrip()
        if (text[error.pos] in "]}" and before.endswith(",")) or "trailing comma" in error.msg:
            raise Unreadable(f"it has a comma too many before {where}") from None
        raise Unreadable(f"its JSON is damaged at {where} ({error.msg})") from None
    except ValueError:  # Python reads whole numbers of up to 4,300 digits
        raise Unreadable(f"a number in it has thousands of digits: clear its outputs {AGAIN}") from None


def _major(content: dict[str, Any]) -> int:
    major = content.get("nbformat", 4)
    if not isinstance(major, int) or major < 1:
        raise Unreadable("it does not say which notebook format it is in")
    if major > 4:
        raise Unreadable(f"it is in notebook format {str(major)[:9]}, which is newer than this grader knows")
    return major


def _old_cells(content: dict[str, Any]) -> list[Any]:
    """The cells of formats 1 to 3 in today's; nbformat would check the whole before it converts."""
    sheets = content.get("worksheets", [content])  # format 1 has its cells where format 4 has them
    if not isinstance(sheets, list) or not all(
        isinstance(sheet, dict) and isinstance(sheet.get("cells"), list) for sheet in sheets
    ):
        raise Unreadable("it is in an old notebook format that cannot be converted")
    return [_modern(cell) if isinstance(cell, dict) else cell for sheet in sheets for cell in sheet["cells"]]


def _modern(cell: dict[str, Any]) -> dict[str, Any]:
    kind, level = cell.get("cell_type"), cell.get("level")
    if kind == "code":
        new = {"source": cell.get("input", cell.get("code")), "execution_count": cell.get("prompt_number")}
        return {**cell, **new, "outputs": []}
    if kind == "heading":
        marks = "#" * level if isinstance(level, int) and 1 <= level <= 6 else "#"
        return {**cell, "cell_type": "markdown", "source": f"{marks} {_joined(cell.get('source'))}"}
    if kind in ("html", "text"):
        return {**cell, "cell_type": "markdown", "source": cell.get("source", cell.get("text"))}
    return cell


class _Ids:
    """Cell ids, each given once; a cell without a good one of its own gets `own-0`, `own-1`, ..."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers = count()  # goes on where it stopped: from 0 for each cell would be quadratic

    def of(self, given: object) -> str:
        name = given if isinstance(given, str) and GOOD_ID.fullmatch(given) else None
        while name is None or name in self._taken:
            name = f"own-{next(self._numbers)}"
        self._taken.add(name)
        return name


def _cell(given: dict[str, Any], ids: _Ids) -> dict[str, Any]:
    """The cell with every part that format 4.5 asks for, and nothing else; outputs come later."""
    cell = {
        "cell_type": given["cell_type"],
        "id": ids.of(given.get("id")),
        "metadata": _cell_metadata(given.get("metadata")),
        "source": _joined(given.get("source")),
    }
    if given["cell_type"] == "code":
        number = given.get("execution_count")
        good = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**31
        return {**cell, "outputs": [], "execution_count": number if good else None}
    attachments = given.get("attachments")
    if isinstance(attachments, dict):
        cell["attachments"] = safe_attachments(dict(islice(attachments.items(), MOST_PICTURES)))
    return cell


def _joined(source: object) -> str:
    """A cell's text: a string or a list of lines."""
    lines = source if isinstance(source, list) else [source]
    text = "".join(line for line in lines if isinstance(line, str)).replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\0", "")  # what a crashed editor leaves; Python takes no line with one
    # half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark
    return text.encode("utf-8", "replace").decode("utf-8")


def _cell_metadata(given: object) -> dict[str, Any]:
    """What is read of it: nbgrader's marks and the tags. The rest is the editors'."""
    kept: dict[str, Any] = {}
    metadata = given if isinstance(given, dict) else {}
    marks, tags = metadata.get("nbgrader"), metadata.get("tags")
    if isinstance(marks, dict):
        kept["nbgrader"] = {key: marks[key] for key in NBGRADER if key in marks and _is_small(marks[key])}
    if isinstance(tags, list):
        good = (tag for tag in tags[:MOST_TAGS] if isinstance(tag, str) and GOOD_TAG.fullmatch(tag))
        kept["tags"] = list(dict.fromkeys(good))
    return kept


def _notebook_metadata(given: object) -> dict[str, Any]:
    kernel = given.get("kernelspec") if isinstance(given, dict) else None
    if not isinstance(kernel, dict):
        return {}
    kept = {key: kernel[key] for key in KERNEL if isinstance(kernel.get(key), str) and _is_small(kernel[key])}
    return {"kernelspec": kept} if {"name", "display_name"} <= kept.keys() else {}


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 200 and value.isprintable()  # half of a surrogate pair is not
    return value is None or (isinstance(value, (int, float)) and abs(value) < 2**53)  # so no NaN either


def _check_length(cells: Sequence[dict[str, Any]]) -> None:
    code = sum(len(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    words = sum(len(cell["source"]) for cell in cells) - code
    for what, length, most in (("code", code, MOST_CODE), ("text", words, MOST_WORDS)):
        if length > most:
            least = f"{length:,} characters, and {most:,} are the most that are read"
            raise Unreadable(f"its {what} cells hold {least}: shorten them {AGAIN}")


def _add_outputs(cells: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]]) -> list[str]:
    """Give the cells those of their outputs that are in shape, and return what is to be said about it.

    Of all outputs only an experiment's are looked at later: grading does not run it anew.
    """
    notes: dict[str, None] = {}
    left = MOST_OUTPUTS
    for cell, old in zip(cells, given, strict=True):
        if cell["cell_type"] != "code":
            continue
        outputs = old.get("outputs", [])
        if not isinstance(outputs, list) or not all(map(_is_output, outputs)):
            notes["damaged outputs left out"] = None
        kept = safe_outputs(outputs)
        if len(kept) > left:
            notes[f"more than {MOST_OUTPUTS:,} outputs: the rest was left out"] = None
        cell["outputs"] = kept[:left]
        left -= len(cell["outputs"])
    return list(notes)


def _is_output(given: object) -> bool:
    return isinstance(given, dict) and given.get("output_type") in OUTPUT_TYPES


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
