"""The few steps that this lab adds to nbgrader's own when it releases, grades and gives feedback.

A cell's kind is told by its tag: `setup`, `answer`, `test`, `experiment`, `question`. An experiment is
long training and plots: it is never run at grading time, and its saved outputs are kept for the human
grader. So tags decide what runs, and a student's copy of them is not to be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

from labkit import __version__
from labkit.grading.kernels import kernel_environment
from labkit.grading.reading import read_notebook
from labkit.grading.repair import EXPERIMENT, grade_id_of, repair

Resources = dict[str, Any]

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
BOOTSTRAP = """\
# In Colab this installs labkit, once; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    from importlib.util import find_spec

    if find_spec("labkit") is None:
        !{{sys.executable}} -m pip install -q "labkit @ git+{home}@v{version}"
"""


def public_home() -> str:
    """The project's address, from [project.urls] in pyproject.toml."""
    for entry in metadata("labkit").get_all("Project-URL") or []:
        label, _, address = entry.partition(", ")
        if label == "Repository":
            return address.rstrip("/")
    raise RuntimeError("pyproject.toml names no Repository in [project.urls]")


def add_colab_cells(nb: NotebookNode, assignment: str, name: str) -> None:
    """Put the Colab badge and the cell that installs labkit there in front, and tidy the metadata."""
    if any(cell.get("id") == "colab-badge" for cell in nb.cells):
        return
    home = public_home()
    repository = home.removeprefix("https://github.com/")
    page = (
        f"https://colab.research.google.com/github/{repository}/blob/v{__version__}"
        f"/notebooks/release/{assignment}/{name}.ipynb"
    )
    badge = nbformat.v4.new_markdown_cell(f"[![Open in Colab]({BADGE})]({page})", id="colab-badge")
    bootstrap = nbformat.v4.new_code_cell(
        BOOTSTRAP.format(home=home, version=__version__).rstrip(),
        id="colab-bootstrap",
        metadata={
            "tags": ["setup"],
            "nbgrader": {
                "grade": False,
                "grade_id": "colab_bootstrap",
                "locked": True,
                "schema_version": 3,
                "solution": False,
                "task": False,
            },
        },
    )
    nb.cells[:0] = [badge, bootstrap]
    # Neither this machine's Python version nor an editor's leavings; Colab is asked for a GPU.
    nb.metadata = nbformat.from_dict(
        {
            "accelerator": "GPU",
            "colab": {"gpuType": "T4"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )


class AddColabCells(NbGraderPreprocessor):
    """Releasing: the badge and the bootstrap cell, with ids that never change."""

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        where = resources["nbgrader"]
        add_colab_cells(nb, where["assignment"], where["notebook"])
        return nb, resources


class TrustedCells(NbGraderPreprocessor):
    """Grading: what a cell is comes from the source notebook, what an answer says from the student.

    Without this a test cell tagged `experiment` would be skipped, and a skipped test cell counts as
    passed. `labkit grade` has mended the notebook before; under plain nbgrader it is done here.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        where = resources["nbgrader"]
        path = _source_folder(self, where["assignment"]) / f"{where['notebook']}.ipynb"
        released = nbformat.read(path, as_version=4)
        add_colab_cells(released, where["assignment"], where["notebook"])
        with Gradebook(where["db_url"]) as gradebook:
            notebook = gradebook.find_notebook(where["notebook"], where["assignment"])
            texts = {cell.name: cell.source for cell in notebook.source_cells}
        for cell in released.cells:
            if (name := grade_id_of(cell)) is not None:
                cell.source = texts[name]  # an answer emptied, a test with its hidden part
                cell.metadata["nbgrader"]["cell_type"] = cell.cell_type
        submitted, _ = read_notebook(nbformat.writes(nb).encode())  # with cell ids, whoever saved it
        mended = repair(submitted, released)
        for note in mended.notes:
            self.log.info("%s: %s", where["notebook"], note)
        return mended.notebook, resources


class KeepExperimentOutputs(NbGraderPreprocessor):
    """Grading: only experiments keep the outputs that the student saved; nobody hands in a test's output."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Resources, cell_index: int
    ) -> tuple[NotebookNode, Resources]:
        kept = _is_experiment(cell) and grade_id_of(cell) is None
        if cell.cell_type == "code" and not kept:
            cell.outputs = []
            cell.execution_count = None
            cell.metadata.pop("collapsed", None)
            cell.metadata.pop("scrolled", None)
        return cell, resources


KERNEL_STARTS = 3


class GradeExecute(Execute):
    """Grading: nbgrader's Execute, its kernel in the environment that grading needs."""

    km: Any  # the kernel's manager, a trait of NotebookClient

    def preprocess(
        self, nb: NotebookNode, resources: Resources | None = None, km: Any = None
    ) -> tuple[NotebookNode, Resources]:
        assert resources is not None  # nbgrader always passes them
        self._reference = _source_folder(self, resources["nbgrader"]["assignment"])
        return super().preprocess(nb, resources, km)

    @contextmanager
    def setup_kernel(self, **kwargs: Any) -> Iterator[None]:
        with kernel_environment(grading=self._reference) as env:
            self._start_kernel(env)
            with super().setup_kernel(env=env, **kwargs):
                yield

    def _start_kernel(self, env: dict[str, str]) -> None:
        # Kernels that start together can pick the same port, and one of them dies: nobody's fault, so again.
        for tries_left in range(KERNEL_STARTS - 1, -1, -1):
            if self.km is None:
                self.km = self.create_kernel_manager()
            try:
                self.start_new_kernel(env=env)
                self.start_new_kernel_client()
                return
            except RuntimeError:
                if not tries_left:
                    raise
                self.log.warning("the kernel did not start; trying again")


class PointsAreNumbers(NbGraderPreprocessor):
    """Grading: a test cell must end by showing a number of points; without one it is worth nothing.

    nbgrader gives full marks to a cell that shows nothing, or `False`, or `tensor(0.)`.
    """

    def preprocess_cell(
        self, cell: NotebookNode, resources: Resources, cell_index: int
    ) -> tuple[NotebookNode, Resources]:
        if not _is_test(cell) or any(output.output_type == "error" for output in cell.outputs):
            return cell, resources
        most = float(cell.metadata.nbgrader["points"])
        results = [output for output in cell.outputs if output.output_type == "execute_result"]
        if not results or not _is_points(str(results[0].data.get("text/plain")), most):
            message = f"this test cell ended without a number of points from 0 to {most:g}"
            error = {"ename": "NoPoints", "evalue": message, "traceback": [f"NoPoints: {message}"]}
            cell.outputs = [output for output in cell.outputs if output not in results]
            cell.outputs.append(nbformat.v4.new_output("error", **error))
        return cell, resources


class ShortTracebacks(NbGraderPreprocessor):
    """Feedback: an error in a test cell is its message; the traceback would quote the hidden tests."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Resources, cell_index: int
    ) -> tuple[NotebookNode, Resources]:
        if _is_test(cell):
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources


def _source_folder(step: NbGraderPreprocessor, assignment: str) -> Path:
    """The folder of source notebooks; a step's parent is the exporter, whose parent is the converter."""
    coursedir = step.parent.parent.coursedir
    return Path(coursedir.format_path(coursedir.source_directory, ".", assignment))


def _is_experiment(cell: NotebookNode) -> bool:
    return EXPERIMENT in (cell.metadata.get("tags") or [])


def _is_test(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(is_grade(cell)) and not is_solution(cell)


def _is_points(text: str, most: float) -> bool:
    try:
        return 0.0 <= float(text) <= most
    except ValueError:
        return False
