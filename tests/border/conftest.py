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

    def start(*functions: Any, seconds: float = 120.0, reference: Any = None) -> Any:
        ours, theirs = socket.socketpair()
        names = {function.__name__: function for function in functions}
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _Reference.calls = _Calls(Channel(theirs), names)
                _Reference.calls.serve()
            except ChannelError:
                pass
            except BaseException:
                traceback.print_exc()  # ours, not the function's
            finally:
                os._exit(0)
        theirs.close()
        channel = Channel(ours)
        children.append((pid, channel))
        calls = Calls(
            channel,
            time.monotonic() + seconds,
            reference or (lambda notebook, name: None),
            accused.append,
            lambda: ("crashed", "gone"),
        )
        remotes = list(calls.names(list(names)).values())
        return remotes[0] if len(remotes) == 1 else remotes

    yield start
    for pid, channel in children:
        channel.close()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert accused == []
