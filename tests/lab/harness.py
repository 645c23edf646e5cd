"""Runs an answer against the test cells of a source notebook, in a process of its own.

The cells are taken from the notebook as they stand; set-up cells first, then the answer in place of
the reference solution, then the test cells in order. What a test cell's last line evaluates to is its
points, as nbgrader counts them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import multiprocessing
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "notebooks" / "source" / "compression"
ANSWERS = Path(__file__).parent / "answers"
TIMEOUT = 600  # seconds; an answer takes about one

# forking a parent that has these makes each process cheap
import matplotlib  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402 (the first optimizer imports it)

matplotlib.use("agg")
import matplotlib.pyplot  # noqa: E402

import labkit  # noqa: E402
from labkit.check import report  # noqa: E402
from labkit.check.engine import Report  # noqa: E402

torch.set_num_threads(1)


@dataclass(frozen=True)
class Answer:
    """One way to write a graded function: `kind` is `right` or `wrong`, `title` says what is special.

    hint: a part of the first hint that the instant checks show for it, "none" if they show none; None if it
    passes them all. before: what stands in the answer cell before this one, instead of the reference.
    """

    function: str
    kind: str
    title: str
    source: str
    hint: str | None = None
    before: str = ""


@dataclass(frozen=True)
class Graded:
    """A graded function of a notebook: the answer cell's grade id, and its test cells."""

    notebook: str
    function: str
    tests: tuple[str, ...]


# which test cells belong to which function is told by the order: those between two answer cells
@lru_cache
def cells_of(notebook: str) -> tuple[dict[str, Any], ...]:
    text = (SOURCE / f"{notebook}.ipynb").read_text(encoding="utf-8")
    return tuple(cell | {"source": "".join(cell["source"])} for cell in json.loads(text)["cells"])


def tags(cell: dict[str, Any]) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def grade_id(cell: dict[str, Any]) -> str:
    return str(cell["metadata"]["nbgrader"]["grade_id"])


def graded_functions() -> list[Graded]:
    """Every graded function of every source notebook."""
    found = []
    for path in sorted(SOURCE.glob("*.ipynb")):
        answer: str | None = None
        tests: list[str] = []
        for cell in [*cells_of(path.stem), None]:
            if cell is None or "answer" in tags(cell):
                if answer is not None:
                    found.append(Graded(path.stem, answer, tuple(tests)))
                answer, tests = (grade_id(cell) if cell else None), []
            elif "test" in tags(cell):
                tests.append(grade_id(cell))
    return found


def answers(function: str) -> list[Answer]:
    """The answers in `answers/<function>.py`, split at lines like `# === right: pure torch`.

    A line `# hint: ...` below such a line is what the instant checks have to say. What stands above a line
    `# --- the answer` is in the cell before.
    """
    text = (ANSWERS / f"{function}.py").read_text(encoding="utf-8")
    parts = re.split(r"^# === (right|wrong): (.+)(?:\n# hint: (.+))?$", text, flags=re.MULTILINE)[1:]
    found = []
    for kind, title, hint, source in zip(*(parts[i::4] for i in range(4)), strict=True):
        before, _, own = source.rpartition("# --- the answer\n")
        found.append(Answer(function, kind, title, own.strip() + "\n", hint, before.strip()))
    return found


def points(notebook: str, test: str) -> float:
    cell = next(c for c in cells_of(notebook) if "test" in tags(c) and grade_id(c) == test)
    return float(cell["metadata"]["nbgrader"]["points"])


def grade(graded: Graded, source: str, before: str = "") -> tuple[dict[str, float], str]:
    """(points by test cell, what was printed) of an answer, run in a process of its own; see Answer."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(graded, source, before, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(TIMEOUT):
            return dict.fromkeys(graded.tests, 0.0), "timeout"
        return receiver.recv()
    except EOFError:
        return dict.fromkeys(graded.tests, 0.0), "crashed"
    finally:
        process.kill()
        process.join()


def _run(graded: Graded, source: str, before: str, sender: Any) -> None:
    os.chdir(SOURCE)  # sibling notebooks are looked for in the working directory
    os.environ["LABKIT_PROFILE"] = "quick"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    cells = cells_of(graded.notebook)
    place = next(
        n for n, cell in enumerate(cells) if "answer" in tags(cell) and grade_id(cell) == graded.function
    )
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        for cell in cells:
            if "setup" in tags(cell):
                execute(cell["source"], namespace, cell["id"])
        if before:  # and with it the tests of that cell, which those of this one may go by
            _points_of(before, cells[:place], namespace)
        scores = _points_of(source, [c for c in cells if _tests(c, graded)], namespace)
    sender.send((scores, printed.getvalue()))


def _tests(cell: dict[str, Any], graded: Graded) -> bool:
    return "test" in tags(cell) and grade_id(cell) in graded.tests


def _points_of(answer: str, cells: Sequence[dict[str, Any]], namespace: dict[str, Any]) -> dict[str, float]:
    """Run the answer, then the test cells among `cells`; their points."""
    try:
        execute(answer, namespace, "answer")
    except Exception:
        traceback.print_exc()
    scores: dict[str, float] = {}
    for cell in cells:
        if "test" not in tags(cell):
            continue
        try:
            labkit.seed_everything(42)  # as before every test cell that is graded
            value = execute(cell["source"], namespace, cell["id"])
            assert isinstance(value, float), f"{grade_id(cell)} ends in {value!r}, not in points"
        except Exception:
            traceback.print_exc()
            value = 0.0
        scores[grade_id(cell)] = value
    return scores


def execute(source: str, namespace: dict[str, Any], name: str) -> Any:
    """Run a cell; the value of its last line, if that is an expression."""
    file = f"<cell {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ast.parse(source)
    last = module.body[-1] if module.body else None
    shown = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    if shown is not None:
        module.body.pop()
    exec(compile(module, file, "exec"), namespace)
    return eval(compile(shown, file, "eval"), namespace) if shown is not None else None


# ---- the instant checks alone, in this process


@lru_cache
def set_up(notebook: str) -> dict[str, Any]:
    """What the set-up cells of a notebook define."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with _in_the_notebooks_folder(), contextlib.redirect_stdout(io.StringIO()):
        for cell in cells_of(notebook):
            if "setup" in tags(cell):
                execute(cell["source"], namespace, cell["id"])
    return namespace


def instant_checks(graded: Graded) -> list[tuple[str, dict[str, bool]]]:
    """The instant checks in the notebook's test cells: (name, options)."""
    sources = [c["source"] for c in cells_of(graded.notebook) if "test" in tags(c)]
    ids = [grade_id(c) for c in cells_of(graded.notebook) if "test" in tags(c)]
    calls = [
        re.match(r"labkit\.check\.(\w+)\(\1(, symmetric=True)?\)", source)
        for source, test in zip(sources, ids, strict=True)
        if test in graded.tests
    ]
    return [(call[1], {"symmetric": True} if call[2] else {}) for call in calls if call]


def reports(graded: Graded, answer: Answer) -> list[Report]:
    namespace = dict(set_up(graded.notebook))
    with (
        _in_the_notebooks_folder(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        execute(f"{answer.before}\n\n{answer.source}", namespace, "answer")
        return [report(name, namespace[name], **options) for name, options in instant_checks(graded)]


@contextlib.contextmanager
def _in_the_notebooks_folder() -> Iterator[None]:
    """Sibling notebooks are looked for in the working directory."""
    before = Path.cwd()
    os.chdir(SOURCE)
    try:
        yield
    finally:
        os.chdir(before)
