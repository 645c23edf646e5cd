"""Plain data: what may come out of a student's process, and how it is written down.

Numbers, text, None, lists, tuples, dictionaries, and the raw bytes of tensors and arrays. Anything else
arrives as `Opaque`: its type's name, and nothing that could act. Never a pickle.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.grading.channel import MOST_BUFFERS, MOST_BYTES, Malformed

DEEPEST = 40
MOST_ITEMS = 500_000  # of lists and dictionaries in one value: a list of all weights of a ResNet-20 fits
MOST_ALIKE = 100  # keys or members with the same hash: each is compared with all before it
MOST_BITS = 10_000  # of a number; Python itself refuses to write longer ones as text
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64, torch.complex128,
    )
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ARRAY_KINDS = "biufc"

Known = Callable[[Any], "list[Any] | None"]


class Opaque:
    """Something that the student's code gave and that is no plain data; no use of it means anything."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Encoder:
    """Turns values into JSON and a list of buffers.

    known: gives the sign of an object that the other side has already, or None.
    graph: collects the tensors through which a gradient can flow back; None: gradients are cut.
    """

    def __init__(self, known: Known | None = None, graph: list[Tensor] | None = None) -> None:
        self.buffers: list[Any] = []
        self._known = known or (lambda value: None)
        self._graph = graph
        self._left, self._bytes = MOST_ITEMS, MOST_BYTES

    def encode(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if value.bit_length() <= MOST_BITS else ["o", "a number of thousands of digits"]
        if kind is str:
            return value if self._room(len(value) // 20) else ["o", "a text that is too long"]
        if kind is float:
            return value if math.isfinite(value) else ["f", str(value)]
        if depth > DEEPEST:
            return ["o", "something nested too deeply"]
        if (sign := self._known(value)) is not None:
            return sign
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, torch.dtype):
            return ["y", NAMES[value]] if value in NAMES else ["o", str(value)]
        if isinstance(value, tuple | list | set | frozenset | dict) and not self._room(len(value)):
            return ["o", f"more than {MOST_ITEMS} items"]
        if isinstance(value, tuple | list | set | frozenset):
            tag = "l" if isinstance(value, list) else "u" if isinstance(value, tuple) else "s"
            return [tag, [self.encode(item, depth + 1) for item in list(value)]]
        if isinstance(value, dict):
            pairs = list(value.items())
            return ["d", [[self.encode(k, depth + 1), self.encode(v, depth + 1)] for k, v in pairs]]
        if isinstance(value, bool | int | float | str):  # a subclass: its plain value
            return self.encode(next(base for base in (int, float, str) if isinstance(value, base))(value))
        if isinstance(value, Real | Decimal):  # a fraction, say
            with contextlib.suppress(OverflowError):
                return self.encode(float(value))
        return ["o", f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")[:100]]

    def _fits(self, size: int) -> bool:
        self._bytes -= size
        return self._bytes >= 0 and len(self.buffers) < MOST_BUFFERS

    def _room(self, items: int) -> bool:
        self._left -= items
        return self._left >= 0

    def tensor(self, value: Tensor) -> Any:
        """Its contents, whether or not the other side knows it."""
        with torch._C.DisableTorchFunctionSubclass():  # a subclass has no say in what it is
            if value.layout != torch.strided or value.device.type == "meta" or value.dtype not in NAMES:
                return ["o", f"a tensor of layout {value.layout}, {value.dtype}, on {value.device}"]
            plain = value.detach().as_subclass(Tensor)
        if not self._fits(plain.nbytes):
            return ["o", "too much data"]
        graph = None
        if self._graph is not None and value.requires_grad:
            graph = len(self._graph)
            self._graph.append(value)
        data = plain.cpu().resolve_conj().resolve_neg().contiguous()
        self.buffers.append(data.reshape(-1).view(torch.uint8).numpy())
        return ["t", NAMES[plain.dtype], list(plain.shape), len(self.buffers) - 1, graph]

    def _array(self, value: Any) -> Any:
        array = np.asarray(value)
        if array.dtype.kind not in ARRAY_KINDS:
            return ["o", f"an array of dtype {array.dtype}"]
        if not self._fits(array.nbytes):
            return ["o", "too much data"]
        self.buffers.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        scalar = isinstance(value, np.generic)
        return ["a", array.dtype.str, list(array.shape), len(self.buffers) - 1, scalar]


class Decoder:
    """Turns what came into values, or raises Malformed.

    known: the object of a sign. graph: makes a tensor that gradients flow through, from (number, tensor).
    """

    def __init__(
        self,
        buffers: Sequence[bytearray],
        known: Callable[[str, int], Any] | None = None,
        graph: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        self._buffers = buffers
        self._known = known
        self._graph = graph
        self._items = 0
        self._used: set[int] = set()

    def decode(self, tree: Any, depth: int = 0) -> Any:
        if tree is None or isinstance(tree, bool | int | float | str):
            return tree
        if not isinstance(tree, list) or not tree or depth > DEEPEST + 2:
            raise Malformed("a value that is none")
        tag, *parts = tree
        try:
            return self._tagged(tag, parts, depth)
        except Malformed:
            raise
        except Exception:  # whatever a forged value makes numpy or torch say
            raise Malformed(f"a value of kind {str(tag)[:20]!r} that is none") from None

    def _tagged(self, tag: Any, parts: list[Any], depth: int) -> Any:
        match tag, parts:
            case "f", [str(text)]:
                return float(text[:20])
            case "l" | "u" | "s", [list(items)]:
                self._count(len(items))
                values = [self.decode(item, depth + 1) for item in items]
                return values if tag == "l" else tuple(values) if tag == "u" else set(_distinct(values))
            case "d", [list(pairs)]:
                self._count(len(pairs))
                keys = _distinct([self.decode(key, depth + 1) for key, _ in pairs])
                return dict(zip(keys, [self.decode(value, depth + 1) for _, value in pairs], strict=True))
            case "t", [str(name), list(shape), int(number), graph]:
                return self._tensor(DTYPES[name], shape, number, graph)
            case "a", [str(name), list(shape), int(number), bool(scalar)]:
                return self._array(np.dtype(name), shape, number, scalar)
            case "y", [str(name)]:
                return DTYPES[name]
            case "o", [str(kind)]:
                return Opaque(kind[:200])
            case str(), [int(number)] if self._known is not None:
                return self._known(tag, number)
        raise Malformed(f"a value of unknown kind {str(tag)[:20]!r}")

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > MOST_ITEMS:
            raise Malformed(f"more than {MOST_ITEMS} items")

    def _tensor(self, dtype: torch.dtype, shape: list[int], number: int, graph: Any) -> Tensor:
        buffer = self._sized(number, shape, dtype.itemsize)
        flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
        if dtype == torch.bool:  # a byte of 2 is no truth value
            flat = flat.view(torch.uint8) != 0
        tensor = flat.reshape(shape)
        if graph is None or self._graph is None:
            return tensor
        if type(graph) is not int or graph < 0:
            raise Malformed("a tensor without a place in the graph")
        return self._graph(graph, tensor)

    def _array(self, dtype: np.dtype[Any], shape: list[int], number: int, scalar: bool) -> Any:
        if dtype.kind not in ARRAY_KINDS:
            raise Malformed(f"an array of dtype {dtype}")
        array = np.frombuffer(self._sized(number, shape, dtype.itemsize), dtype).reshape(shape)
        if dtype.kind == "b":
            array = array.view(np.uint8) != 0
        return array[()] if scalar and not shape else array

    def _sized(self, number: int, shape: list[int], itemsize: int) -> bytearray:
        if len(shape) > 32 or not all(type(size) is int and size >= 0 for size in shape):
            raise Malformed("an impossible shape")
        if math.prod(size or 1 for size in shape) > MOST_BYTES:  # the others count, too, where one is 0
            raise Malformed("an impossible shape")
        if number < 0 or len(self._buffers[number]) != math.prod(shape) * itemsize:
            raise Malformed("a shape that does not fit its bytes")
        if number in self._used:  # some are copied: a few bytes of JSON would make as much of them each time
            raise Malformed("bytes that are used twice")
        self._used.add(number)
        return self._buffers[number]


def _distinct(values: list[Any]) -> list[Any]:
    """The values, if they can be told apart in a short time; else Malformed, or TypeError as of `hash`."""
    if len(values) > MOST_ALIKE and max(Counter(map(hash, values)).values()) > MOST_ALIKE:
        raise Malformed("values that cannot be told apart")
    return values
