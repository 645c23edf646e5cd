"""What a class got: points by notebook for each student, and what the instructor should know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Marks:
    """Points of one notebook: by code (None if it could not be read), and how many wait for a human."""

    got: float | None
    possible: float
    outstanding: float


@dataclass(frozen=True)
class Result:
    """One student's marks by notebook, and what the instructor should know.

    attempts: what looks like an attempt to fool the grader. before: the points by code of an earlier
    grading, if there was one. graded: how many notebooks were graded just now.
    """

    student: str
    marks: dict[str, Marks]
    notes: list[str]
    attempts: list[str] = field(default_factory=list)
    before: float | None = None
    graded: int = 0

    @property
    def got(self) -> float:
        return sum(marks.got or 0.0 for marks in self.marks.values())

    @property
    def possible(self) -> float:
        return sum(marks.possible for marks in self.marks.values())

    @property
    def outstanding(self) -> float:
        return sum(marks.outstanding for marks in self.marks.values())

    @property
    def moved(self) -> bool:
        """Whether the points by code are others than before."""
        return self.before is not None and self.before != self.got
