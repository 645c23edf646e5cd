"""The student's process: runs their cells, then answers the tests' calls with plain data.

All of this can be tampered with by the code that it runs, and nothing depends on it: a lie here only gives
other values, as a wrong answer would. It runs every cell before any test's data arrives. Where a test cell
stands it leaves a snapshot of itself (a fork); the test's calls are made to that, once all cells have run, so
that nothing that a test passes can turn up in an output. Test cells in a row share one.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import random
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from labkit import siblings
from labkit.grading.arrived import Arrived, Seen
from labkit.grading.channel import Channel, ChannelError
from labkit.grading.lent import lend
from labkit.grading.notebook_import import import_notebooks
from labkit.grading.own import Own
from labkit.grading.plain import Decoder, Encoder
from labkit.grading.shell import Shell

MOST_MESSAGE = 2000
GRAPHS_KEPT = 1000


def run(control: socket.socket, tests: list[socket.socket]) -> NoReturn:
    """Do what the checker says until it closes."""
    channel = Channel(control)
    with contextlib.suppress(ChannelError):
        _Notebook(channel, [Channel(end) for end in tests]).serve()
    os._exit(0)


class _Notebook:
    def __init__(self, control: Channel, tests: list[Channel]) -> None:
        self._control, self._tests = control, tests
        self._shell = Shell(Path.cwd())
        siblings.reference = _Reference
        # threads would not live on in a snapshot
        torch.set_num_threads = lambda number: None  # type: ignore[assignment]
        torch.compile = _not_compiled  # its compiler is not here, and takes longer to load than a cell may
        sys.path.insert(0, "")  # as in Jupyter: their own modules are beside the notebook
        import_notebooks()

    def serve(self) -> None:
        while True:
            header, buffers = self._control.receive()
            match header["op"]:
                case "start":
                    notebooks = [f"{name}.ipynb" for name in header["siblings"]]
                    _lay_out([*header["files"], *notebooks], buffers)
                    answered: dict[str, Any] = {}
                case "cell":
                    source = bytes(buffers[0]).decode()
                    answered = {"outputs": self._shell.run(source, header["kind"] == "answer")}
                case "lend":  # this one is no student's
                    lend(self._control, header["notebook"], bytes(buffers[0]).decode())
                case "snapshot":
                    self._snapshot(header["number"])
                    answered = {}
                case "done":
                    os._exit(0)  # from now on the first process sees how a snapshot ends
            self._control.send(answered)

    def _snapshot(self, number: int) -> None:
        if os.fork():
            self._tests[number].close()  # the snapshot's alone, so that its end is noticed
            return
        mine = self._tests[number]
        for channel in (self._control, *self._tests):
            if channel is not mine:
                channel.close()
        plt.switch_backend("agg")  # nobody sees what a test's call draws
        plt.show = lambda *args, **options: None
        _Reference.calls = _Calls(mine, self._shell.names)
        with contextlib.suppress(ChannelError):
            _Reference.calls.serve()
        os._exit(0)


class _Calls:
    """Serves the calls of the test cells in one place."""

    def __init__(self, channel: Channel, names: dict[str, Any]) -> None:
        self._channel, self._names = channel, names
        self._forget()

    def _forget(self) -> None:
        """A new test cell begins: what the one before has passed does not come again."""
        self._graphs: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._arrived: Arrived | None = None
        self._seen: Seen = {}

    def serve(self) -> None:
        while True:
            header, buffers = self._channel.receive()
            encoder = Encoder()
            try:
                match header["op"]:
                    case "describe":
                        answer = self._describe(header["names"], encoder)
                    case "call":
                        answer, encoder = self._call(header, buffers)
                    case "backward":
                        answer = self._backward(header, buffers, encoder)
            except ChannelError:
                raise
            except BaseException as error:  # also SystemExit: the student's code has no say in this loop
                answer, encoder = _raised(error), Encoder()
            self._channel.send(answer, encoder.buffers)

    def _describe(self, names: list[str], encoder: Encoder) -> dict[str, Any]:
        self._forget()
        described = {}
        for name in names:
            if name not in self._names:
                described[name] = {"kind": "missing"}
            elif callable(value := self._names[name]):
                described[name] = {"kind": "callable", "name": str(getattr(value, "__name__", name))}
            else:
                described[name] = {"kind": "value", "value": encoder.encode(value)}
        return {"names": described}

    def _own(self, path: str) -> Any:
        name, *attributes = path.split(".")
        if name not in self._names:
            raise NameError(f"name {name!r} is not defined")
        thing = self._names[name]
        for attribute in attributes:
            thing = getattr(thing, attribute)
        return thing

    def _call(self, header: dict[str, Any], buffers: list[bytearray]) -> tuple[dict[str, Any], Encoder]:
        arrived = self._arrived = Arrived(header, buffers, self._own, self._seen)
        raised = result = None
        _sow(header["seeds"])
        untouched = _drawn()
        _sow(header["seeds"])
        try:
            function = self._own(header["path"])
            positional, named = arrived.value
            with torch.set_grad_enabled(header["grad"]):
                result = function(*positional, **named)
        except BaseException as error:
            raised = _raised(error)
        graph: list[Tensor] = []
        encoder = Encoder(arrived.table.signs(), graph)
        answer = raised or {"result": encoder.encode(result)}
        answer["changes"] = arrived.changes(encoder)
        answer["drew"] = [now != before for now, before in zip(_drawn(), untouched, strict=True)]
        if graph:
            self._graphs[header["call"]] = (graph, arrived.leaves)
            if len(self._graphs) > GRAPHS_KEPT:
                self._graphs.pop(next(iter(self._graphs)))
        return answer, encoder

    def _backward(self, header: dict[str, Any], buffers: list[bytearray], encoder: Encoder) -> dict[str, Any]:
        outputs, leaves = self._graphs[header["call"]]
        gradients = [Decoder(buffers).decode(tree) for tree in header["gradients"]]
        flowing = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None]
        result = torch.autograd.grad(
            [o for o, _ in flowing], leaves, [g for _, g in flowing], retain_graph=True, allow_unused=True
        )
        return {"gradients": [encoder.encode(gradient) for gradient in result]}

    def ask(self, notebook: str, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arrived = self._arrived
        if arrived is None:
            raise RuntimeError(_Reference.ADVICE)
        own = Own(arrived.table)
        question = {
            "reference": [notebook, path],
            "changes": arrived.changes(own.encoder, aside=True),
            "arguments": own.encoder.encode([list(args), dict(kwargs)]),
            "own": own.described(),
        }
        self._channel.send(question, own.encoder.buffers)
        header, buffers = self._channel.receive()
        if "raised" in header:
            raise RuntimeError(header["raised"])
        arrived.take_over(header["changes"], buffers, table=own.table)
        return Decoder(buffers, own.table.thing).decode(header["result"])


class _Reference:
    """Stands in for a function of an earlier notebook, which runs in a process of its own: see `lent`."""

    ADVICE = "while grading, the reference that stands in for your function works on what a test passes only"
    calls: ClassVar[_Calls | None] = None

    def __init__(self, notebook: str, path: str) -> None:
        self._notebook, self._path = notebook, path
        self.__name__ = path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.calls is None:
            raise RuntimeError(self.ADVICE)
        return self.calls.ask(self._notebook, self._path, args, kwargs)

    def __getattr__(self, name: str) -> _Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Reference(self._notebook, f"{self._path}.{name}")


def _lay_out(names: list[str], contents: list[bytearray]) -> None:
    """Write what was handed in beside the notebook into this folder, its notebooks last."""
    for name, content in zip(names, contents, strict=True):
        with contextlib.suppress(OSError, ValueError):  # a name that this system does not know
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _not_compiled(model: Any = None, **_: Any) -> Any:
    """In place of torch.compile: what is compiled gives the same values."""
    return (lambda model: model) if model is None else model


def _sow(seeds: list[int]) -> None:
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # a tenth of torch.manual_seed, which looks for GPUs


def _drawn() -> tuple[Any, ...]:
    """What each generator gives next."""
    return random.random(), np.random.random_sample(), float(torch.rand(()))


def _raised(error: BaseException) -> dict[str, Any]:
    """The exception in words: its kinds, its message, and where in the student's own lines it was raised."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    line = None
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith("<") and not frame.filename.startswith(("<frozen", "<string")):
            line = [frame.lineno or 0, linecache.getline(frame.filename, frame.lineno or 0).strip()[:200]]
            break
    try:
        message = str(error)[:MOST_MESSAGE]
    except Exception:
        message = ""
    return {"raised": kinds[:20], "message": message, "line": line}
