"""A student's own pages: `feedback/<student>/<assignment>/<notebook>.html`, and an index of them.

Their code, what it printed, and each check with what was expected and what came. Of a test cell only the
verdict is shown, never its source: part of that is hidden. The pages are one file each, without scripts or
anything from elsewhere, and the same results give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from nbformat import NotebookNode
from nbgrader.utils import is_grade, is_solution, is_task
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import PythonLexer  # type: ignore[import-untyped]

from labkit.files import write_atomically
from labkit.grading.autograded import Autograded
from labkit.grading.gradebook import NO_RESPONSE, CellGrade, NotebookGrades
from labkit.grading.outputs import MOST_TEXT, PICTURES, few, plain_text, safe_line
from labkit.grading.repair import EXPERIMENT, grade_id_of
from labkit.grading.verdicts import Verdict
from labkit.outcomes import MARKS

MOST_COLOURED = 20_000  # characters of a cell; beyond it a highlighter's time is not worth it
CODE_CUT = "\n[cut here: the cell is too long to show]"


@dataclass(frozen=True)
class Shown:
    """A piece of output: text, or a picture as a data: address. label: what a screen reader calls it."""

    label: str
    text: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Block:
    """A cell on the page. grade: what it is worth, if it is graded. comment: a human's."""

    kind: Literal["answer", "own", "words", "test"]
    name: str
    label: str = ""
    code: str = ""  # HTML
    text: str = ""
    outputs: tuple[Shown, ...] = ()
    verdict: Verdict | None = None
    printed: str = ""
    grade: CellGrade | None = None
    comment: str = ""
    unanswered: bool = False


@dataclass
class Section:
    """An answer with the tests of it, or what stands before the first answer."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A notebook in the index."""

    name: str
    link: str
    score: str
    possible: float
    outstanding: float
    remark: str = ""


def write_feedback(
    course: Path,
    assignment: str,
    student: str,
    graded: Sequence[Autograded],
    grades: Mapping[str, NotebookGrades],
    not_graded: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write a page for each notebook, and the index; returns the index.

    grades: the gradebook's, of every notebook; one that is neither in `graded` nor in `not_graded`
    (name -> why it could not be read) is missing. notes: about the files as a whole.
    """
    folder = course / "feedback" / student / assignment
    unreadable = not_graded or {}
    pages = {one.name: notebook_page(assignment, one, grades[one.name]) for one in graded}
    for name, why in unreadable.items():
        pages[name] = unreadable_page(assignment, name, why, grades[name])
    rows = [index_row(name, grades[name], name in pages, name in unreadable) for name in sorted(grades)]
    for name in grades.keys() - pages.keys():
        (folder / f"{name}.html").unlink(missing_ok=True)  # of an earlier hand-in
    for name, page in pages.items():
        _write(folder / f"{name}.html", page)
    _write(folder / "index.html", index_page(assignment, student, rows, grades, notes))
    return folder / "index.html"


def notebook_page(assignment: str, one: Autograded, grades: NotebookGrades) -> str:
    """The page of a graded notebook."""
    sections = _sections(one, grades)
    return _render(
        "feedback",
        assignment=assignment,
        name=one.name,
        notes=few(one.notes),
        grades=grades,
        sections=sections,
    )


def unreadable_page(assignment: str, name: str, why: str, grades: NotebookGrades) -> str:
    """The page of a notebook of which there is nothing else to show."""
    return _render(
        "feedback", assignment=assignment, name=name, why=safe_line(why).rstrip("."), grades=grades
    )


def index_row(name: str, grades: NotebookGrades, has_page: bool, unreadable: bool) -> Row:
    remark = "could not be read: a human will look at it" if unreadable else "" if has_page else "missing"
    return Row(
        name=name,
        link=f"{quote(name, safe='')}.html" if has_page else "",
        score="–" if unreadable and not grades.score else f"{grades.score:g}",
        possible=grades.possible,
        outstanding=grades.outstanding,
        remark=remark,
    )


def index_page(
    assignment: str,
    student: str,
    rows: Sequence[Row],
    grades: Mapping[str, NotebookGrades],
    notes: Sequence[str] = (),
) -> str:
    """The page that lists a student's notebooks."""
    totals = {
        "score": sum(one.score for one in grades.values()),
        "possible": sum(one.possible for one in grades.values()),
        "outstanding": sum(one.outstanding for one in grades.values()),
    }
    return _render(
        "feedback_index", assignment=assignment, student=student, rows=rows, notes=few(notes), **totals
    )


def coloured(source: str) -> str:
    """Python as HTML with a class for each kind of word."""
    cut = source[:MOST_TEXT] + (CODE_CUT if len(source) > MOST_TEXT else "")
    if len(cut) > MOST_COLOURED:
        return str(Markup.escape(cut))
    return str(highlight(cut, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)))


def _sections(one: Autograded, grades: NotebookGrades) -> list[Section]:
    """The cells worth showing, each test after the answer that it is about."""
    sections = [Section("Before the first answer")]
    for cell in one.notebook.cells:
        name = grade_id_of(cell)
        if name is not None and (is_solution(cell) or is_task(cell)):
            sections.append(Section(name))
        block = _block(cell, name, one, grades)
        if block is not None:
            sections[-1].blocks.append(block)
    return [section for section in sections if section.blocks]


def _block(cell: NotebookNode, name: str | None, one: Autograded, grades: NotebookGrades) -> Block | None:
    if name is None:
        return _own(cell)
    if not (is_grade(cell) or is_solution(cell) or is_task(cell)):
        return None  # set-up, which is the same for everybody
    comment = grades.comments.get(name, "")
    unanswered = comment == NO_RESPONSE
    block = Block("answer", name, grade=grades.cells.get(name), comment="" if unanswered else comment)
    if cell.cell_type == "markdown" or is_task(cell):
        pictures = _attached(cell)
        return replace(
            block, kind="words", text=plain_text(cell.source), outputs=pictures, unanswered=unanswered
        )
    if is_solution(cell):
        return _with_code(block, cell, f"Your {name}", unanswered)
    verdict = one.verdicts.get(name)
    printed = plain_text(verdict.printed[:MOST_TEXT]) if verdict is not None else ""
    return replace(block, kind="test", verdict=verdict, printed=printed.strip())


def _own(cell: NotebookNode) -> Block | None:
    """A code cell that the student added, if it ran and had something to say."""
    if cell.cell_type != "code" or not cell.outputs or EXPERIMENT in cell.metadata.get("tags", []):
        return None
    return _with_code(Block("own", ""), cell, "Your own cell", False)


def _with_code(block: Block, cell: NotebookNode, label: str, unanswered: bool) -> Block:
    code = Markup(coloured(cell.source))  # noqa: S704 (pygments has escaped it)
    outputs = _shown(cell.outputs, label)
    return replace(block, label=f"{label}: code", code=code, outputs=outputs, unanswered=unanswered)


def _shown(outputs: Sequence[NotebookNode], label: str) -> tuple[Shown, ...]:
    """Outputs (safe ones: see outputs.py) as the page has them."""
    shown = []
    for number, output in enumerate(outputs, 1):
        called = f"{label}: output {number}"
        data = output.get("data", {})
        pictures = [f"data:{mime};base64,{data[mime]}" for mime in PICTURES if mime in data]
        if pictures:
            shown.append(Shown(f"{called}, a picture", picture=pictures[0]))
        elif text := _text_of(output):
            shown.append(Shown(called, text=text))
    return tuple(shown)


def _text_of(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return plain_text(output.text).rstrip("\n")
    if output.output_type == "error":
        lines = plain_text("\n".join(output.traceback)).strip("\n")
        return lines or plain_text(f"{output.ename}: {output.evalue}")
    return plain_text(output.data.get("text/plain") or output.data.get("text/latex", ""))


def _attached(cell: NotebookNode) -> tuple[Shown, ...]:
    """Pictures pasted into an answer in words."""
    found = []
    for number, bundle in enumerate(cell.get("attachments", {}).values(), 1):
        for mime in bundle:
            label = f"Picture {number} in your answer"
            found.append(Shown(label, picture=f"data:{mime};base64,{bundle[mime]}"))
    return tuple(found)


def _render(template: str, **values: object) -> str:
    plain: dict[str, object] = {"notes": (), "sections": (), "why": "", "marks": MARKS}
    page = templates().get_template(f"{template}.html.j2").render(**(plain | values), **style("feedback.css"))
    return page + "\n"


@lru_cache
def templates() -> Environment:
    """The pages' templates."""
    return Environment(
        loader=PackageLoader("labkit.grading"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache
def style(name: str) -> dict[str, Markup]:
    """A page's one style sheet, and the hash by which the page's policy allows it."""
    css = Path(__file__).with_name("templates").joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return {"css": Markup(css), "css_hash": Markup(f"sha256-{digest}")}  # noqa: S704 (our own file)


def _write(path: Path, text: str) -> None:
    # half of a surrogate pair, in a file's name or in an answer, becomes a question mark
    write_atomically(path, lambda part: part.write_bytes(text.encode("utf-8", "replace")))
