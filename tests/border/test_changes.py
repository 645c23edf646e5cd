"""What the side that knows the tests takes over of what a student's code has done, and what it only tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn.utils import prune

pytest.importorskip("nbgrader")

from labkit.check import fixtures
from labkit.check.engine import Failed

Serve = Callable[..., Any]
Change = Callable[[Any, Any], object]


class Start:
    """A net and an optimizer that has made a step; `facts` is all that torch believes of them."""

    def __init__(self, make: Callable[..., optim.Optimizer] = optim.SGD, **options: Any) -> None:
        self.net = fixtures.TinyNet(seed=1)
        self.net.register_buffer("seen", torch.zeros(4, dtype=torch.bool))
        self.optimizer = make(self.net.parameters(), lr=0.1, **options)
        self.net(torch.ones(2, 3, 8, 8)).sum().backward()
        self.optimizer.step()

    def facts(self) -> Any:
        settings = [
            {key: value for key, value in vars(part).items() if isinstance(value, int | float | str | tuple)}
            for part in self.net.modules()
        ]
        shapes = {
            name: (value.shape, value.dtype, value.stride()) for name, value in self.net.state_dict().items()
        }
        groups = [
            {k: repr(v) for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups
        ]
        state = [
            {k: (getattr(v, "shape", v), getattr(v, "dtype", None)) for k, v in one.items()}
            for one in self.optimizer.state.values()
        ]
        hidden = [vars(part).keys() & part._parameters.keys() for part in self.net.modules()]
        parameters = [[id(p) for p in group["params"]] for group in self.optimizer.param_groups]
        return settings, shapes, hidden, groups, state, parameters


def setting(part: str, key: str, value: Any) -> Change:
    return lambda net, optimizer: setattr(net.get_submodule(part), key, value)


def told(key: str, value: Any) -> Change:
    """A setting of the optimizer."""
    return lambda net, optimizer: [group.update({key: value}) for group in optimizer.param_groups]


def remembers(value: Callable[[torch.Tensor], Any]) -> Change:
    def change(net: Any, optimizer: Any) -> None:
        for parameter in net.parameters():
            optimizer.state[parameter]["momentum_buffer"] = value(parameter)

    return change


def new(make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def change(net: Any, optimizer: Any) -> None:
        net.head.weight = nn.Parameter(make(net.head.weight.detach()), False)

    return change


FACTS: dict[str, tuple[Change, str]] = {
    "a dilation beyond memory": (setting("conv1.conv", "dilation", (2**63 - 1, 2**63 - 1)), "'dilation'"),
    "a stride of nothing": (setting("conv1.conv", "stride", (0, 0)), "'stride'"),
    "a padding mode of another name": (setting("conv1.conv", "padding_mode", "x"), "'padding_mode'"),
    "groups": (setting("conv1.conv", "groups", 3), "'groups'"),
    "another kind of number": (setting("bn1", "eps", 1), "'eps'"),
    "no number": (setting("bn1", "momentum", None), "'momentum'"),
    "a tensor as a setting": (setting("bn1", "eps", torch.zeros(2)), "'eps'"),
    "a setting is gone": (lambda net, _: delattr(net.bn1, "eps"), "'eps'"),
    "fused": (told("fused", True), "'fused'"),
    "foreach": (told("foreach", True), "'foreach'"),
    "nesterov": (told("nesterov", True), "'nesterov'"),
    "a learning rate that is a tensor": (told("lr", torch.zeros(9)), "'lr'"),
    "another group": (lambda _, optimizer: optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]}), "groups"),
    "other parameters": (lambda _, optimizer: optimizer.param_groups[0]["params"].append(nn.Parameter(torch.ones(2))), "other parameters"),
    "a short memory": (remembers(lambda p: torch.zeros(1, p.numel())[:, :1]), "remembers"),
    "a memory of another dtype": (remembers(lambda p: torch.zeros(p.shape, dtype=torch.float16)), "remembers"),
    "a memory that is no tensor": (remembers(lambda p: "x"), "remembers"),
    "an empty weight": (new(lambda w: w[:0]), "shape"),
    "a weight of another dtype": (new(lambda w: w.long()), "dtype"),
    "a weight's data moved into another shape": (lambda net, _: setattr(net.head.weight, "data", torch.ones(3)), "shape"),
    "statistics of another shape": (setting("bn1", "running_mean", torch.zeros(0)), "shape"),
    "a bias where none was": (setting("conv1.conv", "bias", nn.Parameter(torch.ones(1))), "one now"),
    "a weight that is hidden": (lambda net, _: vars(net.head).update(weight=torch.ones(1)), "hidden"),
    "a part is another": (setting("", "head", nn.Linear(2, 2)), "part 'head'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), FACTS.values(), ids=FACTS)
def test_a_fact_is_told_and_not_applied(serve: Serve, change: Change, sentence: str) -> None:
    start = Start(momentum=0.9)
    before = start.facts()

    def spoil(net: Any, optimizer: Any) -> None:
        change(net, optimizer)

    with pytest.raises(Failed, match=sentence):
        serve(spoil)(start.net, start.optimizer)
    assert start.facts() == before


def test_the_facts_are_ones_where_they_are_made() -> None:
    """The control: without a border between them each of these changes what torch believes."""
    for name, (change, _) in FACTS.items():
        start = Start(momentum=0.9)
        before, parts = start.facts(), [id(part) for part in start.net.modules()]
        change(start.net, start.optimizer)
        assert start.facts() != before or parts != [id(part) for part in start.net.modules()], name


def test_contents_and_numbers_are_taken_over(serve: Serve) -> None:
    def train(net: Any, optimizer: Any) -> None:
        net.eval()
        optimizer.param_groups[0].update(lr=0.5, betas=(0.5, 0.6))
        net(torch.ones(2, 3, 8, 8)).sum().backward()
        optimizer.step()
        optimizer.state[net.head.weight]["mask"] = net.head.weight > 0
        net.bn1.running_mean += 1
        net.seen[1] = True
        net.head.weight.requires_grad_(False)

    here, there = Start(optim.Adam), Start(optim.Adam)
    train(here.net, here.optimizer)
    serve(train)(there.net, there.optimizer)
    assert there.facts()[:-1] == here.facts()[:-1]
    for (name, mine), theirs in zip(
        here.net.state_dict().items(), there.net.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    for mine, theirs in zip(here.optimizer.state.values(), there.optimizer.state.values(), strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert not there.net.head.weight.requires_grad


def test_new_names_arrive_without_what_they_hold(serve: Serve) -> None:
    def add(net: Any, optimizer: Any) -> None:
        net.register_buffer("mask", torch.ones(3))
        net.extra = nn.Parameter(torch.ones(5))
        net.note = "anything"

    start = Start()
    serve(add)(start.net, start.optimizer)
    assert {"mask", "extra"} <= start.net.state_dict().keys()
    assert start.net.mask.numel() == start.net.extra.numel() == 0
    assert not hasattr(start.net, "note")


def test_what_was_added_is_there_at_the_next_call(serve: Serve) -> None:
    def count(net: Any, optimizer: Any) -> list[Any]:
        net.register_buffer(
            "seen_here", torch.cat([getattr(net, "seen_here", torch.zeros(0)), torch.ones(1)])
        )
        net.notes = [*getattr(net, "notes", []), len(net.seen_here)]
        return net.notes

    start, remote = Start(), serve(count)
    assert [remote(start.net, start.optimizer) for _ in range(3)] == [[1], [1, 2], [1, 2, 3]]


def test_a_weight_that_torchs_pruning_moved_is_still_looked_at(serve: Serve) -> None:
    def pruned(net: Any, optimizer: Any) -> None:
        prune.l1_unstructured(net.head, "weight", 0.5)  # and left as it is

    start = Start()
    serve(pruned)(start.net, start.optimizer)
    assert int((start.net.head.weight == 0).sum()) == start.net.head.weight.numel() // 2
    assert "head.weight_orig" in start.net.state_dict()


def test_a_truth_value_is_one_or_zero(serve: Serve) -> None:
    def forge(net: Any, optimizer: Any) -> None:
        net.seen.view(torch.uint8).fill_(7)

    start = Start()
    serve(forge)(start.net, start.optimizer)
    assert start.net.seen.view(torch.uint8).tolist() == [1, 1, 1, 1]


def test_arrays_keep_their_shape_and_dtype(serve: Serve) -> None:
    def fill(array: np.ndarray) -> None:
        array[:] = 3

    array = np.zeros(4, np.float32)
    serve(fill)(array)
    assert array.tolist() == [3.0] * 4


@pytest.mark.parametrize("persistent", [True, False])
def test_a_buffer_that_is_no_part_of_the_state_stays_on_the_students_side(
    serve: Serve, persistent: bool
) -> None:
    def prune(layer: Any) -> list[str]:
        layer.register_buffer("keep", layer.weight.detach().abs() > 0.1, persistent=persistent)
        layer.weight.data.mul_(layer.keep)
        return sorted(layer.state_dict())

    layer, remote = nn.Linear(4, 3), serve(prune)
    for _ in range(2):  # the second time it is there already
        assert remote(layer) == sorted({"weight", "bias", *(["keep"] if persistent else [])})
        assert ("keep" in layer.state_dict()) is persistent


def test_a_buffer_outside_of_the_state_that_a_test_has_passed_is_taken_over(serve: Serve) -> None:
    def count(layer: Any) -> None:
        layer.steps += 1
        layer.register_buffer("own", torch.zeros(2), persistent=False)
        layer.register_buffer("steps", layer.steps + 1, persistent=False)

    layer, remote = nn.Linear(4, 3), serve(count)
    layer.register_buffer("steps", torch.zeros(2), persistent=False)
    for calls in (1, 2):
        remote(layer)
        assert layer.steps.tolist() == [2 * calls, 2 * calls]
        assert sorted(dict(layer.named_buffers())) == ["steps"] and "steps" not in layer.state_dict()
