"""What was graded before and would come out the same: it is not graded again.

A notebook's fingerprint covers the student's files, the source notebook and labkit's own code.
`graded/<assignment>/<student>.json` in the course folder holds it, with what was said of that grading; it
is written after each student, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import labkit
from labkit.files import write_atomically
from labkit.grading.files import Found, hash_of, submission_files
from labkit.grading.intake import matters


@dataclass
class Record:
    """What is known of a student's grading.

    fingerprints: of each notebook as it was graded. notes, attempts: a phrase each, by notebook; general:
    about the files. not_graded: why a notebook could not be read. seconds: how long a notebook took.
    environment: versions and machine of the last grading. by_hand: what humans had given when the
    feedback pages were written. files: each file that was handed in, and what became of it.
    """

    fingerprints: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    attempts: dict[str, list[str]] = field(default_factory=dict)
    not_graded: dict[str, str] = field(default_factory=dict)
    general: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    by_hand: str = ""
    files: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Everything that the instructor should know, a line each; one file may concern many notebooks."""
        reasons: dict[str, list[str]] = {}
        for name, why in sorted(self.not_graded.items()):
            reasons.setdefault(why, []).append(name)
        return [
            *self.general,
            *(f"{name}: {note}" for name, notes in sorted(self.notes.items()) for note in notes),
            *(f"{', '.join(names)}: not graded: {why}" for why, names in reasons.items()),
        ]

    def suspicions(self) -> list[str]:
        """What looked like an attempt to fool the grader, a line each."""
        return [f"{name}: {what}" for name, found in sorted(self.attempts.items()) for what in found]


class Records:
    """The records of an assignment's students."""

    def __init__(self, course: Path, assignment: str, notebooks: Iterable[str]) -> None:
        self._folder = course / "graded" / assignment
        self._submitted, self._assignment = course / "submitted", assignment
        code = _digest(Path(labkit.__file__).parent, "*.py", labkit.__version__)
        source = course / "source" / assignment
        self._common = {name: _digest(source, f"{name}.ipynb", code) for name in notebooks}

    def fingerprints(self, student: str) -> dict[str, str]:
        """Of each notebook, as it would be graded now."""
        found = submission_files(self._submitted / student / self._assignment)
        # what grading reads comes first: the other files must not use up what is hashed
        files = hash_of(sorted(found, key=matters, reverse=True))
        return {
            name: hashlib.sha256(f"{common} {files}".encode()).hexdigest()
            for name, common in self._common.items()
        }

    def read(self, student: str) -> Record:
        """An empty record if there is none that can be read: then everything is graded."""
        try:
            return Record(**json.loads(self._path(student).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Record()

    def write(self, student: str, record: Record) -> None:
        text = json.dumps(asdict(record), indent=1, sort_keys=True) + "\n"
        write_atomically(self._path(student), lambda part: part.write_text(text, encoding="utf-8"))

    def _path(self, student: str) -> Path:
        return self._folder / f"{student}.json"


def _digest(folder: Path, pattern: str, start: str) -> str:
    """A hash of our own or the instructor's files below `folder`, names and contents."""
    paths = (path for path in sorted(folder.rglob(pattern)) if path.is_file() and not path.is_symlink())
    wheres = (path.relative_to(folder).as_posix() for path in paths)
    return hash_of((Found(folder, where) for where in wheres), start)
