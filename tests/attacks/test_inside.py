"""What somebody who has read the grader may try: it gains nothing, and the grader goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.attempts import attempts_in
from labkit.grading.engine import Engine
from labkit.grading.sandbox import Limits
from labkit.grading.verdicts import Graded
from tests.attacks import inside
from tests.attacks.case import GOOD
from tests.attacks.inside import Inside
from tests.attacks.test_attacks import copies, soon

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for what Linux offers")

LIMITS = Limits(memory=2**29)


@pytest.fixture
def engine(shared_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(shared_engine, "limits", LIMITS)
    return shared_engine


def words_of(graded: Graded) -> str:
    """All text that somebody will write to a file."""
    checks = [check for verdict in graded.verdicts for check in verdict.checks]
    said = [text for check in checks for text in (check.sentence, check.message, check.hint or "")]
    said += [text for verdict in graded.verdicts for text in (verdict.sentence, verdict.printed)]
    return "".join([*said, *graded.attempts, json.dumps(graded.outputs, ensure_ascii=False)])


@pytest.mark.parametrize("case", inside.CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_knowing_the_grader_gains_nothing(engine: Engine, case: Inside, tmp_path: Path) -> None:
    job, sources = case.job(tmp_path / "work")
    engine.limits = replace(LIMITS, cell_seconds=case.seconds)
    graded = engine.grade(job)
    assert graded.complete, "something kept the checker where no alarm reaches"
    points = tuple(verdict.points for verdict in graded.verdicts)
    assert len(points) == len(case.points)
    assert all(got <= most for got, most in zip(points, case.points, strict=True)), graded.verdicts
    if case.shows:
        assert points == case.points, "the right answer has its points"
        assert case.shows in str(graded.outputs["own-0"])
    if case.told:
        assert [*graded.attempts, *attempts_in(sources)], "the instructor should hear of it"
    words = words_of(graded)
    assert "\x00" not in words
    words.encode()  # what cannot be written would stop the whole class
    assert "passwd:" not in words
    assert "root:x" not in words
    assert "HIDDEN TESTS" not in words
    for check in (check for verdict in graded.verdicts for check in verdict.checks):
        assert len(check.message) < 500
    assert soon(lambda: copies(engine) == 0)


def test_own_cells_that_sleep_cost_themselves_and_not_the_hour(engine: Engine, tmp_path: Path) -> None:
    sleeping = ("time.sleep(2)",) * 40
    case = Inside(
        "sleeps", inside.PRUNING, {"prune-by-percentage": GOOD}, (5.0, 5.0), own=("print('first')", *sleeping)
    )
    engine.limits = replace(LIMITS, cell_seconds=3.0)
    graded = engine.grade(case.job(tmp_path / "work")[0])
    assert tuple(verdict.points for verdict in graded.verdicts) == case.points
    assert "first" in str(graded.outputs["own-0"])
    assert "took too long" in str(graded.outputs["own-40"])
