"""Standard output that takes whatever is printed: on a console with few letters, into a pipe, or nowhere."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def accept_any_text() -> None:
    """From now on a letter that this console does not know is printed as `?`, and ends no program."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return  # a notebook's, or whatever a program has put there
    every_letter = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    if not every_letter or sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def forgiving_output() -> Iterator[None]:
    """A program's output: any text, and no traceback where it is closed, full, or nobody reads on."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the end)
    accept_any_text()
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # Python would flush once more at its end, and complain
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
