"""Notebook kernels forked from one process that has torch imported: importing it is half of a short notebook.

The kernel spec `warm` starts this file with a connection file. It hands its place (environment, folder,
standard streams) to the warm process, which forks a kernel there, and waits for its end. The warm process is
started when the first kernel asks for it, and ends with pytest. It imports what it needs when it needs it.
Where it is told to, its kernels' experiments are smaller than `quick`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType

WARM = (
    sys.platform == "linux"
)  # elsewhere forking is not possible, or not safe: the spec starts a usual kernel


class WarmKernels:
    """A folder for JUPYTER_PATH with the kernel spec `name`; `close` ends what was started for it.

    sizes: what `quick` has instead of its own sizes in these kernels. Usual kernels know nothing of it.
    """

    def __init__(self, folder: Path, name: str = "warm", sizes: Mapping[str, int] | None = None) -> None:
        self._sizes = json.dumps(dict(sizes or {}))
        spec = folder / "kernels" / name / "kernel.json"
        spec.parent.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f"]
        if WARM:
            self._ending, self._end = os.pipe()
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(folder / "socket"))
            self._listener.listen(64)
            # -I -S: without site-packages, which would take longer than all that this file does
            command = [sys.executable, "-I", "-S", __file__, "kernel", str(folder / "socket")]
            self._process: subprocess.Popen[bytes] | None = None
            self._thread = threading.Thread(target=self._start_when_asked, daemon=True)
            self._thread.start()
        about = {"argv": [*command, "{connection_file}"], "display_name": name, "language": "python"}
        spec.write_text(json.dumps(about), encoding="utf-8")

    def _start_when_asked(self) -> None:
        asked, *_ = select.select([self._listener.fileno(), self._ending], [], [])
        if self._listener.fileno() in asked:
            descriptors = (self._listener.fileno(), self._ending)
            command = [sys.executable, __file__, "serve", *map(str, descriptors), self._sizes]
            self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End the warm process and with it all of its kernels."""
        if WARM:
            os.close(self._end)
            self._thread.join()
            if self._process:
                self._process.wait()
            os.close(self._ending)
            self._listener.close()


def kernel(place: str, connection_file: str) -> None:
    """What Jupyter starts, stops and interrupts: it passes all of that on."""
    with socket.socket(socket.AF_UNIX) as warm:
        warm.connect(place)
        about = json.dumps([connection_file, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(warm, [len(about).to_bytes(4, "big")], [0, 1, 2])
        warm.sendall(about)
        number = int.from_bytes(warm.recv(4, socket.MSG_WAITALL), "big")

        def pass_on(sent: int, _: FrameType | None) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, sent)

        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, pass_on)
        warm.recv(1)  # its end


def serve(listener: socket.socket, ending: int, sizes: dict[str, int]) -> None:
    """Fork a kernel for each connection until the other end of `ending` is closed."""
    for name in (
        "ipykernel.kernelapp",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "torch._dynamo",
    ):
        importlib.import_module(name)  # the last one is what a first optimizer imports
    import labkit

    for name in labkit.__all__:  # they are imported when they are asked for
        getattr(labkit, name)
    profiles = labkit.profiles.PROFILES
    profiles["quick"] = replace(profiles["quick"], **sizes)  # type: ignore[arg-type]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener.fileno() in select.select([listener.fileno(), ending], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                _become(connection)
            finally:
                os._exit(0)
        connection.close()


def _become(connection: socket.socket) -> None:
    """Run a kernel in the place that the connection tells of, as long as the other side lives."""
    length, descriptors, *_ = socket.recv_fds(connection, 4, 3)
    about = connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
    connection_file, folder, environment = json.loads(about)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.environ.pop("JPY_PARENT_PID", None)  # the thread below sees to that
    connection.sendall(os.getpid().to_bytes(4, "big"))

    def watch() -> None:
        connection.recv(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(argv=["-f", connection_file])


if __name__ == "__main__":
    if sys.argv[1] == "kernel":
        kernel(*sys.argv[2:])
    else:
        serve(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]), json.loads(sys.argv[4]))
