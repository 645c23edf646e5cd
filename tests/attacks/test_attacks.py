"""Whole notebooks of every kind through the engine: each gets what it deserves, and nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

pytest.importorskip("nbgrader")

from labkit.errors import LabError
from labkit.grading import levels, sandbox
from labkit.grading.attempts import attempts_in
from labkit.grading.engine import Engine
from labkit.grading.keeper import alive
from labkit.grading.levels import Level
from labkit.grading.sandbox import Limits
from labkit.grading.verdicts import Graded
from tests.attacks import cheats, failures, honest, reaches
from tests.attacks.case import COURSE, WRONG, WRONG_POINTS, Case

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for what Linux offers")

LIMITS = Limits(memory=2**30)
LEAKS = ("READ", "FOUND", "CONNECTED", "WROTE", "same_as_numpy", "HIDDEN TESTS", "survivors(", "STASH")


@pytest.fixture
def engine(shared_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(shared_engine, "limits", LIMITS)
    return shared_engine


def ids(case: Case) -> str:
    return case.name.replace(" ", "_")


def grade(engine: Engine, case: Case, folder: Path) -> tuple[Graded, list[str]]:
    case.hand_in(folder / "work")
    job, sources = case.job(folder / "work")
    engine.limits = replace(LIMITS, cell_seconds=case.seconds)
    graded = engine.grade(job)
    return graded, [*graded.attempts, *attempts_in(sources)]


def points(graded: Graded) -> tuple[float, ...]:
    return tuple(verdict.points for verdict in graded.verdicts)


def left_behind() -> list[str]:
    """Processes of ours that are no warm parents."""
    kept = ("bwrap", "labkit.grading.zygote", "resource_tracker", "forkserver")
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and process.parent() is not None:
                found.append(command)
        except psutil.Error:
            continue
    return [command for command in found if not any(word in command for word in kept)]


def copies(engine: Engine) -> int:
    """How many processes the students' warm parent has started that still run: 0 when nothing is graded."""
    parent = psutil.Process(engine.process_of("students").pid)
    while Path(parent.cmdline()[0]).name == "bwrap":  # as it has graded something, all of them are up
        (parent,) = parent.children()
    return sum(alive(one) for one in parent.children(recursive=True))


def soon(holds: Callable[[], bool]) -> bool:
    """Whether it holds within two minutes: a process that ends takes a moment, on a busy machine several."""
    end = time.monotonic() + 120
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


@pytest.mark.parametrize("case", honest.CASES, ids=ids)
def test_honest_variants_get_full_marks(engine: Engine, case: Case, tmp_path: Path) -> None:
    graded, attempts = grade(engine, case, tmp_path)
    assert points(graded) == case.points, graded.verdicts
    assert attempts == []


@pytest.mark.parametrize("case", failures.CASES, ids=ids)
def test_failures_cost_their_cell_and_leave_nothing_behind(
    engine: Engine, case: Case, tmp_path: Path
) -> None:
    graded, _ = grade(engine, case, tmp_path)
    assert points(graded) == case.points, graded.verdicts
    if case.kinds is not None:
        assert tuple(verdict.kind for verdict in graded.verdicts) == case.kinds
    assert all(verdict.sentence or verdict.checks for verdict in graded.verdicts)
    assert soon(lambda: copies(engine) == 0)
    assert soon(lambda: left_behind() == [])
    size = sum(len(json.dumps(outputs)) for outputs in graded.outputs.values())
    assert size < 10**6, "outputs are bounded"


@pytest.mark.parametrize("case", [*cheats.CASES, *cheats.PAYLOADS], ids=ids)
def test_cheats_gain_nothing_and_are_noticed(engine: Engine, case: Case, tmp_path: Path) -> None:
    graded, attempts = grade(engine, case, tmp_path)
    assert len(graded.verdicts) == 2
    assert sum(points(graded)) <= WRONG_POINTS, graded.verdicts
    check_leaks(case, graded)
    if case.suspicious:
        assert attempts, "the instructor should hear of it"


def check_leaks(case: Case, graded: Graded) -> None:
    shown = "".join(str(outputs) for cell, outputs in graded.outputs.items() if not cell.startswith("test-"))
    for word in LEAKS:
        # words of an empty-handed report, such as `READ {}` or `STASH 0 False`
        harmless = ("READ {}", "READ []", "STASH 0 False", "READ self")
        for sentence in harmless:
            shown = shown.replace(sentence, "")
        assert word not in shown, (word, shown[:2000])


def test_the_wrong_answer_itself_is_worth_what_the_cheats_are_measured_by(
    engine: Engine, tmp_path: Path
) -> None:
    graded, attempts = grade(engine, Case("wrong", WRONG), tmp_path)
    assert sum(points(graded)) == WRONG_POINTS
    assert attempts == []


FORGES = """\
from labkit.grading import worker
def told(error):
    return {"raised": ["~" * 90, "ValueError"], "message": "~" * 5000, "line": [1, "~" * 5000]}
worker._raised = told
"""


@pytest.mark.parametrize(
    ("body", "head"), [("raise ValueError('~' * 5000)", ""), ("raise ValueError", FORGES)]
)
def test_200_characters_of_a_students_words_come_with_an_error(
    body: str, head: str, engine: Engine, tmp_path: Path
) -> None:
    graded, _ = grade(engine, Case("leaks by its error", cheats.in_answer(body, head)), tmp_path)
    said = [check.message for verdict in graded.verdicts for check in verdict.checks if "~" in check.message]
    assert said
    assert all(150 < message.count("~") <= 200 for message in said)
    assert sum(points(graded)) == 0


def test_what_one_leaves_in_shared_memory_is_gone_for_the_next(engine: Engine, tmp_path: Path) -> None:
    if not engine.level.namespaces:
        pytest.skip("no namespaces here")
    leaves = "open('/dev/shm/left', 'w').write('x')\nimport os\nprint('THERE', os.listdir('/dev/shm'))"
    looks = "import os\nprint('THERE', os.listdir('/dev/shm'))"
    for name, own, there in (("leaves", leaves, "THERE ['left']"), ("looks", looks, "THERE []")):
        graded, _ = grade(engine, Case(name, before=own), tmp_path / name)
        assert there in str(graded.outputs)
    assert not Path("/dev/shm/left").exists()


LEVELS = [
    Level(False, True, True, True),
    Level(False, True, False, False),
    Level(False, False, True, True),
    Level(False, False, True, False),
    Level(True, False, False, False),
    Level(False, False, False, False),
]


@pytest.mark.parametrize(
    "level", LEVELS, ids=lambda level: level.sentence.partition(";")[0].replace(", ", "+").replace(" ", "-")
)
def test_every_level_grades_and_holds_what_it_promises(level: Level, tmp_path: Path) -> None:
    here = levels.level()
    for name in ("bubblewrap", *levels.STEPS):
        if getattr(level, name) and not getattr(here, name):
            pytest.skip(f"no {name} here")
    if sandbox.stays_root() and not level.bubblewrap:
        with pytest.raises(LabError, match="as root"), Engine([COURSE], LIMITS, level):
            pass
        return
    chosen = [
        "searches files for the source, the gradebook and others' work",
        "opens sockets",
        "writes everywhere",
    ]
    with Engine([COURSE], LIMITS, level) as engine:
        graded, _ = grade(engine, Case("good"), tmp_path / "good")
        assert points(graded) == (5.0, 5.0)
        for number, name in enumerate(["endless loop", "a daemon left behind", "segmentation fault"]):
            case = next(case for case in failures.CASES if case.name == name)
            graded, _ = grade(engine, case, tmp_path / str(number))
            assert points(graded) == case.points
        assert soon(lambda: left_behind() == [])
        for case in cheats.CASES:
            if case.name in chosen:
                graded, _ = grade(engine, case, tmp_path / cheats_folder(case))
                assert sum(points(graded)) <= WRONG_POINTS
                files, network = level.namespaces or level.landlock, level.namespaces or level.seccomp
                if files and (network or case.name != "opens sockets"):
                    check_leaks(case, graded)
        check_reach(engine, tmp_path)


def check_reach(engine: Engine, folder: Path) -> None:
    """What a cell gets at is announced, and what is announced of files and sockets is true."""
    level = engine.level
    with reaches.instructors(folder) as script:
        outside = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert reaches.reached(outside.stdout) == {reach.name for reach in reaches.REACHES}
        graded, _ = grade(engine, Case("reaches", before=script), folder / "reaches")
    assert points(graded) == (5.0, 5.0)
    got = reaches.reached("".join(output.get("text", "") for output in graded.outputs["own-cell-2"]))
    announced = {reach.name for reach in reaches.REACHES if reach.announced(level)}
    assert got <= announced
    if level == Level(False, False, True, True) and os.getuid() != 0:  # who becomes nobody may do less
        files = {reach.name for reach in reaches.REACHES if reaches.METADATA in reach.said}
        assert got >= {*files, "connects to a unix socket"}


def cheats_folder(case: Case) -> str:
    return case.name.split()[0]
