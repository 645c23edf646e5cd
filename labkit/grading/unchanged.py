"""What was graded before and would come out the same: it is not graded again.

A submission's fingerprint covers its files, the source notebooks and labkit's own code. `graded.json` in
the course folder holds it for each student, with what was said then; it is written after each student, so
that an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import labkit
from labkit.checkpoints import write_atomically
from labkit.grading.one_student import Report

FILE = "graded.json"


class Graded:
    """The reports of an assignment's students, as long as nothing changed."""

    def __init__(self, course: Path, assignment: str) -> None:
        self._path = course / FILE
        self._course, self._assignment = course, assignment
        self._common = _digest(course / "source" / assignment, "*.ipynb", _code())
        self._known: dict[str, dict[str, Any]] = self._read().get(assignment, {})

    def report(self, student: str) -> Report | None:
        """What was said of this very submission, or None if it has to be graded."""
        known = self._known.get(student)
        if known is None or known["fingerprint"] != self._fingerprint(student):
            return None
        return Report(**known["report"])

    def keep(self, student: str, report: Report) -> None:
        """Remember a report; one of a grading that broke off is forgotten, so that it is tried again."""
        if report.complete:
            entry = {"fingerprint": self._fingerprint(student), "report": asdict(report)}
            self._known[student] = entry
        else:
            self._known.pop(student, None)
        text = json.dumps(self._read() | {self._assignment: self._known}, indent=1, sort_keys=True) + "\n"
        write_atomically(self._path, lambda part: part.write_text(text, encoding="utf-8"))

    def _fingerprint(self, student: str) -> str:
        return _digest(self._course / "submitted" / student / self._assignment, "*", self._common)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            return {}  # then everything is graded once more


def _digest(folder: Path, pattern: str, start: str) -> str:
    """A hash of the files below `folder`, names and contents."""
    digest = hashlib.sha256(start.encode())
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and not path.is_symlink():
            digest.update(f"\n{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _code() -> str:
    return _digest(Path(labkit.__file__).parent, "*.py", labkit.__version__)
