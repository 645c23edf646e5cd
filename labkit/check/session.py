"""Whether the function that is checked is the one that the answer cell holds now.

A cell with a syntax error defines nothing, and neither does one that stops before its `def`: the name then
still stands for what an earlier run of the cell defined, and a check of it would tell of the wrong code.
"""

from __future__ import annotations

import ast
import linecache
import re
import sys
import warnings
from collections.abc import Collection
from typing import Any

from labkit.check.engine import functions_of

DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def outdated(answer: Any, name: str) -> str | None:
    """Why `answer` is not what the notebook defines as `name` now, in words; None unless that is certain.

    Told from the cells that IPython has run: `answer` is what the name stands for, a cell defined it, and a
    later cell has a definition, too, but never got there.
    """
    shell = _shell()
    if getattr(shell, "history_manager", None) is None or shell.user_ns.get(name) is not answer:
        return None
    cells = [str(cell).strip() for cell in shell.history_manager.input_hist_parsed]
    own = _cell_of(answer)
    for cell in reversed(cells if own in cells else []):
        if cell == own:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(cell)
        except SyntaxError as error:
            if re.search(rf"^\s*(async\s+def|def|class)\s+{re.escape(name)}\b", cell, re.MULTILINE):
                return f"it has a syntax error in line {error.lineno}"
            continue
        definitions = [node for node in tree.body if isinstance(node, DEFINITION) and node.name == name]
        others = (part for node in tree.body if node not in definitions for part in ast.walk(node))
        if any(name in _bound_by(part) for part in others):
            return None
        if definitions:
            return "it stopped with an error before the definition"
    return None


def _bound_by(node: ast.AST) -> Collection[str]:
    """The names that a part of a cell may define or delete, also by a magic or through globals()."""
    if isinstance(node, ast.Name):
        return () if isinstance(node.ctx, ast.Load) else (node.id,)
    if isinstance(node, ast.alias):
        return (node.asname or node.name,)
    if isinstance(node, ast.Constant):
        return re.findall(r"\w+", node.value) if isinstance(node.value, str) else ()
    return (node.name,) if isinstance(node, DEFINITION) else ()


def _shell() -> Any:
    ipython = sys.modules.get("IPython")  # where no notebook runs, it is not imported
    return None if ipython is None else ipython.get_ipython()


def _cell_of(answer: Any) -> str:
    """The cell that a function or a class was defined in, as IPython keeps it for tracebacks."""
    files = {function.__code__.co_filename for function in functions_of(answer)}
    return "".join(linecache.getlines(files.pop())).strip() if len(files) == 1 else ""
