"""How far this system can hold a student's code: what was tried here and worked, and a sentence for the rest.

A level is what a run announces. If a step of it is refused later, no code of that student's runs (`sandbox`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import labkit
from labkit.doctor import Finding
from labkit.grading import cgroups, hidden_memory, kernel_calls, seccomp
from labkit.grading.bubblewrap import bubblewrap, program, readable_paths
from labkit.grading.sandbox import Limits, become_nobody, enter_namespaces, enter_root, environment

STEPS = ("namespaces", "landlock", "seccomp")  # of a level, in the order in which they are entered
INSTALL = (
    "install bubblewrap (apt-get install bubblewrap, dnf install bubblewrap, "
    "or without root: pip install 'labkit[sandbox]')"
)
Memory = Literal["held by the kernel", "watched", "watched in part"]


@dataclass(frozen=True)
class Level:
    """What this system offers."""

    bubblewrap: bool
    namespaces: bool
    landlock: bool
    seccomp: bool
    memory: Memory = field(default="watched", kw_only=True)

    @property
    def sentence(self) -> str:
        """One line for the head of a run."""
        has = [
            *(["bubblewrap"] if self.bubblewrap else []),
            *(["namespaces"] if self.namespaces else []),
            *(["landlock"] if self.landlock else []),
            *(["system-call filter"] if self.seccomp else []),
            "limits",
        ]
        return "; ".join([", ".join(has), f"memory {self.memory}", *([self.open] if self.open else [])])

    @property
    def open(self) -> str:
        """What a student's code could still do here; empty if nothing that matters."""
        gaps = []
        apart = self.bubblewrap or self.namespaces  # in a system of its own
        if not (apart or self.landlock):
            gaps.append("read and change every file that you can")
            gaps.append("stop your other programs")
        if not (apart or self.seccomp):
            gaps.append("open network connections")
        if self.landlock and not apart:
            gaps.append("see whether your files exist")
            gaps.append("change their modes and times")
            gaps.append("connect to your unix sockets")
            gaps.append("stop your other programs (before Linux 6.12)")
        if self.bubblewrap and not self.landlock:
            gaps.append("exchange files with another student's code")
            if not self.namespaces:
                gaps.append("stop it")
        if not self.seccomp:
            gaps.append("make every system call")
        if self.memory == "watched in part":
            gaps.append("take more memory than its limit")
        if not gaps:
            return ""
        *first, last = gaps
        told = " and ".join([*([", ".join(first)] if first else []), last])
        return f"a student's code could {told} (see labkit doctor)"

    @property
    def advice(self) -> list[str]:
        """How to get the next level, a line each."""
        if sys.platform != "linux":
            return ["grade on Linux, or in a Linux container or virtual machine"]
        lines = []
        if not self.bubblewrap:
            found = program()
            lines.append(f"{found} does not start, for which it needs user namespaces" if found else INSTALL)
        if not self.namespaces:
            lines.append(
                "allow user namespaces (sysctl user.max_user_namespaces, or Docker's --security-opt); "
                "without bubblewrap they need Linux 5.12"
            )
        if not self.landlock:
            lines.append("use a kernel from 5.13 on, with landlock switched on")
        if not self.seccomp:
            lines.append("use a kernel with seccomp filters, on x86-64 or aarch64")
        if self.memory == "watched in part":
            lines.append(
                "use a kernel with seccomp, or control groups (systemd-run --user --scope labkit grade ...)"
            )
        return lines


def finding() -> Finding:
    """How far a student's code is held here, for `labkit doctor`."""
    here = level()
    advice = "; ".join(here.advice)
    return Finding("isolation of students' code", here.sentence, not here.open, advice)


def level() -> Level:
    """Try out what this system offers: where there is bubblewrap, inside of it."""
    inside = _steps_inside_bubblewrap()
    steps = possible_steps() if inside is None else inside
    hidden = inside is not None or "namespaces" in steps or "landlock" in steps
    return Level(inside is not None, *(step in steps for step in STEPS), memory=_memory(hidden))


def possible_steps(in_bubblewrap: bool = False) -> list[str]:
    """Those of STEPS that can be entered from here, each tried in a process that then ends."""
    tries: dict[str, Callable[[], object]] = {
        "namespaces": lambda: _enter_namespaces(in_bubblewrap),
        "landlock": lambda: kernel_calls.landlock([Path("/")], []),
        "seccomp": _enter_filter_and_see,
    }
    return [step for step in STEPS if _in_child(tries[step])]


def _memory(hidden: bool) -> Memory:
    """How memory can be held here. hidden: whether a student's code cannot reach the files of its group."""
    if hidden:
        with cgroups.trial() as group:
            if group is not None and _in_child(group.enter):
                return "held by the kernel"
    return "watched" if _in_child(hidden_memory.refuse_hidden_memory) else "watched in part"


def _enter_namespaces(in_bubblewrap: bool) -> None:
    folder = Path(tempfile.gettempdir())
    own_disks = enter_namespaces(folder, Limits())
    if not in_bubblewrap:
        enter_root(folder, readable_paths([]), own_disks)


def _enter_filter_and_see() -> None:
    seccomp.enter()
    with contextlib.suppress(PermissionError), socket.socket(socket.AF_INET):
        raise OSError("the filter was entered, and refuses nothing")


def _steps_inside_bubblewrap() -> list[str] | None:
    """What works there; None if it is not installed or does not start."""
    if program() is None:
        return None
    code = "from labkit.grading.levels import possible_steps; print(*possible_steps(True))"
    places = [str(Path(labkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        bubblewrap([sys.executable, "-c", code], readable_paths([])),
        env=environment() | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split() if done.returncode == 0 else None


def _in_child(action: Callable[[], object]) -> bool:
    """Whether this works, tried in a process that then ends."""
    pid = os.fork()
    if pid == 0:
        try:
            become_nobody()
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
