"""Messages between the checker and a student's process: a JSON header and raw bytes behind it.

Whoever reads believes nothing: sizes are bounded, room is made for what has come and not for what is
announced, and what does not parse is `Malformed`, never an exception of another kind.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

MOST_HEADER = 16 * 2**20
MOST_BYTES = 512 * 2**20
MOST_BUFFERS = 100_000
PIECE = 2**20  # bytes for which room is made at once
_LENGTH = struct.Struct("!I")


class ChannelError(Exception):
    """Nothing more can be had from the other side."""


class Gone(ChannelError):  # noqa: N818 (these three say what is the case)
    """The other side has closed, or died."""


class TimedOut(ChannelError):  # noqa: N818
    """Nothing came in time."""


class Malformed(ChannelError):  # noqa: N818
    """What came is no message."""


class Channel:
    """One end of a stream socket. Either side may send at any time; there is one reader and one writer."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def send(
        self, header: dict[str, Any], buffers: Sequence[Any] = (), deadline: float | None = None
    ) -> None:
        """Send a message. deadline: of `time.monotonic()`. Raises Gone or TimedOut."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        text = json.dumps(header | {"sizes": [len(view) for view in views]}).encode()
        for part in (memoryview(_LENGTH.pack(len(text)) + text), *views):
            while part:
                try:
                    part = part[self._end.send(part) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, deadline)
                except OSError as error:
                    raise Gone(str(error)) from None

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], list[bytearray]]:
        """The next message. deadline: of `time.monotonic()`. Raises Gone, TimedOut or Malformed."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))
        if length > MOST_HEADER:
            raise Malformed(f"a header of {length} bytes")
        try:
            header = json.loads(self._exactly(length, deadline))
            sizes = header["sizes"]
            sound = isinstance(sizes, list) and all(type(size) is int and size >= 0 for size in sizes)
        except (ValueError, TypeError, KeyError, RecursionError, MemoryError):
            raise Malformed("a header that is not JSON") from None
        if not sound or sum(sizes) > MOST_BYTES or len(sizes) > MOST_BUFFERS:
            raise Malformed("impossible sizes")
        try:
            return header, [self._exactly(size, deadline) for size in sizes]
        except MemoryError:
            raise Malformed("more bytes than there is memory for") from None

    def _exactly(self, size: int, deadline: float | None) -> bytearray:
        data = bytearray()
        while len(data) < size:
            data += self._piece(min(size - len(data), PIECE), deadline)
        return data

    def _piece(self, size: int, deadline: float | None) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                count = self._end.recv_into(rest)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError as error:
                raise Gone(str(error)) from None
            if not count:
                raise Gone("closed")
            rest = rest[count:]
        return data

    def _wait(self, event: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self._end, event)
        if deadline is None:
            poll.poll()
        elif (left := deadline - time.monotonic()) <= 0 or not poll.poll(1000 * left):
            raise TimedOut
