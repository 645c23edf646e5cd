"""What the tests of the border share: functions that live in another process."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("nbgrader")

from labkit.grading.channel import Channel, ChannelError
from labkit.grading.lent import serve as serve_lent
from labkit.grading.remote import Calls
from labkit.grading.worker import _Calls, _Reference

torch.set_num_threads(1)
Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(function, ...) -> the same functions as callables that live in another process.

    At the end nobody must have been accused of sending what no honest process sends.
    """
    children: list[tuple[int, Channel]] = []
    accused: list[str] = []

    def in_its_own_process(serve_there: Callable[[Channel], object]) -> Channel:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                serve_there(Channel(theirs))
            except ChannelError:
                pass
            except BaseException:
                traceback.print_exc()  # ours, not the function's
            finally:
                os._exit(0)
        theirs.close()
        children.append((pid, Channel(ours)))
        return children[-1][1]

    def start(
        *functions: Any,
        seconds: float = 120.0,
        reference: Any = None,
        words: str | None = None,
        **named: Any,
    ) -> Any:
        """reference: the function that stands in, whatever is asked for. words: all that the student wrote."""
        names = {function.__name__: function for function in functions} | named

        def serve_calls(channel: Channel) -> None:
            _Reference.calls = _Calls(channel, names)
            _Reference.calls.serve()

        def ask(
            notebook: str, path: str, question: dict[str, Any], buffers: list[Any], deadline: float
        ) -> Any:
            lent = in_its_own_process(lambda channel: serve_lent(channel, {path: reference}))
            lent.send(question | {"path": path}, buffers, deadline)
            return lent.receive(deadline)

        channel = in_its_own_process(serve_calls)
        why_gone = ("crashed", "gone")
        calls = Calls(
            channel,
            time.monotonic() + seconds,
            ask,
            accused.append,
            lambda: why_gone,
            lambda said: words is None or said in words,
        )
        remotes = list(calls.names(list(names)).values())
        return remotes[0] if len(remotes) == 1 else remotes

    yield start
    for pid, channel in children:
        channel.close()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert accused == []
