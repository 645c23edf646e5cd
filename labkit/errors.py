"""The error that a user can mend, as against a bug of ours."""

from __future__ import annotations


class LabError(Exception):
    """A mistake or trouble that a user can mend.

    Its message says what was wrong, where, and what to do. The `labkit` command prints it without a
    traceback; anything else that is raised is a bug of ours and keeps its traceback.
    """
