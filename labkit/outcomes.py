"""What a check came to, as data: for the notebook that shows it and the grader that keeps it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

MARKS = {"passed": "✓", "failed": "✗", "skipped": "–"}


@dataclass(frozen=True)
class Outcome:
    """What one check came to. message: a sentence, and below it a table if there is one."""

    sentence: str
    state: str  # passed, failed or skipped
    points: float
    message: str = ""
    hint: str | None = None

    @property
    def earned(self) -> float:
        return self.points if self.state == "passed" else 0.0

    def lines(self, with_points: bool) -> str:
        marks = f" {self.earned:g}/{self.points:g}" if with_points else ""
        text = f"  {MARKS[self.state]}{marks} {self.sentence}"
        if self.message:
            said, _, table = self.message.partition("\n")
            text += "\n" + textwrap.indent(textwrap.fill(said, 96, break_long_words=False), "      ")
            text += "\n" * bool(table) + textwrap.indent(table, "      ")
        if self.hint:
            text += "\n" + textwrap.indent(textwrap.fill(f"Hint: {self.hint}", 96), "      ")
        return text
