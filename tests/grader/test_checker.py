"""The checker by itself, with a played student's process: which cells run, and what a test comes to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import AuthenticationError
from typing import Any

import pytest

pytest.importorskip("nbgrader")
if sys.platform == "win32":
    pytest.skip("grading needs Linux or macOS", allow_module_level=True)

from labkit.check import engine
from labkit.grading import checker
from labkit.grading.channel import Gone, Malformed, TimedOut
from labkit.grading.checker import MOST_STARTS, Checker
from labkit.grading.levels import Level
from labkit.grading.plain import Encoder
from labkit.grading.remote import Lost
from labkit.grading.sandbox import Limits
from labkit.grading.verdicts import Cell, Graded, Job, Verdict

LIMITS = Limits(cell_seconds=30.0)
GONE = ("crashed", "its process ended (exit status 3)")


class Control:
    """Takes cells: what was run is written down; a cell whose source is in `fails` ends the process."""

    def __init__(self, done: list[str], fails: dict[str, type[Exception]]) -> None:
        self._done, self._fails = done, fails
        self._answer: dict[str, Any] | Exception = {}

    def send(self, header: dict[str, Any], buffers: Sequence[bytes] = (), deadline: float = 0.0) -> None:
        source = bytes(buffers[0]).decode() if header["op"] == "cell" else ""
        said = {"start": f"start {header.get('siblings')}", "snapshot": f"snapshot {header.get('number')}"}
        self._done.append(said.get(header["op"], source or header["op"]))
        error = self._fails.get(source)
        text = {"output_type": "stream", "name": "stdout", "text": f"ran {source}"}
        self._answer = error("of no kind") if error else {"outputs": [text]}

    def receive(self, deadline: float = 0.0) -> tuple[dict[str, Any], list[bytearray]]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer, []


class Values:
    """Answers what the names are: plain values. An exception in their place is raised when they are asked."""

    def __init__(self, names: dict[str, Any] | Exception) -> None:
        self._names = names

    def send(self, header: dict[str, Any], buffers: Sequence[Any] = (), deadline: float = 0.0) -> None:
        assert header["op"] == "describe"
        self._wanted = header["names"]

    def receive(self, deadline: float = 0.0) -> tuple[dict[str, Any], list[Any]]:
        if isinstance(self._names, Exception):
            raise self._names
        encoder = Encoder()
        told = {
            name: {"kind": "value", "value": encoder.encode(self._names[name])}
            if name in self._names
            else {"kind": "missing"}
            for name in self._wanted
        }
        return {"names": told}, encoder.buffers


class Played:
    """Starts students: `done` holds what all of them were told, `starts` how many there were."""

    def __init__(self, names: dict[str, Any] | Exception | None = None, **fails: type[Exception]) -> None:
        self.names = {} if names is None else names
        self.fails, self.starts, self.stopped = fails, 0, 0
        self.done: list[str] = []

    def __call__(self, tests: int) -> Any:
        self.starts += 1
        self.control = Control(self.done, self.fails)
        return self

    @property
    def tests(self) -> list[Values]:
        return [Values(self.names)] * 20

    def why_gone(self) -> tuple[str, str]:
        return GONE

    def stop(self) -> None:
        self.stopped += 1


def cells(*words: str, **tests: str) -> tuple[Cell, ...]:
    """`answer:x` and so on, of that kind and with that source; a word alone is a test that `tests` holds."""
    found = []
    for word in words:
        kind, colon, source = word.partition(":")
        if colon:
            found.append(Cell(f"{kind}-{source}", kind, source))  # type: ignore[arg-type]
        else:
            found.append(Cell(word, "test", tests.get(word, "1.0"), f"test_{word}", 2.0))
    return tuple(found)


@pytest.fixture(autouse=True)
def alarms_and_references_as_before() -> Iterator[None]:
    from labkit import siblings

    alarm, reference = signal.getsignal(signal.SIGALRM), siblings.reference
    yield
    signal.signal(signal.SIGALRM, alarm)
    siblings.reference = reference


def grade(played: Played, *words: str, siblings: dict[str, str] | None = None, **tests: str) -> Graded:
    job = Job("01_x", cells(*words, **tests), ("x", "y"), siblings or {}, {})
    return Checker(job, played, LIMITS).grade()


def verdict(test: str, played: Played | None = None) -> Verdict:
    """Of one test cell with this source, where the student has defined x as 2."""
    (only,) = grade(played or Played({"x": 2}), "t", t=test).verdicts
    return only


def test_cells_run_in_their_order_and_their_outputs_are_kept() -> None:
    played = Played()
    graded = grade(played, "setup:s = 1", "own:a", "answer:b", "t", "own:c")
    assert played.done == ["start []", "s = 1", "a", "b", "snapshot 0", "c", "done"]
    assert (played.starts, played.stopped) == (1, 1)
    assert {cell: outputs[0]["text"] for cell, outputs in graded.outputs.items() if cell != "t"} == {
        "setup-s = 1": "ran s = 1", "own-a": "ran a", "answer-b": "ran b", "own-c": "ran c",
    }  # fmt: skip


def test_test_cells_in_a_row_share_a_snapshot() -> None:
    played = Played()
    grade(played, "answer:a", "t", "u", "own:b", "v")
    assert [line for line in played.done if "snapshot" in line] == ["snapshot 0", "snapshot 2"]


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [(TimedOut, "timeout", False), (Gone, "crashed", False), (Malformed, "crashed", True)],
)
def test_a_lost_cell_costs_itself_and_is_not_run_again(error: type[Exception], kind: str, told: bool) -> None:
    played = Played({"x": 2}, bad=error)
    graded = grade(played, "own:bad", "answer:good", "t")
    assert [one.points for one in graded.verdicts] == [1.0]
    assert played.starts == 2 and played.done.count("bad") == 1 and played.done.count("good") == 1
    assert graded.outputs["own-bad"][0]["ename"] == kind
    assert "This cell was stopped" in graded.outputs["own-bad"][0]["evalue"]
    assert bool(graded.attempts) is told


def test_a_lost_answer_is_named_where_its_name_is_missed() -> None:
    played = Played({}, **{"x = forever()": TimedOut})
    graded = grade(played, "answer:x = forever()", "t", t="float(x)")
    (one,) = graded.verdicts
    assert (one.kind, one.points) == ("timeout", 0.0)
    assert one.sentence == "x is not defined: its cell was stopped, it took longer than 30 seconds."


def test_starts_are_bounded_and_all_tests_are_answered_for() -> None:
    words = [f"own:bad{number}" for number in range(MOST_STARTS + 5)]
    fails: dict[str, type[Exception]] = {word.partition(":")[2]: Gone for word in words}
    played = Played({"x": 1}, **fails)
    graded = grade(played, *words, "t", "u")
    assert played.starts == played.stopped == MOST_STARTS
    assert [(one.kind, one.points) for one in graded.verdicts] == [("crashed", 0.0)] * 2
    assert graded.verdicts[0].sentence == "The notebook could not be run as far as here."


def test_a_setup_cell_that_is_lost_takes_the_earlier_notebooks_with_it_and_nothing_else() -> None:
    played = Played({"x": 2}, **{"s = 1": Gone})
    sent = played.fails

    def start(tests: int) -> Any:
        if played.starts:
            sent.clear()  # without the sibling it works
        return played(tests)

    job = Job("02_y", cells("setup:s = 1", "t"), ("x",), {"01_x": "{}"}, {})
    graded = Checker(job, start, LIMITS).grade()
    assert [line for line in played.done if line.startswith("start")] == ["start ['01_x']", "start []"]
    assert [one.points for one in graded.verdicts] == [1.0]


@pytest.mark.parametrize(
    ("test", "kind", "points"),
    [
        ("2.0", "passed", 2.0),
        ("1.5", "partial", 1.5),
        ("0.0", "failed", 0.0),
        ("2", "passed", 2.0),
        ("float(x)", "passed", 2.0),
        ("2.5", "error", 0.0),
        ("-1.0", "error", 0.0),
        ("True", "error", 0.0),
        ("float('nan')", "error", 0.0),
        ("'2.0'", "error", 0.0),
        ("x = 1", "error", 0.0),
        ("float(y)", "not answered", 0.0),
        ("assert x == 3, 'x should be 3'", "failed", 0.0),
        ("x.nothing", "error", 0.0),
        ("raise MemoryError", "error", 0.0),
        ("undefined_by_the_test", "error", 0.0),
    ],
)
def test_what_a_test_cell_comes_to(test: str, kind: str, points: float) -> None:
    one = verdict(test)
    assert (one.kind, one.points, one.possible, one.cell) == (kind, points, 2.0, "test_t")
    assert bool(one.sentence) is (kind not in ("passed", "partial") and test != "0.0")


def test_a_sentence_of_a_failed_assertion_is_its_first_line_made_safe() -> None:
    assert verdict("assert False, 're\\x00d\\nand more'").sentence == "red"


def test_what_a_test_prints_is_kept_and_its_warnings_are_not() -> None:
    one = verdict("import warnings\nprint('seen')\nwarnings.warn('x')\n1.0")
    assert one.printed == "seen\n"


@pytest.mark.parametrize(("error", "kind"), [(Gone(), "crashed"), (Malformed("x"), "crashed")])
def test_a_process_that_is_lost_in_a_call_is_a_verdict(error: Exception, kind: str) -> None:
    one = verdict("1.0", Played(error))
    assert one.kind == kind and one.points == 0.0 and one.sentence


def test_a_test_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "GRACE", -29.9)  # of the 30 seconds of a cell
    one = verdict("while True: pass")
    assert (one.kind, one.points) == ("timeout", 0.0)


def test_the_alarm_is_off_when_a_test_has_ended() -> None:
    verdict("1.0")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with pytest.raises(Lost, match="too long"), checker._until(0.0):
        signal.pause()


def test_checks_are_told_outcome_by_outcome() -> None:
    suite = (
        "import labkit\n"
        "suite = labkit.check.Suite(lambda: 0)\n"
        "@suite.check(points=1)\n"
        "def good(answer):\n    '''This holds.'''\n"
        "@suite.check(points=1)\n"
        "def bad(answer):\n    '''This does not.'''\n    assert False, 'why'\n"
        "suite.score()"
    )
    one = verdict(suite)
    assert (one.kind, one.points) == ("partial", 1.0)
    assert [(check.sentence, check.state) for check in one.checks] == [
        ("This holds.", "passed"), ("This does not.", "failed"),
    ]  # fmt: skip
    assert engine.observer is None


def test_a_students_value_cannot_hide_a_name_of_the_test() -> None:
    """Only the names that the notebook lists as the student's are taken."""
    assert verdict("z = 5\nfloat(z == 5)", Played({"x": 2, "z": 0})).points == 1.0


def test_references_are_lent_for_what_a_setup_cell_took_only() -> None:
    source = '{"cells": [{"cell_type": "code", "id": "a", "metadata": {"tags": ["answer"]}, "source": %s}]}'
    notebook = source % '"def f():\\n    return 7\\ndef g():\\n    return 8"'
    job = Job("02_y", (), (), {}, {"01_x": notebook})
    one = Checker(job, Played(), LIMITS)
    assert one._take("01_x", "f")() == 7
    assert one._stand_ins._lent == {("01_x", "f")}


def in_a_child(work: Callable[[], object]) -> int:
    """How a forked process ends that does this: its exit code, or minus a signal's number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_the_checker_ends_itself_when_its_processor_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    def work() -> None:
        checker._limit_time()
        soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
        assert (soft, hard) == (checker.SECONDS_FOR_NOTEBOOK, checker.SECONDS_FOR_NOTEBOOK + 5)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1, hard))
        while True:
            pass

    assert in_a_child(work) == -signal.SIGXCPU


def test_a_notebook_from_somebody_without_the_key_is_refused() -> None:
    ours, theirs = multiprocessing.Pipe()

    def ask() -> None:
        ours.close()
        multiprocessing.connection.answer_challenge(theirs, b"another key")

    pid = os.fork()
    if pid == 0:
        try:
            ask()
        finally:
            os._exit(0)
    theirs.close()
    with pytest.raises(AuthenticationError):
        checker.answer(ours, b"the key", Level(False, False, False, False), [])
    ours.close()
    os.waitpid(pid, 0)
