"""A look at a student's code for what an honest answer has no use for: worth a glance, never worth points.

Whatever the code does, it cannot change its verdict; but an instructor may want to know. Each finding is a
sentence that names the cell.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from itertools import islice

from labkit.grading.outputs import plain_text

MOST_SAID = 20  # sentences about one notebook
LONGEST = 200  # characters of a sentence
MOST_CODE = 100_000  # characters of a cell that is taken apart: about 90 MB of memory
MOST_IN_ALL = 300_000  # of a notebook; this takes up to four seconds
MOST_NAMES = 20  # a.b.c has three

# dotted names, as they are called or looked up -> what that means; a name stands for everything below it, too
SUSPECT = {
    "get_ipython": "reaches into IPython",
    "IPython.get_ipython": "reaches into IPython",
    "sys._getframe": "looks at its callers",
    "sys._current_frames": "looks at its callers",
    "sys.settrace": "traces other code",
    "sys.setprofile": "traces other code",
    "sys.modules": "changes or looks through the loaded modules",
    "sys.meta_path": "changes how modules are found",
    "inspect.stack": "looks at its callers",
    "inspect.currentframe": "looks at its callers",
    "gc.get_objects": "looks through the memory of its process",
    "gc.get_referrers": "looks through the memory of its process",
    "gc.get_referents": "looks through the memory of its process",
    "ctypes": "goes round Python (ctypes)",
    "cffi": "goes round Python (cffi)",
    "socket": "opens sockets",
    "urllib": "reaches for the network",
    "requests": "reaches for the network",
    "http.client": "reaches for the network",
    "subprocess": "starts other programs",
    "os.system": "starts other programs",
    "os.popen": "starts other programs",
    "os.exec": "starts other programs",
    "os.spawn": "starts other programs",
    "os.fork": "starts other processes",
    "os._exit": "ends its process",
    "os.kill": "stops processes",
    "os.killpg": "stops processes",
    "signal": "handles signals",
    "os.environ": "reads the environment",
    "os.read": "reads or writes file descriptors",
    "os.write": "reads or writes file descriptors",
    "os.dup2": "reads or writes file descriptors",
    "os.closerange": "reads or writes file descriptors",
    "exec": "runs text as code",
    "eval": "runs text as code",
    "os.walk": "looks through folders",
    "os.listdir": "looks through folders",
    "os.scandir": "looks through folders",
    "glob": "looks through folders",
    "marshal": "reads compiled code",
    "dis": "reads compiled code",
    "inspect.getsource": "reads another function's source",
    "labkit.grading": "uses the grader's own modules",
    "labkit.siblings": "uses the grader's own modules",
}
HOOKS = re.compile(
    r"ast_transformers|input_transformer|set_custom_exc|register_cell_magic|events\.register|pre_run_cell|post_run_cell"
)
PATCHED = ("torch", "np", "numpy", "nn", "F", "optim", "builtins", "__builtins__", "labkit", "math", "plt")
MAGICS = re.compile(r"autoreload|config|load_ext|matplotlib|pip|time|timeit")
SETTINGS = ("torch.backends.", "plt.style.")  # meant to be set
LYING = {
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__", "__float__", "__int__",
    "__array__", "__torch_function__", "__array_ufunc__", "__array_function__", "__class__", "__reduce__",
    "__reduce_ex__",
}  # fmt: skip
DEEPEST = max(name.count(".") + 1 for name in SUSPECT)
INSIDES = ("__code__", "__globals__", "__closure__", "__subclasses__", "__builtins__", "f_back", "f_globals")
SYSTEM = re.compile(r"^/(?:proc|etc|usr|root|home|dev|var|sys)(?:/|$)|gradebook\.db|HIDDEN TESTS")
SECRETS = re.compile(
    r"^/(?!content/|tmp/)|\.\./|gradebook|HIDDEN TESTS|/proc/|\.ipynb$|autograded|submitted/"
)
OPENERS = ("open", "Path", "pathlib.Path", "io.open", "os.open", "np.load", "torch.load", "json.load")
# blanks of its own line only: `\s*` would look through a run of empty lines again from each of them
PROGRAM = re.compile(r"^[^\S\n]*(?:!|%%?(?:bash|sh|script|system|sx)\b)\s*(?P<what>.*)", re.MULTILINE)
HARMLESS = re.compile(
    r"^(?:(?:python3?|\S*/python3?|\{sys\.executable\}) -m )?pip\b"
    r"|^(?:nvidia-smi|ls|pwd|echo|mkdir|touch|unzip|wget|git clone|df|free|lscpu)\b|^$"
)


def attempts_in(sources: Mapping[str, str]) -> list[str]:
    """A sentence for each suspicious thing in the cells. sources: a cell's name -> the student's code.

    Each is one line without control characters: it is the student who chooses what stands in it.
    """
    found: dict[str, None] = {}
    left = MOST_IN_ALL
    for cell, source in sources.items():
        apart = len(source) <= min(MOST_CODE, left)
        left -= len(source) if apart else 0
        for what in _in_cell(source, apart):
            found[_sentence(f"the cell {cell} {what}")] = None
    said = list(islice(found, MOST_SAID))
    return said if len(found) <= MOST_SAID else [*said, f"and {len(found) - MOST_SAID:,} more of such things"]


def _sentence(text: str) -> str:
    line = " ".join(plain_text(text[: 2 * LONGEST]).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _in_cell(source: str, apart: bool) -> Iterator[str]:
    """apart: whether the code is also parsed; else that is said."""
    for match in PROGRAM.finditer(source):
        if not HARMLESS.match(match["what"]):
            yield f"starts another program: {match['what'][:80].strip()}"
    if HOOKS.search(source):
        yield "hooks into how cells are run"
    if not apart:
        yield f"was not looked through ({len(source):,} characters): there is too much code"
        return
    lines = ("" if line.lstrip().startswith(("%", "!", "?")) else line for line in source.splitlines())
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    imported = dict(_imports(tree))
    ordinary = {id(part) for node in ast.walk(tree) for part in _ordinary(node, imported)}
    for node in ast.walk(tree):
        if id(node) not in ordinary:
            yield from _in_node(node, imported)


def _ordinary(node: ast.AST, imported: Mapping[str, str]) -> Iterator[ast.AST]:
    """Parts of `node` that would look suspicious, but honest notebooks have them."""
    # one variable of the environment, by name: "COLAB_GPU" is there or not
    if isinstance(node, ast.Subscript) and _dotted(node.value, imported) == "os.environ":
        yield node.value
    elif isinstance(node, ast.Call) and _dotted(node.func, imported).startswith("os.environ."):
        yield from (node.func, node.func.value) if node.args and isinstance(node.func, ast.Attribute) else ()
    # what `%matplotlib inline` becomes when a notebook is saved as a script
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        magic = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        if node.func.attr == "run_line_magic" and isinstance(magic, str) and MAGICS.fullmatch(magic):
            # `get_ipython()` below it and no more: in a chain of such calls each would walk all the others
            yield from islice(ast.walk(node.func), 10)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(the name here, what it stands for)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # cut, for it is put together anew wherever it is used
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    alias.name[:LONGEST] if alias.asname else "",
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"[:LONGEST]


def _in_node(node: ast.AST, imported: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr in INSIDES:
        yield f"looks inside functions ({node.attr})"
    if isinstance(node, ast.Attribute) and isinstance(_unwound(node)[0], ast.Attribute):
        yield f"has a name of more than {MOST_NAMES} parts"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if SYSTEM.search(node.value):
            yield f"names {node.value[:80]}"
        elif node.value in INSIDES:
            yield f"looks inside functions ({node.value})"
    # imports alone do nothing: what they bring is told of where it is used
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        yield from filter(None, [_suspicion(str(node.module))])
    elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        if (what := _suspicion(_dotted(node, imported))) is not None:
            yield what
    elif isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
        targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
        for target in targets:
            name = _dotted(target, imported) if isinstance(target, ast.Attribute) else ""
            if name.partition(".")[0] in PATCHED and not name.startswith(SETTINGS):
                yield f"replaces {name}"
    elif isinstance(node, ast.ClassDef):
        lies = {one.name for one in node.body if isinstance(one, ast.FunctionDef)} & LYING
        lies |= {
            t.id
            for one in node.body
            if isinstance(one, ast.Assign)
            for t in one.targets
            if isinstance(t, ast.Name)
        } & LYING
        if lies:
            yield f"defines how {node.name} compares or converts ({', '.join(sorted(lies))})"
    elif isinstance(node, ast.Call):
        yield from _in_call(node, imported)


def _in_call(node: ast.Call, imported: Mapping[str, str]) -> Iterator[str]:
    name = _dotted(node.func, imported)
    first = node.args[0] if node.args else None
    text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    if name in OPENERS and SECRETS.search(text):
        yield f"opens {text[:80]}"
    if name in ("setattr", "delattr") and isinstance(first, ast.Name) and first.id in PATCHED:
        yield f"replaces a part of {first.id}"
    if name in ("__import__", "importlib.import_module") and (what := _suspicion(text)) is not None:
        yield what


def _suspicion(name: str) -> str | None:
    parts = name.split(".", DEEPEST)[:DEEPEST]
    for length in range(len(parts), 0, -1):
        if (what := SUSPECT.get(".".join(parts[:length]))) is not None:
            return what
    return None


def _dotted(node: ast.AST, imported: Mapping[str, str]) -> str:
    """`a.b.c` as text, with what an import calls otherwise under its own name; empty for anything else."""
    root, names = _unwound(node)
    return ".".join([imported.get(root.id) or root.id, *names]) if isinstance(root, ast.Name) else ""


def _unwound(node: ast.AST) -> tuple[ast.AST, list[str]]:
    """(what `a`, `f(x)`, ... it is that stands before the dots, the names behind it).

    No more than MOST_NAMES: each part of a chain is looked at, so a long one would cost its square.
    """
    names: list[str] = []
    while isinstance(node, ast.Attribute) and len(names) < MOST_NAMES:
        names.append(node.attr)
        node = node.value
    return node, names[::-1]
