"""Memory held by the kernel, on a system that lets this process make control groups (cgroup v2)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.grading import cgroups, levels, sandbox
from labkit.grading.cgroups import Group, Home
from tests.attacks.test_memory import HIDDEN, MB, SEEN, program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for what Linux offers")
MOST = 60 * MB
# 2 MB, and a page that pins 2 MB: they are refused because there can be many of them, which takes long
LARGE = {**HIDDEN, **SEEN}.keys() - {
    "System V's queues",
    "System V's semaphores",
    "pages that only a pipe holds",
}


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home.make()
    if made is None:
        pytest.skip("no control groups (cgroup v2) can be made here")
    yield made
    made.close()
    assert not made.folder.exists()


def ends_in_a_group(home: Home, name: str, code: str, size: int) -> tuple[bool, str]:
    """(whether the kernel ended it for its memory, what it said)."""
    group = Group.make(home.descriptor, name, MOST, 40)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs, 1)
        sandbox.become_nobody()
        group.enter()
        command = [sys.executable, "-c", program(code, size, refused=False)]
        os.execv(sys.executable, command)
    os.close(theirs)
    with os.fdopen(ours) as said:
        line = said.readline().strip()  # empty where all of the group has ended
        for number in (home.folder / name / "cgroup.procs").read_text().split():
            os.kill(int(number), 9)
    os.waitpid(pid, 0)
    ran_out = group.ran_out()
    group.close()
    return ran_out, line


@pytest.mark.parametrize("kind", sorted(LARGE))
def test_the_kernel_ends_what_takes_too_much(home: Home, kind: str) -> None:
    assert ends_in_a_group(home, "greedy", {**HIDDEN, **SEEN}[kind], 3 * MOST) == (True, "")
    assert ends_in_a_group(home, "modest", {**HIDDEN, **SEEN}[kind], MOST // 3) == (False, "taken")


def test_processes_are_counted(home: Home) -> None:
    code = "for _ in range({}):\n    if os.fork() == 0:\n        time.sleep(600)\nhere()"
    assert ends_in_a_group(home, "many", code.format(60), 0)[1] == "refused 11"
    assert ends_in_a_group(home, "few", code.format(10), 0)[1] == "taken"


def test_swap_does_not_help(home: Home) -> None:
    Group.make(home.descriptor, "swapping", MOST, 8).close()
    assert (home.folder / "swapping" / "memory.swap.max").read_text() == "0\n"


def test_what_a_killed_engine_left_goes_with_the_next(home: Home) -> None:
    left = home.folder.parent / f"{cgroups.NAME}999999999-dead"
    (left / "notebook-1").mkdir(parents=True)
    with cgroups.trial():
        assert not left.exists()
        assert home.folder.exists()


def test_a_level_that_has_groups_says_so(home: Home) -> None:
    assert levels.level().memory == "held by the kernel"
    assert "memory held by the kernel" in levels.level().sentence


def test_the_nearest_place_with_both_controllers_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, has in (("user", "cpu memory pids"), ("user/app", "memory pids"), ("user/app/scope", "")):
        (tmp_path / folder).mkdir()
        for file in ("cgroup.subtree_control", "cgroup.controllers", "cgroup.type"):
            (tmp_path / folder / file).write_text(has)
    monkeypatch.setattr(cgroups, "_own_group", lambda: (tmp_path, Path("user/app/scope")))
    assert list(cgroups._places()) == [tmp_path / "user" / "app", tmp_path / "user"]
    (tmp_path / "user/app/cgroup.subtree_control").write_text("memory")
    assert list(cgroups._places()) == [tmp_path / "user"]
