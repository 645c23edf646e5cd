"""What a cell of a notebook is: its kind, its mark, and what its text says as Python.

`labkit submit` and the grader read a student's notebook with these, so that they cannot disagree.
Nothing is run.
"""

from __future__ import annotations

import ast
import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CELL_TYPES = ("code", "markdown", "raw")
EXPERIMENT = "experiment"  # the tag
ALIKE = 0.6  # the share of lines from which on two cells are versions of one
MOST_PARSED = 100_000  # characters of a cell that are read as Python: about 90 MB of memory
IN_PLACE = ("time", "capture", "prun")  # cell magics that leave in the notebook what the cell defines

_MAGIC = re.compile(r"\s*%%(\w+)[^\n]*(?:\n|$)")
_IPYTHON = re.compile(r"[%!?]|[\w.]+\?{1,2}\s*$")
_TAKEN = re.compile(r"(\s*[A-Za-z_][\w.,\s]*=\s*)[%!]")  # files = !ls
_FENCED = re.compile(r"^ *(```+|~~~+)[^\n]*\n(.*?)^ *\1", re.M | re.S)

# "Epochs are not layers" is no Python, but "epochs is not layers" is
IDLE = (
    ast.Name, ast.Constant, ast.Tuple, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.expr_context, ast.cmpop,
    ast.boolop, ast.unaryop,
)  # fmt: skip
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Cell:
    """A cell as far as it tells what was handed in.

    type: code, markdown or raw. marks: nbgrader's metadata. origin: which of the notebook's cells it is.
    """

    type: str
    source: str
    id: str = ""
    marks: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    origin: int = -1

    @property
    def name(self) -> str | None:
        """The name that nbgrader's metadata give it, its grade_id."""
        name = self.marks.get("grade_id")
        return name if isinstance(name, str) else None

    def has_id_of(self, known: Cell) -> bool:
        return self.id != "" and self.id == known.id

    @property
    def is_answer(self) -> bool:
        return bool(self.marks.get("solution"))

    @property
    def is_experiment(self) -> bool:
        return EXPERIMENT in self.tags


def cells_in(given: Iterable[object]) -> list[Cell]:
    """The cells of a notebook's JSON, or of nbformat's node; what is no cell is left out."""
    return [
        Cell(
            str(cell["cell_type"]),
            text(cell.get("source")),
            str(cell.get("id") or ""),
            mapping(mapping(cell.get("metadata")).get("nbgrader")),
            tuple(tag for tag in sequence(mapping(cell.get("metadata")).get("tags")) if isinstance(tag, str)),
            number,
        )
        for number, cell in enumerate(map(mapping, given))
        if cell.get("cell_type") in CELL_TYPES
    ]


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def text(source: object) -> str:
    """A cell's text, a string or a list of lines, without the signs that editors leave in it."""
    lines = source if isinstance(source, list) else [source]
    joined = "".join(line for line in lines if isinstance(line, str))
    plain = joined.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").removeprefix("\ufeff")
    # half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark
    return plain.encode("utf-8", "replace").decode("utf-8")


# ---- a cell's text beside another's


def lines_of(source: str) -> list[str]:
    return [line.rstrip() for line in source.strip().splitlines()]


def same(source: str, other: str) -> bool:
    return lines_of(source) == lines_of(other)


def alike(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two cells, in lines or in words, are versions of one."""
    # so much longer that the ratio cannot be reached: the comparison would take the product of the lengths
    if 2 * min(len(ours), len(theirs)) < ALIKE * (len(ours) + len(theirs)):
        return False
    matcher = difflib.SequenceMatcher(None, ours, theirs)
    return matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE


# ---- a cell's text as Python


def cell_magic(source: str) -> str | None:
    """The name of the magic that a cell begins with: `timeit` for `%%timeit -n1`."""
    found = _MAGIC.match(source)
    return found[1] if found else None


def python(source: str) -> str:
    """The cell's Python, line for line: what only IPython understands does nothing in it.

    Empty if a cell magic takes the cell elsewhere, as `%%timeit` does: it then defines nothing here.

    >>> python("!mkdir out\\nx = 1")
    'pass\\nx = 1'
    """
    while found := _MAGIC.match(source):
        if found[1] not in IN_PLACE:
            return ""
        source = "\n" * found[0].count("\n") + source[found.end() :]
    return "\n".join(_python_lines(source.split("\n")))


def _python_lines(lines: Iterable[str]) -> Iterator[str]:
    goes_on = False
    for line in lines:
        bare = line.lstrip()
        taken = _TAKEN.match(line)
        other = goes_on or taken is not None or _IPYTHON.match(bare) is not None
        before = line[: len(line) - len(bare)]
        yield (taken[1] + "None" if taken and not goes_on else before + "pass") if other else line
        goes_on = other and line.endswith("\\")


def parsed(source: str) -> ast.Module | None:
    """The cell as Python; None if it is not Python, or too long."""
    return _parse(source)[0]


def wrong_line(source: str) -> int | None:
    """The line of a cell's syntax error; None if it has none, or is too long to be read."""
    return _parse(source)[1]


def _parse(source: str) -> tuple[ast.Module | None, int | None]:
    if len(source) > MOST_PARSED:
        return None, None
    line = None
    for plain in dict.fromkeys((source, python(source))):
        try:
            return ast.parse(plain), None
        except SyntaxError as error:
            line = error.lineno or 1
        except (ValueError, RecursionError, MemoryError):
            line = 1
    return None, line


def definitions(tree: ast.Module) -> list[Definition]:
    """The functions and classes that it defines at its top level."""
    return [node for node in tree.body if isinstance(node, Definition)]


def defined_names(source: str) -> set[str]:
    """The functions and classes that a cell defines at its top level; none if it is no Python."""
    tree = parsed(source)
    return {node.name for node in definitions(tree)} if tree is not None else set()


def bound_names(body: Iterable[ast.stmt]) -> set[str]:
    """The names that statements define, import or assign, also under `if` or `try`."""
    found: set[str] = set()
    left = list(body)
    while left:
        node = left.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found |= {(one.asname or one.name).partition(".")[0] for one in node.names}
            case ast.Assign(targets=targets, value=value):
                found |= set().union(*map(_names, targets)) - _names(value)  # f = compile(f) defines no f
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                found.add(name)
            case ast.If() | ast.For() | ast.While() | ast.With() | ast.Try():
                for part in ("body", "orelse", "finalbody"):
                    left += getattr(node, part, ())
                left += [one for handler in getattr(node, "handlers", ()) for one in handler.body]
    return found


def _names(node: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def is_unwritten(node: Definition) -> bool:
    """Whether a function, or every method of a class, is the stub: NotImplementedError and nothing else."""
    body = [part for part in node.body if not _is_docstring(part)]
    if isinstance(node, ast.ClassDef):
        methods = [part for part in body if isinstance(part, Definition)]
        return bool(methods) and all(map(is_unwritten, methods))
    return len(body) == 1 and _raises(body[0])


def ends_as_the_stub(node: Definition) -> bool:
    """Whether a function that was written still comes to the stub's NotImplementedError in the end."""
    if isinstance(node, ast.ClassDef) or not _raises(node.body[-1]):
        return False
    return not any(isinstance(part, ast.Return) for part in ast.walk(node))


def _raises(node: ast.stmt) -> bool:
    return isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in _names(node.exc)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def says_something(tree: ast.Module) -> bool:
    """Whether there is a statement in it: names, texts and comments are words that happen to be Python."""
    return not all(
        (isinstance(node, ast.Expr) and all(isinstance(part, IDLE) for part in ast.walk(node.value)))
        or (isinstance(node, ast.AnnAssign) and node.value is None)  # Note: it came back
        for node in tree.body
    )


def code_among_words(source: str) -> str:
    """The definitions, imports and constants in a text that holds words, too: in ``` or between the lines.

    >>> code_among_words("My answer:\\n\\ndef half(x):\\n    return x / 2\\n\\nIt halves.")
    'def half(x):\\n    return x / 2'
    """
    if len(source) > MOST_PARSED:
        return ""
    fenced = [textwrap.dedent(found[2]).strip("\n") for found in _FENCED.finditer(source)]
    pieces = [source, textwrap.dedent(source)] if not fenced else ["\n\n".join(fenced), *fenced]
    for piece in pieces:
        if parsed(piece) is not None:
            return piece
    return definitions_among(pieces[-1])


def definitions_among(source: str) -> str:
    """The definitions, imports and constants of a text, whatever else is between them."""
    return "\n\n".join(filter(_is_definition, _top_level(source.splitlines())))


def _top_level(lines: Iterable[str]) -> Iterator[str]:
    """The lines in pieces that each begin at the margin, decorators with what they decorate."""
    piece: list[str] = []
    for line in lines:
        goes_on = not line.strip() or line[0] in " \t)]}" or (piece and piece[-1].startswith("@"))
        if not goes_on and piece:
            yield "\n".join(piece).rstrip()
            piece = []
        piece.append(line)
    yield "\n".join(piece).rstrip()


def _is_definition(piece: str) -> bool:
    tree = parsed(piece)
    kinds = (*Definition.__args__, ast.Import, ast.ImportFrom, ast.Assign)
    return tree is not None and bool(tree.body) and all(isinstance(node, kinds) for node in tree.body)
