"""What a test hands to a student's function: sent by value, and brought up to date after the call.

The trusted side pickles its arguments. Tensors travel as raw storages, so that views go on sharing memory;
modules, optimizers and arrays are numbered on the way, the same on both sides. After the call the student's
process says, in plain data, what has changed in the numbered objects, and the originals are changed likewise:
contents found by comparing bytes (a write through `.data` moves no version counter), new parameters,
gradients, an optimizer's state.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from labkit.grading.channel import Malformed
from labkit.grading.plain import Decoder, Encoder


class Rebuilt(Exception):  # noqa: N818 (it says what is the case)
    """A net lost a layer, or got another in its place: then no test of its layers says anything."""


PLAIN = (bool, int, float, str, type(None))
MEMBERS = ("_parameters", "_buffers", "_modules")


@dataclass
class Table:
    """The numbered objects of one call: tensors, arrays, and modules, optimizers and loaders."""

    tensors: list[Tensor] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    objects: list[Any] = field(default_factory=list)

    def signs(self) -> Callable[[Any], list[Any] | None]:
        """Gives the sign of an object of the table: ["T", 3]."""
        signs: dict[int, list[Any]] = {}
        for tag, things in self._by_tag().items():
            signs |= {id(thing): [tag, number] for number, thing in enumerate(things)}
        return lambda value: signs.get(id(value))

    def thing(self, tag: str, number: int) -> Any:
        """The object with that sign. Raises Malformed if there is none."""
        things = self._by_tag().get(tag, ())
        if not 0 <= number < len(things):
            raise Malformed(f"nothing is called {tag[:20]} {number}")
        return things[number]

    def _by_tag(self) -> dict[str, Sequence[Any]]:
        return {"T": self.tensors, "A": self.arrays, "O": self.objects}


# ---- the trusted side: sending


class _Packer(pickle.Pickler):
    """Pickles everything but what the table numbers. own: the sign of a remote callable, or None."""

    def __init__(self, file: io.BytesIO, table: Table, own: Callable[[Any], str | None]) -> None:
        super().__init__(file, protocol=5)
        self._table, self._own = table, own
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return ("T", self.number(obj))
        if type(obj) is np.ndarray and not obj.dtype.hasobject:
            return "A", self._numbered(obj, self._table.arrays)
        if (name := self._own(obj)) is not None:
            return "own", name
        return None

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, nn.Module | Optimizer | DataLoader):
            return NotImplemented
        reduced: Any = obj.__reduce_ex__(4)  # (make a new one, (its class,), its state, ...)
        return _made, (self._numbered(obj, self._table.objects), reduced[1][0]), reduced[2]

    def number(self, tensor: Tensor) -> int:
        known = id(tensor) in self._numbers
        number = self._numbered(tensor, self._table.tensors)
        if not known and tensor.is_leaf and tensor.grad is not None:
            self.number(tensor.grad)
        return number

    def _numbered(self, obj: Any, things: list[Any]) -> int:
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(things)
            things.append(obj)
        return self._numbers[id(obj)]


def _made(number: int, kind: type) -> Any:
    raise RuntimeError("only the student's process makes numbered objects")


class Identities:
    """Numbers that objects keep from call to call, so that the same net is the same net on the other side."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Any]] = {}  # the object too, so that its id is not used again

    def of(self, obj: Any) -> int:
        return self._known.setdefault(id(obj), (len(self._known), obj))[0]


def pack(
    value: Any, own: Callable[[Any], str | None], identities: Identities
) -> tuple[dict[str, Any], list[Any], Table]:
    """(header, buffers, table) of a trusted value. Raises TypeError for what cannot travel.

    own: the name of an object that is the student's, who gets the original back.
    """
    table, file = Table(), io.BytesIO()
    packer = _Packer(file, table, own)
    try:
        packer.dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"a test passes something that cannot travel to a student's code: {error}") from None
    storages: dict[int, int] = {}
    buffers: list[Any] = [file.getvalue()]
    tensors = []
    for tensor in table.tensors:
        storage = tensor.untyped_storage()
        if storage._cdata not in storages:
            storages[storage._cdata] = len(buffers)
            buffers.append(_bytes(storage).numpy())
        tensors.append(
            {
                "identity": identities.of(tensor),
                "storage": storages[storage._cdata],
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "where": [list(tensor.size()), list(tensor.stride()), tensor.storage_offset()],
                "parameter": isinstance(tensor, nn.Parameter),
                "grad": tensor.requires_grad,
                "leaf": tensor.is_leaf,
                "has": packer.number(tensor.grad) if tensor.is_leaf and tensor.grad is not None else None,
            }
        )
    arrays = []
    for array in table.arrays:
        arrays.append([len(buffers), array.dtype.str, list(array.shape)])
        buffers.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    objects = [identities.of(thing) for thing in table.objects]
    return {"tensors": tensors, "arrays": arrays, "objects": objects}, buffers, table


# ---- the student's side: receiving, and saying what has changed


Seen = dict[int, Any]
"""The objects that have come with earlier calls, by identity."""


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
        if (module, name) == (_made.__module__, _made.__name__):
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
        self._bytes: dict[int, bytes] = {}
        self._storages = {
            meta["storage"]: torch.frombuffer(buffers[meta["storage"]], dtype=torch.uint8).untyped_storage()
            if buffers[meta["storage"]]
            else torch.empty(0).untyped_storage()
            for meta in header["tensors"]
        }
        for meta in header["tensors"]:
            self.table.tensors.append(self._tensor(meta))
        for tensor, meta in zip(self.table.tensors, header["tensors"], strict=True):
            if meta["has"] is not None:
                tensor.grad = self.table.tensors[meta["has"]]
        for number, dtype, shape in header["arrays"]:
            self.table.arrays.append(np.frombuffer(buffers[number], np.dtype(dtype)).reshape(shape))
        self._array_places = [number for number, *_ in header["arrays"]]
        self.value = _Unpacker(bytes(buffers[0]), self.table, own, header["objects"], seen).load()
        self.settle()

    def settle(self) -> None:
        """What is now is what the other side knows."""
        for number, storage in self._storages.items():
            self._bytes[number] = bytes(_bytes(storage).numpy())
        for number, array in zip(self._array_places, self.table.arrays, strict=True):
            self._bytes[number] = array.tobytes()
        self._tensors = [self._state(tensor) for tensor in self.table.tensors]
        self._objects = [self._described(thing) for thing in self.table.objects]

    def changes(self, encoder: Encoder) -> dict[str, Any]:
        """What has changed since it came, in plain data. encoder: knows the signs of the table."""
        changed: dict[str, Any] = {"storages": [], "tensors": [], "arrays": [], "objects": []}
        for number, storage in self._storages.items():
            content = _bytes(storage).numpy()
            if not np.array_equal(content, np.frombuffer(self._bytes[number], np.uint8)):
                changed["storages"].append([number, encoder.encode(content)])
        for number, tensor in enumerate(self.table.tensors):
            before, now = self._tensors[number], self._state(tensor)
            if before != now:
                moved = before[0] != now[0]
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
            if array.tobytes() != self._bytes[self._array_places[number]]:
                changed["arrays"].append([number, encoder.encode(array.copy())])
        for number, thing in enumerate(self.table.objects):
            if self._objects[number] != self._described(thing):
                changed["objects"].append([number, _told(thing, encoder)])
        return changed

    def _tensor(self, meta: dict[str, Any]) -> Tensor:
        dtype = getattr(torch, meta["dtype"])
        size, stride, offset = meta["where"]
        fresh = torch.empty(0, dtype=dtype).set_(self._storages[meta["storage"]], offset, size, stride)
        if not meta["leaf"]:  # it may be written into, which a leaf may not
            return self._leaf(fresh.requires_grad_()).clone()
        tensor = self._seen.get(meta["identity"])
        if tensor is None:
            tensor = nn.Parameter(fresh, meta["grad"]) if meta["parameter"] else fresh
            self._seen[meta["identity"]] = tensor
        elif tensor.is_leaf:
            tensor.data, tensor.grad = fresh, None
        else:
            return fresh
        tensor.requires_grad_(meta["grad"])
        return self._leaf(tensor) if meta["grad"] else tensor

    def _leaf(self, tensor: Tensor) -> Tensor:
        self.leaves.append(tensor)
        return tensor

    @staticmethod
    def _state(tensor: Tensor) -> tuple[Any, ...]:
        """Where its values lie, and how it takes part in gradients."""
        where = (
            tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype,
            None if tensor.is_leaf else tensor._version,
        )  # fmt: skip
        gradient = tensor.grad if tensor.is_leaf else None
        return where, tensor.requires_grad, id(gradient) if gradient is not None else None

    def _described(self, thing: Any) -> Any:
        """Equal for the same thing as long as nothing of it has changed that would be told."""
        if isinstance(thing, DataLoader):
            return None  # the student's code goes through it; nothing of it is looked at afterwards
        if isinstance(thing, Optimizer):
            groups = [
                {k: v if isinstance(v, PLAIN) else id(v) for k, v in group.items() if k != "params"}
                | {"params": [id(p) for p in group["params"]]}
                for group in thing.param_groups
            ]
            state = [
                (id(p), {k: v if isinstance(v, PLAIN) else id(v) for k, v in values.items()})
                for p, values in thing.state.items()
            ]
            return groups, state
        members = {name: {k: id(v) for k, v in getattr(thing, name).items()} for name in MEMBERS}
        return members | {
            k: v if isinstance(v, PLAIN) else id(v) for k, v in vars(thing).items() if k not in members
        }


def _told(thing: Any, encoder: Encoder) -> Any:
    """A module's or an optimizer's present state in plain data."""
    if isinstance(thing, Optimizer):
        groups = [dict(group) for group in thing.param_groups]
        return encoder.encode([groups, [[p, dict(values)] for p, values in thing.state.items()]])
    members = {
        name: {
            key: [value, isinstance(value, nn.Parameter), getattr(value, "requires_grad", False)]
            for key, value in getattr(thing, name).items()
        }
        for name in MEMBERS
    }
    plain = {key: value for key, value in vars(thing).items() if isinstance(value, PLAIN)}
    return encoder.encode([members, plain])


# ---- the trusted side again: taking over what has changed


def apply(changed: Any, table: Table, storages: Mapping[int, Tensor], buffers: Sequence[bytearray]) -> None:
    """Bring the originals up to date. storages: their bytes by number, as `storage_bytes` gives them.

    Raises Malformed, possibly with a part already applied: the call has then failed anyway.
    """
    decoder = Decoder(buffers, table.thing)
    try:
        for number, tree in changed["storages"]:
            storages[number].copy_(torch.from_numpy(decoder.decode(tree)))
        for number, tree, moved, requires_grad, gradient in changed["tensors"]:
            tensor = table.thing("T", number)
            if moved:
                tensor.data = decoder.decode(tree)
            if tensor.is_leaf:
                tensor.requires_grad_(bool(requires_grad))
                _set_gradient(tensor, decoder.decode(gradient))
        for number, tree in changed["arrays"]:
            table.thing("A", number)[...] = decoder.decode(tree)
        for number, tree in changed["objects"]:
            thing = table.thing("O", number)
            (_apply_optimizer if isinstance(thing, Optimizer) else _apply_module)(thing, decoder.decode(tree))
    except (Malformed, Rebuilt):
        raise
    except Exception as error:  # whatever forged changes make torch say
        raise Malformed(f"changes that cannot be made ({type(error).__name__})") from None


def storage_bytes(header: dict[str, Any], table: Table) -> dict[int, Tensor]:
    """The originals' storages as tensors of bytes, by their number in a packed message."""
    return {
        meta["storage"]: _bytes(tensor.untyped_storage())
        for meta, tensor in zip(header["tensors"], table.tensors, strict=True)
    }


def _set_gradient(tensor: Tensor, gradient: Any) -> None:
    if gradient is not tensor.grad:
        tensor.grad = gradient


def _apply_module(module: nn.Module, told: Any) -> None:
    members, plain = told
    for key, layer in module._modules.items():
        if layer is not None and members["_modules"].get(key, [None])[0] is not layer:
            raise Rebuilt(f"the net's part {key!r} is gone, or another one is in its place")
    for name in MEMBERS:
        mine: dict[str, Any] = getattr(module, name)
        for key in [key for key in mine if key not in members[name]]:
            del mine[key]
        for key, (value, parameter, requires_grad) in members[name].items():
            if isinstance(value, Tensor) and parameter and not isinstance(value, nn.Parameter):
                value = nn.Parameter(value, bool(requires_grad))
            if mine.get(key) is not value:
                mine[key] = value
    before = {key: value for key, value in vars(module).items() if isinstance(value, PLAIN)}
    for key, value in plain.items():
        if isinstance(value, PLAIN) and (key not in before or before[key] != value):
            vars(module)[key] = value


def _apply_optimizer(optimizer: Optimizer, told: Any) -> None:
    groups, state = told
    for mine, group in zip(optimizer.param_groups, groups, strict=True):
        for key, value in group.items():
            mine[key] = value
    optimizer.state.clear()
    for parameter, values in state:
        optimizer.state[parameter] = dict(values)


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    """The storage as a tensor of bytes that shares its memory."""
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),))  # type: ignore[call-overload]
