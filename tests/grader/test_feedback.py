"""The student's own pages: what they say, what they keep to themselves, who can read them."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.grading.autograded import Autograded, read_autograded, write_autograded
from labkit.grading.feedback import coloured, notebook_page, write_feedback
from labkit.grading.gradebook import CellGrade, NotebookGrades
from labkit.grading.verdicts import Graded, Verdict
from labkit.outcomes import Outcome
from tests import graded_course as made
from tests.graded_course import ASSIGNMENT, FIRST, SECOND, Course, graded, hand_out, named
from tests.roundtrip.tiny_course import SECRET

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"pixels").decode()
EVIL = "</pre><script>act()</script><img src=x onerror=act()>\"'&"
GRADES = NotebookGrades(
    {
        "test_double": CellGrade(7.0, auto=3.0),
        "test_sign": CellGrade(3.0, auto=3.0),
        "why": CellGrade(3.0, waits=True),
    }
)
NOTHING = NotebookGrades(
    {
        "test_triple": CellGrade(7.0, auto=0.0),
        "test_sign": CellGrade(3.0, auto=0.0),
        "why": CellGrade(3.0, auto=0.0),
    }
)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return made.make(tmp_path_factory.mktemp("course"))


def answered(course: Course, result: Graded | None = None, notes: tuple[str, ...] = ()) -> Autograded:
    return hand_out(course, course.answered(FIRST), result or graded(FIRST), notes)


class Page(HTMLParser):
    """What a browser, and a screen reader, would find in a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def test_a_page_says_what_was_expected_and_what_came(course: Course) -> None:
    result = graded(
        FIRST, double=[{"output_type": "stream", "name": "stdout", "text": "hello from my cell\n"}]
    )
    page = Page(notebook_page(ASSIGNMENT, answered(course, result, ("double was edited",)), GRADES))
    assert "6 of 13 points so far; 3 more can still come from a human grader." in page.words
    assert "double was edited" in page.words
    assert "return 2 * x" in page.words
    assert "hello from my cell" in page.words
    assert "test_double: partial, 3 of 7 points" in page.words
    assert "1 of 3 checks passed." in page.words
    assert "✓ passed: Twice one is two. 3/3 points" in page.words
    assert (
        "✗ failed: Larger numbers too. 0/3.5 points it gave 21, should be 42 Hint: multiply <all> of it"
        in page.words
    )
    assert "– skipped: And negative ones. 0/0.5 points" in page.words
    assert "test_sign: passed, 3 of 3 points" in page.words
    assert "sign: 3 of 3 points" in page.words  # printed by a cell without checks
    assert "A human grader will give up to 3 points here." in page.words


def test_a_table_below_a_sentence_keeps_its_columns(course: Course) -> None:
    picture = "weight  -10  3\nis        0  3\n          ^"
    checks = (Outcome("It prunes.", "failed", 7.0, f"a weight is <off>\n{picture}", "compare |w|"),)
    result = Graded(FIRST, (Verdict("test_double", "failed", 0.0, 7.0, "", checks),), {})
    page = Page(notebook_page(ASSIGNMENT, answered(course, result), GRADES))
    assert f"a weight is <off>\n{picture}\n" in page.text
    assert "Table of this check" in [attrs.get("aria-label") for attrs in page.all("pre")]


def test_no_test_cells_source_is_shown(course: Course) -> None:
    one = answered(course)
    html = notebook_page(ASSIGNMENT, one, GRADES)
    assert SECRET in named(one.notebook, "test-double").source
    assert SECRET not in html
    for cell_id in ("test-double", "test-sign", "set-up"):
        for line in named(one.notebook, cell_id).source.splitlines():
            assert line not in Page(html).text


def test_whatever_students_write_is_only_text(course: Course) -> None:
    nb = course.answered(FIRST)
    named(nb, "double").source = f"# {EVIL}\ndef double(x):\n    return '{EVIL}'"
    named(nb, "why").source = EVIL
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": EVIL},
        {"output_type": "error", "ename": EVIL, "evalue": EVIL, "traceback": [EVIL]},
        {"output_type": "display_data", "data": {"text/html": EVIL, "text/latex": EVIL}},
        {"output_type": "display_data", "data": {"image/png": PNG, "text/plain": EVIL}},
    ]
    checks = (Outcome(EVIL, "failed", 7.0, EVIL, EVIL), Outcome(EVIL, "skipped", 0.0))
    verdicts = (
        Verdict("test_double", "error", 0.0, 7.0, EVIL, checks),
        Verdict("test_sign", "timeout", 0.0, 3.0, EVIL, printed=EVIL),
    )
    one = hand_out(course, nb, Graded(FIRST, verdicts, {"double": outputs}), (EVIL,))  # type: ignore[dict-item]
    grades = NotebookGrades(GRADES.cells, {"double": EVIL, "why": EVIL})
    for html in (
        notebook_page(EVIL, one, grades),
        notebook_page(EVIL, Autograded(EVIL, one.notebook, one.verdicts, one.notes), grades),
    ):
        page = Page(html)
        assert {tag for tag, _ in page.tags} <= {
            "html", "head", "meta", "title", "style", "body", "header", "nav", "a", "h1", "h2", "h3", "p",
            "main", "section", "ul", "li", "strong", "span", "div", "pre", "code", "img",
        }  # fmt: skip
        assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
        assert [attrs["src"] for attrs in page.all("img")] == [f"data:image/png;base64,{PNG}"]
        assert page.text.count("act()") > 10


def test_a_page_needs_nothing_from_elsewhere_and_allows_nothing(course: Course) -> None:
    html = notebook_page(ASSIGNMENT, answered(course), GRADES)
    assert "http://" not in html and "https://" not in html and "url(" not in html
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in Page(html).all("meta") if "http-equiv" in meta]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy
    assert not [attrs for _, attrs in Page(html).tags if "style" in attrs]


def test_a_screen_reader_finds_its_way(course: Course) -> None:
    result = graded(FIRST, double=[{"output_type": "display_data", "data": {"image/png": PNG}}])
    page = Page(notebook_page(ASSIGNMENT, answered(course, result, ("mended",)), GRADES))
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("main", "header", "nav", "h1")] == [1, 1, 1, 1]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [attrs["alt"] for attrs in page.all("img")] == ["Your double: output 1, a picture"]
    for attrs in page.all("pre"):
        assert attrs["aria-label"] and attrs["tabindex"] == "0"  # it scrolls, so the keyboard has to reach it
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["aria-labelledby"] for attrs in page.all("section")} <= set(ids)


def test_a_humans_marks_and_words_are_shown(course: Course) -> None:
    cells = {
        "test_double": CellGrade(7.0, auto=3.0, manual=6.5, waits=True),
        "test_sign": CellGrade(3.0, auto=3.0, extra=1.0),
        "why": CellGrade(3.0, manual=2.0, extra=0.5),
    }
    comments = {"why": "Well seen.\nSee <chapter> 2.", "double": "No response."}
    page = Page(notebook_page(ASSIGNMENT, answered(course), NotebookGrades(cells, comments, penalty=1.0)))
    assert "12 of 13 points." in page.words  # 6.5 + 3 + 1 + 2 + 0.5 - 1
    assert "A human grader gave 6.5 of 7 points." in page.words
    assert "A human grader gave 1 point extra." in page.words
    assert "A human grader gave 2 of 3 points, and 0.5 extra." in page.words
    assert "From your grader: Well seen.\nSee <chapter> 2." in page.text
    assert "1 point was taken off because it came late." in page.words
    assert "You have not answered this yet" in page.words


def test_own_cells_are_shown_if_they_said_something_and_experiments_never(course: Course) -> None:
    nb = course.answered(FIRST)
    named(nb, "run").outputs = [nbformat.v4.new_output("stream", text="saved by the student")]
    for name in ("loud", "quiet"):
        nb.cells.insert(4, nbformat.v4.new_code_cell(f"{name} = 1", id=name))
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["\x1b[31mE\x1b[0m: no"]}
    page = Page(notebook_page(ASSIGNMENT, hand_out(course, nb, graded(FIRST, loud=[error])), GRADES))
    assert "loud = 1" in page.words and "E: no" in page.words
    assert "quiet = 1" not in page.words
    assert "saved by the student" not in page.words


def test_a_test_that_was_not_judged_is_no_failure(course: Course) -> None:
    page = Page(notebook_page(ASSIGNMENT, answered(course, Graded(FIRST, (), {})), GRADES))
    assert "test_double: not judged" in page.words
    assert "✗" not in page.text


def test_the_pages_of_a_student(course: Course, tmp_path: Path) -> None:
    one = answered(course)
    folder = tmp_path / "feedback" / "ada <b>" / ASSIGNMENT
    folder.mkdir(parents=True)
    (folder / f"{SECOND}.html").write_text("of an earlier hand-in")
    grades = {FIRST: GRADES, SECOND: NOTHING}
    index = write_feedback(tmp_path, ASSIGNMENT, "ada <b>", [one], grades, notes=["x.ipynb is none of them"])
    page = Page(index.read_text(encoding="utf-8"))
    assert sorted(path.name for path in folder.iterdir()) == [f"{FIRST}.html", "index.html"]
    assert [attrs["href"] for attrs in page.all("a")] == [f"{FIRST}.html"]
    assert "feedback for ada <b>" in page.words
    assert "6 of 26 points so far; 3 more can still come" in page.words
    assert f"{SECOND}missing" in page.words  # a line break between them
    assert "x.ipynb is none of them" in page.words


def test_a_notebook_that_could_not_be_read_says_why(course: Course, tmp_path: Path) -> None:
    waiting = NotebookGrades({"test_triple": CellGrade(7.0, waits=True), "why": CellGrade(3.0, waits=True)})
    why = {SECOND: "it breaks off at line 3: the file was cut short"}
    index = write_feedback(
        tmp_path, ASSIGNMENT, "ada", [answered(course)], {FIRST: GRADES, SECOND: waiting}, why
    )
    page = Page((index.parent / f"{SECOND}.html").read_text(encoding="utf-8"))
    assert "could not be read: it breaks off at line 3: the file was cut short." in page.words
    assert "not the same as 0" in page.words
    listed = Page(index.read_text(encoding="utf-8"))
    assert "could not be read" in listed.words
    assert "6 of 23 points so far; 13 more can still come" in listed.words


def test_the_same_results_give_the_same_bytes_also_from_the_autograded_folder(
    course: Course, tmp_path: Path
) -> None:
    one = answered(course, graded(FIRST, double=[{"output_type": "stream", "text": "x"}]), ("mended",))
    write_autograded(tmp_path, ASSIGNMENT, "ada", one)
    again = read_autograded(tmp_path, ASSIGNMENT, "ada", FIRST)
    assert again is not None
    assert notebook_page(ASSIGNMENT, again, GRADES) == notebook_page(ASSIGNMENT, one, GRADES)


@pytest.mark.slow
def test_code_that_would_keep_a_highlighter_busy_is_shown_plain() -> None:
    for piece in ("(", '"', "'''", "\\", "@a\n", "f'{", "0x", "é", "<", "# \n", "1."):
        for length in (19_000, 300_000):
            html = coloured(piece * (length // len(piece)))
            assert len(html) < 2_000_000
    assert "<span" not in coloured("x = 1\n" * 5000)
    assert 'class="k"' in coloured("def f(): pass")


def test_notes_about_odd_names_act_nowhere_and_come_to_an_end(course: Course) -> None:
    odd = ("was handed in as ![x](/hub/logout).ipynb", "\x1b[2J\n\n```mermaid\n", *["y" * 65_000] * 100)
    one = answered(course, notes=odd)
    source = one.notebook.cells[0].source
    assert "![" not in source and "\x1b" not in source and "\n\n```" not in source
    assert len(source) < 20_000
    page = notebook_page(ASSIGNMENT, one, GRADES)
    assert "and 82 more" in page and len(page) < 40_000


def test_a_few_lines_do_not_draw_a_notebook_of_many_megabytes(course: Course) -> None:
    nb = course.answered(FIRST)
    big = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(5 * 10**6)).decode()
    drawn = {"output_type": "display_data", "data": {"image/png": big}, "metadata": {}}
    nb.cells[1:1] = [nbformat.v4.new_code_cell("draw()", id=f"own-{n}") for n in range(20)]
    result = graded(FIRST)
    result.outputs.update({f"own-{n}": [drawn] for n in range(20)})
    made_of_it = hand_out(course, nb, result)
    assert len(nbformat.writes(made_of_it.notebook)) < 18 * 2**20
    test = named(made_of_it.notebook, "test-double")
    before = named(answered(course).notebook, "test-double")
    assert test.outputs == before.outputs  # whatever came before
    page = notebook_page(ASSIGNMENT, made_of_it, GRADES)
    assert page.count("a picture was left out") == 18
