"""A small released notebook with every kind of cell, and what students made of it, as text."""

from __future__ import annotations

import json
from typing import Any

import nbformat

PNG = "iVBORw0KGgo="
SAID: list[dict[str, Any]] = [
    {"output_type": "stream", "name": "stdout", "text": ["epoch 1\r", "epoch 2\n"]},
    {"output_type": "display_data", "data": {"image/png": PNG, "text/plain": ["<Figure>"]}, "metadata": {}},
    {"output_type": "execute_result", "data": {"text/plain": "3", "text/html": "<b>3</b>"}, "metadata": {},
     "execution_count": 2},
    {"output_type": "error", "ename": "ValueError", "evalue": "x", "traceback": ["\x1b[31mValueError\x1b[0m: x"]},
]  # fmt: skip


def _cell(kind: str, source: object, tag: str, grade_id: str | None = None, **more: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"outputs": [], "execution_count": None} if kind == "code" else {}
    marks: dict[str, Any] = {
        "grade_id": grade_id,
        "grade": tag in ("test", "question"),
        "locked": tag in ("test", "setup"),
    }
    marks |= {"solution": tag in ("answer", "question"), "schema_version": 3, "points": 2}
    metadata = {"tags": [tag], **({"nbgrader": marks} if grade_id else {})}
    return {"cell_type": kind, "id": grade_id or tag, "metadata": metadata, "source": source} | own | more


def _notebook(prune: object, words: object, *own: dict[str, Any]) -> dict[str, Any]:
    cells = [
        _cell("markdown", "# Pruning\n\nSmall weights first.", "title"),
        _cell("code", "import torch", "setup", "set-up"),
        _cell("code", prune, "answer", "prune"),
        _cell("code", "assert prune(1) == 1\n2", "test", "test-prune"),
        _cell("code", "for epoch in range(3):\n    train()", "experiment", outputs=SAID, execution_count=3),
        _cell("markdown", words, "question", "why"),
        *own,
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _old(notebook: dict[str, Any]) -> dict[str, Any]:
    """In format 3."""
    cells = [{**cell, "input": cell["source"]} for cell in notebook["cells"]]
    cells.append({"cell_type": "heading", "level": 2, "source": "More", "metadata": {}})
    return {"worksheets": [{"cells": cells}], "metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0}


STUB = _notebook("def prune(q):\n    raise NotImplementedError", "Your answer here.")
PICTURED = _cell(
    "markdown",
    ["![my plot (1).png](attachment:plot.png)\n", "[a](javascript:b) <script>\n", "# why\n", "a\n", "---"],
    "words",
    attachments={"plot.png": {"image/png": PNG}},
)
ANSWERED = _notebook(
    ["def prune(q):\n", "    return (q + 1) * [x for x in 'ab'][0]\n"],
    "Because **small**.",
    _cell("code", "%time prune(3)\n!ls\nprune(4)", "mine", outputs=SAID[:1]),
    PICTURED,
)
# its cells in another order, one twice, without marks
MIXED = {
    **ANSWERED,
    "cells": [{**cell, "metadata": {}} for cell in ANSWERED["cells"][::-1]] + ANSWERED["cells"][2:4],
}
RELEASED = nbformat.from_dict(STUB)
NOTEBOOKS = [json.dumps(one) for one in (ANSWERED, MIXED, STUB, _old(ANSWERED))]
