"""What the tests' process says of a notebook: written by it, read by the main process, which believes little.

That process has dealt with a student's code. So its answer is JSON, never a pickle, and what is read out of
it is a verdict for each test cell of the job, points that the cell can give, and text that is safe to show.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, get_args

from labkit.grading.outputs import Budget, safe_line, safe_outputs, safe_text
from labkit.grading.verdicts import Graded, Job, Verdict, VerdictKind
from labkit.outcomes import MARKS, Outcome

MOST_BYTES = 64 * 2**20
MOST_CHECKS = 1000  # of one test cell
MOST_SENTENCE = 1000
MOST_ATTEMPTS = 1000
MOST_VALUES = 4_000_000  # lists, mappings and what is in them, about: twice an honest notebook's commas
MOST_NUMBER = 1e9  # of points or seconds


class Unbelievable(ValueError):  # noqa: N818 (it says what the answer is)
    """No answer that the tests' process gives by itself."""


def written(graded: Graded) -> bytes:
    """The answer as it travels."""
    return json.dumps(asdict(graded)).encode()


def read(data: bytes, job: Job) -> Graded:
    """The answer to this job. Raises Unbelievable."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:  # `{},` takes 3 bytes here and 72 in memory
        raise Unbelievable("more than a notebook has to say")
    try:
        told = json.loads(data)
        tests = [cell for cell in job.cells if cell.kind == "test"]
        verdicts = tuple(
            _verdict(one, cell.grade_id or cell.id, cell.points)
            for one, cell in zip(told["verdicts"], tests, strict=True)
        )
        budget, known = Budget(), {cell.id for cell in job.cells}
        outputs = {
            cell: safe_outputs(given, budget) for cell, given in told["outputs"].items() if cell in known
        }
        attempts = tuple(safe_text(_text(one)) for one in told["attempts"][:MOST_ATTEMPTS])
        return Graded(
            job.notebook, verdicts, outputs, attempts, _number(told["seconds"]), told["complete"] is True
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unbelievable(f"{type(error).__name__} in what the tests' process said") from None


def _verdict(told: dict[str, Any], name: str, possible: float) -> Verdict:
    kind, points = told["kind"], _number(told["points"])
    if kind not in get_args(VerdictKind) or not 0 <= points <= possible:
        raise ValueError("no verdict")
    checks = tuple(_outcome(one) for one in told["checks"][:MOST_CHECKS])
    return Verdict(
        name,
        kind,
        points,
        possible,
        safe_line(_text(told["sentence"]), MOST_SENTENCE),
        checks,
        safe_text(_text(told["printed"])),
    )


def _outcome(told: dict[str, Any]) -> Outcome:
    if told["state"] not in MARKS:
        raise ValueError("no outcome")
    hint = None if told["hint"] is None else safe_text(_text(told["hint"]))
    sentence, message = safe_text(_text(told["sentence"])), safe_text(_text(told["message"]))
    return Outcome(sentence, told["state"], _number(told["points"]), message, hint)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _number(value: Any) -> float:
    # compared, not made a float, which a number of hundreds of digits cannot be; NaN compares as False
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_NUMBER:
        raise TypeError("no number")
    return value
