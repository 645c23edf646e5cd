"""The other side of `arguments`: what a test has passed, made again here, and what it became.

In the student's process, and in a stand-in's, which takes over whatever the student's code has made of it:
there is nothing there that could be lost.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from labkit.grading.arguments import MEMBERS, PLAIN, TOLD, Table, bytes_of, made_there
from labkit.grading.plain import Decoder, Encoder, Opaque

ASIDE = "_non_persistent_buffers_set"  # names of a module's buffers that are no part of its state
ADDED = ("_parameters", "_buffers", ASIDE)  # where a student's code adds what is to be there at the next call
Seen = dict[Any, Any]
"""The objects of earlier calls, by identity; by (identity, "own") what was hung into them."""


class Held:
    """What an object of the student's own class holds, where that class is not known."""


class _Unpacker(pickle.Unpickler):
    def __init__(
        self, data: bytes, table: Table, own: Callable[[str], Any], identities: Sequence[int], seen: Seen
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._table, self._own = table, own
        self._identities, self._seen = identities, seen

    def persistent_load(self, sign: Any) -> Any:
        return self._own(sign[1]) if sign[0] == "own" else self._table.thing(*sign)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (made_there.__module__, made_there.__name__):
            return self._make
        return super().find_class(module, name)

    def _make(self, number: int, kind: Any) -> Any:
        assert number == len(self._table.objects)
        # an object that was here before keeps what the student's code has hung onto it
        made = self._seen.setdefault(self._identities[number], kind.__new__(kind))
        self._table.objects.append(made)
        return made


class Arrived:
    """The arguments of a call in the student's process, and what they were like when they came."""

    def __init__(
        self, header: dict[str, Any], buffers: list[bytearray], own: Callable[[str], Any], seen: Seen
    ) -> None:
        self.table = Table()
        self._seen = seen
        self.leaves: list[Tensor] = []  # what the result can be differentiated by
        self._bytes: dict[int, np.ndarray] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}
        for number in {meta["storage"] for meta in header["tensors"]}:
            # torch's own memory, which it may make larger (`out=`), and not the message's
            own_memory = torch.empty(len(buffers[number]), dtype=torch.uint8)
            if buffers[number]:
                own_memory.copy_(torch.frombuffer(buffers[number], dtype=torch.uint8))
            self._storages[number] = own_memory.untyped_storage()
        for meta in header["tensors"]:
            self.table.tensors.append(self._tensor(meta))
        for tensor, meta in zip(self.table.tensors, header["tensors"], strict=True):
            if meta["has"] is not None:
                tensor.grad = self.table.tensors[meta["has"]]
        for number, dtype, shape in header["arrays"]:
            self.table.arrays.append(np.frombuffer(buffers[number], np.dtype(dtype)).reshape(shape))
        self._array_places = [number for number, *_ in header["arrays"]]
        self._identities = header["objects"]
        self.value = _Unpacker(bytes(buffers[0]), self.table, own, self._identities, seen).load()
        self._bring_back()
        self.settle()

    def settle(self) -> None:
        """What is now is what the other side knows."""
        self._places = {storage.data_ptr() for storage in self._storages.values()}
        for number, storage in self._storages.items():
            self._bytes[number] = _copied(storage)
        for number, array in zip(self._array_places, self.table.arrays, strict=True):
            self._bytes[number] = array.copy()
        self._tensors = [self._state(tensor) for tensor in self.table.tensors]
        self._objects = [self._described(thing) for thing in self.table.objects]

    def changes(self, encoder: Encoder, aside: bool = False) -> dict[str, Any]:
        """What has changed since it came, in plain data. encoder: knows the signs of the table.

        aside: also the buffers that the student's code has put beside a module's state.
        """
        changed: dict[str, Any] = {"storages": [], "tensors": [], "arrays": [], "objects": []}
        for number, storage in self._storages.items():
            content, before = _copied(storage), self._bytes[number]
            # of another size: whatever lies there has moved, and is told below
            if content.size == before.size and not np.array_equal(content, before):
                changed["storages"].append([number, encoder.encode(content)])
        for number, tensor in enumerate(self.table.tensors):
            was, now = self._tensors[number], self._state(tensor)
            if was != now:
                moved = was[0] != now[0]
                changed["tensors"].append(
                    [
                        number,
                        encoder.encode(torch.Tensor.clone(tensor.detach())) if moved else None,
                        moved,
                        tensor.requires_grad,
                        encoder.encode(tensor.grad) if tensor.is_leaf else None,
                    ]
                )
        for number, array in enumerate(self.table.arrays):
            if array.tobytes() != self._bytes[self._array_places[number]].tobytes():
                changed["arrays"].append([number, encoder.encode(array.copy())])
        self._remember()
        for number, thing in enumerate(self.table.objects):
            if self._objects[number] != self._described(thing):
                hidden = () if aside else self._aside(number)
                changed["objects"].append([number, _told(thing, encoder, hidden)])
        return changed

    def _bring_back(self) -> None:
        """Parameters and buffers that the student's code has added: the other side knows their names only."""
        self._given: list[dict[str, set[str]]] = []
        for identity, thing in zip(self._identities, self.table.objects, strict=True):
            own = self._seen.get((identity, "own"), {})
            self._given.append(
                {name: set(getattr(thing, name, ())) - set(own.get(name, ())) for name in ADDED}
            )
            for name, added in own.items():
                getattr(thing, name).update(added)

    def _remember(self) -> None:
        for number, (identity, thing) in enumerate(zip(self._identities, self.table.objects, strict=True)):
            if isinstance(thing, nn.Module):
                given = self._given[number]
                self._seen[identity, "own"] = {
                    ASIDE: getattr(thing, ASIDE) - given[ASIDE],
                    **{
                        name: {k: v for k, v in getattr(thing, name).items() if k not in given[name]}
                        for name in MEMBERS[:2]
                    },
                }

    def _aside(self, number: int) -> set[str]:
        """Buffers that the student's code has added to this module and not to its state: nobody else's."""
        given = self._given[number]
        aside: set[str] = getattr(self.table.objects[number], ASIDE, set())
        return aside - given[ASIDE] - given["_buffers"]

    def joined(self, objects: Sequence[Any]) -> None:
        """These were put behind the objects of the table: from now on their changes are told, too."""
        self._identities = [*self._identities, *(("joined", number) for number in range(len(objects)))]
        self._given += [{name: set(getattr(thing, name, ())) for name in ADDED} for thing in objects]

    def take_over(
        self, changed: Any, buffers: Sequence[bytearray], moves: bool = False, table: Table | None = None
    ) -> None:
        """Do here what was done in another process with the same arguments: see `changes`.

        moves: a tensor that lies elsewhere there gets a place of its own here as well; else its values are
        written where it lies, and whoever else looks there sees them. table: with what has joined there.
        """
        table = table or self.table
        decoder = Decoder(buffers, table.thing)
        for number, tree in changed["storages"]:
            bytes_of(self._storages[number]).copy_(torch.from_numpy(decoder.decode(tree)))
        for number, tree, moved, requires_grad, gradient in changed["tensors"]:
            tensor, value = table.thing("T", number), decoder.decode(tree)
            if moved and (moves or (value.shape, value.dtype) != (tensor.shape, tensor.dtype)):
                tensor.data = value
            elif moved:
                tensor.data.copy_(value)
            if tensor.is_leaf:
                tensor.requires_grad_(bool(requires_grad))
                new = decoder.decode(gradient)
                if new is not tensor.grad:
                    tensor.grad = new
        for number, tree in changed["arrays"]:
            self.table.thing("A", number)[...] = decoder.decode(tree)
        for number, tree in changed["objects"]:
            _remake(table.thing("O", number), decoder.decode(tree))

    def _tensor(self, meta: dict[str, Any]) -> Tensor:
        dtype = getattr(torch, meta["dtype"])
        size, stride, offset = meta["where"]
        fresh = torch.empty(0, dtype=dtype).set_(self._storages[meta["storage"]], offset, size, stride)
        if not meta["leaf"]:  # it may be written into, which a leaf may not
            return self._leaf(fresh.requires_grad_()).clone()
        tensor = self._seen.get(meta["identity"])
        if tensor is None or not tensor.is_leaf:
            tensor = nn.Parameter(fresh, meta["grad"]) if meta["parameter"] else fresh
            self._seen[meta["identity"]] = tensor
        else:
            tensor.data, tensor.grad = fresh, None
        tensor.requires_grad_(meta["grad"])
        return self._leaf(tensor) if meta["grad"] else tensor

    def _leaf(self, tensor: Tensor) -> Tensor:
        self.leaves.append(tensor)
        return tensor

    def _state(self, tensor: Tensor) -> tuple[Any, ...]:
        """Where its values lie, and how it takes part in gradients."""
        where = (
            tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype,
            None if tensor.is_leaf else tensor._version, self._content(tensor),
        )  # fmt: skip
        return where, tensor.requires_grad, self._mark(tensor.grad if tensor.is_leaf else None)

    def _mark(self, value: Any) -> Any:
        """Equal as long as it is the same value, or the same object."""
        if isinstance(value, PLAIN):
            return value
        return id(value), self._content(value) if isinstance(value, Tensor) else None

    def _content(self, tensor: Tensor) -> bytes | None:
        """The bytes of a tensor that lies in none of the storages that came: nobody else looks at those."""
        if tensor.layout != torch.strided or tensor.untyped_storage().data_ptr() in self._places:
            return None
        return bytes(tensor.detach().clone().contiguous().reshape(-1).view(torch.uint8).numpy())

    def _described(self, thing: Any) -> Any:
        """Equal for the same thing as long as nothing of it has changed that would be told."""
        if isinstance(thing, DataLoader):
            return None  # the student's code goes through it; nothing of it is looked at afterwards
        if isinstance(thing, Optimizer):
            groups = [
                {k: self._mark(v) for k, v in group.items() if k != "params"}
                | {"params": [id(p) for p in group["params"]]}
                for group in thing.param_groups
            ]
            state = [
                (id(p), {k: self._mark(v) for k, v in values.items()}) for p, values in thing.state.items()
            ]
            return groups, state
        if not isinstance(thing, nn.Module):
            return {k: self._mark(v) for k, v in vars(thing).items()}
        members = {name: {k: self._mark(v) for k, v in getattr(thing, name).items()} for name in MEMBERS}
        return members | {k: self._mark(v) for k, v in vars(thing).items() if k not in members}


def _copied(storage: torch.UntypedStorage) -> np.ndarray:
    """Its bytes now. A copy, because torch does not resize what numpy has seen."""
    return bytes_of(storage).clone().numpy()


def _told(thing: Any, encoder: Encoder, aside: Collection[str] = ()) -> Any:
    """A module's or an optimizer's present state in plain data, without the buffers that are `aside`."""
    if isinstance(thing, Optimizer):
        groups = [dict(group) for group in thing.param_groups]
        return encoder.encode([groups, [[p, dict(values)] for p, values in thing.state.items()]])
    if not isinstance(thing, nn.Module):
        return encoder.encode({k: v for k, v in vars(thing).items() if isinstance(v, TOLD)})
    members = {
        name: {
            key: [value, isinstance(value, nn.Parameter), getattr(value, "requires_grad", False)]
            for key, value in getattr(thing, name).items()
            if name != "_buffers" or key not in aside
        }
        for name in MEMBERS
    }
    # of others only that they are there
    rest = {k: [v] if isinstance(v, TOLD) else [] for k, v in vars(thing).items() if k not in MEMBERS}
    return encoder.encode([members, rest])


def _remake(thing: Any, told: Any) -> None:
    if isinstance(thing, Optimizer):
        _remake_optimizer(thing, told)
    elif isinstance(thing, nn.Module):
        _remake_module(thing, told)
    else:
        for key, value in told.items():
            with contextlib.suppress(AttributeError):  # a property, which its object gives
                if isinstance(value, Tensor) or getattr(thing, key) != value:
                    setattr(thing, key, value)


def _remake_module(module: nn.Module, told: Any) -> None:
    members, rest = told
    for name in MEMBERS:
        mine: dict[str, Any] = getattr(module, name)
        for key in [key for key in mine if key not in members[name]]:
            del mine[key]
        for key, (value, parameter, requires_grad) in members[name].items():
            if isinstance(value, Tensor) and parameter and not isinstance(value, nn.Parameter):
                value = nn.Parameter(value, bool(requires_grad))
            if mine.get(key) is not value and not isinstance(value, Opaque):
                mine[key] = value
    mine = vars(module)
    for key in [key for key, value in mine.items() if isinstance(value, TOLD) and key not in rest]:
        del mine[key]
    for key, values in rest.items():
        ours = key.startswith("_") and not isinstance(mine.get(key, ...), TOLD)  # torch's: hooks and the like
        if values and isinstance(values[0], TOLD) and not ours:
            mine[key] = values[0]


def _remake_optimizer(optimizer: Optimizer, told: Any) -> None:
    groups, state = told
    for mine, group in zip(optimizer.param_groups, groups, strict=False):
        mine.update(group)
    optimizer.param_groups[len(groups) :] = []
    optimizer.param_groups += groups[len(optimizer.param_groups) :]
    optimizer.state.clear()
    for parameter, values in state:
        optimizer.state[parameter] = dict(values)
