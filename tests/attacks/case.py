"""What a case is: a notebook handed in, made from the released one, and what it must get."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.grading.samples import fill_in
from labkit.grading.submission import Assignment, cells_of, job_of, read_submission
from labkit.grading.verdicts import Job

COURSE = Path(__file__).resolve().parents[2] / "notebooks"
ASSIGNMENT = Assignment.read(COURSE / "release" / "compression", COURSE / "source" / "compression")
REFERENCE = ASSIGNMENT.texts()

GOOD = """\
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    threshold = np.percentile(weight.abs().cpu().numpy(), q)
    weight.mul_(weight.abs() >= threshold)
"""
WRONG = GOOD.replace("weight.abs()", "weight")  # the percentile of the signed weights
WRONG_POINTS = 5.0


@dataclass(frozen=True)
class Case:
    """Notebook 01 with `answer` in its answer cell and the student's own cells around it.

    before: right before the answer; between: between the two test cells; after: at the end.
    points: what the two test cells must get. kinds: their verdicts, where these matter. suspicious: whether
    the instructor must hear of it. seconds: that a cell may take; few where one is meant to take too long.
    """

    name: str
    answer: str = GOOD
    before: str = ""
    between: str = ""
    after: str = ""
    points: tuple[float, float] = (5.0, 5.0)
    kinds: tuple[str, str] | None = None
    suspicious: bool = False
    seconds: float = 60.0
    metadata: dict[str, object] = field(default_factory=dict)

    def hand_in(self, folder: Path) -> None:
        """Write the student's notebook."""
        nb: NotebookNode = nbformat.from_dict(ASSIGNMENT.released["01_percentile_pruning"])
        fill_in(nb, ASSIGNMENT.source["01_percentile_pruning"])
        places = {cell.id: number for number, cell in enumerate(nb.cells)}
        nb.cells[places["prune-by-percentage"]].source = self.answer
        inserts = [
            (len(nb.cells), self.after),
            (places["test-prune-in-place"], self.between),
            (places["prune-by-percentage"], self.before),
        ]
        for number, (place, source) in enumerate(inserts):
            if source:
                nb.cells.insert(place, nbformat.v4.new_code_cell(source, id=f"own-cell-{number}"))
        nb.metadata.update(self.metadata)
        folder.mkdir(parents=True)
        nbformat.write(nb, folder / "01_percentile_pruning.ipynb")

    def job(self, folder: Path) -> tuple[Job, dict[str, str]]:
        """(what the engine gets of the folder that was handed in, the student's own code by cell)."""
        submission = read_submission("student", folder, ASSIGNMENT.released)
        cells = cells_of("01_percentile_pruning", submission, ASSIGNMENT)
        sources = {cell.id: cell.source for cell in cells if cell.kind in ("answer", "own")}
        return job_of("01_percentile_pruning", submission, ASSIGNMENT, REFERENCE), sources
