"""The instructor's side without a kernel: releases, the steps added to nbgrader, tables, the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import demo
from labkit.grading.grade import Options, grade_class, submissions
from labkit.grading.hygiene import strip
from labkit.grading.marks import Marks, Result
from labkit.grading.nbgrader_steps import PointsAreNumbers, ShortTracebacks
from labkit.grading.reference import score
from labkit.grading.release import differences, release
from labkit.grading.settings import CODE_STUB, TEXT_STUB
from labkit.grading.tables import grades_table
from tests.roundtrip.tiny_course import SECRET, write_course

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return write_course(tmp_path)


@pytest.fixture
def released(course: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in release(course, "compression")]


def files(course: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (course / "release" / "compression").iterdir()}


def test_releasing_twice_gives_the_same_bytes(course: Path) -> None:
    release(course, "compression")
    first = files(course)
    release(course, "compression")
    assert files(course) == first
    assert all(content.endswith(b"}\n") for content in first.values())


def test_the_release_holds_no_solution_and_no_hidden_test(
    course: Path, released: list[dict[str, Any]]
) -> None:
    for name, content in files(course).items():
        text = content.decode("utf-8")
        for secret in (SECRET, "SOLUTION", "HIDDEN", "model answer", "copysign"):
            assert secret not in text
        if name == "03_more.ipynb":  # nothing to answer
            continue
        assert CODE_STUB.partition('"')[0] in text
        assert TEXT_STUB in text


def test_the_release_keeps_the_sources_cell_ids(course: Path, released: list[dict[str, Any]]) -> None:
    source = json.loads((course / "source" / "compression" / "01_double.ipynb").read_text())
    expected = ["colab-badge", "colab-bootstrap", *(cell["id"] for cell in source["cells"])]
    assert [cell["id"] for cell in released[0]["cells"]] == expected
    assert (released[0]["nbformat"], released[0]["nbformat_minor"]) == (4, 5)


def test_the_release_names_no_machine(course: Path, released: list[dict[str, Any]]) -> None:
    assert released[0]["metadata"]["language_info"] == {"name": "python"}
    for content in files(course).values():
        assert str(course) not in content.decode()


def test_the_first_cell_is_a_badge_that_opens_this_very_notebook(released: list[dict[str, Any]]) -> None:
    badge = "".join(released[1]["cells"][0]["source"])
    assert badge.startswith("[![Open in Colab](")
    assert badge.endswith("/notebooks/release/compression/02_triple.ipynb)")


def test_the_bootstrap_cell_does_nothing_outside_colab(released: list[dict[str, Any]]) -> None:
    source = "".join(released[0]["cells"][1]["source"])
    assert source.count("!") == 1
    plain = source.replace("!", "raise SystemExit  #")
    exec(compile(plain, "bootstrap", "exec"), {})
    assert "git+https://github.com/" in source


def test_check_is_content_with_a_fresh_release(course: Path, released: list[dict[str, Any]]) -> None:
    assert differences(course, "compression") == []


def test_what_running_the_source_leaves_is_not_released(course: Path, released: list[dict[str, Any]]) -> None:
    source = course / "source" / "compression"
    (source / "runs" / "one-shot").mkdir(parents=True)
    for left in ("submission.zip", ".submission.zip.k2.part", "runs/one-shot/checkpoint.pt"):
        (source / left).write_bytes(b"left")
    assert differences(course, "compression") == []


def test_check_names_what_differs(course: Path, released: list[dict[str, Any]]) -> None:
    folder = course / "release" / "compression"
    (folder / "01_double.ipynb").write_text("edited by hand")
    (folder / "02_triple.ipynb").unlink()
    (folder / "09_left_over.ipynb").write_text("{}")
    found = differences(course, "compression")
    assert [line.partition(":")[0] for line in found] == [
        "02_triple.ipynb",
        "09_left_over.ipynb",
        "01_double.ipynb",
    ]


def test_the_committed_release_is_what_the_source_generates() -> None:
    assert differences(ROOT / "notebooks", "compression") == []  # mend it: make release


def test_the_committed_source_holds_no_outputs() -> None:
    for path in (ROOT / "notebooks" / "source").rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs") and not cell.get("execution_count"), path.name


def test_stripping_a_notebook_keeps_what_grading_needs(course: Path) -> None:
    path = course / "source" / "compression" / "01_double.ipynb"
    nb = nbformat.read(path, 4)
    before = [(cell.id, cell.source, cell.metadata) for cell in nb.cells]
    nb.cells[1].outputs = [stream("stdout")]
    nb.cells[1].metadata = dict(nb.cells[1].metadata, execution={"started": "today"})
    nbformat.write(nb, path)
    assert strip(path)
    assert not strip(path)
    nb = nbformat.read(path, 4)
    assert [(cell.id, cell.source, cell.metadata) for cell in nb.cells] == before
    assert nb.cells[1].outputs == []


def test_a_source_cell_without_an_id_is_refused(course: Path) -> None:
    path = course / "source" / "compression" / "01_double.ipynb"
    content = json.loads(path.read_text())
    del content["cells"][2]["id"]
    path.write_text(json.dumps(content))
    with pytest.raises(LabError, match=r"01_double\.ipynb: cell 3, 'double', has no id of its own"):
        release(course, "compression")


def test_a_solution_without_an_end_is_named(course: Path) -> None:
    path = course / "source" / "compression" / "01_double.ipynb"
    path.write_text(path.read_text().replace("### END SOLUTION", "### the end"))
    with pytest.raises(LabError, match=r"01_double\.ipynb: cell 3, 'double', has no END SOLUTION"):
        release(course, "compression")


def test_cell(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    meta = {"nbgrader": {"grade": True, "solution": False, "locked": True, "grade_id": "test", "points": 4}}
    cell = nbformat.v4.new_code_cell("...", metadata=nbformat.from_dict(meta), execution_count=1)
    cell.outputs = list(outputs)
    return cell


test_cell.__test__ = False


def shown(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("execute_result", {"text/plain": text}, execution_count=1)


def stream(name: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name=name, text="noise")


@pytest.mark.parametrize("text", ["0.0", "4.0", "2.5", "3"])
def test_a_number_of_points_stands(text: str) -> None:
    cell, _ = PointsAreNumbers().preprocess_cell(test_cell(shown(text)), {}, 0)
    assert cell.outputs == [shown(text)]


@pytest.mark.parametrize("text", ["False", "tensor(4.)", "np.float64(4.0)", "5.0", "-1.0", "nan", "None"])
def test_what_is_no_number_of_points_earns_nothing(text: str) -> None:
    cell, _ = PointsAreNumbers().preprocess_cell(test_cell(shown(text)), {}, 0)
    assert score(nbformat.v4.new_notebook(cells=[cell])) == (0.0, 4.0)


def test_a_test_cell_that_shows_nothing_earns_nothing() -> None:
    cell, _ = PointsAreNumbers().preprocess_cell(test_cell(stream("stdout")), {}, 0)
    assert score(nbformat.v4.new_notebook(cells=[cell])) == (0.0, 4.0)


def test_stderr_costs_the_reference_nothing() -> None:
    nb = nbformat.v4.new_notebook(cells=[test_cell(stream("stderr"), shown("4.0"))])
    assert score(nb) == (4.0, 4.0)


def test_a_test_cell_that_never_ran_counts_as_nothing() -> None:
    cell = test_cell()
    cell.execution_count = None
    assert score(nbformat.v4.new_notebook(cells=[cell])) == (0.0, 4.0)


def test_feedback_on_an_error_is_its_message_without_the_code_around_it() -> None:
    error = nbformat.v4.new_output(
        "error", ename="AssertionError", evalue="too small", traceback=["secret", "code"]
    )
    cell, _ = ShortTracebacks().preprocess_cell(test_cell(error), {}, 0)
    assert cell.outputs[0].traceback == ["AssertionError: too small"]


def test_the_table_of_grades() -> None:
    marks = {"00_baseline": Marks(0, 0, 2), "01_percentile_pruning": Marks(7.5, 10, 3)}
    table = grades_table([Result("ada", marks, ["missing 02_x"])], "compression")
    headers = [str(column.header) for column in table.columns]
    assert headers == ["student", "00", "01", "auto", "to mark"]
    row = [next(iter(column.cells)) for column in table.columns]
    assert row == ["ada", "-", "7.5", "7.5", "5"]


def test_the_table_of_a_whole_course_fits_80_columns() -> None:
    marks = {f"0{number}_{name}": Marks(7.5, 10, 3) for number, name in enumerate("abcdefgh")}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(grades_table([Result("ada", marks, [])], "compression"))
    row = next(line for line in console.export_text().splitlines() if "ada" in line)
    assert row.split() == ["ada", *["7.5"] * 8, "60", "24"]


def test_grading_nobody_says_where_submissions_belong(course: Path) -> None:
    assert submissions(course, "compression") == []
    with pytest.raises(LabError, match="nobody has handed in"):
        grade_class(course, "compression", Options(1))


def test_grading_a_student_who_is_not_there(course: Path) -> None:
    with pytest.raises(LabError, match="zoe has handed in nothing"):
        grade_class(course, "compression", Options(1, student="zoe"))


def test_the_demo_does_not_empty_a_folder_that_is_not_its_own(course: Path, tmp_path: Path) -> None:
    precious = tmp_path / "thesis" / "chapter1.tex"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(LabError, match="not from an earlier demo"):
        demo.demo(course, precious.parent)
    assert precious.exists()


def test_the_commands_release_and_check(course: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["release", "--check", "--course", str(course)]).exit_code == 1
    assert run(app, ["release", "--course", str(course)]).exit_code == 0
    assert run(app, ["release", "--check", "--course", str(course)]).exit_code == 0


def test_a_wrong_assignment_is_a_sentence(course: Path) -> None:
    result = CliRunner().invoke(app, ["release", "compresion", "--course", str(course)])
    assert result.exit_code == 2
    assert result.stderr.startswith("labkit: no notebooks in ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_kernel_that_does_not_start_is_started_again(failures: int) -> None:
    from labkit.grading.nbgrader_steps import GradeExecute

    class Flaky(GradeExecute):
        started = 0

        def create_kernel_manager(self) -> None:
            return None

        def start_new_kernel(self, **kwargs: object) -> None:
            type(self).started += 1

        def start_new_kernel_client(self, **kwargs: object) -> None:
            if self.started <= failures:
                raise RuntimeError("Kernel died before replying to kernel_info")

    if failures < 3:
        Flaky()._start_kernel({})
    else:
        with pytest.raises(RuntimeError, match="Kernel died"):
            Flaky()._start_kernel({})
    assert Flaky.started == min(failures + 1, 3)
