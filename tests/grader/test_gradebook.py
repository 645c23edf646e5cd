"""Grades in nbgrader's gradebook and notebooks in its autograded folder, held against nbgrader itself."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_raw_cell

pytest.importorskip("nbgrader")

from nbconvert.exporters import HTMLExporter
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from nbgrader.converters import GenerateFeedback
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.preprocessors import SaveAutoGrades
from nbgrader.server_extensions.formgrader import handlers
from traitlets.config import Config

from labkit.grading.autograded import (
    drop_autograded,
    path_of,
    read_autograded,
    read_timestamp,
    write_autograded,
    write_timestamp,
)  # fmt: skip
from labkit.grading.settings import course_directory, course_settings
from labkit.grading.verdicts import Graded, Verdict
from tests import graded_course as made
from tests.graded_course import ASSIGNMENT, FIRST, SECOND, Course, graded, hand_out, named
from tests.roundtrip.tiny_course import SECRET

State = dict[tuple[str, str], tuple[float | None, float | None, bool]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return made.make(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def course(prepared: Course, tmp_path: Path) -> Course:
    """A course of its own for each test."""
    shutil.copytree(prepared.root, tmp_path / "course")
    return Course(tmp_path / "course", prepared.released)


def gradebook(course: Course) -> Gradebook:
    coursedir = course_directory(course.root, ASSIGNMENT)
    return Gradebook(coursedir.db_url, coursedir.course_id)


def state(course: Course, student: str = "ada") -> State:
    """(notebook, grade_id) -> score by code, score by a human, whether it waits for one."""
    with gradebook(course) as book:
        return {
            (notebook.name, grade.name): (grade.auto_score, grade.manual_score, grade.needs_manual_grade)
            for notebook in book.find_submission(ASSIGNMENT, student).notebooks
            for grade in notebook.grades
        }


def comments(course: Course, student: str = "ada") -> dict[tuple[str, str], tuple[str | None, str | None]]:
    with gradebook(course) as book:
        return {
            (notebook.name, one.name): (one.auto_comment, one.manual_comment)
            for notebook in book.find_submission(ASSIGNMENT, student).notebooks
            for one in notebook.comments
        }


def write(
    course: Course, student: str = "ada", answered: bool = True, points: float = 3.0, **rest: object
) -> None:
    names = [
        name
        for name in (FIRST, SECOND)
        if name not in {*rest.get("not_graded", ()), *rest.get("missing", ())}  # type: ignore[misc]
    ]
    notebooks = {name: course.answered(name) if answered else course.released[name] for name in names}
    with course.writer() as writer:
        writer.write(
            student,
            {name: graded(name, points) for name in names},
            {name: course.mended(nb, name) for name, nb in notebooks.items()},
            **rest,  # type: ignore[arg-type, arg-type]
        )


def test_verdicts_become_scores_and_words_wait_for_a_human(course: Course) -> None:
    write(course)
    assert state(course)[FIRST, "test_double"] == (3.0, None, False)
    assert state(course)[FIRST, "test_sign"] == (3.0, None, False)
    assert state(course)[SECOND, "test_triple"] == (3.0, None, False)
    assert state(course)[FIRST, "why"] == (None, None, True)
    assert set(comments(course).values()) == {(None, None)}


def test_what_was_left_as_released_is_no_response(course: Course) -> None:
    write(course, answered=False)
    assert state(course)[FIRST, "why"] == (0.0, None, False)
    assert comments(course)[FIRST, "double"] == ("No response.", None)
    assert comments(course)[FIRST, "why"] == ("No response.", None)
    write(course)
    assert comments(course)[FIRST, "double"] == (None, None)


def test_the_same_as_nbgraders_own_step_reads_from_the_autograded_notebook(course: Course) -> None:
    nb = course.answered(FIRST)
    named(nb, "double").source = named(course.released[FIRST], "double").source
    one = hand_out(course, nb, graded(FIRST))
    with course.writer() as writer:
        writer.write("ours", {FIRST: graded(FIRST)}, {FIRST: course.mended(nb, FIRST)}, missing=[SECOND])
    with gradebook(course) as book:
        book.add_student("theirs")
        with book.db.no_autoflush:
            book.add_submission(ASSIGNMENT, "theirs")
    where = {
        "notebook": FIRST, "assignment": ASSIGNMENT, "student": "theirs",
        "db_url": course_directory(course.root, ASSIGNMENT).db_url,
    }  # fmt: skip
    SaveAutoGrades().preprocess(nbformat.from_dict(one.notebook), {"nbgrader": where})
    for read in (state, comments):
        ours, theirs = (
            {key: value for key, value in read(course, who).items() if key[0] == FIRST}
            for who in ("ours", "theirs")
        )
        assert ours == theirs


def test_what_a_human_gave_survives_grading_again(course: Course) -> None:
    write(course)
    with gradebook(course) as book:
        for name, score in (("why", 2.5), ("test_double", 6.0)):
            grade = book.find_grade(name, FIRST, ASSIGNMENT, "ada")
            grade.manual_score, grade.extra_credit, grade.needs_manual_grade = score, 0.5, False
        book.find_comment("why", FIRST, ASSIGNMENT, "ada").manual_comment = "Well seen."
        book.db.commit()
    write(course, points=7.0)
    assert state(course)[FIRST, "why"] == (None, 2.5, True)  # nbgrader asks to look once more
    assert state(course)[FIRST, "test_double"] == (7.0, 6.0, True)
    assert comments(course)[FIRST, "why"] == (None, "Well seen.")
    write(course, not_graded=[FIRST], missing=[SECOND])
    assert state(course)[FIRST, "why"] == (None, 2.5, True)
    assert comments(course)[FIRST, "why"] == (None, "Well seen.")
    with course.writer() as writer:
        grades = writer.grades("ada")[FIRST]
    assert grades.cells["why"].score == 3.0
    assert grades.comments == {"why": "Well seen."}


def test_unreadable_is_no_zero_and_missing_is_one(course: Course) -> None:
    write(course)
    write(course, not_graded=[FIRST], missing=[SECOND])
    assert {value for key, value in state(course).items() if key[0] == FIRST} == {(None, None, True)}
    assert {value for key, value in state(course).items() if key[0] == SECOND} == {(0.0, None, False)}


def test_a_test_without_a_verdict_waits_for_a_human(course: Course) -> None:
    only = Graded(FIRST, (Verdict("test_sign", "passed", 3.0, 3.0),), {})
    with course.writer() as writer:
        writer.write("ada", {FIRST: only}, {FIRST: course.mended(course.answered(FIRST), FIRST)})
        assert writer.grades("ada")[FIRST].outstanding == 10.0  # 7 of the test and 3 of the question
    assert state(course)[FIRST, "test_double"] == (None, None, True)
    assert state(course)[SECOND, "test_triple"] == (None, None, True)  # not part of this run


def test_all_of_a_submission_is_written_or_nothing(course: Course) -> None:
    write(course)
    before = state(course)
    broken = course.mended(course.answered(SECOND), SECOND)
    broken.cells = [cell for cell in broken.cells if cell.id != "why"]
    with course.writer() as writer:
        good = course.mended(course.answered(FIRST), FIRST)
        with pytest.raises(KeyError):
            writer.write(
                "ada", {FIRST: graded(FIRST, 7.0), SECOND: graded(SECOND, 7.0)}, {FIRST: good, SECOND: broken}
            )
        assert state(course) == before
        writer.write("ben", {FIRST: graded(FIRST, 7.0)}, {FIRST: good})  # and the next student is untouched
    assert state(course, "ben")[FIRST, "test_double"] == (7.0, None, False)


def test_half_a_surrogate_pair_is_graded_and_written(course: Course) -> None:
    nb = course.answered(FIRST)
    named(nb, "double").source += "\n# \ud800"
    with course.writer() as writer:
        writer.write("ada", {FIRST: graded(FIRST)}, {FIRST: course.mended(nb, FIRST)})
    path = write_autograded(course.root, ASSIGNMENT, "ada", hand_out(course, nb, graded(FIRST)))
    assert named(nbformat.read(path, 4), "double").source.endswith("# ?")


def test_late_submissions_go_through_nbgraders_plugin(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gradebook(course) as book:
        book.find_assignment(ASSIGNMENT).duedate = datetime(2030, 1, 1)
        book.db.commit()
    late = datetime(2030, 1, 2)
    write(course, timestamp=late)
    with course.writer() as writer:
        assert writer.grades("ada")[FIRST].penalty == 0.0  # nbgrader's own plugin takes nothing off
    seen = []

    def half(self: object, student: str, score: float, seconds: float) -> float:
        seen.append((student, score, seconds))
        return score / 2

    monkeypatch.setattr(LateSubmissionPlugin, "late_submission_penalty", half)
    write(course, timestamp=late)
    assert seen == [("ada", 6.0, 86400.0)] * 2
    with course.writer() as writer:
        assert (writer.grades("ada")[FIRST].penalty, writer.grades("ada")[FIRST].score) == (3.0, 3.0)
    write(course, timestamp=datetime(2029, 12, 31))
    with course.writer() as writer:
        assert writer.grades("ada")[FIRST].penalty == 0.0


def test_a_timestamp_is_read_if_it_makes_sense(tmp_path: Path) -> None:
    assert read_timestamp(tmp_path) is None
    for text, expected in (
        ("2030-01-02 03:04:05.000006 UTC", datetime(2030, 1, 2, 3, 4, 5, 6)),
        ("2030-01-02T03:04:05+01:00", datetime(2030, 1, 2, 2, 4, 5)),
        ("", None), ("yesterday evening", None), ("99999-99-99", None),
    ):  # fmt: skip
        (tmp_path / "timestamp.txt").write_text(text)
        assert read_timestamp(tmp_path) == expected
    write_timestamp(tmp_path, "lab", "ada", datetime(2030, 1, 2))
    assert read_timestamp(tmp_path / "autograded" / "ada" / "lab") == datetime(2030, 1, 2)


def evil_tags(html: str) -> list[str]:
    """The tags, and the scripts, in which a browser would find what the hostile notebook brings."""

    class Finder(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [tag for _, value in attrs if "evil" in (value or "")]

        def handle_data(self, data: str) -> None:
            self.found += [data] * ("evil" in data and self.cdata_elem is not None)

    finder = Finder()
    finder.feed(html)
    return finder.found


HTML = {"output_type": "display_data", "data": {"text/html": "<script>act()</script>", "text/plain": "Box"}}


def hostile(course: Course) -> nbformat.NotebookNode:
    """Answered, with everything in its own cells that could reach a grader's browser."""
    nb = course.answered(FIRST)
    named(nb, "run").outputs = nbformat.from_dict([{**HTML, "metadata": {}}])
    named(nb, "run").execution_count = 5
    own = nbformat.v4.new_code_cell("1", id="own", metadata={"tags": ['x" onload="act()'], "collapsed": True})
    nb.cells.insert(3, own)
    named(nb, "why").source = "**Because** <img src=x onerror='evil()'> `<script>evil()</script>`"
    nb.cells += [kind("<script>evil()</script>") for kind in (new_markdown_cell, new_raw_cell)]
    named(nb, "why").attachments = {"a": {"text/html": "<script>act()</script>"}}
    nb.metadata["kernelspec"] = {"name": "<script>", "display_name": "x", "language": "x"}
    return nb


def test_the_autograded_notebook_is_nbgraders_with_safe_outputs(course: Course) -> None:
    text = {"output_type": "stream", "name": "stdout", "text": "hello\n"}
    result = graded(FIRST, double=[text], own=[HTML])
    one = hand_out(course, hostile(course), result, ("was handed in as <b>x</b>.ipynb",))
    path = write_autograded(course.root, ASSIGNMENT, "ada", one)
    nb = nbformat.read(path, 4)
    nbformat.validate(nb)
    assert "act()" not in path.read_text(encoding="utf-8")
    assert nb.cells[0].source.endswith("- was handed in as &lt;b&gt;x&lt;/b&gt;.ipynb")
    assert named(nb, "double").outputs == [text]
    assert named(nb, "run").outputs[0].data == {"text/plain": "Box"}  # an experiment's, as it was saved
    assert named(nb, "own").metadata == {}
    assert nb.metadata.kernelspec.name == "python3"
    assert SECRET in named(nb, "test-double").source  # as in nbgrader's own autograded notebooks
    assert "3/3 Twice one is two." in named(nb, "test-double").outputs[0].text
    assert "hidden" not in named(course.released[FIRST], "test-double").source
    again = read_autograded(course.root, ASSIGNMENT, "ada", FIRST)
    assert again is not None
    assert (again.verdicts, again.notes) == (one.verdicts, one.notes)
    assert path.read_bytes() == write_autograded(course.root, ASSIGNMENT, "ada", again).read_bytes()
    drop_autograded(course.root, ASSIGNMENT, "ada", FIRST)
    assert read_autograded(course.root, ASSIGNMENT, "ada", FIRST) is None


def formgrader_page(path: Path, submission_id: str = "x") -> str:
    config = Config()
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [handlers.template_path]
    resources = {
        "assignment_id": ASSIGNMENT, "notebook_id": FIRST, "submission_id": submission_id, "index": 0,
        "total": 1, "base_url": "/", "student": "ada", "last_name": "", "first_name": "",
        "notebook_path": "x",
    }  # fmt: skip
    html, _ = HTMLExporter(config=config).from_filename(str(path), resources=resources)
    return str(html)


def tags_by_id(html: str) -> dict[str, list[str]]:
    """An id in the page -> the tags that have it."""
    found: dict[str, list[str]] = {}

    class Finder(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            for name, value in attrs:
                if name in ("id", "name"):
                    found.setdefault(value or "", []).append(tag)

    Finder().feed(html)
    return found


def test_no_cell_of_a_students_takes_a_score_field(course: Course) -> None:
    """Whatever says that it is the question: heading, metadata, cell id, tag, the file's own name."""
    nb = course.answered(FIRST)
    marks = {"nbgrader": {**named(nb, "why").metadata["nbgrader"], "solution": True}}
    posing = [
        kind(text.format(name), id=f"own-{number}-{name}", metadata=metadata)
        for name in ("why", "why-comment", "why_extra_credit", "test_double", "double-comment")
        for number, (kind, text, metadata) in enumerate(
            [
                (new_markdown_cell, "# {}", {}),
                (new_markdown_cell, "> {}\n> ---", {"tags": [name]}),
                (new_markdown_cell, "Because.\n\n# {}", marks),
                (new_raw_cell, "# {0}\n<p id={0}>", marks | {"raw_mimetype": "text/html"}),
                (new_raw_cell, "{}", {"raw_mimetype": "text/html", "name": name, "id": name}),
            ]
        )
    ]
    posing.append(nbformat.v4.new_code_cell("'why'", id="why-comment", metadata=marks))
    nb.cells[:0] = posing
    named(nb, "sign").source += "\n# why"
    one = hand_out(course, nb, graded(FIRST), ("# why",))
    html = formgrader_page(write_autograded(course.root, ASSIGNMENT, "ada", one))
    tags = tags_by_id(html)
    for name in ("why", "test_double", "test_sign"):
        assert (tags[name], tags[f"{name}_extra_credit"]) == (["input"], ["input"])
    assert tags["why-comment"] == tags["double-comment"] == ["textarea"]
    assert html.count("Student's answer") == 3


@pytest.mark.slow
def test_nbgrader_makes_feedback_and_formgrader_pages_of_it(course: Course) -> None:
    one = hand_out(course, hostile(course), graded(FIRST), ("was mended",))
    path = write_autograded(course.root, ASSIGNMENT, "ada", one)
    write(course)
    coursedir = course_directory(course.root, ASSIGNMENT, student_id="ada")
    log = logging.Logger("nbgrader's own")
    GenerateFeedback(coursedir=coursedir, config=course_settings(course.root), log=log).start()
    page = (course.root / "feedback" / "ada" / ASSIGNMENT / f"{FIRST}.html").read_text(encoding="utf-8")
    assert "Score: 6.0 / 13.0" in page
    assert SECRET not in page and "act()" not in page
    assert evil_tags(page) == []

    (submission,) = NbGraderAPI(coursedir).get_notebook_submissions(ASSIGNMENT, FIRST)
    assert (submission["student"], submission["score"], submission["needs_manual_grade"]) == (
        "ada",
        6.0,
        True,
    )
    html = formgrader_page(path, submission["id"])
    assert SECRET in html
    assert "act()" not in html
    assert evil_tags(html) == []
    assert "<strong>Because</strong>" in html  # the rest of the answer is formatted as ever


def test_paths_are_nbgraders(course: Course) -> None:
    coursedir = course_directory(course.root, ASSIGNMENT)
    folder = coursedir.format_path(coursedir.autograded_directory, "ada", ASSIGNMENT)
    assert path_of(course.root, ASSIGNMENT, "ada", FIRST) == Path(folder) / f"{FIRST}.ipynb"
