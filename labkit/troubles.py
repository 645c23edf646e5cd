"""What a student may want to fix before handing in, a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from labkit.notebooks import Notebook, called, identify, why_unreadable
from labkit.written import Answer

WRONG_ENDINGS = (".txt", ".json")  # that a browser or an editor puts behind a notebook's name
LARGE_NOTEBOOK = 10 * 2**20


def troubles(notebook: Notebook, unsaved: bool) -> Iterator[str]:
    """What the student may want to fix, a sentence each. unsaved: what the file shows is not the latest."""
    name = notebook.name
    if notebook.cells is None:
        yield f"{notebook.file} {why_unreadable(notebook.data)}."
    if missing := [answer.name for answer in notebook.answers if answer.state == "unanswered"]:
        yield f"{name}: not answered yet: {', '.join(missing)}."
    for answer in notebook.answers:
        yield from (f"{name}: {answer.name}: {one}." for one in _about_answer(answer))
    if (stopped := notebook.stopped()) and not unsaved:
        cells = f"cells {', '.join(stopped)}" if len(stopped) > 1 else f"cell {stopped[0]}"
        yield f"{name}: {cells} stopped with an error: fix the cause and run it again."
    if len(notebook.data) > LARGE_NOTEBOOK:
        much, cell = size(notebook.data).strip(), notebook.largest_output()
        yield f"{name} has {much}: clear the outputs of cell {cell}, save it and submit again."


def _about_answer(answer: Answer) -> Iterator[str]:
    if answer.remark:
        kind, key = ("code", "Y") if answer.names else ("text", "M")
        yield f"it {answer.remark}: make that a {kind} cell (Esc, {key}), or move it into its own, and save"
    if answer.state == "unclear":
        yield f"{answer.why}; move the answer into its cell, or a human has to find it"
    elif answer.why:
        yield answer.why


def odd_files(folder: Path, missing: Collection[str]) -> Iterator[str]:
    """Files that are meant as one of the missing notebooks, perhaps, and stay out."""
    for path in sorted(folder.iterdir()):
        name = called(path.name.split(".")[0], missing)
        if name is None or path.name.startswith("."):
            continue
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "not a file"
            yield f"{path.name} is {kind} and stays out."
        elif path.suffix.lower() != ".ipynb":
            is_notebook = path.suffix.lower() in WRONG_ENDINGS and _is_notebook(path)
            advice = (
                f"rename it to {name}.ipynb and submit again" if is_notebook else f"save it as {name}.ipynb"
            )
            yield f"{path.name} has the wrong ending and stays out: {advice}."


def _is_notebook(path: Path) -> bool:
    named = identify(f"{path.stem}.ipynb", path.read_bytes())
    return named is not None and named.cells is not None


def size(data: bytes) -> str:
    """A file's size, for people."""
    return f"{len(data) / 1e6:5.1f} MB" if len(data) >= 1e6 else f"{len(data) / 1e3:5.0f} kB"
