"""A student's process, seen from the checker: its sockets, and what became of it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import asdict
from typing import Any

from labkit.grading.channel import Channel
from labkit.grading.keeper import READY, REFUSED
from labkit.grading.sandbox import IsolationError, Limits
from labkit.grading.verdicts import VerdictKind

START_SECONDS = 300
MOST_SAID = 100  # characters of a line of the keeper's
# how a process ended (as the keeper says it) -> (kind of verdict, sentence)
SAID: dict[object, tuple[VerdictKind, str]] = {
    "memory": ("out of memory", "it used more memory than there is"),
    -9: ("crashed", "its process was killed"),
    -11: ("crashed", "its process crashed (segmentation fault)"),
    -24: ("timeout", "it used up its processor time"),
    -31: ("crashed", "it made a system call of another machine"),
    -25: ("crashed", "it wrote a file that is too large"),
}


class Student:
    """A student's process, seen from outside: one socket to run cells, one for each test cell.

    IsolationError if it could not be isolated as its parent was told to; no code of the student has run then.
    """

    def __init__(self, where: str, tests: int, limits: Limits) -> None:
        self._keeper = socket.socket(socket.AF_UNIX)
        self._keeper.connect(where)
        pairs = [socket.socketpair() for _ in range(1 + tests)]
        told = json.dumps(asdict(limits)).encode()
        socket.send_fds(self._keeper, [told], [theirs.fileno() for _, theirs in pairs])
        for _, theirs in pairs:
            theirs.close()
        self.control, *self.tests = [Channel(ours) for ours, _ in pairs]
        # the first notebook of all waits here for the warm parent; no student's time has begun
        self._keeper.settimeout(START_SECONDS)
        if refused := self._refused():
            self.stop()
            raise IsolationError(refused)

    def _refused(self) -> str | None:
        """Wait until it is isolated. If it cannot be, the sentence that says why."""
        data = b""
        with contextlib.suppress(OSError):
            data = self._keeper.recv(len(READY), socket.MSG_WAITALL)
            while data != READY and not data.endswith(b"\n") and (more := self._keeper.recv(4096)):
                data += more
        said = json.loads(data.splitlines()[0]) if data.endswith(b"\n") else None
        return str(said[REFUSED]) if isinstance(said, dict) else None

    def why_gone(self) -> tuple[str, str]:
        """(kind of verdict, sentence) of the end that the keeper last saw."""
        last: Any = None
        end = time.monotonic() + 1.0
        self._keeper.settimeout(0.05)
        data = b""
        while time.monotonic() < end and last in (None, 0):
            with contextlib.suppress(TimeoutError, OSError):
                more = self._keeper.recv(65536)
                data += more
                if not more:
                    break
            for line in data.splitlines():
                # a student's code that gets hold of the first process may have written anything
                with contextlib.suppress(ValueError):
                    value = json.loads(line[:MOST_SAID])
                    last = value if value != 0 or last is None else last
        if isinstance(last, int | str) and last in SAID:
            return SAID[last]
        status = f" (exit status {last})" if type(last) is int and abs(last) < 256 else ""
        return "crashed", f"its process ended{status}"

    def stop(self) -> None:
        """End all of it; returns when nothing is left."""
        for channel in (self.control, *self.tests):
            channel.close()
        with contextlib.suppress(OSError):
            self._keeper.shutdown(socket.SHUT_WR)
            self._keeper.settimeout(10)
            while self._keeper.recv(65536):
                pass
        self._keeper.close()
