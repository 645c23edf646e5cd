"""The process that runs the tests, should a student's code get hold of it: there is nothing to take there."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.errors import LabError
from labkit.grading import levels, sandbox
from labkit.grading.engine import Engine
from labkit.grading.levels import Level
from labkit.grading.verdicts import Cell, Job
from tests.attacks.case import ASSIGNMENT, COURSE, Case

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for what Linux offers")

# what each one looks for, in its name; it prints GOT if it finds it
PROBES = {
    "the source with all tests": "found = 'HIDDEN TESTS' in pathlib.Path({source!r}).read_text()",
    "the course's folder": "found = os.listdir({course!r})",
    "the user's home": "found = os.listdir(os.path.expanduser('~' + {user!r}))",
    "another process's environment": "found = pathlib.Path('/proc/{pid}/environ').read_bytes()",
    "a server on this machine": "with socket.create_connection(('127.0.0.1', {port}), 5) as found: pass",
    "a file to leave something in": "found = pathlib.Path({left!r}).write_text('x')",
    "a process to stop": "found = os.kill({pid}, 0) is None",
}


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def probe(name: str, port: int, folder: Path) -> str:
    import pwd

    filled = PROBES[name].format(
        source=str(COURSE / "source" / "compression" / "07_prune_and_quantize.ipynb"), course=str(COURSE),
        user=pwd.getpwuid(os.getuid()).pw_name, pid=os.getpid(), port=port, left=str(folder / "left"),
    )  # fmt: skip
    return (
        f"import os, pathlib, socket\ntry:\n    {filled}\nexcept Exception as error:\n    found = None\n"
        "    print(type(error).__name__)\nprint('GOT' if found else 'NOTHING')\n1.0"
    )


def said(engine: Engine, source: str) -> str:
    (verdict,) = engine.grade(Job("01_x", (Cell("t", "test", source, "test_t", 1.0),), ())).verdicts
    assert verdict.kind == "passed", verdict
    return verdict.printed


@pytest.mark.parametrize("name", PROBES)
def test_without_a_sandbox_each_probe_finds_what_it_looks_for(
    name: str, server: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(probe(name, server, tmp_path), {})
    assert capsys.readouterr().out == "GOT\n"


@pytest.mark.parametrize("name", PROBES)
def test_in_the_tests_process_it_finds_nothing(
    name: str, server: int, tmp_path: Path, shared_engine: Engine
) -> None:
    assert said(shared_engine, probe(name, server, tmp_path)).endswith("NOTHING\n")


def test_nor_without_bubblewrap(server: int, tmp_path: Path) -> None:
    level = Level(False, True, True, True)
    here = levels.level()
    for name in ("namespaces", "landlock", "seccomp"):
        if not getattr(here, name):
            pytest.skip(f"no {name} here")
    if sandbox.stays_root():
        with pytest.raises(LabError, match="as root"), Engine([COURSE], level=level):
            pass
        return
    with Engine([COURSE], level=level) as engine:
        for name in PROBES:
            assert said(engine, probe(name, server, tmp_path)).endswith("NOTHING\n"), name


GROWS = """
taken = bytearray({more})
print("TAKEN")
1.0
"""


@pytest.mark.parametrize(("share", "taken"), [(0.5, True), (3, False)])
def test_it_is_held_to_a_limit_of_memory(share: float, taken: bool, shared_engine: Engine) -> None:
    job = Job(
        "01_x",
        (Cell("t", "test", GROWS.format(more=int(share * shared_engine.limits.memory)), "test_t", 1.0),),
        (),
    )
    (verdict,) = shared_engine.grade(job).verdicts
    assert ("TAKEN" in verdict.printed) is taken
    assert ("MemoryError" in verdict.sentence) is not taken


def test_it_knows_the_tests_of_its_own_notebook_only(tmp_path: Path) -> None:
    case = Case("good")
    case.hand_in(tmp_path / "work")
    job, _ = case.job(tmp_path / "work")
    assert job.reference.keys() == {"00_baseline"}
    assert len([cell for cell in job.cells if "HIDDEN TESTS" in cell.source]) == 2  # its own
    for text in ASSIGNMENT.texts().values():
        assert "HIDDEN TESTS" not in text and "hidden.check" not in text


def test_one_that_breaks_loses_its_own_notebook_and_is_told_of(shared_engine: Engine) -> None:
    for source in ("import os\nos._exit(0)", "import ctypes\nctypes.string_at(0)"):
        graded = shared_engine.grade(Job("01_x", (Cell("t", "test", source, "test_t", 1.0),), ()))
        assert graded.verdicts[0].points == 0 and graded.complete
        assert "broke the tests' process" in graded.attempts[0]
    assert "fine" in said(shared_engine, "print('fine')\n1.0")
