"""What is passed comes back as the function left it: the same call here and across the border, compared."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

pytest.importorskip("nbgrader")

import labkit
from labkit.check import fixtures
from labkit.check.engine import Failed
from labkit.grading.plain import MOST_ITEMS, Opaque
from labkit.grading.worker import _Reference

Serve = Callable[..., Any]


def state(value: Any) -> Any:
    """All that can be seen of a value, in a form that can be compared."""
    if isinstance(value, torch.Tensor):
        about = (type(value).__name__, value.dtype, tuple(value.shape), value.requires_grad)
        return *about, value.detach().double().numpy().tobytes(), state(value.grad if value.is_leaf else None)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, nn.Module):
        plain = {k: state(v) for k, v in vars(value).items() if not k.startswith("_") and not callable(v)}
        parts = [list(value.named_parameters()), list(value.named_buffers()), list(value.named_children())]
        return plain, [(name, state(part)) for every in parts for name, part in every]
    if isinstance(value, optim.Optimizer):
        groups = [{k: state(v) for k, v in group.items()} for group in value.param_groups]
        return groups, [(state(p), state(values)) for p, values in value.state.items()]
    if isinstance(value, dict):
        return {key: state(item) for key, item in value.items()}
    return [state(item) for item in value] if isinstance(value, list | tuple) else value


def same(
    serve: Serve, function: Callable[..., Any], make: Callable[[], tuple[Any, ...]], calls: int = 1
) -> Any:
    """Call it here and there on equal arguments; everything must then be equal. Returns what was passed."""
    here, there, remote = make(), make(), serve(function)
    for _ in range(calls):
        assert state(remote(*there)) == state(function(*here))
        assert state(list(there)) == state(list(here))
    return there


def test_arrays_of_every_layout(serve: Serve) -> None:
    def fill(*arrays: np.ndarray) -> list[Any]:
        for array in arrays:
            array += 1
        return [array.sum().item() for array in arrays]

    same(serve, fill, lambda: (
        np.zeros((0, 3)), np.array(2.0), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(8)[::-2],
        np.arange(4, dtype=">i4"),
    ))  # fmt: skip


def test_tensors_of_every_kind(serve: Serve) -> None:
    def fill(*tensors: torch.Tensor) -> list[Any]:
        for tensor in tensors:
            tensor.data.fill_(1)
        return [list(tensor.shape) for tensor in tensors]

    same(serve, fill, lambda: (
        torch.tensor(2.0), torch.zeros(0, 3), torch.arange(12.0).reshape(3, 4).t(), torch.arange(9)[1::2],
        torch.ones(2, dtype=torch.bfloat16), torch.tensor([True, False]), torch.randn(2).requires_grad_(),
        fixtures.weights(2, 2).requires_grad_() * 1, torch.tensor([float("nan"), float("inf")]),
    ))  # fmt: skip


def test_views_of_one_storage_in_several_arguments(serve: Serve) -> None:
    def write(base: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        parts["row"].fill_(5)
        parts["bits"][0] = 0
        base[2, 2] = parts["column"].sum()

    def make() -> tuple[Any, ...]:
        base = torch.ones(3, 3)
        return base, {"row": base[1], "column": base[:, 0], "bits": base.view(torch.int32)[0]}

    base, parts = same(serve, write, make, calls=2)
    base[1, 1] = 77.0
    assert parts["row"][1] == 77


def test_one_object_in_two_arguments_is_one_object(serve: Serve) -> None:
    def tell(net: nn.Module, layers: list[nn.Module], weight: torch.Tensor, optimizer: Any) -> list[bool]:
        return [
            layers[0] is net[0],
            weight is net[0].weight,
            optimizer.param_groups[0]["params"][0] is weight,
        ]

    def make() -> tuple[Any, ...]:
        net = nn.Sequential(fixtures.linear(3, 2))
        return net, [net[0]], net[0].weight, optim.SGD(net.parameters(), lr=0.1)

    same(serve, tell, make)
    assert serve(tell)(*make()) == [True, True, True]


def test_flags_and_gradients_are_set_and_cleared(serve: Serve) -> None:
    def change(layer: nn.Linear, x: torch.Tensor, frozen: torch.Tensor) -> None:
        assert layer.weight.grad is not None
        layer.weight.grad = None
        layer.bias.grad.mul_(2)
        x.grad = x.detach() * 3
        x.requires_grad_(False)
        frozen.requires_grad_()

    def make() -> tuple[Any, ...]:
        layer = fixtures.linear(3, 2)
        layer(torch.ones(1, 3)).sum().backward()
        return layer, torch.ones(2, requires_grad=True), torch.ones(2)

    same(serve, change, make)


def test_batch_norms_statistics_and_modes(serve: Serve) -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        net.train()
        net[0](x)
        net[1].eval()
        return net(x).detach()

    same(serve, forward, lambda: (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval(), torch.ones(2, 3, 4, 4)))


def test_own_attributes_stay_on_the_other_side(serve: Serve) -> None:
    def note(layer: nn.Linear) -> str:
        before = getattr(layer, "note", "nothing")
        layer.note, layer.mask, layer.counts = "new", layer.weight.detach() > 0, np.arange(3)  # type: ignore[assignment, assignment]
        return str(before)

    layer, remote = fixtures.linear(3, 2), serve(note)
    assert [remote(layer), remote(layer)] == ["nothing", "new"]
    assert not {"note", "mask", "counts"} & vars(layer).keys()


def test_new_data_and_then_changes_in_it(serve: Serve) -> None:
    def swap(layer: nn.Linear, times: torch.Tensor) -> None:
        layer.weight.data = layer.weight.data.flip(1) * times
        layer.weight.data += 1
        times.data = torch.zeros(())

    same(serve, swap, lambda: (fixtures.linear(3, 2), torch.tensor(2.0)), calls=1)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_an_optimizer_with_groups_that_change(serve: Serve, kind: str) -> None:
    def step(net: nn.Module, optimizer: optim.Optimizer, x: torch.Tensor) -> int:
        optimizer.zero_grad()
        net(x).pow(2).sum().backward()
        optimizer.step()
        optimizer.param_groups[1]["lr"] *= 0.5
        return len(optimizer.param_groups)

    def make() -> tuple[Any, ...]:
        net = nn.Sequential(fixtures.linear(3, 4), fixtures.linear(4, 2, seed=1))
        groups = [{"params": [net[0].weight]}, {"params": [net[0].bias, net[1].bias], "weight_decay": 0.1}]
        made = optim.SGD(groups, lr=0.1, momentum=0.9) if kind == "sgd" else optim.Adam(groups, lr=0.1)  # type: ignore[arg-type, arg-type]
        return net, made, torch.ones(2, 3)

    net, optimizer, _ = same(serve, step, make, calls=3)
    assert net[0].weight in optimizer.state


def test_a_tensor_that_took_part_in_a_graph_comes_again(serve: Serve) -> None:
    weight = torch.ones(2, requires_grad=True)

    def scale(x: torch.Tensor) -> torch.Tensor:
        return x.mul_(weight).sum() if not x.requires_grad else (3 * x).sum()

    remote, x = serve(scale), torch.ones(2)
    remote(x)
    again = x.detach().requires_grad_()  # and the same object, too
    x.requires_grad_()
    for one in (x, again):
        remote(one).backward()
        assert one.grad is not None and one.grad.tolist() == [3, 3]


def test_the_callers_no_grad_holds_on_the_other_side(serve: Serve) -> None:
    def prune(layer: nn.Linear) -> torch.Tensor:
        layer.weight.mul_(0.5)  # a leaf: outside of no_grad this is an error
        return layer.weight.sum()

    remote, layer = serve(prune), fixtures.linear(3, 2)
    with pytest.raises(RuntimeError, match="leaf"):
        remote(layer)
    with torch.no_grad():
        assert not remote(layer).requires_grad
    assert torch.equal(layer.weight, 0.5 * fixtures.linear(3, 2).weight)


def test_the_callers_seed_holds_on_the_other_side(serve: Serve) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    remote = serve(draw)
    for number, seed in enumerate((random.seed, np.random.seed, torch.manual_seed)):
        seed(3)
        first, second = remote(), remote()
        seed(3)
        again = remote()
        seed(4)
        assert first[number] == again[number]
        assert len({first[number], second[number], remote()[number]}) == 3


def test_a_function_that_draws_nothing_leaves_the_tests_random_numbers_alone(serve: Serve) -> None:
    def count(x: torch.Tensor) -> int:
        return x.numel()

    remote = serve(count)
    labkit.seed_everything(5)
    wanted = [random.random(), np.random.rand(), float(torch.rand(()))]
    labkit.seed_everything(5)
    remote(torch.ones(3))
    assert [random.random(), np.random.rand(), float(torch.rand(()))] == wanted


def test_what_a_reference_changes_on_the_way_and_what_is_changed_after_it(serve: Serve) -> None:
    def reference(layer: nn.Linear) -> float:
        layer.weight.data *= 2
        return float(layer.weight.detach().sum())

    def use(layer: nn.Linear, borrowed: Any = None) -> float:
        borrowed = borrowed or _Reference("01_percentile_pruning", "double")
        layer.weight.data = layer.weight.data + 1
        layer.weight.grad = torch.ones_like(layer.weight)
        total = borrowed(layer)
        layer.weight.data[0] = 0
        layer.weight.grad[0] = 0
        return total

    here, there = fixtures.linear(3, 2), fixtures.linear(3, 2)
    total = use(here, reference)
    assert serve(use, reference=reference)(there) == pytest.approx(total)
    assert state(there) == state(here)


def test_a_storage_that_is_made_larger_is_told(serve: Serve) -> None:
    def out(x: torch.Tensor, into: torch.Tensor) -> None:
        torch.add(x, 1, out=into)

    into = torch.empty(0)
    with pytest.raises(Failed, match=r"after the call, a tensor of shape \(0,\) has the shape \(3,\) now"):
        serve(out)(torch.arange(3.0), into)
    assert into.numel() == 0


def test_errors_before_and_after_the_call_are_the_students_own(serve: Serve) -> None:
    class Broken(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise ValueError("no items")

    def give(value: Any) -> Any:
        return Broken()

    remote = serve(give)
    with pytest.raises(ValueError, match="no items"):
        remote(1)
    with pytest.raises(AttributeError, match="nothing"):
        remote(remote.nothing)
    with pytest.raises(KeyError) as caught:
        serve(lambda_of(KeyError("a")))()
    assert str(caught.value) == "'a'"


def lambda_of(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "make",
    [
        lambda: [0.1] * (MOST_ITEMS + 1),
        lambda: 10**5000,
        lambda: "x" * (20 * MOST_ITEMS + 100),
        lambda: [np.float32(0)] * 120_000,
        lambda: torch.zeros(1).expand(2**28),
    ],
    ids=["items", "digits", "text", "numpy", "bytes"],
)
@pytest.mark.slow
def test_what_is_too_much_is_opaque_and_no_forgery(serve: Serve, make: Callable[[], Any]) -> None:
    def give() -> Any:
        return make()

    got = serve(give)()
    last = got[-1] if isinstance(got, list) else got
    assert isinstance(last, Opaque)


def test_a_list_of_all_weights_of_the_network_arrives(serve: Serve) -> None:
    def give() -> list[float]:
        return torch.linspace(0, 1, 270_000).tolist()

    got = serve(give)()
    assert len(got) == 270_000 and got[-1] == 1.0
