"""The tests' process: runs a notebook's trusted cells, where the student's names are remote.

First the student's cells run, in their own process and in order; then the test cells run here, each against
the snapshot that was left at its place. A cell that ends the student's process costs itself: the notebook is
started again without it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import random
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit import siblings
from labkit.check import engine, exceptions
from labkit.grading import answered, kernel_calls, sandbox
from labkit.grading.channel import ChannelError, Malformed, TimedOut
from labkit.grading.engine import broken_off
from labkit.grading.levels import Level
from labkit.grading.missing import Missing
from labkit.grading.outputs import Budget, safe_outputs, safe_text, stream
from labkit.grading.remote import Calls, Lost
from labkit.grading.sandbox import IsolationError, Limits
from labkit.grading.stand_in import StandIns
from labkit.grading.student import Student
from labkit.grading.verdicts import Cell, Graded, Job, Verdict, VerdictKind
from labkit.outcomes import Outcome

MOST_STARTS = 12  # of one notebook: each lost cell is one
GRACE = 2.0  # seconds for a test itself, after the last that a student's code may have
SECONDS_FOR_NOTEBOOK = 900  # then this process ends itself
OWN_CELLS = 5  # times the seconds of one cell: for all cells of the student's own together


def answer(connection: Connection, key: bytes, level: Level, readable: Sequence[Path]) -> None:
    """In a copy of the warm parent: grade the notebook that comes from whoever has the key."""
    deliver_challenge(connection, key)
    answer_challenge(connection, key)
    where, job, limits = connection.recv()
    try:
        sandbox.limit_memory(2 * limits.memory)  # while /proc says how much this process has
        sandbox.confine_tests(level, readable)
        _limit_time()
        graded = Checker(job, lambda tests: Student(where, tests, limits), limits).grade()
    except IsolationError as error:
        graded = broken_off(job, str(error))
    connection.send_bytes(answered.written(graded))


def _limit_time() -> None:
    """What a student's code hands out may make a test go on for ever: not past this."""
    with contextlib.suppress(OSError, AttributeError):
        kernel_calls.die_with_parent()
    with contextlib.suppress(OSError, ValueError):  # what keeps Python's own lock lets no timer through
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_FOR_NOTEBOOK, SECONDS_FOR_NOTEBOOK + 5))
    end = threading.Timer(SECONDS_FOR_NOTEBOOK, os._exit, (1,))
    end.daemon = True
    end.start()


class Checker:
    """Grades one notebook."""

    def __init__(self, job: Job, start: Callable[[int], Student], limits: Limits) -> None:
        """start: a new process for students' code that will be called from so many test cells."""
        self._job, self._limits = job, limits
        self._start = partial(start, sum(cell.kind == "test" for cell in job.cells))
        self._stand_ins = StandIns(partial(start, 0), job.reference)
        self._outputs: dict[str, list[dict[str, Any]]] = {}
        self._missing = Missing(job.cells, self._outputs)
        self._budget = Budget()
        self._lost: dict[str, tuple[str, str]] = {}  # cell -> (kind, sentence): not run again
        self._attempts: list[str] = []
        self._starts = 0
        self._own_seconds = OWN_CELLS * limits.cell_seconds
        self._siblings = job.siblings
        self._places: dict[int, int] = {}  # number of a test cell -> that of the first one in its place

    def grade(self) -> Graded:
        begin = time.perf_counter()
        verdicts: list[Verdict] = []
        student: Student | None = None
        namespace: dict[str, Any] = {"__name__": "__main__"}
        siblings.reference = self._take
        try:
            student = self._ready(first=True)
            number = 0
            for cell in self._job.cells:
                if cell.kind == "setup":
                    _executed(cell.source, namespace, cell.id)
                elif cell.kind == "test":
                    student = student or self._ready(first=False)
                    verdict = self._verdict(cell, student, number, namespace)
                    verdicts.append(verdict)
                    shared = self._places.get(number + 1) == self._places.get(number)
                    number += 1
                    ends = ("timeout", "out of memory", *(("crashed",) if shared else ()))
                    if student is not None and verdict.kind in ends:
                        student.stop()
                        student = None
        finally:
            self._stand_ins.stop()
            if student is not None:
                student.stop()
        for verdict in verdicts:
            self._outputs[verdict.cell] = _output(verdict)
        grade_ids = {cell.id: cell.grade_id or cell.id for cell in self._job.cells}
        return Graded(
            self._job.notebook,
            tuple(replace(verdict, cell=grade_ids[verdict.cell]) for verdict in verdicts),
            self._outputs,
            tuple(dict.fromkeys(self._attempts)),
            time.perf_counter() - begin,
        )

    # ---- the student's cells

    def _ready(self, first: bool) -> Student | None:
        """A student's process in which every cell has run that can, with its snapshots; or None."""
        while self._starts < MOST_STARTS:
            self._starts += 1
            student = self._start()
            if self._run_cells(student, record=first):
                return student
            student.stop()
        return None

    def _run_cells(self, student: Student, record: bool) -> bool:
        cell: Cell | None = None
        number, place = 0, None
        try:
            told = {"op": "start", "siblings": list(self._siblings), "files": list(self._job.beside)}
            siblings = (text.encode() for text in self._siblings.values())
            self._ask(student, told, [*self._job.beside.values(), *siblings])
            for cell in self._job.cells:
                if cell.id in self._lost:
                    number += cell.kind == "test"
                    continue
                if cell.kind == "test":
                    if place is None:  # nothing was run since the last one
                        place = number
                        self._ask(student, {"op": "snapshot", "number": place})
                    self._places[number] = place
                    number += 1
                    continue
                place = None
                if cell.kind == "own" and self._own_seconds <= 0 and cell.id not in self._outputs:
                    self._not_run(cell, "timeout", "the cells before it took too long")
                    continue
                begin = time.monotonic()
                try:
                    told = {"op": "cell", "kind": cell.kind}
                    header = self._ask(student, told, [cell.source.encode("utf-8", "replace")])
                finally:
                    self._own_seconds -= (time.monotonic() - begin) * (cell.kind == "own")
                if record and cell.id not in self._outputs:
                    self._outputs[cell.id] = safe_outputs(header.get("outputs"), self._budget)
            cell = None
            student.control.send({"op": "done"}, (), time.monotonic() + self._limits.cell_seconds)
        except ChannelError as error:
            self._cell_lost(cell, error, student)
            return False
        return True

    def _ask(self, student: Student, header: dict[str, Any], buffers: Sequence[bytes] = ()) -> dict[str, Any]:
        """What the student's process answers, within the seconds of a cell."""
        deadline = time.monotonic() + self._limits.cell_seconds
        student.control.send(header, buffers, deadline)
        return student.control.receive(deadline)[0]

    def _cell_lost(self, cell: Cell | None, error: ChannelError, student: Student) -> None:
        if isinstance(error, TimedOut):
            why = ("timeout", f"it took longer than {self._limits.cell_seconds:g} seconds")
        elif isinstance(error, Malformed):
            self._attempts.append(f"its process sent {error}")
            why = ("crashed", "its process ended")
        else:
            why = student.why_gone()
        if cell is None:
            return
        if cell.kind == "setup" and self._siblings:
            self._siblings = {}  # an earlier notebook's function hangs or crashes: the reference stands in
            return
        self._not_run(cell, *why)

    def _not_run(self, cell: Cell, kind: str, why: str) -> None:
        self._lost[cell.id] = kind, why
        self._outputs[cell.id] = [_error(kind, f"This cell was stopped: {why}.")]

    # ---- the test cells

    def _verdict(
        self, cell: Cell, student: Student | None, number: int, namespace: dict[str, Any]
    ) -> Verdict:
        def verdict(kind: VerdictKind, points: float = 0.0, sentence: str = "", **more: Any) -> Verdict:
            return Verdict(cell.id, kind, points, cell.points, sentence, **more)

        if student is None or cell.id in self._lost:
            kind, why = self._lost.get(cell.id, ("crashed", "the notebook could not be run as far as here"))
            return verdict(kind, sentence=_sentence(why))  # type: ignore[arg-type]
        deadline = time.monotonic() + self._limits.cell_seconds
        channel = student.tests[self._places[number]]
        ask, tell = self._stand_ins.ask, self._attempts.append
        calls = Calls(channel, deadline, ask, tell, student.why_gone, self._wrote)
        reports: list[engine.Report] = []
        _seed()
        for name in self._job.names:
            namespace.pop(name, None)
        try:
            engine.observer = reports.append
            exceptions.why_missing = partial(self._missing.why, place=cell.id)
            with _until(deadline + GRACE):
                namespace.update(calls.names(list(self._job.names)))
                value, printed = _executed(cell.source, namespace, cell.id)
        except Lost as lost:
            return verdict(lost.kind, sentence=self._lost_sentence(lost), checks=_outcomes(reports))  # type: ignore[arg-type]
        except AssertionError as error:
            return verdict("failed", sentence=_first_line(error), checks=_outcomes(reports))
        except Exception as error:
            if isinstance(error, NameError) and error.name in self._job.names:
                kind, why = self._why_undefined(error.name, cell)
                return verdict(kind, sentence=why)
            return verdict("error", sentence=_first_line(error), checks=_outcomes(reports))
        finally:
            engine.observer = exceptions.why_missing = None
        return self._scored(cell, value, _outcomes(reports), printed)

    def _wrote(self, words: str) -> bool:
        """Whether these words stand in what the student handed in: cells, notebooks and files."""
        cells = any(words in cell.source for cell in self._job.cells if cell.kind != "test")
        siblings = (text.encode() for text in self._job.siblings.values())
        return (
            cells
            or any(json.dumps(words)[1:-1].encode() in text for text in siblings)
            or any(words.encode("utf-8", "replace") in data for data in self._job.beside.values())
        )

    def _why_undefined(self, name: str, test: Cell) -> tuple[VerdictKind, str]:
        """What became of the cell that should have defined `name`, which `test` misses."""
        for cell in self._job.cells:
            if cell.kind == "answer" and cell.id in self._lost and name in cell.source:
                kind, why = self._lost[cell.id]
                return kind, f"{name} is not defined: its cell was stopped, {why}."  # type: ignore[return-value]
        return "not answered", self._missing.why(name, test.id) or f"{name} is not defined in any cell."

    def _scored(self, cell: Cell, value: Any, checks: tuple[Outcome, ...], printed: str) -> Verdict:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= cell.points:
            sentence = f"This test cell ended without a number of points from 0 to {cell.points:g}."
            return Verdict(cell.id, "error", 0.0, cell.points, sentence, checks, printed)
        points = float(value)
        kind: VerdictKind = "passed" if points == cell.points else "partial" if points else "failed"
        if not points and checks and checks[0].message == engine.UNANSWERED:
            kind = "not answered"
        return Verdict(cell.id, kind, points, cell.points, "", checks, printed)

    def _lost_sentence(self, lost: Lost) -> str:
        if lost.kind == "timeout":
            return f"Stopped after {self._limits.cell_seconds:g} seconds: your code did not come to an end."
        return _sentence(str(lost))

    def _take(self, notebook: str, name: str) -> Any:
        """For a set-up cell: an earlier notebook's answer."""
        self._stand_ins.lend(notebook, name)
        return siblings.define(notebook, self._job.reference[notebook])[name]


def _executed(source: str, namespace: dict[str, Any], cell_id: str) -> tuple[Any, str]:
    """Run a trusted cell: (the value of its last line, if that is an expression; what it printed)."""
    file = f"<test {cell_id}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ast.parse(source)
    last = module.body[-1] if module.body else None
    shown = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    if shown is not None:
        module.body.pop()
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        exec(compile(module, file, "exec"), namespace)  # noqa: S102 (the instructor's own cell)
        value = eval(compile(shown, file, "eval"), namespace) if shown else None  # noqa: S307
    return value, safe_text(printed.getvalue())


@contextlib.contextmanager
def _until(deadline: float) -> Iterator[None]:
    """Stop what runs in here, too: a test can be kept busy by what a student's code gives it."""

    def stop(*_: Any) -> None:
        raise Lost("timeout", "it took too long")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, deadline - time.monotonic()), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _seed() -> None:
    random.seed(42)
    np.random.seed(42)
    torch.manual_seed(42)


def _outcomes(reports: list[engine.Report]) -> tuple[Outcome, ...]:
    """What the checks came to; a message that holds a student's text holds only what every file can."""
    return tuple(
        replace(outcome, message=safe_text(outcome.message), hint=outcome.hint and safe_text(outcome.hint))
        for report in reports
        for outcome in report.outcomes
    )


def _first_line(error: Exception) -> str:
    text = safe_text(str(error)).strip().splitlines()
    if isinstance(error, AssertionError) and text:
        return text[0][:300]
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _output(verdict: Verdict) -> list[dict[str, Any]]:
    """What a test cell shows in the autograded notebook: what it printed, and points or an error."""
    printed = [stream(verdict.printed)] if verdict.printed else []
    if verdict.sentence:
        return [*printed, _error(verdict.kind, verdict.sentence)]
    result: dict[str, Any] = {"output_type": "execute_result", "execution_count": None, "metadata": {}}
    return [*printed, result | {"data": {"text/plain": repr(verdict.points)}}]


def _error(kind: str, sentence: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": kind, "evalue": sentence, "traceback": [f"{kind}: {sentence}"]}
