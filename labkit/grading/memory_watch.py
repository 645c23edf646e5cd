"""How much memory a process and all its descendants have taken: asked often, and in bounded time.

A look costs a few files of /proc for each process, and a student has no more than its limits allow. Only when
these numbers add up to too much are the processes asked what is really theirs. That takes long for large
ones, which are stopped meanwhile. What no process shows is refused (`hidden_memory`) or, as sockets' buffers,
counted as the most that there can be.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

SECONDS_BETWEEN_LOOKS, SECONDS_WHEN_NEAR = 0.1, 0.03  # near: more than half of what they may have
BETWEEN_EXACT = 0.2  # seconds for which one exact answer holds, if nothing has grown beyond it
IN_THE_OPEN = 0.05  # seconds of processor time for asking, before the processes are stopped
A_FEW, RESTLESS = 12, 4  # processes; new ones from one look to the next
MOST_FOR_A_HELPER = 1.0  # seconds
PAUSE = 0.02  # a process that is about to start a program shares all of its starter's memory for a moment
OF_A_MAPPING = 400  # bytes that the kernel keeps for a mapping: 230 were measured, more once it is written to
MANY_MAPPINGS, MOST_MAPPINGS = 10_000, 100_000
SHOWN = (b"RssAnon:", b"RssShmem:", b"VmSwap:", b"VmPTE:", b"HugetlbPages:")
OWN = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


class Watch:
    """Looks at the process `first` and its descendants, which may take `most` bytes together.

    own_processes: whether what this process starts is in the process namespace of `first`.
    seconds: from the last look to the next.
    """

    def __init__(self, first: int, most: int, own_processes: bool = False) -> None:
        self._first, self._most, self._own_processes = first, most, own_processes
        self.seconds = SECONDS_BETWEEN_LOOKS
        self._sockets = _sockets()
        self._mappings: dict[int, int] = {}
        self._seen: set[str] = set()
        self._exact_until, self._ceiling, self._doubtful = 0.0, most, False

    def exceeded(self) -> bool:
        """Whether they have more. Copies of one process share pages: only an exact answer says yes."""
        if not self._look():
            return False
        if self._doubtful:
            time.sleep(PAUSE)
        return not self._doubtful or self._look()

    def _look(self) -> bool:
        """A few processes are asked as they run, if that is quick; many, or restless ones, are stopped."""
        if len(self._seen) <= A_FEW:
            places = family(self._first)
            calm = len(places) <= A_FEW and len(places.keys() - self._seen) < RESTLESS
            self._seen = set(places)
            answer = self._judged(places, IN_THE_OPEN) if calm else None
            if answer is not None:
                self._doubtful = answer
                return answer
        with self._stopped():
            places = family(self._first)
            self._seen = set(places)
            self._doubtful = any(map(_waits, places))
            return bool(self._judged(places, float("inf")))

    def _judged(self, places: dict[str, int], seconds: float) -> bool | None:
        """Whether they have too much; None if it takes longer, in processor time, to say."""
        end = time.process_time() + seconds
        beside = self._beside(places)
        shown = beside + sum(places.values())
        near = shown + self._most - self._ceiling > self._most / 2
        self.seconds = SECONDS_WHEN_NEAR if near else SECONDS_BETWEEN_LOOKS
        if shown <= self._most or (shown <= self._ceiling and time.monotonic() < self._exact_until):
            return False
        own = beside
        for place, most in places.items():
            own += _own(place, most)
            if time.process_time() > end:
                return None
        self._ceiling = shown + self._most - own  # as much as they may grow until they have too much
        self._exact_until = time.monotonic() + BETWEEN_EXACT
        return own > self._most

    @contextlib.contextmanager
    def _stopped(self) -> Iterator[None]:
        """Nothing that descends from the first process runs in here."""
        stopped = self._send(signal.SIGSTOP, self._seen)
        try:
            if self._own_processes:
                _send_to_all(signal.SIGSTOP)
            # without a namespace of theirs, one that starts another in between is seen the next time
            for _ in range(10):
                new = self._send(signal.SIGSTOP, family(self._first).keys() - stopped)
                stopped |= new
                if self._own_processes or not new:
                    break
            yield
        finally:
            self._send(signal.SIGCONT, stopped | family(self._first).keys())

    def _send(self, number: signal.Signals, places: Iterable[str]) -> set[str]:
        sent = {place for place in places if _number(place) != self._first}
        for place in sent:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(_number(place), number)
        return sent

    def _beside(self, places: dict[str, int]) -> int:
        """What the kernel keeps for them: buffers of sockets at the most, and mappings."""
        sockets = max(0, _sockets() - self._sockets) * _bytes_of_a_socket()
        return sockets + self._of_mappings(list(places))

    def _of_mappings(self, places: list[str]) -> int:
        """One process a look is asked how many it has; while there are many, as many as time allows."""
        pids = {_number(place) for place in places}
        known = {pid: number for pid, number in self._mappings.items() if pid in pids}
        self._mappings = {pid: 0 for pid in pids if pid not in known} | known
        end = time.process_time() + IN_THE_OPEN
        for pid in list(self._mappings):
            del self._mappings[pid]
            number = self._mappings[pid] = _mappings_of(pid)  # now the last one in turn
            if number < MANY_MAPPINGS or time.process_time() > end:
                break
        return OF_A_MAPPING * sum(self._mappings.values())


def family(first: int) -> dict[str, int]:
    """A process and its descendants: the folder of /proc that tells of each, and the bytes that it shows."""
    if not Path("/proc/self/status").exists():
        return _family_without_proc(first)
    found: dict[str, int] = {}
    children = _children if _tells_children() else _parents_asked()
    left = [first]
    seen = set(left)
    while left:
        pid = left.pop()
        # first its memory, then its children: one that ends in between has left them to the first process
        place, shown = _shown(pid)
        found[place] = shown
        new = [child for child in children(pid) if child not in seen]
        seen.update(new)
        left += new
    return found


def _family_without_proc(first: int) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(psutil.Error):
        for process in [psutil.Process(first), *psutil.Process(first).children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                found[f"/proc/{process.pid}"] = int(process.memory_info().rss)
    return found


@functools.cache
def _tells_children() -> bool:
    """Whether this kernel has the files by which a look costs only a student's own processes."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").exists()


def _parents_asked() -> Callable[[int], list[int]]:
    """The same from every process's parent."""
    found: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(_read(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])
            found.setdefault(parent, []).append(int(name))
    return lambda pid: found.get(pid, [])


def _children(pid: int) -> list[int]:
    numbers: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            numbers += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return numbers


def _shown(pid: int) -> tuple[str, int]:
    """(where /proc tells of its memory, how much). A first thread that has ended shows none, others do."""
    places = [f"/proc/{pid}"]
    with contextlib.suppress(OSError):
        for place in places:
            status = _read(f"{place}/status")
            if b"VmSize:" in status:
                return place, _told(status, SHOWN)
            if place == places[0]:
                places += [f"{place}/task/{thread}" for thread in os.listdir(f"{place}/task")]
    return places[0], 0


def _own(place: str, shown: int) -> int:
    """Its memory, of shared pages its share. Where the system does not tell: all that it shows."""
    try:
        told = _read(f"{place}/smaps_rollup")
        own = _told(told, OWN) if OWN[0] in told else _told(told, (b"Pss:", b"SwapPss:"))
        return own + _told(_read(f"{place}/status"), (b"VmPTE:", b"HugetlbPages:"))
    except (OSError, ValueError):
        return shown


def _mappings_of(pid: int) -> int:
    count = 0
    with contextlib.suppress(OSError):
        file = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
        try:
            while count < MOST_MAPPINGS and (lines := os.read(file, 2**16)):
                count += lines.count(b"\n")
        finally:
            os.close(file)
    return count


def _number(place: str) -> int:
    return int(place.split("/")[2])


def _sockets() -> int:
    """How many there are in this network namespace, whoever has them: open, on their way, or not accepted."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_read("/proc/self/net/sockstat").split(b"\n", 1)[0].split()[2])
    return 0


def _bytes_of_a_socket() -> int:
    """What a socket's unread messages may hold: its buffer, and a last message that is as long."""
    with contextlib.suppress(OSError, ValueError):
        return 2 * int(_read("/proc/sys/net/core/wmem_default"))
    return 2 * 212_992


def _send_to_all(number: signal.Signals) -> None:
    """From a process within their namespace, which the kernel lets miss none, not even one being started."""
    helper = os.fork()
    if helper == 0:
        with contextlib.suppress(OSError):
            os.kill(-1, number)
        os._exit(0)
    end = time.monotonic() + MOST_FOR_A_HELPER
    while os.waitpid(helper, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:  # they may have stopped it
            os.kill(helper, signal.SIGKILL)
            os.waitpid(helper, 0)
            return
        time.sleep(0.001)


def _waits(place: str) -> bool:
    """Not to be interrupted: it may have just started a program, which borrows its memory until it runs."""
    with contextlib.suppress(OSError):
        return b"State:\tD" in _read(f"{place}/status")
    return False


def _told(text: bytes, lines: tuple[bytes, ...]) -> int:
    """The sum of these lines, in bytes."""
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(lines))


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(file, 2**16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)
