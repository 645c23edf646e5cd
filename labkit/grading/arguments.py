"""What a test hands to a student's function: sent by value, and brought up to date after the call.

The trusted side pickles its arguments. Tensors travel as raw storages, so that views go on sharing memory;
modules, optimizers and arrays are numbered on the way, the same on both sides. After the call the student's
process says, in plain data, what has changed in the numbered objects (`arrived`), contents found by comparing
bytes: a write through `.data` moves no version counter. `changes` takes over what may be.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from labkit.grading.channel import Malformed

PLAIN = (bool, int, float, str, type(None))
TOLD = (*PLAIN, tuple, Tensor, np.ndarray)  # attributes of a module that are told
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
        return made_there, (self._numbered(obj, self._table.objects), reduced[1][0]), reduced[2]

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


def made_there(number: int, kind: type) -> Any:
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
            buffers.append(bytes_of(storage).numpy())
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


def storage_bytes(header: dict[str, Any], table: Table) -> dict[int, Tensor]:
    """The originals' storages as tensors of bytes, by their number in a packed message."""
    return {
        meta["storage"]: bytes_of(tensor.untyped_storage())
        for meta, tensor in zip(header["tensors"], table.tensors, strict=True)
    }


def bytes_of(storage: torch.UntypedStorage) -> Tensor:
    """The storage as a tensor of bytes that shares its memory."""
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),))  # type: ignore[call-overload]
