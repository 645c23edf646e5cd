"""Every answer gets the same points and the same hints by the grading engine as in the student's own process.

A right answer that passes in the notebook must pass when it is graded, and a wrong one must lose as much.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lab.harness import Answer, Graded, answers, cells_of, grade, graded_functions, tags

pytest.importorskip("nbgrader")

from labkit.grading.engine import Engine
from labkit.grading.repair import defined_names
from labkit.grading.verdicts import Cell, Job
from labkit.notebooks import _REPORT
from tests.lab.harness import SOURCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="grading needs Linux or macOS")

REFERENCE = {path.stem: path.read_text(encoding="utf-8") for path in SOURCE.glob("*.ipynb")}
# The biases of a fresh network are random, and here the seed is another one than there: so are the points
# that counting them costs.
CHANCE = "the biases are counted"
# What an instant check reads in the code itself, which does not cross the border.
IN_THE_CODE = "written for the GPU"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine([SOURCE]) as engine:
        yield engine


def job_of(graded: Graded, answer: Answer) -> Job:
    """The source notebook with this answer, its other answers the reference's."""
    cells, names = [], []
    for cell in cells_of(graded.notebook):
        kind = next((tag for tag in tags(cell) if tag in ("setup", "answer", "test")), None)
        if kind is None:
            continue
        marks = cell["metadata"]["nbgrader"]
        source = cell["source"]
        if kind == "answer":
            names += sorted(defined_names(source))
            if marks["grade_id"] == graded.function:
                source = answer.source
                if answer.before:
                    place = max(n for n, one in enumerate(cells) if one.kind == "answer")
                    cells[place] = replace(cells[place], source=answer.before)
        cells.append(Cell(cell["id"], kind, source, marks["grade_id"], marks.get("points") or 0.0))
    siblings = {name: text for name, text in REFERENCE.items() if name < graded.notebook}
    return Job(graded.notebook, tuple(cells), tuple(names), siblings, REFERENCE)


def _shown(printed: str) -> list[str]:
    """What the instant checks printed, but for the student's line that an exception names."""
    return [re.sub(r"\(line.*", "", "".join(report)) for report in _REPORT.findall(printed)]


@pytest.mark.parametrize("graded", graded_functions(), ids=lambda graded: graded.function)
def test_the_engine_gives_what_the_students_own_process_gives(engine: Engine, graded: Graded) -> None:
    different, said = [], []
    for answer in answers(graded.function):
        alone, printed = grade(graded, answer.source, answer.before)
        result = engine.grade(job_of(graded, answer))
        points = {verdict.cell: verdict.points for verdict in result.verdicts if verdict.cell in alone}
        if points != alone or result.attempts:
            different.append((answer.kind, answer.title, alone, points, result.attempts))
        own = [verdict for verdict in result.verdicts if verdict.cell in alone or answer.before]
        across = "\n".join(verdict.printed for verdict in own)
        if _shown(printed) != _shown(across) and answer.title != IN_THE_CODE:
            said.append((answer.title, _shown(printed), _shown(across)))
        if answer.kind == "wrong":
            assert sum(points.values()) < sum(v.possible for v in result.verdicts if v.cell in alone)
    assert [case for case in different if case[1] != CHANCE] == []
    assert said == []
