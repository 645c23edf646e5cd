"""What the main process takes from the tests' process, which a student's code may have got hold of."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.answered import MOST_VALUES, Unbelievable, read, written
from labkit.grading.verdicts import Cell, Graded, Job, Verdict
from labkit.outcomes import Outcome

JOB = Job(
    "01_x",
    (
        Cell("own", "own", "1"),
        Cell("a", "test", "f()", "test_a", 5.0),
        Cell("b", "test", "g()", "test_b", 2.5),
    ),
    ("f",),
)
CHECKS = (
    Outcome("It works.", "passed", 2.0),
    Outcome("It holds.", "failed", 3.0, "3 of 4\n table", "use abs"),
)
HONEST = Graded(
    "01_x",
    (
        Verdict("test_a", "partial", 2.0, 5.0, "", CHECKS, "2 of 5 points\n"),
        Verdict("test_b", "timeout", 0.0, 2.5, "Late."),
    ),
    {
        "own": [{"output_type": "stream", "name": "stdout", "text": "hello\n"}],
        "b": [
            {"output_type": "error", "ename": "timeout", "evalue": "Late.", "traceback": ["timeout: Late."]}
        ],
    },
    ("its process sent nonsense",),
    1.5,
)


def test_an_honest_answer_arrives_as_it_was() -> None:
    assert read(written(HONEST), JOB) == HONEST


def changed(**more: Any) -> bytes:
    return json.dumps(asdict(HONEST) | more).encode()


def verdict(**more: Any) -> bytes:
    first, second = asdict(HONEST)["verdicts"]
    return changed(verdicts=[first | more, second])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x05N.", b"[]", b"{}", b"[" * 100_000, b'{"verdicts": NaN}',
        changed(verdicts=[]), changed(verdicts=None), changed(outputs=[]), changed(attempts=[3]),
        changed(seconds=float("nan")), changed(seconds="1"),
        verdict(points=5.1), verdict(points=-1), verdict(points=True), verdict(points=float("inf")),
        verdict(points="5"), verdict(kind="excellent"), verdict(sentence=None), verdict(printed=["x"]),
        verdict(checks=[{}]), verdict(checks=[asdict(CHECKS[0]) | {"state": "won"}]),
        verdict(checks=[asdict(CHECKS[0]) | {"points": None}]),
        changed(seconds=10**400), verdict(points=10**400), verdict(points=-(10**400)),  # too long for a float
        verdict(checks=[asdict(CHECKS[0]) | {"points": 10**400}]),
    ],
)  # fmt: skip
def test_what_no_honest_process_says_is_not_believed(data: bytes) -> None:
    with pytest.raises(Unbelievable):
        read(data, JOB)


@pytest.mark.parametrize("part", [b"{},", b"[],", b"[{}],"], ids=bytes.decode)
def test_an_answer_of_millions_of_values_is_refused_before_it_takes_memory(part: bytes) -> None:
    data = b'{"verdicts": [' + part * (MOST_VALUES // 2) + b"0]}"
    tracemalloc.start()
    try:
        with pytest.raises(Unbelievable):
            read(data, JOB)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_names_and_possible_points_are_the_jobs_and_what_is_shown_is_safe() -> None:
    page = {"text/html": "<script>steal()</script>", "text/plain": "x"}
    acts = {"output_type": "display_data", "data": page, "metadata": {}}
    data = json.loads(verdict(cell="test_other", possible=100.0, points=5.0, sentence="\x1b[8mhidden\x00"))
    data |= {"notebook": "99", "outputs": {"own": [acts], "elsewhere": [acts]}}
    graded = read(json.dumps(data).encode(), JOB)
    assert graded.notebook == "01_x"
    assert (graded.verdicts[0].cell, graded.verdicts[0].possible) == ("test_a", 5.0)
    assert graded.outputs.keys() == {"own"}
    assert "script" not in str(graded.outputs)
    assert "\x1b" not in graded.verdicts[0].sentence and "\x00" not in graded.verdicts[0].sentence
