"""What goes into the grading of one notebook, and what comes out: plain records that travel anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # torch comes with it, which the process that starts the engine need not wait for
    from labkit.outcomes import Outcome

CellKind = Literal["setup", "answer", "test", "own"]
VerdictKind = Literal[
    "passed",
    "partial",
    "failed",
    "error",
    "timeout",
    "out of memory",
    "crashed",
    "not answered",
    "not graded",
]


@dataclass(frozen=True)
class Cell:
    """A code cell that runs at grading time.

    kind: set-up and tests hold trusted text; answers and the student's own cells are theirs.
    """

    id: str
    kind: CellKind
    source: str
    grade_id: str | None = None
    points: float = 0.0


@dataclass(frozen=True)
class Job:
    """One notebook of one student.

    names: the names that the answer cells define. siblings: the student's notebooks of the assignment,
    name -> JSON text; beside: what else lay beside the notebook, by its place there; reference: what the
    earlier source notebooks define, as siblings, which never reaches the student's process.
    """

    notebook: str
    cells: tuple[Cell, ...]
    names: tuple[str, ...]
    siblings: dict[str, str] = field(default_factory=dict)
    reference: dict[str, str] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a test cell came to; an answer in words has one only where a human is asked whether it is there.

    sentence: says in one line why it is not `passed`; empty if it is. checks: the outcome of each check of
    the cell's suites, in order; empty if the cell has none or did not get there. printed: what the trusted
    cell itself printed. asks: what a human should look at, a phrase; without it nobody is asked.
    """

    cell: str
    kind: VerdictKind
    points: float
    possible: float
    sentence: str = ""
    checks: tuple[Outcome, ...] = ()
    printed: str = ""
    asks: str = ""


@dataclass(frozen=True)
class Graded:
    """A notebook after grading.

    outputs: cell id -> its outputs in notebook format, for every cell that ran, as the student's process
    gave them: see `outputs.safe_outputs`. attempts: what looked like an attempt to fool the grader or to
    get out, a sentence each, for the instructor only. complete: False if the grader itself was stopped, so
    that the notebook should be graded again.
    """

    notebook: str
    verdicts: tuple[Verdict, ...]
    outputs: dict[str, list[dict[str, Any]]]
    attempts: tuple[str, ...] = ()
    seconds: float = 0.0
    complete: bool = True

    @property
    def points(self) -> float:
        return sum(verdict.points for verdict in self.verdicts)
