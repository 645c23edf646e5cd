"""Grades notebooks: a warm parent for students' code, one for the tests, and a copy of each for a notebook.

with Engine(hidden=[course]) as engine:
    graded = engine.grade(job)       # from as many threads as there are cores
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from types import TracebackType

import psutil

import labkit
from labkit.errors import LabError
from labkit.grading import answered, cgroups, levels, sandbox
from labkit.grading.bubblewrap import bubblewrap, readable_paths
from labkit.grading.levels import Level
from labkit.grading.sandbox import Limits
from labkit.grading.verdicts import Graded, Job, Verdict

TOO_LONG = "grading took too long"
SECONDS_FOR_NOTEBOOK = 900  # the checker has its own limits; this is for the checker itself


class Engine:
    """Grades notebooks until it is closed.

    hidden: folders that no student's process may see: the course with its source, submissions, gradebook.
    """

    def __init__(
        self, hidden: Sequence[Path], limits: Limits | None = None, level: Level | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.level = level or levels.level()
        self._hidden = list(hidden)

    def __enter__(self) -> Engine:
        if sandbox.stays_root() and not self.level.bubblewrap:  # for root there is no limit of processes
            raise LabError(
                "students' code would run as root here, which could do anything to this machine:\n"
                "grade as an ordinary user, or install bubblewrap."
            )
        self._stack = contextlib.ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="labkit-engine-"))
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._groups = self._home_of_groups()
        readable = readable_paths([*self._hidden, self._folder])
        self._key = os.urandom(32)
        self._students = self._warm_parent("students", readable, b"")
        self._tests = self._warm_parent("tests", [*readable, Path(self._students)], self._key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def grade(self, job: Job) -> Graded:
        """Grade one notebook. LabError if a warm parent is gone; never for what a student's code does."""
        for _ in range(2):  # the first may have been stopped from outside
            graded, why = self._try(job)
            if graded is not None:
                return graded
            if why == TOO_LONG:
                return broken_off(job, why)
        told = f"it broke the tests' process twice ({why})"
        return replace(
            broken_off(job, why), attempts=(told,), complete=True
        )  # a third time would be no other

    def _try(self, job: Job) -> tuple[Graded | None, str]:
        """(what came of it, or None, and why)."""
        self._check_alive()
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(self._tests)
            connection = Connection(end.detach())
        with connection:
            try:
                answer_challenge(connection, self._key)
                deliver_challenge(connection, self._key)
                connection.send((self._students, job, self.limits))
                if not connection.poll(SECONDS_FOR_NOTEBOOK):
                    return None, TOO_LONG
                return answered.read(connection.recv_bytes(answered.MOST_BYTES), job), ""
            except answered.Unbelievable as error:
                return None, f"grading broke off: {error}"
            except (EOFError, OSError):
                self._check_alive()
                return None, "grading broke off"

    def process_of(self, kind: str) -> subprocess.Popen[bytes]:
        """The warm parent for `students` or for `tests`."""
        return self._processes[kind]

    def _warm_parent(self, kind: str, readable: Sequence[Path], key: bytes) -> str:
        """Start a zygote; returns the path of the socket that it listens on."""
        where = str(self._folder / kind)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
        listener.listen(128)
        command = [sys.executable, "-m", "labkit.grading.zygote", kind, str(listener.fileno())]
        command += [word for word in ("bubblewrap", *levels.STEPS) if getattr(self.level, word)]
        groups = [self._groups] if kind == "students" and self._groups is not None else []
        command += [f"memory={self.level.memory}", *(f"groups={number}" for number in groups), "--"]
        command += [str(path) for path in readable]
        empty = self._folder / f"{kind}-empty"
        empty.mkdir()
        environment = sandbox.environment() | {"PYTHONPATH": os.pathsep.join(_search_path())}
        if self.level.bubblewrap:
            # the tests' stays the user who may reach the students' socket
            command = bubblewrap(command, readable, becomes_nobody=kind == "students")
        else:
            environment |= {
                "HOME": str(empty),
                "IPYTHONDIR": str(empty / "ipython"),
                "MPLCONFIGDIR": str(empty),
            }
        with (self._folder / f"{kind}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=empty, env=environment, pass_fds=[listener.fileno(), *groups],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        listener.close()
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # whether it lives is looked at later
            process.stdin.write(key.hex().encode() + b"\n")
            process.stdin.flush()  # and it stays open: its end tells the zygote that this process is gone
        self._stack.callback(self._stop, process)
        self._processes[kind] = process
        return where

    def _home_of_groups(self) -> int | None:
        """An open folder for the control groups of students' processes, where this level has them."""
        if self.level.memory != "held by the kernel":
            return None
        home = cgroups.Home.make()
        if home is None:
            raise LabError("the kernel does not hold students' memory any more: start grading again.")
        self._stack.callback(home.close)
        return home.descriptor

    def _check_alive(self) -> None:
        """Raise LabError, with the end of its log, if a warm parent is not there any more."""
        for kind, process in self._processes.items():
            if process.poll() is not None:
                log = (self._folder / f"{kind}.log").read_text(errors="replace").strip()
                raise LabError(f"the grader's process for {kind} ended:\n{log[-2000:]}")

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        """End a warm parent, and whatever copies it still has."""
        copies = []
        with contextlib.suppress(psutil.Error):
            copies = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for one in copies:
            with contextlib.suppress(psutil.Error):
                one.kill()


def broken_off(job: Job, why: str) -> Graded:
    """What there is to say of a notebook whose grading did not come to an end; it is tried again."""
    verdicts = [
        Verdict(cell.grade_id or cell.id, "error", 0.0, cell.points, why)
        for cell in job.cells
        if cell.kind == "test"
    ]
    return Graded(job.notebook, tuple(verdicts), {}, complete=False)


def _search_path() -> list[str]:
    """Where a warm parent finds what this process has found: labkit, and the user's own PYTHONPATH."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(labkit.__file__).parents[1]), *(path for path in given if path)]
