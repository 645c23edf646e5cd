"""The warm parent: a process that has torch and the rest imported, and forks a copy for each notebook.

`python -m labkit.grading.zygote students|tests FD [bubblewrap] [namespaces] [landlock] [seccomp] memory=HOW
[groups=FD] -- PATH...` listens on the socket FD; the paths can be read. In the folder `groups` it makes
control groups. On standard input comes a key, by which a checker knows who sends it a notebook; the end of
that input says that the engine's process has ended, however it did. It never sees a test or another student's
work: whatever a copy needs is sent to that copy. One kind of copies holds a student's code, or a reference
that stands in (through `keeper`), the other runs the tests (`checker`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

# what a student's first cell and first optimizer would import; nothing here starts a thread or a gradient
import matplotlib.pyplot
import matplotlib_inline.backend_inline  # noqa: F401
import numpy as np
import torch
import torch._dynamo

import labkit
import labkit.check
from labkit.grading import cgroups, checker, keeper, kernel_calls
from labkit.grading.levels import STEPS, Level, Memory
from labkit.grading.shell import Shell


def serve(
    kind: str, listener: socket.socket, level: Level, readable: list[Path], groups: int | None, key: bytes
) -> None:
    """Fork a copy for each connection, until the parent process ends."""
    gc.collect()
    gc.freeze()  # the copies share these pages for good
    with contextlib.suppress(OSError, AttributeError):
        kernel_calls.gather_in_huge_pages()
    signal.signal(signal.SIGCHLD, lambda *_: _reap(groups))
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN)
    while True:
        if sys.stdin.fileno() in dict(poll.poll()):
            return
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if os.fork() == 0:
            status = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                if kind == "students":
                    keeper.keep(connection, level, readable, groups)
                else:
                    checker.answer(Connection(connection.detach()), key, level, readable)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        connection.close()


def _reap(groups: int | None) -> None:
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            if groups is not None:
                cgroups.remove(groups, keeper.group_of(pid))


def warm_up(kind: str) -> None:
    """The first of everything, so that no copy pays for it. No gradient: its thread would not be copied."""
    torch.set_num_threads(1)
    for name in labkit.__all__:  # they are imported when they are asked for
        getattr(labkit, name)
    if kind == "students":
        Shell()
    np.percentile(np.arange(3.0), 50)
    labkit.seed_everything(0)
    net = labkit.resnet20()
    torch.optim.SGD(net.parameters(), lr=0.1)
    with torch.no_grad():
        labkit.check.fixtures.TinyNet()(torch.zeros(2, 3, 8, 8))
    matplotlib.pyplot.figure()
    matplotlib.pyplot.close("all")


def main() -> None:
    """Started by `engine.Engine`."""
    kind, number, *rest = sys.argv[1:]
    border = rest.index("--")
    words = rest[:border]
    told = dict(word.split("=", 1) for word in words if "=" in word)
    memory = cast("Memory", told["memory"])
    level = Level(*(step in words for step in ("bubblewrap", *STEPS)), memory=memory)
    groups = int(told["groups"]) if "groups" in told else None
    key = bytes.fromhex(sys.stdin.readline())
    warm_up(kind)
    readable = [Path(path) for path in rest[border + 1 :]]
    serve(kind, socket.socket(fileno=int(number)), level, readable, groups, key)


if __name__ == "__main__":
    main()
