"""A student's own objects on their way to a lent function, described in plain data and made again there.

A layer that their code has made, a copy of the net, `SimpleNamespace(weight=...)`. They join the numbered
objects of the call, so that what the function changes in them comes back as for any other. The tests' process
passes the description on unread. The stand-in's, which is thrown away, makes them: of torch's and the lab's
own classes, and of anything else what it holds.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections import defaultdict
from decimal import Decimal
from numbers import Number
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from labkit.grading.arguments import MEMBERS, Table
from labkit.grading.arrived import ASIDE, Arrived, Held
from labkit.grading.plain import Decoder, Encoder, Opaque

OUR_CLASSES = re.compile(r"(torch\.nn|torch\.optim|labkit)\..+")
MOST_OWN = 1000  # objects in one call: a property may give a new one each time
# what the encoder writes down by itself, and what holds nothing
NOT_OWN = (
    tuple, list, set, frozenset, dict, str, bytes, Number, Decimal, type(None), type, ModuleType,
    np.ndarray, np.generic, torch.dtype, torch.device, torch.Size,
)  # fmt: skip


class Own:
    """The objects of a call, and those of the student's own that were met while encoding.

    encoder: gives each its sign. table: all of them, by their signs.
    """

    def __init__(self, table: Table) -> None:
        self.table = Table([*table.tensors], table.arrays, [*table.objects])
        self.encoder = Encoder(self._sign)
        self._known = table.signs()
        self._tensors, self._objects = len(table.tensors), len(table.objects)  # those that came with the call
        self._signs: dict[int, list[Any]] = {}

    def _sign(self, value: Any) -> list[Any] | None:
        if (sign := self._known(value) or self._signs.get(id(value))) is not None:
            return sign
        if isinstance(value, Tensor):
            tag, things = "T", self.table.tensors
        elif len(self.table.objects) - self._objects < MOST_OWN and _is_own(value):
            tag, things = "O", self.table.objects
        else:
            return None
        things.append(value)  # which also keeps its id from being used again
        self._signs[id(value)] = [tag, len(things) - 1]
        return self._signs[id(value)]

    def described(self) -> dict[str, Any]:
        """Those of the student's own, after everything else was encoded: describing one may meet others."""
        objects: list[Any] = []
        while len(objects) < len(self.table.objects) - self._objects:
            thing = self.table.objects[self._objects + len(objects)]
            objects.append([_class_of(thing), self.encoder.encode(_state(thing))])
        tensors = [
            [self.encoder.tensor(one), isinstance(one, nn.Parameter), one.requires_grad and one.is_leaf]
            for one in self.table.tensors[self._tensors :]
        ]
        return {"tensors": tensors, "objects": objects}


def join(arrived: Arrived, described: dict[str, Any], buffers: list[bytearray]) -> None:
    """Make what `Own` has described, numbered behind the objects of the call."""
    decoder = Decoder(buffers, arrived.table.thing)
    for tree, parameter, requires_grad in described["tensors"]:
        value = decoder.decode(tree)
        tensor = nn.Parameter(value, False) if parameter else value
        arrived.table.tensors.append(tensor.requires_grad_(bool(requires_grad)))
    made = [_made(*kind) for kind, _ in described["objects"]]
    arrived.table.objects += made
    for thing, (_, state) in zip(made, described["objects"], strict=True):
        _fill(thing, decoder.decode(state))
    arrived.joined(made)


def _is_own(value: Any) -> bool:
    if isinstance(value, nn.Module | Optimizer) or hasattr(value, "_fields"):  # a namedtuple has names
        return True
    holds = hasattr(value, "__dict__") or hasattr(type(value), "__slots__")
    return holds and not isinstance(value, NOT_OWN) and not inspect.isroutine(value)


def _class_of(thing: Any) -> list[str]:
    """The class that it is, or comes from, of torch's or the lab's."""
    kinds = type(thing).__mro__ if isinstance(thing, nn.Module | Optimizer) else ()
    ours = (kind for kind in kinds if OUR_CLASSES.fullmatch(kind.__module__))
    return next(([kind.__module__, kind.__name__] for kind in ours), ["", ""])


def _state(thing: Any) -> dict[str, Any]:
    if isinstance(thing, Optimizer):
        return {
            "param_groups": [dict(group) for group in thing.param_groups],
            "state": [[parameter, dict(values)] for parameter, values in thing.state.items()],
            "defaults": dict(thing.defaults),
        }
    if isinstance(thing, nn.Module):
        return {key: value for key, value in vars(thing).items() if key in _KEPT or not key.startswith("_")}
    names = dict.fromkeys(name for kind in reversed(type(thing).__mro__[:-1]) for name in vars(kind))
    values = {}
    for name in {**names, **getattr(thing, "__dict__", {})}:
        with contextlib.suppress(Exception):  # a property may say anything
            if not name.startswith("__") and not inspect.isroutine(value := getattr(thing, name)):
                values[name] = value
    return values


_KEPT = (*MEMBERS, ASIDE)


def _made(module: str, name: str) -> Any:
    """An empty one of that class, if it is one of torch's or the lab's that this process knows."""
    kind = getattr(sys.modules.get(module), name, None) if OUR_CLASSES.fullmatch(module) else None
    if not isinstance(kind, type) or not issubclass(kind, nn.Module | Optimizer):
        return Held()
    return kind.__new__(kind)


def _fill(thing: Any, state: dict[str, Any]) -> None:
    if isinstance(thing, Optimizer):
        remembered = defaultdict(dict, dict(state["state"]))
        thing.__setstate__(state | {"state": remembered})
        return
    if isinstance(thing, nn.Module):
        nn.Module.__init__(thing)
        for name in _KEPT:
            getattr(thing, name).update(state.pop(name))
    vars(thing).update({key: value for key, value in state.items() if not isinstance(value, Opaque)})
