"""The warm parent: a process that has torch and the rest imported, and forks a copy for each notebook.

`python -m labkit.grading.zygote students|tests FD [bubblewrap] [namespaces] [landlock] [seccomp] --
READABLE...` listens on the socket FD; on standard input comes a key, by which a checker knows who sends it a
notebook, and the end of that input says that the engine's process has ended, however it did. It never sees a
test or another student's work: whatever a copy needs is sent to that copy. One kind of copies holds a
student's code, or a reference that stands in (through `keeper`), the other runs the tests (`checker`).
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
from typing import Any

# what a student's first cell and first optimizer would import; nothing here starts a thread or a gradient
import matplotlib.pyplot
import matplotlib_inline.backend_inline  # noqa: F401
import numpy as np
import torch
import torch._dynamo

import labkit
import labkit.check
from labkit.grading import checker, keeper, kernel_calls
from labkit.grading.sandbox import STEPS, Level
from labkit.grading.shell import Shell


def serve(kind: str, listener: socket.socket, level: Level, readable: list[Path], key: bytes) -> None:
    """Fork a copy for each connection, until the parent process ends."""
    gc.collect()
    gc.freeze()  # the copies share these pages for good
    with contextlib.suppress(OSError, AttributeError):
        kernel_calls.gather_in_huge_pages()
    signal.signal(signal.SIGCHLD, _reap)
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
                    keeper.keep(connection, level, readable)
                else:
                    checker.answer(Connection(connection.detach()), key, level, readable)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        connection.close()


def _reap(*_: Any) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


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
    level = Level(*(step in rest[:border] for step in ("bubblewrap", *STEPS)))
    key = bytes.fromhex(sys.stdin.readline())
    warm_up(kind)
    serve(kind, socket.socket(fileno=int(number)), level, [Path(path) for path in rest[border + 1 :]], key)


if __name__ == "__main__":
    main()
