"""What a student's function has changed, taken over by the side that knows the tests.

That side computes with its originals afterwards, and torch believes what they say of themselves. So only
contents are taken over: of tensors and arrays, in the shape and kind that they had, and numbers under names
that were there. Every other change is a fact, told in a `Rebuilt`, and never applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from labkit.grading.arguments import PLAIN, Table, bytes_of
from labkit.grading.channel import Malformed
from labkit.grading.plain import Decoder

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of a batch norm
MOST_NAME = 100  # characters of a name that the student's code gave to a parameter or a buffer


class Rebuilt(Exception):  # noqa: N818 (it says what is the case)
    """A net lost a layer or got another in its place, a tensor has another shape, a setting was changed.

    Then no test says anything: an empty tensor agrees with everything that it is compared with.
    """


def apply(changed: Any, table: Table, storages: Mapping[int, Tensor], buffers: Sequence[bytearray]) -> None:
    """Bring the originals up to date. storages: their bytes by number, as `storage_bytes` gives them.

    Raises Rebuilt for a fact that no test expects, Malformed for what no honest process sends; possibly with
    a part already applied: the call has then failed anyway.
    """
    decoder = Decoder(buffers, table.thing)
    try:
        for number, tree in changed["storages"]:
            storages[number].copy_(
                torch.from_numpy(_like_array(storages[number].numpy(), decoder.decode(tree)))
            )
        for tensor in table.tensors:
            if tensor.dtype == torch.bool:  # a byte of 2 is no truth value
                bytes_of(tensor.untyped_storage()).clamp_(max=1)
        for number, tree, moved, requires_grad, gradient in changed["tensors"]:
            _apply_tensor(table.thing("T", number), decoder, tree, moved, requires_grad, gradient)
        for number, tree in changed["arrays"]:
            array = table.thing("A", number)
            array[...] = _like_array(array, decoder.decode(tree))
        for number, tree in changed["objects"]:
            thing = table.thing("O", number)
            (_apply_optimizer if isinstance(thing, Optimizer) else _apply_module)(
                thing, decoder.decode(tree), table
            )
    except (Malformed, Rebuilt):
        raise
    except Exception as error:  # whatever forged changes make torch say
        raise Malformed(f"changes that cannot be made ({type(error).__name__})") from None


def _apply_tensor(
    tensor: Tensor, decoder: Decoder, tree: Any, moved: Any, requires_grad: Any, gradient: Any
) -> None:
    if moved:
        tensor.data = _like(tensor, decoder.decode(tree), "a tensor", or_floating=True)
    if tensor.is_leaf:
        tensor.requires_grad_(requires_grad is True)
        new = decoder.decode(gradient)
        if new is not tensor.grad:
            tensor.grad = None if new is None else _like(tensor, new, "a gradient")


def _like(original: Tensor, value: Any, what: str, or_floating: bool = False) -> Tensor:
    """`value`, if it is a tensor of that shape and dtype; or_floating: or of another precision, which is a
    mistake that checks name, and that every operation of torch looks at."""
    if not isinstance(value, Tensor):
        raise Rebuilt(f"{what} is no tensor any more")
    if value.shape != original.shape:
        raise Rebuilt(f"{what} of shape {tuple(original.shape)} has the shape {tuple(value.shape)} now")
    floating = or_floating and original.dtype.is_floating_point and value.dtype.is_floating_point
    if value.dtype != original.dtype and not floating:
        raise Rebuilt(f"{what} of dtype {original.dtype} has the dtype {value.dtype} now")
    return value


def _like_array(original: np.ndarray, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or (value.shape, value.dtype) != (original.shape, original.dtype):
        raise Rebuilt("an array has another shape or dtype than it had")
    return value


# ---- modules


def _apply_module(module: nn.Module, told: Any, table: Table) -> None:
    members, rest = told
    if not (isinstance(members, dict) and isinstance(rest, dict)):
        raise Malformed("a module without attributes")
    for key, layer in module._modules.items():
        if layer is not None and members["_modules"].get(key, [None])[0] is not layer:
            raise Rebuilt(f"the net's part {key!r} is gone, or another one is in its place")
    for name in ("_parameters", "_buffers"):
        _apply_members(module, getattr(module, name), members[name], rest, table)
    _apply_settings(module, rest)


def _apply_members(
    module: nn.Module, mine: dict[str, Any], told: Mapping[str, Any], rest: Mapping[str, Any], table: Table
) -> None:
    """A module's parameters or buffers. rest: its other attributes, where `weight` may have gone."""
    now: dict[str, Any] = {}
    for key, (value, parameter, requires_grad) in told.items():  # in the student's order
        if not isinstance(key, str) or len(key) > MOST_NAME:
            raise Malformed("a name that is none")
        known = mine.get(key)
        if getattr(known, "is_placeholder", False):
            value = known
        elif key in mine and value is not known:
            if known is None:
                raise Rebuilt(f"a layer that had no {key} has one now")
            value = _like(known, value, f"a layer's {key}", or_floating=True)
            if parameter is True and not isinstance(value, nn.Parameter):
                value = nn.Parameter(value, requires_grad is True)
        elif key not in mine and not any(value is one for one in table.tensors):
            value = _placeholder(parameter)  # that it is there is all that a test may want to know
        now[key] = value
    for key in mine.keys() - now.keys():
        attribute = rest.get(key) or [None]
        if isinstance(mine[key], Tensor) and isinstance(attribute[0], Tensor):
            vars(module)[key] = _like(mine[key], attribute[0], f"a layer's {key}")
    mine.clear()
    mine.update(now)


def _placeholder(parameter: Any) -> Tensor:
    value = nn.Parameter(torch.empty(0), False) if parameter is True else torch.empty(0)
    value.is_placeholder = True  # type: ignore[attr-defined]
    return value


def _apply_settings(module: nn.Module, rest: Mapping[str, Any]) -> None:
    """Attributes that are told. `training` is a fact that tests ask for; no other setting may change."""
    mine = vars(module)
    for key in rest:
        if key in module._parameters or key in module._buffers:
            raise Rebuilt(f"a layer's {key} is hidden by something else")
    for key, known in list(mine.items()):
        if key.startswith("_"):
            continue  # torch's own, such as hooks
        now = (rest.get(key) or [...])[0]
        if key == "training":
            mine[key] = now is True
        elif isinstance(known, Tensor):
            mine[key] = _like(known, now, f"a layer's {key}")
        elif isinstance(known, np.ndarray):
            mine[key] = _like_array(known, now)
        elif _plain(known) and not _same(now, known):
            raise Rebuilt(f"the setting {key!r} of a {type(module).__name__} was changed")


# ---- optimizers


def _apply_optimizer(optimizer: Optimizer, told: Any, table: Table) -> None:
    groups, state = told
    if len(groups) != len(optimizer.param_groups):
        raise Rebuilt("the optimizer has other groups of parameters than it had")
    for mine, group in zip(optimizer.param_groups, groups, strict=True):
        for key in mine:
            mine[key] = _setting(key, mine[key], group.get(key, ...), table)
    new: list[tuple[Tensor, dict[str, Any]]] = []
    for parameter, values in state:
        if isinstance(parameter, Tensor) and any(parameter is one for one in table.tensors):
            new.append((parameter, {str(key): _state(parameter, values[key]) for key in values}))
    optimizer.state.clear()
    optimizer.state.update(new)


def _setting(key: str, known: Any, now: Any, table: Table) -> Any:
    """A number may change, such as the learning rate. Nothing else: `fused` decides who reads memory how."""
    if key == "params":
        lent = isinstance(now, list) and all(any(one is tensor for tensor in table.tensors) for one in now)
        if not lent:
            raise Rebuilt("the optimizer has other parameters than it was given")
        return now
    if _number(known) and _number(now):
        return now
    several = isinstance(known, tuple) and isinstance(now, tuple) and len(known) == len(now)
    if several and all(map(_number, (*known, *now))):
        return now
    if not _same(now, known):
        raise Rebuilt(f"the optimizer's setting {key!r} was changed")
    return now


def _state(parameter: Tensor, value: Any) -> Any:
    """What an optimizer remembers of a parameter: numbers, and tensors of its shape."""
    if value is None or _number(value):
        return value
    if isinstance(value, Tensor) and value.shape == () and value.dtype.is_floating_point:
        return value  # Adam's count of steps
    if isinstance(value, Tensor) and value.shape == parameter.shape and value.dtype == torch.bool:
        return value  # a mask that the student's code keeps there
    return _like(parameter, value, "what the optimizer remembers of a parameter,")


def _plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(_plain, value)))


def _same(now: Any, known: Any) -> bool:
    return type(now) is type(known) and _plain(now) and bool(now == known)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- what a test looks at after a call

Shapes = list[tuple[nn.Module, str, torch.Size]]


def shapes_of(table: Table) -> Shapes:
    """Of what a test looks at after a call: a net's parameters, and the statistics of its batch norms."""
    found: Shapes = []
    for module in table.objects:
        if isinstance(module, nn.Module):
            watched = {**module._parameters, **{key: module._buffers.get(key) for key in STATISTICS}}
            found += [(module, key, value.shape) for key, value in watched.items() if value is not None]
    return found


def expect_shapes(before: Shapes) -> None:
    """Raise Rebuilt if one of these is gone, hidden by something else, or has another shape."""
    for module, key, shape in before:
        now = getattr(module, key, None)
        if not isinstance(now, Tensor):
            raise Rebuilt(f"a layer has lost its {key}")
        if now.shape != shape:
            raise Rebuilt(f"a layer's {key} of shape {tuple(shape)} has the shape {tuple(now.shape)} now")
