"""The error that a user can fix, as against a bug of ours."""

from __future__ import annotations

import traceback
from pathlib import Path

_OTHERS = (str(Path(__file__).parent), "site-packages")  # not the user's own lines


class LabError(Exception):
    """A mistake or trouble that a user can fix.

    Its message says what was wrong, where, and what to do. The `labkit` command and notebooks show it
    without a traceback; anything else that is raised is a bug of ours and keeps its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message, and the user's line that led to it."""
        frames = traceback.extract_tb(self.__traceback__)
        own = [one for one in frames if one.line and not any(place in one.filename for place in _OTHERS)]
        return [f"{type(self).__name__}: {self}", *(f"line {one.lineno}: {one.line}" for one in own[-1:])]


class ArgumentError(LabError, ValueError):
    """An argument that a function of labkit cannot use; the message names it and what it should be."""
