"""What became of each file that was handed in. There are three ends, and every file comes to exactly one.

It is *graded* as a notebook, or kept *beside* the notebooks (a module, a picture, data), or *named* with the
reason. What is said about files in the terminal, on the student's page and in the class report is read from
here, so that no file can be lost between two places that print.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from labkit.grading.files import printable
from labkit.grading.outputs import few

MOST_KEPT = 1000  # lines of a record
End = Literal["graded", "beside", "named"]
ENDS = {"graded": " was graded as {}", "beside": " was kept beside the notebooks", "named": ""}


@dataclass(frozen=True)
class Fate:
    """What became of a file.

    where: its place in the submission, `work.zip/01.ipynb`. notebooks: what it was graded as, or with which
    it is named; none: with the submission's files. why: what is said behind its place, `is a .rar archive`.
    may_hold: notebooks that nobody can say are missing while this file has not been looked into.
    """

    where: str
    end: End
    notebooks: tuple[str, ...] = ()
    why: str = ""
    may_hold: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{printable(self.where)} {self.why}".strip()


class Account:
    """The fates of a submission's files.

    Example:
        account = Account()
        account.name("work.rar", "is a .rar archive and cannot be opened", may_hold={"01_double"})
        account.why_not_missing("01_double")  # ["work.rar is a .rar archive and cannot be opened"]
    """

    def __init__(self) -> None:
        self.fates: list[Fate] = []

    def grade(self, where: str, notebooks: Iterable[str]) -> None:
        self.fates.append(Fate(where, "graded", tuple(sorted(notebooks))))

    def keep(self, where: str) -> None:
        self.fates.append(Fate(where, "beside"))

    def name(self, where: str, why: str, may_hold: Iterable[str] = (), notebook: str = "") -> None:
        told_with = (notebook,) if notebook else ()
        self.fates.append(Fate(where, "named", told_with, why, frozenset(may_hold)))

    def lines(self, notebook: str = "") -> list[str]:
        """What is to be said of files: of one notebook's, or of those that are no one notebook's.

        A file that keeps a notebook from being graded is said where that is, and not here once more.
        """
        told_with = (notebook,) if notebook else ()
        named = [fate for fate in self.fates if fate.end == "named" and fate.notebooks == told_with]
        return [str(fate) for fate in named if not (notebook and notebook in fate.may_hold)]

    def why_not_missing(self, notebook: str) -> list[str]:
        """The files that may hold a notebook which is in none that was read, those called after it first."""
        fates = [fate for fate in self.fates if notebook in fate.may_hold]
        return [str(fate) for fate in sorted(fates, key=lambda fate: notebook not in fate.where)]

    def summary(self) -> list[str]:
        """Every file with its end, a line each, for a student's record; of very many not the middle."""
        lines = [f"{fate}{ENDS[fate.end].format(', '.join(fate.notebooks))}" for fate in self.fates]
        return few(lines, MOST_KEPT)
