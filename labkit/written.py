"""What an answer's text is: written, broken, for a human to tell, or still the stub."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from labkit.cells import (
    MOST_PARSED,
    Cell,
    Definition,
    bound_names,
    cell_magic,
    definitions,
    ends_as_the_stub,
    is_unwritten,
    lines_of,
    parsed,
    python,
    same,
    says_something,
    wrong_line,
)

OPAQUE = re.compile(r"import \*|\bexec\(|^\s*%(?:run|load)\b", re.M)  # may define any name
STUB = re.compile(r"\s*(?:def|class|async|raise|@)")

State = Literal["written", "broken", "unclear", "unanswered"]


@dataclass(frozen=True)
class Answer:
    """What a notebook holds of one answer.

    name: its grade_id. names: what its code has to define; none for words. state: `written`; `broken`:
    code that cannot define those names; `unclear`: only a human can tell; `unanswered`: as it was handed
    out. why: a phrase that tells so of the last but one. remark: where it stands, if that is not its own
    cell. stub: whether what would be run for it is only the stub.
    """

    name: str
    names: tuple[str, ...] = ()
    state: State = "unanswered"
    why: str = ""
    remark: str = ""
    stub: bool = False


def judged(text: str, names: Sequence[str]) -> tuple[State, str]:
    """What code is that is not the stub: (state, why it is not written or not all of it)."""
    tree = parsed(text)
    if tree is None:
        line = wrong_line(text)
        if line is None:  # too long to tell
            return "written", ""
        if names and not any(mentions(text, name) for name in names):
            return "unclear", "its cell holds words instead of code"
        return "broken", f"its cell has a syntax error in line {line}"
    magic = cell_magic(text)
    if magic is not None and not python(text):
        return (
            "broken",
            f"%%{magic} in its first line keeps what the cell defines from the notebook: delete it",
        )
    if not says_something(tree):
        return "unclear", "its cell holds words instead of code"
    if OPAQUE.search(text):
        return "written", ""
    bound = bound_names(tree.body)
    if missing := [name for name in names if name not in bound]:
        return "broken", f"its cell does not define {' and '.join(missing)}"
    mine = [node for node in definitions(tree) if node.name in names]
    if any(is_unwritten(node) or ends_as_the_stub(node) for node in mine):
        return "broken", "the stub's NotImplementedError is still in it: delete that line"
    methods = [(node, part) for node in mine if isinstance(node, ast.ClassDef) for part in node.body]
    left = [
        f"{node.name}.{part.name}"
        for node, part in methods
        if isinstance(part, Definition) and is_unwritten(part)
    ]
    return "written", f"{' and '.join(left)} is still to be written" if left else ""


def is_untouched(text: str, released: str) -> bool:
    """Whether it is still the stub: nothing, the released text, or code that does no more than that."""
    if not text.strip() or same(text, released):
        return True
    if "NotImplementedError" not in text:
        return False
    tree = parsed(text)
    nodes = definitions(tree) if tree is not None else []
    return tree is not None and len(nodes) == len(tree.body) and all(map(is_unwritten, nodes))


def has_words(text: str, known: Cell) -> bool:
    """Whether a stub holds comments that it was not released with."""
    released = lines_of(known.source)
    new = (line for line in lines_of(text) if line not in released)
    return any(line.strip() and not STUB.match(line) for line in new)


def mentions(source: str, name: str) -> bool:
    """Whether a text says somewhere that it defines `name`, as Python or not."""
    return (
        name in source
        and re.search(rf"^[\s#>`]*(?:def|class)\s+{re.escape(name)}\b", source, re.M) is not None
    )


def is_words(cell: Cell) -> bool:
    """Whether it is a text cell, or holds words although it is a code cell."""
    if cell.type != "code":
        return True
    tree = parsed(cell.source)
    return len(cell.source) <= MOST_PARSED and (tree is None or not says_something(tree))
