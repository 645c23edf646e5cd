"""What is the instructor's, and a student's cell may try to get at: files, sockets, processes.

Each is tried without any sandbox too, where it must work. What works at a level of isolation must be among
what the head of a run says is open there.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.grading.levels import Level

FILES = "read and change every file"
METADATA = "see whether your files exist, change their modes and times"
SOCKETS, NETWORK, PROGRAMS = "your unix sockets", "network connections", "stop your other programs"


@dataclass(frozen=True)
class Reach:
    """A line of Python that raises OSError where it is refused.

    said: words with which a run tells that it is open, one of them.
    """

    name: str
    code: str
    said: tuple[str, ...]

    def announced(self, level: Level) -> bool:
        return any(words in level.open for words in self.said)


REACHES = [
    Reach("reads a file", "open(secret).read()", (FILES,)),
    Reach("writes to a file", "open(secret, 'a').write('x')", (FILES,)),
    Reach("lists a folder", "os.listdir(folder)", (FILES,)),
    Reach("asks whether a file exists", "os.stat(secret)", (FILES, METADATA)),
    Reach("changes a mode", "os.chmod(secret, 0o666)", (FILES, METADATA)),
    Reach("changes the times", "os.utime(secret, (0, 0))", (FILES, METADATA)),
    Reach("connects to a unix socket", "socket.socket(socket.AF_UNIX).connect(bus)", (FILES, SOCKETS)),
    Reach("the same by an abstract name", "socket.socket(socket.AF_UNIX).connect(name)", (SOCKETS, NETWORK)),
    Reach("connects to a server", "socket.create_connection(('127.0.0.1', port), 5)", (NETWORK,)),
    Reach("signals a process", "os.kill(pid, 0)", (PROGRAMS,)),
    Reach("reads a process's environment", "open(f'/proc/{pid}/environ').read()", (FILES,)),
]


@contextlib.contextmanager
def instructors(folder: Path) -> Iterator[str]:
    """While it lasts, these are there; a program that tries each, and prints `REACHED number` if it could."""
    (folder / "secret").write_text("tests")
    name = f"\0labkit-{os.urandom(8).hex()}"
    with (
        socket.socket(socket.AF_UNIX) as bus,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        bus.bind(str(folder / "bus"))
        abstract.bind(name)
        bus.listen()
        abstract.listen()
        given = {
            "folder": str(folder), "secret": str(folder / "secret"), "bus": str(folder / "bus"),
            "name": name, "port": server.getsockname()[1], "pid": os.getpid(),
        }  # fmt: skip
        yield f"""\
import os, socket
for number, code in enumerate({[reach.code for reach in REACHES]!r}):
    try:
        exec(code, {{"os": os, "socket": socket, **{given!r}}})
        print("REACHED", number)
    except OSError as error:
        print(error)
"""


def reached(printed: str) -> set[str]:
    """The names of those that worked."""
    lines = (line.split() for line in printed.splitlines() if line.startswith("REACHED "))
    return {REACHES[int(number)].name for _, number in lines}
