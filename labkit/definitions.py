"""What a notebook's code defines, taken over without running its experiments.

Its imports, functions, classes and constants are made. Where one name is wanted, so are the other statements
that make what it needs: a helper under `if`, a computed constant, a `functools.partial`. No test and no
experiment cell is run; what fails takes only its own names along.
"""

from __future__ import annotations

import ast
import builtins
import codeop
import contextlib
import dis
import importlib
import linecache
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from labkit.notebooks import Cell, cells_in, source_of

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
DEFINITIONS = (ast.Import, ast.ImportFrom, *FUNCTIONS)
LOADS, STORES = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"), ("STORE_NAME", "STORE_GLOBAL")
HERE = ("time", "capture", "prun", "wandb")  # cell magics under which a cell defines what it would without
_CELL_MAGIC = re.compile(r"\s*%%(\w+).*\n?")
_LINE_MAGIC = re.compile(r"get_ipython\(\)\.run_line_magic\('(?:time|prun)', (.*)\)", re.S)


@dataclass(frozen=True)
class Code:
    """A cell: its file name in tracebacks, its Python, and why it is not run, if it is not."""

    file: str
    source: str
    unread: str = ""


@dataclass
class Defined:
    """The names that were made; lost: those that were not, and why; needed: what the wanted one leads to."""

    names: dict[str, Any]
    lost: dict[str, str] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)

    def lacking(self) -> dict[str, str]:
        """The needed names that are not there although the notebook has them, and why."""
        return {name: self.lost[name] for name in sorted(self.needed & self.lost.keys() - self.names.keys())}


def take(notebook: str, data: bytes, wanted: str, given: Mapping[str, Any]) -> Defined:
    """Make `wanted`, and all that it needs, of the notebook whose file holds `data`.

    given: further names that its code finds. Raises LabError if the file is no notebook.
    """
    return _run(notebook, cells_in(f"{notebook}.ipynb", data), given, False, wanted)


def define(notebook: str, data: bytes, given: Mapping[str, Any], experiments: bool = False) -> dict[str, Any]:
    """All that a notebook's definitions make. experiments: also those in experiment cells."""
    return _run(notebook, cells_in(f"{notebook}.ipynb", data), given, experiments, None).names


def definition_nodes(notebook: str, text: str, experiments: bool = False) -> Iterator[tuple[str, ast.stmt]]:
    """The imports, functions, classes and constants of a notebook, each with a file name for tracebacks."""
    for code in _codes(notebook, cells_in(f"{notebook}.ipynb", text.encode()), experiments):
        for node in filter(_is_definition, _parsed(code)):
            yield code.file, node


def _run(
    notebook: str, cells: Iterable[Cell], given: Mapping[str, Any], experiments: bool, wanted: str | None
) -> Defined:
    defined = Defined(dict(given))
    statements: list[tuple[str, ast.stmt, CodeType]] = []
    compiler = codeop.Compile()  # it goes on with what a cell takes from `__future__`, as a notebook does
    for code in _codes(notebook, cells, experiments):
        if code.unread:
            defined.lost |= dict.fromkeys(bound_in_text(code.source), code.unread)
            continue
        for node in _parsed(code):
            with contextlib.suppress(SyntaxError, ValueError):  # `return` outside of a function
                compiled = compiler(ast.Module([node], []), code.file, "exec")  # type: ignore[arg-type]
                statements.append((code.file, node, compiled))
    chosen, defined.needed = _chosen(statements, wanted, given.keys())
    for number, (_, node, compiled) in enumerate(statements):
        if number in chosen or _is_definition(node):
            try:
                exec(compiled, defined.names)  # noqa: S102 (the student's own code, as in a cell)
            except (Exception, SystemExit) as error:
                why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                defined.lost |= dict.fromkeys(stored_names(compiled), f"its definition raises {why}")
    return defined


def _chosen(
    statements: list[tuple[str, ast.stmt, CodeType]], wanted: str | None, given: Collection[str]
) -> tuple[set[int], set[str]]:
    """Which statements make `wanted` or anything that it needs, and the names of all these."""
    imported = {
        *given,
        *(name for _, node, code in statements if _is_import(node) for name in stored_names(code)),
    }
    functions = {node.name for _, node, _ in statements if isinstance(node, FUNCTIONS)}
    touched = [
        stored_names(code) | _written_into(node) - imported | _called_on(node) - imported - functions
        for _, node, code in statements
    ]
    chosen: set[int] = set()
    found = names = set() if wanted is None else {wanted}
    while found:
        more = {number for number, names in enumerate(touched) if number not in chosen and names & found}
        chosen |= more
        found = {name for number in more for name in _loaded(statements[number][2])} - names
        names = names | found
    return chosen, names - set(dir(builtins))


def stored_names(code: CodeType) -> set[str]:
    """The names that a statement binds."""
    return {one.argval for one in dis.get_instructions(code) if one.opname in STORES}


def _loaded(code: CodeType) -> set[str]:
    """The names that a statement, or a function in it, looks for outside of itself."""
    own = {one.argval for one in dis.get_instructions(code) if one.opname in LOADS}
    return own.union(*map(_loaded, _inner(code)))


def _inner(code: CodeType) -> list[CodeType]:
    return [one for one in code.co_consts if isinstance(one, CodeType)]


def _written_into(node: ast.stmt) -> set[str]:
    """Names whose value a statement writes into: `table[3] = 1`, `f.calls = 0`."""
    parts = () if isinstance(node, DEFINITIONS) else ast.walk(node)
    written = (part for part in parts if isinstance(part, ast.Attribute | ast.Subscript))
    return {name for part in written if not isinstance(part.ctx, ast.Load) for name in _root(part)}


def _called_on(node: ast.stmt) -> set[str]:
    """Names a method of whose value a statement calls, for what the call does: `table.append(3)`."""
    parts = () if isinstance(node, DEFINITIONS) else ast.walk(node)
    calls = (part.value for part in parts if isinstance(part, ast.Expr) and isinstance(part.value, ast.Call))
    return {name for call in calls if isinstance(call.func, ast.Attribute) for name in _root(call.func)}


def _root(part: ast.expr) -> set[str]:
    while isinstance(part, ast.Attribute | ast.Subscript):
        part = part.value
    return {part.id} if isinstance(part, ast.Name) else set()


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        # constants and aliases, but nothing that calculates: that could be an experiment
        if isinstance(node.value, ast.Lambda):
            return True
        return not any(isinstance(part, ast.Call | ast.Subscript) for part in ast.walk(node))
    return isinstance(node, DEFINITIONS)


# ---- from cells to Python


def _codes(notebook: str, cells: Iterable[Cell], experiments: bool) -> Iterator[Code]:
    """The cells but tests, as Python."""
    number = 0
    for cell in cells:
        metadata = cell.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        marks, source, kind = metadata.get("nbgrader"), source_of(cell), cell.get("cell_type")
        if kind != "code":
            yield Code("", source, f"it is in a {kind} cell: turn that into a code cell and run it")
            continue
        number += 1
        if isinstance(marks, dict) and marks.get("grade") and not marks.get("solution"):
            continue
        file = f"<{notebook}, code cell {number}>"
        if "experiment" in (metadata.get("tags") or []) and not experiments:
            yield Code(file, source, "it is in an experiment cell, which another notebook does not run")
            continue
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        yield as_python(file, source)


def as_python(file: str, source: str) -> Code:
    """A cell without what only IPython understands, each line in its place."""
    source = source.replace("\r\n", "\n").replace("\0", "")
    while magic := _CELL_MAGIC.match(source):
        if magic[1] not in HERE:
            return Code(file, source, f"its cell begins with %%{magic[1]}, which keeps none of its names")
        source = "\n" * magic[0].count("\n") + source[magic.end() :]
    if (error := _syntax_error(source)) is None:
        return Code(file, source)
    python = _transformed(source)
    if _syntax_error(python) is None:
        return Code(file, python)
    return Code(file, source, f"its cell has a syntax error in line {error.lineno}")


def _parsed(code: Code) -> list[ast.stmt]:
    """The statements of a cell; those behind `%time` as if they stood alone."""
    if code.unread:
        return []
    found: list[ast.stmt] = []
    for node in ast.parse(code.source).body:
        timed = _LINE_MAGIC.fullmatch(ast.unparse(node)) if isinstance(node, ast.Expr) else None
        with contextlib.suppress(SyntaxError, ValueError):
            found += ast.parse(ast.literal_eval(timed[1])).body if timed else [node]
    return found


def _syntax_error(source: str) -> SyntaxError | None:
    try:
        ast.parse(source)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error), ("", 1, 1, ""))
    return None


def _transformed(source: str) -> str:
    """With IPython's lines as the calls that they stand for; without them where there is no IPython."""
    try:
        manager = importlib.import_module("IPython.core.inputtransformer2").TransformerManager()
        return str(manager.transform_cell(source))
    except ImportError:
        lines = source.splitlines(keepends=True)
        return "".join("\n" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)
    except SyntaxError:
        return source


_BINDS = re.compile(
    r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)"  # a function or class, also under `if`
    r"|^(\w+)[ \t]*(?::[^=\n]+)?=(?!=)"
    r"|^[ \t]*(?:from[ \t]+\S+[ \t]+)?import[ \t]+(?!\()(.+)",
    re.M,
)


def bound_in_text(source: str) -> set[str]:
    """The names that a cell seems to bind, told from its lines: it may be no Python."""
    found: set[str] = set()
    for function, constant, imports in _BINDS.findall(source):
        found |= {function, constant} - {""}
        for one in imports.partition("#")[0].split(","):
            words = one.split()
            if words:
                found.add(words[-1].split(".")[0])
    return found
