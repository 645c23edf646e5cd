"""Calls across the border behave as if the function were here: what it changes, returns, raises, differentiates."""

from __future__ import annotations

import copy
import linecache
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

pytest.importorskip("nbgrader")

from labkit.check import fixtures
from labkit.check.engine import Failed
from labkit.grading.channel import Channel
from labkit.grading.plain import Opaque
from labkit.grading.remote import Calls, Lost, Remote
from labkit.grading.worker import _Reference
from labkit.models import prunable_layers

Serve = Callable[..., Any]


class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, bit: int | None, symmetric: bool = False) -> torch.Tensor:
        return torch.round(w * 4) / 4

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return 3 * g, None, None


def test_a_layer_changes_in_place(serve: Serve) -> None:
    def prune(layer: nn.Linear, q: float = 70.0) -> None:
        layer.weight.data.mul_(layer.weight.abs() >= np.percentile(layer.weight.abs().detach().numpy(), q))

    here, there = fixtures.linear(8, 6), fixtures.linear(8, 6)
    parameter = there.weight
    prune(here, q=40.0)
    assert serve(prune)(there, q=40.0) is None
    assert there.weight is parameter and parameter.requires_grad
    assert torch.equal(here.weight, there.weight) and (there.weight == 0).sum() > 10


def test_a_new_parameter_is_a_new_object(serve: Serve) -> None:
    def replace(layer: nn.Linear) -> None:
        layer.weight = nn.Parameter(torch.zeros(2, 3))
        layer.register_buffer("mask", torch.ones(3))

    layer = fixtures.linear(3, 2)
    before = layer.weight
    serve(replace)(layer)
    assert layer.weight is not before and isinstance(layer.weight, nn.Parameter)
    assert not layer.weight.any()
    assert "mask" in dict(layer.named_buffers())


class Emptied:
    """Ways to make a layer's weight agree with everything that it is compared with."""

    @staticmethod
    def data(layer: nn.Linear) -> None:
        layer.weight.data = torch.zeros(0, 3)

    @staticmethod
    def parameter(layer: nn.Linear) -> None:
        layer.weight = nn.Parameter(torch.zeros(1))

    @staticmethod
    def buffer(layer: nn.Linear) -> None:
        del layer.weight
        layer.register_buffer("weight", torch.zeros(0))

    @staticmethod
    def shadow(layer: nn.Linear) -> None:
        layer.__dict__["weight"] = torch.ones(1)

    @staticmethod
    def gone(layer: nn.Linear) -> None:
        layer._parameters.clear()


@pytest.mark.parametrize("way", ["data", "parameter", "buffer", "shadow", "gone"])
def test_a_weight_of_another_shape_is_refused(serve: Serve, way: str) -> None:
    with pytest.raises(Failed, match=r"a (layer|tensor)"):
        serve(getattr(Emptied, way))(fixtures.linear(3, 2))


def test_statistics_of_another_shape_are_refused(serve: Serve) -> None:
    def empties(net: nn.BatchNorm2d) -> None:
        net.running_mean = torch.zeros(0)

    with pytest.raises(Failed, match="running_mean"):
        serve(empties)(nn.BatchNorm2d(3))


def test_an_error_after_a_change_of_shape_is_the_students_own(serve: Serve) -> None:
    def breaks(layer: nn.Linear) -> None:
        layer.weight.data = torch.zeros(0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        serve(breaks)(fixtures.linear(3, 2))


def test_what_shares_memory_goes_on_sharing_it(serve: Serve) -> None:
    def fill(base: torch.Tensor, view: torch.Tensor) -> bool:
        view.fill_(7)
        return bool((base[0] == 7).all())

    base = torch.zeros(3, 4)
    assert serve(fill)(base, base[0]) is True
    assert base[0].tolist() == [7] * 4 and base[1].tolist() == [0] * 4


def test_swapped_data_and_flags(serve: Serve) -> None:
    def change(layer: nn.Linear, other: torch.Tensor) -> None:
        layer.weight.data = layer.weight.data + 1
        layer.bias.requires_grad_(False)
        layer.eval()
        other.grad = torch.full_like(other, 2.0)

    layer, other = fixtures.linear(3, 2), torch.ones(2, requires_grad=True)
    alias = layer.weight.data
    serve(change)(layer, other)
    assert torch.equal(layer.weight, alias + 1)
    assert not layer.bias.requires_grad and not layer.training
    assert other.grad is not None and other.grad.tolist() == [2, 2]


def test_arrays_change_in_place(serve: Serve) -> None:
    def double(values: np.ndarray) -> np.ndarray:
        values *= 2
        return values

    values = np.arange(3.0)
    assert serve(double)(values) is values
    assert values.tolist() == [0, 2, 4]


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_as_it_would_here(serve: Serve, kind: str) -> None:
    def train(net: Any, loader: Any, criterion: Any, optimizer: Any) -> float:
        loss = torch.zeros(())
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(net(inputs), targets)
            loss.backward()
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.5
        return float(loss.detach())

    remote = serve(train)
    results = []
    for function in (train, remote):
        net = fixtures.TinyNet(seed=1).train()
        optimizer = OPTIMIZERS[kind](net.parameters())
        losses = [
            function(net, fixtures.batches(3), nn.CrossEntropyLoss(label_smoothing=0.1), optimizer)
            for _ in range(2)
        ]
        results.append((losses, net.state_dict(), optimizer.state_dict(), [p.grad for p in net.parameters()]))
    (losses, net, state, grads), (far_losses, far_net, far_state, far_grads) = results  # type: ignore[assignment]
    assert losses == pytest.approx(far_losses)
    assert all(torch.allclose(net[key], far_net[key]) for key in net)
    assert far_state["param_groups"] == state["param_groups"]
    for number, values in state["state"].items():
        for key, value in values.items():
            assert torch.allclose(torch.as_tensor(value), torch.as_tensor(far_state["state"][number][key]))
    assert all(torch.allclose(a, b) for a, b in zip(grads, far_grads, strict=True))  # type: ignore[arg-type, arg-type]


def test_an_object_is_the_same_one_from_call_to_call(serve: Serve) -> None:
    def count(net: Any) -> int:
        net.calls = [*getattr(net, "calls", []), 1]  # no plain data: it stays on that side
        return len(net.calls)

    remote, net, other = serve(count), fixtures.TinyNet(), fixtures.TinyNet()
    assert [remote(net), remote(net), remote(other), remote(net)] == [1, 2, 1, 3]
    assert not hasattr(net, "calls")


@pytest.mark.parametrize(
    "make", [lambda x: x, lambda x: 2 * x, lambda x: x.t()], ids=["leaf", "product", "view"]
)
def test_gradients_flow_through_a_remote_quantizer(serve: Serve, make: Callable[..., Any]) -> None:
    remote = serve(STE)
    gradients = []
    for apply in (STE.apply, remote.apply):
        x = fixtures.weights(4, 5).requires_grad_()
        got = apply(make(x), 3, False)
        assert got.requires_grad
        (got * torch.arange(20.0).reshape(got.shape)).sum().backward()
        gradients.append((got.detach(), x.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.allclose(gradients[0][1], gradients[1][1])  # type: ignore[arg-type, arg-type]


def test_gradients_of_several_results_and_of_a_modules_parameters(serve: Serve) -> None:
    def losses(net: nn.Linear, x: torch.Tensor) -> dict[str, Any]:
        out = net(x)
        return {"a": out.sum(), "b": [out.pow(2).sum(), out.detach()]}

    remote, net, x = serve(losses), fixtures.linear(3, 2), torch.ones(1, 3)
    gradients = []
    for function in (losses, remote):
        for part in (lambda got: got["a"], lambda got: got["b"][0], lambda got: got["a"] * got["b"][0]):
            net.zero_grad()
            got = function(net, x)
            assert not got["b"][1].requires_grad
            part(got).backward(retain_graph=True)
            part(got).backward()  # a second time through the same graph
            gradients.append(copy.deepcopy(net.weight.grad))
    assert all(torch.allclose(a, b) for a, b in zip(gradients[:3], gradients[3:], strict=True))  # type: ignore[arg-type, arg-type]


def test_an_earlier_notebooks_reference_runs_in_a_third_process(serve: Serve) -> None:
    def prune(layer: nn.Linear, q: float) -> str:
        layer.weight.data[layer.weight.abs() < layer.weight.abs().median()] = 0
        return f"pruned {q:g} in {os.getpid()}"

    def prune_all(net: Any) -> list[Any]:
        reference = _Reference("01_percentile_pruning", "prune")
        said = [reference(layer, q=50.0) for _, layer in prunable_layers(net)]
        with pytest.raises(RuntimeError, match="Opaque"):
            reference(iter(()), q=50.0)  # nothing that can be described
        return [*said, os.getpid(), int((net.head.weight == 0).sum())]

    net = fixtures.TinyNet()
    *said, student, zeros = serve(prune_all, reference=prune)(net)
    assert [text.split(" in ")[0] for text in said] == ["pruned 50"] * 5
    assert not {int(text.split(" in ")[1]) for text in said} & {student, os.getpid()}
    assert zeros == int((net.head.weight == 0).sum()) == 80  # of 162, those below the median


def test_a_reference_that_is_kept_busy_is_the_students_own_time(serve: Serve) -> None:
    def ask(net: nn.Linear) -> None:
        _Reference("05_asymmetric_quantization", "levels")(10**11)

    def count(bit: int) -> int:
        while True:
            bit += 1

    with pytest.raises(Lost) as lost:
        serve(ask, reference=count, seconds=3.0)(nn.Linear(2, 2))
    assert lost.value.kind == "timeout"


def test_what_a_reference_does_to_an_optimizer_comes_back(serve: Serve) -> None:
    def step(net: nn.Linear, optimizer: Any) -> None:
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    def use(net: nn.Linear, optimizer: Any, borrowed: Any = None) -> None:
        borrowed = borrowed or _Reference("02_masked_finetuning", "step")
        for _ in range(2):
            borrowed(net, optimizer)

    nets = [fixtures.linear(3, 2) for _ in range(2)]
    here, there = (torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in nets)
    use(nets[0], here, step)
    serve(use, reference=step)(nets[1], there)
    assert torch.equal(nets[0].weight, nets[1].weight)
    assert torch.equal(
        here.state[nets[0].weight]["momentum_buffer"], there.state[nets[1].weight]["momentum_buffer"]
    )


def test_a_net_whose_quantizer_is_the_students_own(serve: Serve) -> None:
    def train(net: Any, inputs: torch.Tensor) -> float:
        net(inputs).sum().backward()
        return float(net.conv1.conv.weight.grad.abs().sum())

    remote, ste = serve(train, STE)
    net, inputs = fixtures.TinyNet(bits=3, quantizer=ste.apply), torch.randn(2, 3, 8, 8)
    mine = fixtures.TinyNet(bits=3, quantizer=STE.apply)
    assert remote(net, inputs) == pytest.approx(train(mine, inputs), rel=1e-4)
    net.zero_grad()
    net(inputs).sum().backward()  # forward here, the quantizer there
    assert net.conv1.conv.weight.grad.abs().sum() > 0


def test_results_of_every_kind(serve: Serve) -> None:
    def give(kind: str, layer: Any) -> Any:
        return {
            "int": 3, "numpy": np.float32(1.5), "same": layer.weight, "parts": (layer, [layer.bias]),
            "generator": (x for x in "ab"), "class": STE,
        }[kind]  # fmt: skip

    remote, layer = serve(give), fixtures.linear(2, 2)
    assert remote("int", layer) == 3
    assert isinstance(remote("numpy", layer), np.float32)
    assert remote("same", layer) is layer.weight
    assert remote("parts", layer) == (layer, [layer.bias])
    assert isinstance(remote("generator", layer), Opaque)
    assert isinstance(remote("class", layer), Opaque)


def test_exceptions_arrive_with_their_kind(serve: Serve) -> None:
    class Odd(LookupError):  # noqa: N818
        pass

    def fail(how: str) -> None:
        errors: dict[str, BaseException] = {
            "value": ValueError("too small"), "stub": NotImplementedError(), "odd": Odd("my own"),
            "unicode": UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), "exit": SystemExit(0), "stop": KeyboardInterrupt(),
        }  # fmt: skip
        raise errors[how]

    remote = serve(fail)
    with pytest.raises(ValueError, match="too small"):
        remote("value")
    with pytest.raises(NotImplementedError):
        remote("stub")
    for how, name, kind in (
        ("odd", "Odd", LookupError),  # as a test's own `except LookupError` would have it
        ("unicode", "UnicodeDecodeError", UnicodeDecodeError),
        ("exit", "SystemExit", RuntimeError),
        ("stop", "KeyboardInterrupt", RuntimeError),
    ):
        with pytest.raises(kind) as caught:
            remote(how)
        assert type(caught.value).__name__ == name
    with pytest.raises(AttributeError):
        remote.nothing()


@pytest.mark.slow
def test_memory_time_and_the_end_are_told_apart(serve: Serve) -> None:
    def fail(how: str) -> None:
        if how == "memory":
            raise MemoryError
        if how == "end":
            os._exit(3)
        time.sleep(600)

    for how, kind in (("memory", "out of memory"), ("end", "crashed"), ("time", "timeout")):
        remote = serve(fail, seconds=0.5 if how == "time" else 60.0)
        with pytest.raises(Lost) as caught:
            remote(how)
        assert caught.value.kind == kind


def test_what_cannot_travel_is_the_tests_own_mistake(serve: Serve) -> None:
    def take(thing: Any) -> None:
        pass

    with pytest.raises(TypeError, match="cannot travel"):
        serve(take)(lambda: 1)


def test_names_callables_values_and_what_is_missing(serve: Serve) -> None:
    def known() -> None:
        """Nothing."""

    remote = serve(known)
    assert isinstance(remote, Remote) and remote.__name__ == "known"
    assert remote._calls.names(["unknown"]) == {}


@pytest.mark.parametrize("name", ["ValueError", "E" * 90, "E" * 5000])
def test_an_exceptions_name_and_message_are_200_characters_together(name: str, serve: Serve) -> None:
    def tells() -> None:
        raise type(name, (ValueError,), {})("w" * 5000)

    with pytest.raises(ValueError, match="www") as caught:
        serve(tells)()
    assert len(type(caught.value).__name__ + str(caught.value)) == 200


CELL = """\
def fails():
    raise ValueError("mine")
"""


@pytest.mark.parametrize(
    ("words", "name", "line"),
    [
        (CELL, "fails", (2, 'raise ValueError("mine")')),
        ("def alias(): pass", "known", None),
    ],
)
def test_only_names_and_lines_that_the_student_wrote_are_shown(
    words: str, name: str, line: tuple[int, str] | None, serve: Serve
) -> None:
    names: dict[str, Any] = {}
    exec(compile(CELL, "<cell 1>", "exec"), names)
    linecache.cache["<cell 1>"] = (len(CELL), None, CELL.splitlines(keepends=True), "<cell 1>")
    remote = serve(known=names["fails"], words=words)
    assert remote.__name__ == name
    with pytest.raises(ValueError, match="mine") as caught:
        remote()
    assert getattr(caught.value, "student_line", None) == line


@pytest.mark.parametrize(
    "question", [[], ["01"], ["01", "f", 3], [1, "f"], ["01", None], "ab", {"01": 1, "f": 2}, 5, None]
)
def test_a_question_for_no_reference_is_forged(question: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        there, accused = Channel(theirs), list[str]()
        there.send({"names": {"f": {"kind": "callable", "name": "f"}}})
        there.send({"reference": question, "changes": {}, "arguments": ["l", []], "own": {}})
        gone = ("crashed", "gone")
        calls = Calls(
            Channel(ours),
            time.monotonic() + 60,
            lambda *_: pytest.fail(),
            accused.append,
            lambda: gone,
            lambda words: True,
        )
        with pytest.raises(Lost) as caught:
            calls.names(["f"])["f"](1.0)
    assert caught.value.kind == "crashed" and len(accused) == 1
