"""What a test lends to a student's function, and what that function's process says to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn, optim

from labkit.grading import arguments
from labkit.grading.channel import ChannelError, Gone
from labkit.grading.plain import Encoder
from labkit.grading.worker import _Calls
from tests.border.fuzzing.run import expect

Message = tuple[dict[str, Any], list[bytes]]


class Lent:
    """What a test passes to a student's function; `facts` is what torch believes of it."""

    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.net.register_buffer("seen", torch.zeros(2, dtype=torch.bool))
        self.optimizer = optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        self.array, self.batch = np.arange(3.0), torch.ones(4, 3)
        self.use()

    def use(self) -> None:
        self.net(self.batch).sum().backward()
        self.optimizer.step()

    def arguments(self) -> tuple[Any, ...]:
        return self.net, self.optimizer, self.array, self.batch

    def facts(self) -> Any:
        settings = [
            {
                k: v
                for k, v in vars(part).items()
                if isinstance(v, int | float | str | tuple) and k != "training"
            }
            for part in self.net.modules()
        ]
        groups = [
            {
                k: v
                for k, v in group.items()
                if k != "params" and (isinstance(v, bool) or not isinstance(v, int | float))
            }
            for group in self.optimizer.param_groups
        ]
        return settings, groups, self.array.shape, self.array.dtype

    def shapes(self) -> dict[str, torch.Size]:
        """Of tensors, by name; a new name holds nothing."""
        found = self.net.state_dict(keep_vars=True).items()
        state = [(p, values) for p, values in self.optimizer.state.items()]
        sound = all(
            not isinstance(v, Tensor) or v.shape in (p.shape, ())
            for p, values in state
            for v in values.values()
        )
        expect(sound, "an optimizer that remembers a tensor of another shape")
        return {name: value.shape for name, value in found if not hasattr(value, "is_placeholder")}


class Tape:
    """A worker's channel: asks it one thing after the other, and keeps what it answers."""

    def __init__(self, questions: Iterator[Message]) -> None:
        self._questions, self.sent = questions, list[Message]()

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], list[bytearray]]:
        for header, buffers in self._questions:
            return json.loads(json.dumps(header)), [bytearray(one) for one in buffers]
        raise Gone("closed")

    def send(
        self, header: dict[str, Any], buffers: Sequence[Any] = (), deadline: float | None = None
    ) -> None:
        self.sent.append((json.loads(json.dumps(header)), [bytes(one) for one in buffers]))


def worked(net: Any, optimizer: Any, array: Any, batch: Any) -> Any:
    """What a student's function does: everything that is told of afterwards."""
    net.eval()
    loss = net(batch).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.05
    net.seen[1] = True
    net.mask = nn.Parameter(torch.ones(2))
    array += 1
    return [loss, {"a": (1, 2.5, None)}, net[0].weight, torch.ones(3, dtype=torch.int8)]


def call_streams() -> list[list[Message]]:
    """For each kind of function what a student's process sends: names, a reference's question, answer, gradients."""

    def raises(*_: Any) -> None:
        raise ValueError("a student's words")

    def asks(net: Any, *_: Any) -> float:
        net[0].weight.data = torch.zeros(2, 3)
        with suppress(RuntimeError):
            worker.ask("01_percentile_pruning", "prune", (net, 50.0), {"q": [1]})
        return 0.5

    made = []
    for function, asking in ((worked, False), (raises, False), (asks, True)):
        header, buffers, _ = arguments.pack((Lent().arguments(), {}), lambda _: None, arguments.Identities())
        call = header | {"op": "call", "path": "answer", "call": 1, "grad": True, "seeds": [1, 2, 3]}
        ones = Encoder()
        gradients = [ones.encode(torch.ones(())), None]  # of the loss, not of the mask
        back = {"op": "backward", "call": 1, "gradients": gradients}
        asked: Sequence[Message] = ({"op": "describe", "names": ["answer", "number"]}, []), (call, buffers)
        more: list[Message] = [({"raised": "it is not lent"}, [])] if asking else []
        tape = Tape(iter([*asked, *more, *([(back, ones.buffers)] if function is worked else [])]))
        worker = _Calls(cast(Any, tape), {"answer": function, "number": {"a": torch.ones(2)}})
        with suppress(ChannelError):
            worker.serve()
        made.append(tape.sent)
    return made
