"""`labkit new`: the notebook that it writes works as it is, and is refused where it would do harm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from traitlets.config import Config
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from nbclient import NotebookClient

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading import reference
from labkit.grading.hygiene import strip
from labkit.grading.new import new_notebook
from tests.roundtrip.tiny_course import write_course


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return write_course(tmp_path)


def test_it_takes_the_next_number_and_the_house_form(course: Path) -> None:
    path = new_notebook(course, "compression", "soft_shrink")
    assert path == course / "source" / "compression" / "04_soft_shrink.ipynb"
    assert not strip(path)  # as it is committed
    nb = nbformat.read(path, 4)
    assert nb.cells[0].source.startswith("# 04 · Soft shrink\n")
    assert {cell.metadata.nbgrader.grade_id for cell in nb.cells if "nbgrader" in cell.metadata} == {
        "setup", "soft_shrink", "test_soft_shrink", "q_soft_shrink",
    }  # fmt: skip


def test_a_new_assignment_begins_at_zero(tmp_path: Path) -> None:
    path = new_notebook(tmp_path, "second", "soft_shrink", "Shrink, softly")
    assert path.name == "00_soft_shrink.ipynb"
    assert nbformat.read(path, 4).cells[0].source.startswith("# 00 · Shrink, softly\n")


@pytest.mark.parametrize(
    "name", ["Soft", "2soft", "soft-shrink", "lambda", "s" * 41, "abs", "expect", "../x"]
)
def test_a_name_that_will_not_do(course: Path, name: str) -> None:
    with pytest.raises(LabError, match="take"):
        new_notebook(course, "compression", name)
    assert len(list((course / "source" / "compression").iterdir())) == 3


def test_an_earlier_notebook_is_never_overwritten(course: Path) -> None:
    path = new_notebook(course, "compression", "soft_shrink")
    path.write_text("a day's work")
    with pytest.raises(LabError, match="edit that one"):
        new_notebook(course, "compression", "soft_shrink")
    assert path.read_text() == "a day's work"
    with pytest.raises(LabError, match="one line"):
        new_notebook(course, "compression", "another_one", "two\nlines")


@pytest.fixture
def kernels_without_ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kernel of another process could get the same port; a file in a folder of one's own it does not."""
    with TemporaryDirectory(prefix="labkit-") as folder:  # a short path: a socket's has a limit
        config = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})
        monkeypatch.setattr(reference, "NotebookClient", partial(NotebookClient, config=config))
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("kernels_without_ports")
def test_its_reference_solution_has_full_marks_and_its_release_no_solution(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for arguments in (
        ["new", "soft_shrink", "--course", str(tmp_path)],
        ["release", "compression", "--score", "--course", str(tmp_path)],
    ):
        ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
    row = next(line.split() for line in ended.output.splitlines() if line.split()[:1] == ["00_soft_shrink"])
    assert "4/4" in row, ended.output
    released = (tmp_path / "release" / "compression" / "00_soft_shrink.ipynb").read_text(encoding="utf-8")
    assert "raise NotImplementedError" in released
    assert not any(secret in released for secret in ("hidden", "Model answer", "sign(w) * (w.abs()"))
