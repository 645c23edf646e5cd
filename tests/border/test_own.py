"""A student's own objects in the hands of a lent function: what it does to them is done, as it would be here."""

from __future__ import annotations

import collections
import copy
import dataclasses
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("nbgrader")

from labkit.check import fixtures
from labkit.grading.worker import _Reference
from labkit.models import prunable_layers

Serve = Callable[..., Any]


def half(layer: Any, q: float = 50.0) -> float:
    """What is lent in these tests."""
    layer.weight.data[layer.weight.abs() < layer.weight.abs().quantile(q / 100)] = 0
    return q


class Box:
    def __init__(self, weight: Tensor) -> None:
        self.weight = weight


class Slots:
    __slots__ = ("weight",)

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight


class Property:
    def __init__(self, layer: Any) -> None:
        self._layer = layer

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self._layer.weight
        return weight


class MyLinear(nn.Linear):
    """A layer of the student's own class."""


class MyLayer(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


@dataclasses.dataclass(frozen=True)
class Frozen:
    weight: Tensor


Named = collections.namedtuple("Named", ["weight", "name"])


def one_layer(net: Any) -> Any:
    """All weights in one layer of their own."""
    weights = [layer.weight for _, layer in prunable_layers(net)]
    one = nn.Linear(sum(map(torch.numel, weights)), 1, bias=False)
    one.weight.data = torch.cat([weight.detach().flatten() for weight in weights]).reshape(1, -1)
    return one


def own_layer(net: Any, kind: type = nn.Linear) -> Any:
    layer = kind(*reversed(net.hidden.weight.shape))
    layer.weight.data.copy_(net.hidden.weight.data)
    return layer


OWN: dict[str, Callable[[Any], Any]] = {
    "a namespace with the layer's parameter": lambda net: types.SimpleNamespace(weight=net.head.weight),
    "a namespace with its data": lambda net: types.SimpleNamespace(weight=net.head.weight.data),
    "a part of its data": lambda net: types.SimpleNamespace(weight=net.head.weight.data[1:]),
    "a namespace with a copy": lambda net: types.SimpleNamespace(weight=net.head.weight.detach().clone()),
    "a box": lambda net: Box(net.head.weight),
    "slots": lambda net: Slots(net.head.weight),
    "a property": lambda net: Property(net.head),
    "a frozen dataclass": lambda net: Frozen(net.head.weight),
    "a named tuple": lambda net: Named(net.head.weight, "head"),
    "a class": lambda net: type("Held", (), {"weight": net.head.weight})(),
    "a layer of its own": own_layer,
    "a layer of an own class": lambda net: own_layer(net, MyLinear),
    "a module of an own class": lambda net: MyLayer(net.head.weight.detach()),
    "a deep copy of the layer": lambda net: copy.deepcopy(net.head),
    "a convolution's copy": lambda net: copy.deepcopy(net.conv1.conv),
    "a layer of a deep copy": lambda net: copy.deepcopy(net).head,
    "all weights in one layer": one_layer,
}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_a_lent_function_works_on_an_own_object(serve: Serve, make: Callable[[Any], Any]) -> None:
    def prune(net: Any, lent: Any = None) -> list[Any]:
        own = make(net)
        given = (lent or _Reference("01_percentile_pruning", "half"))(own, q=60.0)
        weight = own.weight.detach().clone()
        for _, layer in prunable_layers(net):
            layer.weight.data.mul_(2)  # what is done afterwards goes on from there
        return [given, weight]

    here, there = fixtures.TinyNet(seed=1), fixtures.TinyNet(seed=1)
    (given, weight), (far_given, far_weight) = prune(here, half), serve(prune, reference=half)(there)
    assert far_given == given == 60.0
    assert torch.equal(far_weight, weight) and int((weight == 0).sum()) > 5
    for (name, mine), theirs in zip(here.state_dict().items(), there.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_copy_is_pruned_and_its_state_is_loaded(serve: Serve) -> None:
    def prune(net: Any, lent: Any = None) -> None:
        other = copy.deepcopy(net)
        for _, layer in prunable_layers(other):
            (lent or _Reference("01_percentile_pruning", "half"))(layer)
        net.load_state_dict(other.state_dict())

    here, there = fixtures.TinyNet(seed=2), fixtures.TinyNet(seed=2)
    prune(here, half)
    serve(prune, reference=half)(there)
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(here.parameters(), there.parameters(), strict=True)
    )
    assert int((there.head.weight == 0).sum()) == there.head.weight.numel() // 2


def test_a_copy_is_trained_with_an_own_optimizer(serve: Serve) -> None:
    def train(net: Any, batches: Any, criterion: Any, optimizer: Any) -> None:
        net.train()
        for inputs, targets in batches:
            optimizer.zero_grad()
            criterion(net(inputs), targets).backward()
            optimizer.step()

    def use(net: Any, batches: Any, lent: Any = None) -> list[Any]:
        other = copy.deepcopy(net).eval()
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        lent = lent or _Reference("02_masked_finetuning", "train")
        for _ in range(2):
            lent(other, list(batches), nn.CrossEntropyLoss(label_smoothing=0.1), optimizer)
        momentum = optimizer.state[other.head.weight]["momentum_buffer"]
        return [other.head.weight.detach(), momentum, other.bn1.running_mean, other.training]

    remote = serve(use, reference=train)
    here = use(fixtures.TinyNet(seed=3), list(fixtures.batches(3)), train)
    there = remote(fixtures.TinyNet(seed=3), list(fixtures.batches(3)))
    for mine, theirs in zip(here, there, strict=True):
        assert torch.allclose(torch.as_tensor(mine), torch.as_tensor(theirs))


def test_a_buffer_beside_the_state_outlives_a_lent_function(serve: Serve) -> None:
    def train(net: Any) -> None:
        net.train()

    def use(net: Any) -> list[bool]:
        net.head.register_buffer("keep", net.head.weight.detach() > 0, persistent=False)
        _Reference("02_masked_finetuning", "train")(net)
        return [hasattr(net.head, "keep"), net.training]

    assert serve(use, reference=train)(fixtures.TinyNet().eval()) == [True, True]


def test_own_objects_that_know_each_other_cross_once(serve: Serve) -> None:
    def count(pair: Any) -> list[bool]:
        pair.mine.weight += 1
        return [pair.other.pair is pair, pair.other.mine is pair.mine]

    def use(layer: Any, lent: Any = None) -> list[Any]:
        mine = types.SimpleNamespace(weight=torch.ones(2))
        pair = types.SimpleNamespace(mine=mine, other=types.SimpleNamespace(mine=mine))
        pair.other.pair = pair
        same = (lent or _Reference("01_percentile_pruning", "count"))(pair)
        return [same, mine.weight.tolist()]

    layer = nn.Linear(2, 2)
    assert serve(use, reference=count)(layer) == use(layer, count) == [[True, True], [2, 2]]


@pytest.mark.parametrize(
    "kind",
    [["os", "system"], ["labkit.grading.engine", "Engine"], ["torch.nn.functional", "F"], ["torch", "load"]],
)
def test_only_modules_and_optimizers_are_made_of_their_class(kind: list[str]) -> None:
    from labkit.grading.arrived import Held
    from labkit.grading.own import _made

    assert type(_made(*kind)) is Held
    assert type(_made("torch.nn.modules.linear", "Linear")) is nn.Linear


def test_a_property_that_gives_a_new_object_each_time_ends(serve: Serve) -> None:
    class Chain:
        weight = torch.ones(3)

        @property
        def next(self) -> Chain:
            return Chain()

    def use(layer: Any) -> float:
        return float(_Reference("01_percentile_pruning", "half")(Chain(), q=50.0))

    assert serve(use, reference=half)(nn.Linear(2, 2)) == 50.0
