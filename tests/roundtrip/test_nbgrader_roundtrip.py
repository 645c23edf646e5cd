"""From source notebooks to grades and feedback, through `labkit grade`; and through plain nbgrader.

A tiny course takes every kind of submission; the lab's own notebooks take five.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from typer.testing import CliRunner

from tests.lab import harness
from tests.lab.harness import Graded, answers, grade, graded_functions
from tests.roundtrip import submissions as made
from tests.roundtrip.tiny_course import SECRET, write_course

pytest.importorskip("nbgrader")

from nbgrader.api import Gradebook

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import schedule
from labkit.grading import verdicts as verdicts_module
from labkit.grading.grade import Options, grade_class
from labkit.grading.gradebook import GradebookWriter
from labkit.grading.marks import Result
from labkit.grading.release import release
from labkit.grading.settings import course_directory
from labkit.grading.verdicts import Verdict

pytestmark = pytest.mark.usefixtures("graded_by_the_shared_engine")
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks" / "source" / "compression").glob("*.ipynb"))
FIRST, SECOND = "01_double", "02_triple"
GRADED = [path.stem for path in NOTEBOOKS if '"grade": true' in path.read_text(encoding="utf-8")]
CORES = os.cpu_count() or 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    course = write_course(tmp_path_factory.mktemp("tiny"))
    release(course, "compression")
    made.hand_in(course, "right", made.experiments_shown)
    made.hand_in(course, "untouched", made.unchanged, answered=False)
    made.hand_in(course, "noisy", made.noisy)
    made.hand_in(course, "raising", made.raising)
    made.hand_in(course, "deleted", made.without("test_double", "set_up", "triple", "test_triple", "why"))
    made.hand_in(course, "tagged", made.tagged_away)
    made.hand_in(course, "stripped", made.stripped_and_tagged)
    made.hand_in(course, "relabelled", made.relabelled)
    made.hand_in(course, "copied", made.copied)
    made.hand_in(course, "dying", made.dying)
    made.hand_in(course, "old", made.old_format)
    made.only(made.hand_in(course, "half", made.unchanged), FIRST)
    broken = made.hand_in(course, "broken", made.unchanged)
    (broken / f"{FIRST}.ipynb").write_text("this is no notebook")
    made.hand_in(course, "unmarked", made.unmarked)
    made.zip_up(made.hand_in(course, "zipped", made.unchanged))
    return course


@pytest.fixture(scope="module")
def graded(tiny: Path, graded_by_the_shared_engine: None) -> dict[str, Result]:
    return {result.student: result for result in grade_class(tiny, "compression", Options(CORES))}


def points(result: Result) -> tuple[float | None, float | None]:
    return result.marks[FIRST].got, result.marks[SECOND].got


def feedback(course: Path, student: str, name: str = FIRST) -> str:
    return (course / "feedback" / student / "compression" / f"{name}.html").read_text(encoding="utf-8")


def autograded(course: Path, student: str, name: str = FIRST) -> nbformat.NotebookNode:
    return nbformat.read(course / "autograded" / student / "compression" / f"{name}.ipynb", 4)


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        ("right", (10, 10)),
        ("untouched", (0, 0)),
        ("noisy", (10, 10)),
        ("raising", (3, 3)),  # its own cell's 7 points lost, the 3 of the other kept
        ("deleted", (10, 3)),  # a deleted test comes back; a deleted answer earns nothing
        ("tagged", (3, 3)),
        ("stripped", (3, 3)),
        ("relabelled", (3, 3)),
        ("copied", (10, 10)),
        ("dying", (3, 10)),  # what it crashed is lost, nothing else
        ("old", (10, 10)),
        ("half", (10, 0)),
        ("broken", (None, 10)),  # not graded, which is no zero
        ("unmarked", (10, 10)),
        ("zipped", (10, 10)),
    ],
)
def test_every_submission_gets_its_points(
    graded: dict[str, Result], student: str, expected: tuple[float | None, float]
) -> None:
    assert points(graded[student]) == expected
    assert graded[student].possible == 20


def test_notes_tell_the_instructor_what_went_wrong(graded: dict[str, Result]) -> None:
    assert graded["right"].notes == []
    (note,) = graded["dying"].notes
    assert note == f"{FIRST}: test_double: crashed: Its process ended (exit status 1)."
    assert graded["half"].notes == [f"missing {SECOND}"]  # and nothing of the optional notebook
    assert all(set(result.marks) == {FIRST, SECOND} for result in graded.values())
    assert graded["broken"].notes == [f"{FIRST}: not graded: it is no notebook: it does not begin as one"]
    assert graded["zipped"].notes[0] == f"{FIRST}: was handed in as work.zip/lab/{FIRST}.ipynb"
    assert f"{FIRST}: the answer double was found by what it defines" in graded["unmarked"].notes


def test_the_whole_class_is_in_the_tables(tiny: Path, graded: dict[str, Result]) -> None:
    folder = tiny / "exports" / "compression"
    with (folder / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows.keys() == graded.keys()
    assert (rows["right"][FIRST], rows["right"]["total"], rows["right"]["to mark"]) == ("10", "20", "6")
    assert (rows["broken"][FIRST], rows["broken"][SECOND]) == ("", "10")
    assert (rows["half"][FIRST], rows["half"][SECOND]) == ("10", "0")
    gradescope = json.loads((folder / "gradescope" / "noisy" / "results.json").read_text())
    assert gradescope["score"] == 20.0


def test_students_are_told_what_was_mended_and_why_not(tiny: Path, graded: dict[str, Result]) -> None:
    assert "the answer double was found by what it defines" in feedback(tiny, "unmarked")
    assert "mended" not in feedback(tiny, "right")
    page = feedback(tiny, "broken")
    assert "it is no notebook: it does not begin as one" in page


def test_grading_again_keeps_what_a_human_wrote(tiny: Path, graded: dict[str, Result]) -> None:
    def of_broken(gradebook: Gradebook) -> tuple[Any, Any]:
        notebooks = (
            gradebook.find_submission_notebook(name, "compression", "broken") for name in (FIRST, SECOND)
        )
        first, second = ({grade.cell.name: grade for grade in one.grades} for one in notebooks)
        return first[f"test_{FIRST[3:]}"], second["why"]

    url = course_directory(tiny, "compression").db_url
    with Gradebook(url, "compression-lab") as gradebook:
        unread, question = of_broken(gradebook)
        assert unread.auto_score is None and unread.needs_manual_grade
        unread.manual_score, question.manual_score = 5.0, 2.0
        gradebook.db.commit()
    (again,) = grade_class(tiny, "compression", Options(1, student="broken", force=True))
    assert again.marks[FIRST].got is None
    with Gradebook(url, "compression-lab") as gradebook:
        assert [grade.manual_score for grade in of_broken(gradebook)] == [5.0, 2.0]


def test_written_answers_wait_for_a_human(graded: dict[str, Result]) -> None:
    assert graded["right"].outstanding == 6
    assert graded["untouched"].outstanding == 0  # nothing written: nothing to read


def test_hidden_tests_stay_hidden(tiny: Path, graded: dict[str, Result]) -> None:
    pages = [*(tiny / "release").rglob("*.ipynb"), *(tiny / "feedback").rglob("*.html")]
    assert len(pages) == 3 + 3 * len(graded) - 1  # with an index each; one notebook is missing
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert SECRET not in text, page
        assert "HIDDEN TESTS" not in text, page


def test_feedback_says_what_a_failed_check_found(tiny: Path, graded: dict[str, Result]) -> None:
    assert "is not 2" in feedback(tiny, "tagged")


def test_experiments_are_not_run_and_keep_their_saved_output(tiny: Path, graded: dict[str, Result]) -> None:
    cells = autograded(tiny, "right").cells
    assert any("accuracy 0.9151, as the student saw it" in str(cell.get("outputs")) for cell in cells)
    assert not list((tiny / "autograded").rglob("ran.txt"))


def test_forged_outputs_of_test_cells_are_dropped(tiny: Path, graded: dict[str, Result]) -> None:
    for cell in autograded(tiny, "tagged").cells:
        if cell.metadata.get("nbgrader", {}).get("grade") and cell.cell_type == "code":
            assert "forged" not in str(cell.outputs)
            assert cell.metadata.tags == ["test"]


def test_deleted_cells_come_back_in_their_places(tiny: Path, graded: dict[str, Result]) -> None:
    ids = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in autograded(tiny, "deleted").cells]
    expected = ["colab_bootstrap", "set_up", "double", "test_double", "sign", "test_sign", "why"]
    assert [grade_id for grade_id in ids if grade_id] == expected


def test_the_submissions_themselves_are_left_alone(tiny: Path, graded: dict[str, Result]) -> None:
    text = (tiny / "submitted" / "tagged" / "compression" / f"{FIRST}.ipynb").read_text()
    assert "forged" in text


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three students with one notebook; one of them cannot be read."""
    course = write_course(tmp_path)
    release(course, "compression")
    for student in ("ada", "ben"):
        made.only(made.hand_in(course, student, made.unchanged), FIRST)
    (course / "submitted" / "cleo" / "compression").mkdir(parents=True)
    (course / "submitted" / "cleo" / "compression" / f"{FIRST}.ipynb").write_text("no notebook")
    return course


def graded_now(course: Path, **options: Any) -> dict[str, Result]:
    return {result.student: result for result in grade_class(course, "compression", Options(2, **options))}


def test_only_what_changed_is_graded_again(small: Path) -> None:
    def run(results: dict[str, Result]) -> dict[str, int]:
        return {name: result.graded for name, result in results.items()}

    first = graded_now(small)
    assert run(first) == {"ada": 1, "ben": 1, "cleo": 0}
    again = graded_now(small)
    assert run(again) == {"ada": 0, "ben": 0, "cleo": 0}
    assert [result.marks for result in again.values()] == [result.marks for result in first.values()]
    assert [result.notes for result in again.values()] == [result.notes for result in first.values()]

    path = small / "submitted" / "ben" / "compression" / f"{FIRST}.ipynb"
    nb = nbformat.read(path, 4)
    made.wrong(nb)
    nbformat.write(nb, path)
    second = graded_now(small)
    assert run(second) == {"ada": 0, "ben": 1, "cleo": 0}
    assert second["ben"].notes == [f"missing {SECOND}", "10 points by code before, 3 now"]

    source = small / "source" / "compression" / f"{FIRST}.ipynb"
    source.write_text(source.read_text().replace("7.0 if double(-1)", "6.0 if double(-1)"))
    third = graded_now(small)
    assert run(third) == {"ada": 1, "ben": 1, "cleo": 0}
    assert third["ada"].notes[-1] == "10 points by code before, 9 now"
    assert third["ben"].notes == [f"missing {SECOND}"]
    assert [result.student for result in third.values() if result.moved] == ["ada"]

    source.write_text(source.read_text().replace("6.0 if double(-1)", "7.0 if double(-1)"))
    regraded = CliRunner().invoke(app, ["regrade", "compression", "--course", str(small)])
    assert "1 of 3 scores moved" in regraded.output
    (row,) = [line.split() for line in regraded.output.splitlines() if "ada" in line]
    assert row == ["ada", "9", "10", "+1"]

    (small / "graded" / "compression" / "ada.json").write_text("{")  # cut short: only time is lost
    assert run(graded_now(small)) == {"ada": 1, "ben": 0, "cleo": 0}
    assert run(graded_now(small, notebook=SECOND, force=True)) == {"ada": 0, "ben": 0, "cleo": 0}
    with pytest.raises(LabError, match="compression has no notebook 03: it has 01_double, 02_triple"):
        graded_now(small, notebook="03")


def test_grading_twice_gives_the_same_tables(small: Path) -> None:
    graded_now(small)
    tables = {path: path.read_bytes() for path in (small / "exports").rglob("*") if path.is_file()}
    pages = {path: path.read_bytes() for path in (small / "feedback").rglob("*.html")}
    assert {name: one.graded for name, one in graded_now(small, force=True).items()}["ada"] == 1
    assert tables and all(path.read_bytes() == text for path, text in tables.items())
    assert pages and all(path.read_bytes() == text for path, text in pages.items())


def test_one_bad_case_costs_nobody_else(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = GradebookWriter.write

    def fails_for_ada(self: GradebookWriter, student: str, *arguments: Any) -> None:
        if student == "ada":
            raise RuntimeError("who would have thought")
        write(self, student, *arguments)

    monkeypatch.setattr(GradebookWriter, "write", fails_for_ada)
    results = graded_now(small)
    assert results["ada"].notes == ["grading broke off, see logs/ada.log"]
    assert "who would have thought" in (small / "logs" / "ada.log").read_text()
    assert points(results["ben"]) == (10, 0)
    monkeypatch.undo()
    assert points(graded_now(small)["ada"]) == (10, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_name_in_latin_1_costs_nobody_anything(small: Path) -> None:
    """From an old zip: of a file, which is graded by what it holds, and of a student's folder."""
    ada = small / "submitted" / "ada" / "compression"
    (ada / f"{FIRST}.ipynb").rename(os.fsdecode(os.fsencode(ada) + b"/01_double Jos\xe9.ipynb"))
    dan = made.hand_in(small, "dan", made.unchanged).parent
    dan.rename(os.fsdecode(os.fsencode(dan.parent) + b"/Jos\xe9"))
    said: list[str] = []
    results = grade_class(small, "compression", Options(2), say=said.append)
    got = {one.student: points(one) for one in results}
    assert got == {"ada": (10, 0), "ben": (10, 0), "cleo": (None, 0)}
    assert any(line.startswith("submitted/Jos\\udce9 was left out: rename this folder") for line in said)


def test_a_file_that_cannot_be_read_is_told(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if "ben" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    results = graded_now(small)
    (note,) = results["ben"].notes
    assert note.startswith("not graded: ") and "cannot be read (Permission denied)" in note
    assert points(results["ada"]) == (10, 0)


def test_a_grading_that_broke_off_is_tried_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "grade_here", _broken_off)
    assert points(graded_now(small, student="ada")["ada"]) == (0, 0)
    monkeypatch.undo()
    assert points(graded_now(small, student="ada")["ada"]) == (10, 0)


def _broken_off(jobs: Any, *arguments: Any) -> Iterator[Any]:
    for key, job in jobs:
        verdicts = [Verdict(c.grade_id, "error", 0.0, c.points, "broke off") for c in job.cells if c.points]
        yield key, verdicts_module.Graded(job.notebook, tuple(verdicts), {}, complete=False)


def test_a_humans_comment_reaches_the_page_without_grading_again(small: Path) -> None:
    graded_now(small)
    url = course_directory(small, "compression").db_url
    with Gradebook(url, "compression-lab") as gradebook:
        gradebook.find_comment("double", FIRST, "compression", "ada").manual_comment = "Well found."
        gradebook.db.commit()
    assert "Well found." not in feedback(small, "ada")
    assert graded_now(small)["ada"].graded == 0
    assert "Well found." in feedback(small, "ada")


def test_stock_nbgrader_does_the_same_from_our_configuration(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course")
    release(course, "compression")
    ours = {path.name: path.read_bytes() for path in (course / "release" / "compression").iterdir()}
    made.hand_in(course, "noisy", made.noisy)
    made.hand_in(course, "tagged", made.tagged_away)
    for command in ("generate_assignment", "autograde", "generate_feedback"):
        force = ["--force"] if command == "generate_assignment" else []
        nbgrader(course, tmp_path, command, "compression", *force)
    assert {path.name: path.read_bytes() for path in (course / "release" / "compression").iterdir()} == ours
    nbgrader(course, tmp_path, "export", "--to", str(tmp_path / "grades.csv"))
    with (tmp_path / "grades.csv").open(newline="") as table:
        scores = {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader(table)}
    assert scores == {"noisy": 20.0, "tagged": 6.0}
    assert SECRET not in feedback(course, "tagged")


def nbgrader(course: Path, scratch: Path, *arguments: str) -> None:
    # not under the warnings filter of these tests: nbgrader's own warnings are not ours to mend
    env = {**os.environ, "LABKIT_COURSE": str(course), "JUPYTER_RUNTIME_DIR": str(scratch / "runtime")}
    ended = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, graded_by_the_shared_engine: None
) -> Iterator[tuple[Path, dict[str, Result]]]:
    """The lab's own notebooks, handed in by five students and graded."""
    course = tmp_path_factory.mktemp("lab")
    made.copy_course(NOTEBOOKS[0].parent, course)
    release(course, "compression")
    made.hand_in(course, "right", made.unchanged)
    made.hand_in(course, "untouched", made.unchanged, answered=False)
    made.hand_in(course, "noisy", made.noisy)
    for kind in ("right", "wrong"):
        chosen = {graded.function: some_answer(graded, kind) for graded in graded_functions()}
        made.hand_in(course, f"other-{kind}", made.with_answers(chosen))
    results = grade_class(course, "compression", Options(CORES))
    yield course, {result.student: result for result in results}


def some_answer(graded: Graded, kind: str) -> str:
    """An answer of tests/lab: the last right one, or the first wrong one."""
    sources = [answer.source for answer in answers(graded.function) if answer.kind == kind]
    return sources[-1 if kind == "right" else 0]


@pytest.mark.parametrize("graded", graded_functions(), ids=lambda graded: graded.function)
@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_a_class_gets_the_points_that_the_tests_give_alone(
    lab: tuple[Path, dict[str, Result]], graded: Graded, kind: str
) -> None:
    alone, printed = grade(graded, some_answer(graded, kind))
    possible = sum(harness.points(graded.notebook, test) for test in graded.tests)
    assert (sum(alone.values()) == possible) is (kind == "right"), printed
    in_notebook = [other for other in graded_functions() if other.notebook == graded.notebook]
    together = sum(sum(grade(other, some_answer(other, kind))[0].values()) for other in in_notebook)
    assert lab[1][f"other-{kind}"].marks[graded.notebook].got == together


@pytest.mark.parametrize("name", GRADED)
class TestTheLabsOwnNotebooks:
    def test_the_reference_reaches_every_automatic_point(
        self, lab: tuple[Path, dict[str, Result]], name: str
    ) -> None:
        result = lab[1]["right"]
        assert result.notes == []
        assert result.marks[name].got == result.marks[name].possible

    def test_the_untouched_release_earns_nothing(
        self, lab: tuple[Path, dict[str, Result]], name: str
    ) -> None:
        assert lab[1]["untouched"].marks[name].got == 0

    def test_warnings_and_progress_bars_cost_nothing(
        self, lab: tuple[Path, dict[str, Result]], name: str
    ) -> None:
        assert lab[1]["noisy"].marks[name].got == lab[1]["noisy"].marks[name].possible

    def test_no_hidden_test_reaches_a_student(self, lab: tuple[Path, dict[str, Result]], name: str) -> None:
        source = nbformat.read(ROOT / "notebooks" / "source" / "compression" / f"{name}.ipynb", 4)
        released = (lab[0] / "release" / "compression" / f"{name}.ipynb").read_text(encoding="utf-8")
        pages = [released, *(feedback(lab[0], student, name) for student in lab[1])]
        for page in pages:
            assert "HIDDEN TESTS" not in page
        shown = "\n".join(cell.source for cell in nbformat.reads(released, 4).cells)
        meant_for_students = "\n".join(visible(cell.source) for cell in source.cells)
        secrets = {line for cell in source.cells for line in hidden_lines(cell.source)}
        for line in secrets:
            assert line in meant_for_students or line not in shown, line


def visible(source: str) -> str:
    """A cell without its hidden region."""
    return source.partition("### BEGIN HIDDEN TESTS")[0]


def hidden_lines(source: str) -> list[str]:
    """The longer lines of a cell's hidden region: `x = 1` could stand anywhere."""
    _, begin, rest = source.partition("### BEGIN HIDDEN TESTS")
    lines = rest.partition("### END HIDDEN TESTS")[0].splitlines() if begin else []
    return [line.strip() for line in lines if len(line.strip()) > 30]
