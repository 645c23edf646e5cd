"""What a student's cell asks of the kernel itself, each with the same try outside the sandbox beside it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from labkit.grading.engine import Engine
from tests.attacks import probes
from tests.attacks.case import Case
from tests.attacks.probes import PROBES, WORKS, Probe
from tests.attacks.test_attacks import grade, points

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for what Linux offers")

ROOT = Path(__file__).resolve().parents[2]
FILTER = "from labkit.grading import seccomp\nseccomp.enter()\n"


def python(code: str, folder: Path, *words: str) -> str:
    """What the code prints, run outside of any sandbox in this folder."""
    command: Sequence[str] = [sys.executable, "-c", code, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, start_new_session=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(engine: Engine, cell: str, folder: Path) -> str:
    """What the cell prints in a notebook whose answer is right, and keeps its points."""
    graded, _ = grade(engine, Case("own cell", before=cell), folder)
    assert points(graded) == (5.0, 5.0)
    return "".join(output.get("text", "") for output in graded.outputs["own-cell-2"])


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return probes.found(python(probes.script(), tmp_path_factory.mktemp("outside")))


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return probes.found(python(FILTER + probes.script(), tmp_path_factory.mktemp("filtered")))


@pytest.fixture(scope="module")
def in_a_cell(shared_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    if not shared_engine.level.seccomp:
        pytest.skip("no system-call filter here")
    return probes.found(shown(shared_engine, probes.script(), tmp_path_factory.mktemp("cell")))


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name.replace(" ", "_"))
def test_a_cell_cannot_what_it_could_outside(
    probe: Probe, outside: dict[str, int], filtered: dict[str, int], in_a_cell: dict[str, int]
) -> None:
    # first what must hold whatever this kernel can do
    assert filtered[probe.name] == probe.refused, errno.errorcode.get(filtered[probe.name])
    assert in_a_cell[probe.name] == probe.refused, errno.errorcode.get(in_a_cell[probe.name])
    ended = outside[probe.name]
    if ended not in (WORKS, *probe.works):
        assert not probe.everywhere
        pytest.skip(f"without the sandbox this call fails too: {errno.errorcode.get(ended, str(ended))}")


def test_a_call_in_i386s_numbers_costs_its_cell(shared_engine: Engine, tmp_path: Path) -> None:
    command = [sys.executable, "-c", probes.I386]
    if "True" not in subprocess.run(command, capture_output=True, text=True, check=False).stdout:
        pytest.skip("without the sandbox this call fails too: a kernel without i386's")
    if not shared_engine.level.seccomp:
        pytest.skip("no system-call filter here")
    graded, _ = grade(shared_engine, Case("i386", before=probes.I386), tmp_path)
    said = str(graded.outputs["own-cell-2"])
    assert "ANSWERED" not in said
    assert "it made a system call of another machine" in said
    assert points(graded) == (5.0, 5.0)


USES = """\
import asyncio, contextlib, os, socket, sqlite3, subprocess, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.shared_memory import ShareableList
with contextlib.closing(sqlite3.connect("notes.db")) as notes:
    notes.execute("create table t (x)")
    notes.executemany("insert into t values (?)", [(1,), (2,)])
    notes.commit()
    print(*notes.execute("select sum(x) from t").fetchone())
here, there = socket.socketpair()
thread = threading.Thread(target=here.sendall, args=(b"over",))
thread.start()
thread.join()
print(there.recv(4).decode())
print(subprocess.run("expr 2 + 2 | cat", shell=True, capture_output=True, text=True).stdout.strip())
async def slept():
    await asyncio.sleep(0.01)
    return "slept"
with ThreadPoolExecutor(1) as pool:  # where no loop is running yet
    print(pool.submit(asyncio.run, slept()).result())
with ProcessPoolExecutor(1) as pool:
    print(pool.submit(abs, -7).result())
shared = ShareableList(["in", "place"])
print(*shared)
shared.shm.close()
shared.shm.unlink()
from torch.utils.data import DataLoader
print(len(list(DataLoader(list(range(8)), batch_size=4, num_workers=2))))
os.mkfifo("pipe")
listing = !ls
print(*listing)
"""


def test_what_a_notebook_may_use_goes_on_working(shared_engine: Engine, tmp_path: Path) -> None:
    printed = shown(shared_engine, USES, tmp_path).split()
    assert printed[:8] == ["3", "over", "4", "slept", "7", "in", "place", "2"]
    assert {"notes.db", "pipe"} <= set(printed[8:])


# ---- the keys of whoever grades

CELL = """\
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
def find(name):
    key = libc.syscall(keyctl, 10, -3, b"user", name, 0)
    text = ctypes.create_string_buffer(100)
    length = libc.syscall(keyctl, 11, key, text, ctypes.c_size_t(100)) if key > 0 else -1
    return text.raw[:length].decode() if length > 0 else "nothing"
def leave(name, text):
    return libc.syscall(add_key, b"user", name, text, ctypes.c_size_t(len(text)), -3) > 0
"""
LOOK = CELL + "print(find(b'instructor'), find(b'left'), leave(b'left', b'LEFT'), find(b'left'))"
LOGIN = CELL + "libc.syscall(keyctl, 1, b'login'), leave(b'instructor', b'SECRET')\n"
GRADE = (
    LOGIN
    + """
import sys
from dataclasses import replace
from pathlib import Path
from labkit.grading import levels
from labkit.grading.engine import Engine
from tests.attacks.case import COURSE
from tests.attacks.test_attacks import LIMITS
from tests.attacks.test_system_calls import LOOK, shown
level = replace(levels.level(), seccomp="filter" in sys.argv)
print("outside", find(b"instructor"))
with Engine([COURSE], LIMITS, level) as engine:
    for name in ("first", "second"):
        print(name, shown(engine, LOOK, Path(name)), end="")
"""
)


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        # its own keyring alone, with nothing that refuses a call: it has one, and nobody else's keys are in it
        ((), "nothing nothing True LEFT"),
        (("filter",), "nothing nothing False nothing"),
    ],
    ids=["without_the_filter", "with_it"],
)
def test_no_key_of_the_instructors_or_of_another_student(
    words: tuple[str, ...], cells: str, tmp_path: Path
) -> None:
    if "SECRET" not in python(LOGIN + "print(find(b'instructor'))", tmp_path):
        pytest.skip("without the sandbox this call fails too: no session keyring")
    lines = python(GRADE, tmp_path, *words).splitlines()
    assert lines == ["outside SECRET", f"first {cells}", f"second {cells}"]


# ---- a step that was announced and is then refused

REFUSED = """
import sys
from pathlib import Path
from labkit.grading import levels
from labkit.grading.engine import Engine
from tests.attacks.case import COURSE, Case
from tests.attacks.test_attacks import LIMITS, grade
from tests.border.outer import refuse_call
level = levels.level()
refuse_call("seccomp")
with Engine([COURSE], LIMITS, level) as engine:
    graded, _ = grade(engine, Case("good", before="print('RAN')"), Path("work"))
print(graded.complete, "RAN" in str(graded.outputs), [one.points for one in graded.verdicts])
print({one.sentence for one in graded.verdicts})
"""


def test_what_cannot_be_held_as_announced_is_not_run(shared_engine: Engine, tmp_path: Path) -> None:
    if not shared_engine.level.seccomp:
        pytest.skip("no system-call filter here")
    complete, sentences = python(REFUSED, tmp_path).splitlines()
    assert complete == "False False [0.0, 0.0]"
    assert sentences == (
        "{\"not graded: a student's code could not be isolated as this run announced "
        '(system-call filter: Operation not permitted)"}'
    )
