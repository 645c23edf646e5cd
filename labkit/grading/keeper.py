"""Stands outside a student's process, starts it, watches it, and takes all of it down at the end.

    zygote -> keeper -> first process of its own process namespace -> the student's notebook -> its snapshots

The keeper's connection to the checker says when to stop: it closes. Over it comes first whether the
student's process is isolated as announced, then what ended, and how.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from labkit.grading import kernel_calls, sandbox
from labkit.grading.cgroups import Group
from labkit.grading.levels import Level
from labkit.grading.memory_watch import Watch
from labkit.grading.sandbox import Confinement, IsolationError, Limits

MOST_REPORTS = 100  # ends of processes that are told: whoever starts thousands fills no buffer with them
READY = b'"ready"\n'
REFUSED = "refused"
MOST_SOCKETS = 64


def keep(connection: socket.socket, level: Level, readable: Sequence[Path], groups: int | None) -> None:
    """Serve one notebook: its limits come over `connection`, and its sockets, the control first."""
    message, descriptors, *_ = socket.recv_fds(connection, 4096, MOST_SOCKETS)
    if not message:
        return
    limits = Limits(**json.loads(message))
    os.setsid()
    group = _own_group(groups, limits)
    sandbox.become_nobody()
    folder, own_disks = Path(tempfile.mkdtemp(prefix="labkit-student-")), None
    try:
        try:
            own_disks = sandbox.enter_namespaces(folder, limits) if level.namespaces else None
        except IsolationError as error:
            _say(connection, refusal(error))
            return
        if own_disks is None:  # then the system counts all that this user runs, not the student's alone
            limits = replace(limits, processes=limits.processes + _running())
        with contextlib.suppress(OSError, AttributeError):
            kernel_calls.adopt_orphans()
        ours, theirs = os.pipe()
        first = os.fork()
        if first == 0:
            connection.close()
            os.close(ours)
            writable = [folder, *(own_disks or [])]
            landlock = (readable, writable) if level.landlock else None
            hides = level.memory == "watched in part"
            root = (readable, writable) if level.namespaces and not level.bubblewrap else None
            held = Confinement(folder, limits, root, landlock, level.seccomp, hides)
            _first_process(descriptors, held, theirs, group)
        os.close(theirs)
        for descriptor in descriptors:
            os.close(descriptor)
        most = limits.memory + limits.disk
        watch = None if group else Watch(first, most, own_processes=own_disks is not None)
        if _watch(connection, ours, watch) or (group and group.ran_out()):
            _say(connection, b'"memory"\n')
        _end(first, own_disks is not None)
    finally:
        if level.namespaces:
            with contextlib.suppress(OSError):  # its disk may have been refused
                kernel_calls.unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def refusal(error: IsolationError) -> bytes:
    """The line that is sent in place of READY: no code of the student has run, and none will."""
    return json.dumps({REFUSED: str(error)}).encode() + b"\n"


def _running() -> int:
    """How many threads this user has, as far as can be seen from here."""
    count = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == os.getuid():
                count += process.num_threads()
    return count


def group_of(keeper: int) -> str:
    """The name of the control group of the notebook that this process keeps."""
    return f"notebook-{keeper}"


def _own_group(groups: int | None, limits: Limits) -> Group | None:
    if groups is None:
        return None
    memory = limits.memory + limits.disk
    group = Group.make(groups, group_of(os.getpid()), memory, limits.processes)
    os.close(groups)  # a student's code must not find it open
    return group


def _first_process(descriptors: Sequence[int], held: Confinement, reports: int, group: Group | None) -> None:
    """Process 1 of its namespace: when it ends, the kernel ends all others. It only waits for them."""
    if group:
        group.enter()
    _close_all_but(reports, *descriptors)
    with contextlib.suppress(OSError, AttributeError):
        kernel_calls.die_with_parent()
        kernel_calls.adopt_orphans()
    try:
        sandbox.limit(held)
    except IsolationError as error:
        os.write(reports, refusal(error))
        os._exit(1)
    if os.fork() == 0:
        status = 1
        try:
            _student(descriptors, held, reports)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    for descriptor in descriptors:
        os.close(descriptor)
    with contextlib.suppress(ChildProcessError, OSError):
        while True:
            _, status = os.waitpid(-1, 0)
            os.write(reports, json.dumps(os.waitstatus_to_exitcode(status)).encode() + b"\n")
    os._exit(0)


def _close_all_but(*descriptors: int) -> None:
    """These stay open, and standard error; nothing can be read from or written to the terminal."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    keep = sorted([0, 1, 2, *descriptors])
    for below, above in zip(keep, [*keep[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(below + 1, above)


def _student(descriptors: Sequence[int], held: Confinement, reports: int) -> None:
    from labkit.grading import worker

    os.environ.clear()
    os.environ.update(sandbox.environment(), HOME=str(held.folder), TMPDIR=str(held.folder))
    tempfile.tempdir = None  # it remembers the parent's
    os.umask(0o077)
    try:
        sandbox.confine(held)
    except IsolationError as error:
        os.write(reports, refusal(error))
        raise
    os.write(reports, READY)
    os.close(reports)  # from here on runs what a student wrote
    os.dup2(0, 2)  # until here, what goes wrong is ours, and worth a line in the log
    control, *tests = (socket.socket(fileno=number) for number in descriptors)
    worker.run(control, tests)


def _watch(connection: socket.socket, reports: int, watch: Watch | None) -> bool:
    """Until the checker closes, all of it has ended, or it uses too much memory: True only for that."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(reports, select.POLLIN)
    left, next_look = MOST_REPORTS, 0.0
    while True:
        wait = None if watch is None else 1000 * max(0.0, next_look - time.monotonic())
        events = dict(poll.poll(wait))
        if reports in events:
            lines = os.read(reports, 4096).splitlines(keepends=True)
            if not lines:
                return False
            _say(connection, b"".join(lines[:left]))
            left -= len(lines[:left])
        if connection.fileno() in events:
            return False
        if watch and time.monotonic() >= next_look:
            if watch.exceeded():
                return True
            next_look = time.monotonic() + watch.seconds


def _say(connection: socket.socket, lines: bytes) -> None:
    """What does not fit is not said: a checker that is busy must not keep this process from its watch."""
    with contextlib.suppress(OSError):
        connection.send(lines, socket.MSG_DONTWAIT)


def _end(first: int, own_processes: bool) -> None:
    if not own_processes:
        _stop_descendants()
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(first, 0)
    if not own_processes:
        _stop_descendants()


def alive(process: psutil.Process) -> bool:
    """Whether it still runs: it may end between being listed and being asked."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stop_descendants() -> None:
    """Without a process namespace: again and again, until nothing is left that could fork."""
    for _ in range(200):
        left = [one for one in psutil.Process().children(recursive=True) if alive(one)]
        if not left:
            return
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.005)
    print("labkit: a student's process could not be stopped", file=sys.stderr)
