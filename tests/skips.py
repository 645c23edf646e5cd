"""Fails a run in which a test was skipped that is not on a list of allowed skips.

A skip is silent: a missing browser would otherwise turn a whole folder of tests off, and CI stay green.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WORKERS = "skipped_modules"  # what a process of pytest-xdist tells the one that started it


@dataclass(frozen=True)
class Allowed:
    """A skip that may happen: a regular expression for what pytest says, on which systems, and why."""

    reason: re.Pattern[str]
    systems: tuple[str, ...]
    why: str


def read(path: Path) -> list[Allowed]:
    """Lines of `reason | systems | why`, systems as `sys.platform` names them.

    Blank lines and those that begin with # say nothing. ValueError for others.
    """
    allowed = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            parts = line.rsplit(" | ", 2)
            if len(parts) != 3:
                raise ValueError(f"{path.name}: `reason | systems | why` is wanted, not {line!r}")
            reason, systems, why = (part.strip() for part in parts)
            allowed.append(Allowed(re.compile(reason), tuple(systems.split()), why))
    return allowed


def not_allowed(skipped: Iterable[tuple[str, str]], allowed: Iterable[Allowed]) -> list[str]:
    """Of (test, reason) those that no line of the list allows on this system."""
    reasons = [one.reason for one in allowed if sys.platform in one.systems]
    return [f"{test}: {why}" for test, why in skipped if not any(reason.search(why) for reason in reasons)]


class SkipCheck:
    """A plugin of pytest: sees every skip, and ends the run with a failure if one is not on the list."""

    def __init__(self, allowed: list[Allowed]) -> None:
        self._allowed = allowed
        self._skipped: dict[tuple[str, str], None] = {}
        self._modules: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped[report.nodeid, _reason(report)] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._modules.append((report.nodeid, _reason(report)))
            self._skipped[self._modules[-1]] = None

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """pytest-xdist drops the modules that were skipped as a whole; its processes hand them over here."""
        for test, why in getattr(node, "workeroutput", {}).get(WORKERS, []):
            self._skipped[test, why] = None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[WORKERS] = self._modules
        elif session.exitstatus == pytest.ExitCode.OK and not_allowed(self._skipped, self._allowed):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in not_allowed(self._skipped, self._allowed):
            terminalreporter.write_line(f"SKIP NOT ALLOWED {line}", red=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return reason.removeprefix("Skipped: ")
