"""The compressed file's format: how tensors become bytes, and bytes tensors again.

`labkit.storage` tells what is stored; here is where each bit lies. A file is safetensors with one header
entry, `labkit`: a line with the format's name, a line with the checksum, then the index.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labkit import arguments
from labkit.errors import LabError
from labkit.files import disguise
from labkit.models import quantized_layers

FORMAT = "labkit compressed model 1"
PARTS = {"levels": "u1", "masks": "u1", "codebooks": "<f4", "weights": "<f4", "batch_norm": "<f4"}
MOST_BITS = 32  # an index longer than a float32 is no compression
NORM = ("weight", "bias", "running_mean", "running_var")
Array = np.ndarray[Any, np.dtype[Any]]


class StorageError(LabError, ValueError):
    """A model that cannot be stored exactly, or a file that is not ours or does not fit the net."""


def stored_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict without batch norm's step counters, which inference does not need."""
    state = net.state_dict()
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def _float32(name: str, value: Tensor) -> Array:
    """The same values as flat float32; StorageError if that would change them."""
    value = value.detach().cpu()
    if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
        raise StorageError(f"cannot store {name}: it holds something that is no finite floating-point number")
    single = value.float()
    if not torch.equal(single.to(value.dtype), value):
        raise StorageError(f"cannot store {name} exactly: its {value.dtype} values need more than float32")
    flat: Array = single.flatten().numpy()
    return flat


class Packer:
    """The parts of a file while it is made: bytes by part, one line of the index for each tensor.

    index lines: `dense SHAPE NAME`, `kept SHAPE MAP SURVIVORS NAME`,
    `levels SHAPE MAP SURVIVORS BITS LEVELS NAME`, and `norm CHANNELS NAME` for a batch norm's four vectors.
    """

    def __init__(self, net: nn.Module) -> None:
        self.parts = {part: bytearray() for part in PARTS}
        self.index: list[str] = []
        self.float32 = 0
        self.ideal_bits = 0.0
        arguments.network(net)
        quantized = {f"{name}.conv.weight".lstrip("."): layer for name, layer in quantized_layers(net)}
        state = stored_state(net)
        for name, value in state.items():
            prefix, _, key = name.rpartition(".")
            self.float32 += 4 * value.numel()
            is_norm = isinstance(net.get_submodule(prefix), _BatchNorm)
            if is_norm and all(f"{prefix}.{vector}" in state for vector in NORM):
                self.parts["batch_norm"] += _float32(name, value).tobytes()
                self.ideal_bits += 32 * value.numel()
                if key == NORM[0]:  # one line for the four: they come in this order in the state dict
                    self.index.append(f"norm {value.numel()} {prefix}")
            elif name in quantized:
                effective = quantized[name].effective_weight
                if effective.shape != value.shape:
                    raise StorageError(f"cannot store {name}: its quantizer changes the shape of the weight")
                self._weight(name, _float32(name, effective), value.shape, quantized[name].bits)
            else:
                self._weight(name, _float32(name, value), value.shape, None)

    def _weight(self, name: str, flat: Array, shape: torch.Size, bits: int | None) -> None:
        size = "x".join(map(str, shape)) or "-"
        kept = flat[flat != 0]
        where, positions = _smallest_map(flat != 0)
        options = [
            (f"dense {size} {name}", {"weights": flat.tobytes()}),
            (f"kept {size} {where} {kept.size} {name}", {"masks": positions, "weights": kept.tobytes()}),
        ]
        codebook, indices = np.unique(kept, return_inverse=True)
        if bits is not None and bits <= MOST_BITS and codebook.size <= 2**bits:
            line = f"levels {size} {where} {kept.size} {bits} {codebook.size} {name}"
            packed = _pack_bits(indices, bits)
            options.append((line, {"masks": positions, "levels": packed, "codebooks": codebook.tobytes()}))
            self.ideal_bits += bits * kept.size + 64
        else:
            self.ideal_bits += 32 * kept.size
        self.ideal_bits += _entropy_bits(kept.size, flat.size)
        line, data = min(options, key=lambda option: sum(map(len, option[1].values())))
        self.index.append(line)
        for part, chunk in data.items():
            self.parts[part] += chunk

    def blob(self) -> bytes:
        """The whole file. All of the header is one entry: several would come in an order that varies."""
        index = "\n".join(self.index)
        header = f"{FORMAT}\n{_checksum(index, self.parts.values()):08x}\n{index}"
        arrays = {part: np.frombuffer(data, PARTS[part]) for part, data in self.parts.items() if data}
        return bytes(save(arrays, {"labkit": header}))


class Reader:
    """Reads a file's tensors in the order of its index; every length is checked before it is used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="np") as file:
                magic, _, rest = (file.metadata() or {}).get("labkit", "").partition("\n")
                found = {}
                if magic == FORMAT:  # only then: another's file may hold types that numpy does not know
                    names = set(file.keys()) & PARTS.keys()
                    found = {name: file.get_tensor(name).tobytes() for name in names}
        except FileNotFoundError:
            raise StorageError(f"there is no file {path}; write it with labkit.save_compressed") from None
        except (OSError, SafetensorError) as error:
            why = _disguise(path) or str(error)
            raise StorageError(f"{path} cannot be read as a compressed model: {why}") from None
        if magic != FORMAT:
            raise StorageError(f"{path} was not written by labkit.save_compressed (it lacks '{FORMAT}')")
        checksum, _, index = rest.partition("\n")
        self.index = index.split("\n")
        self.parts = {part: found.get(part, b"") for part in PARTS}
        if checksum != f"{_checksum(index, self.parts.values()):08x}":
            raise StorageError(f"{path} is damaged (its checksum is wrong); save it again")

    def tensors(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
        """name -> float32 array, exactly the tensors named in `shapes`; StorageError if they are others."""
        values: dict[str, Array] = {}
        for line in self.index:
            kind, size, rest = line.split(" ", 2)
            fields = rest.split(" ", {"kept": 2, "levels": 4}.get(kind, 0))
            shape = () if size == "-" else tuple(map(int, size.split("x")))
            names = [f"{fields[-1]}.{key}" for key in NORM] if kind == "norm" else fields[-1:]
            for name in names:
                if name not in shapes:
                    raise StorageError(f"{self.path} does not fit this net, which has no {name}")
                if shapes[name] != shape:
                    sizes = f"{shape} in the file, {shapes[name]} in the net"
                    raise StorageError(f"{self.path} does not fit this net: {name} is {sizes}")
                values[name] = self._tensor(kind, math.prod(shape), fields).reshape(shape)
        if missing := shapes.keys() - values.keys():
            raise StorageError(f"{self.path} does not fit this net: it lacks {min(missing)}")
        if any(self.parts.values()):
            raise ValueError("bytes are left over")
        return values

    def _tensor(self, kind: str, count: int, fields: list[str]) -> Array:
        if kind in ("dense", "norm"):
            return self._take("batch_norm" if kind == "norm" else "weights", count)
        where, survivors = fields[0], int(fields[1])
        kept = self._map(where, count, survivors)
        flat = np.zeros(count, np.float32)
        if kind == "kept":
            flat[kept] = self._take("weights", survivors)
        elif kind == "levels":
            bits, levels = int(fields[2]), int(fields[3])
            if not 0 <= bits <= MOST_BITS:
                raise ValueError(f"{bits} bits a level")
            packed = self._take("levels", -(-survivors * bits // 8))
            flat[kept] = self._take("codebooks", levels)[_unpack_bits(packed, survivors, bits)]
        else:
            raise ValueError(f"unknown coding {kind}")
        return flat

    def _map(self, where: str, count: int, survivors: int) -> Array:
        """bool (count,): which weights are stored."""
        if where == "bitmap":
            bitmap = self._take("masks", -(-count // 8))
            kept = np.unpackbits(bitmap, count=count, bitorder="little").astype(bool)
        else:
            kept = np.full(count, where != "survivors")
            listed = {"none": 0, "zeros": count - survivors, "survivors": survivors}[where]
            kept[self._take("masks", listed, _position_type(count))] = where == "survivors"
        if int(kept.sum()) != survivors:
            raise ValueError("a mask does not match its weights")
        return kept

    def _take(self, part: str, count: int, kind: str = "") -> Array:
        size = count * np.dtype(kind or PARTS[part]).itemsize
        if not 0 <= size <= len(self.parts[part]):
            raise ValueError(f"{part} is too short")
        data, self.parts[part] = self.parts[part][:size], self.parts[part][size:]
        return np.frombuffer(data, kind or PARTS[part])


def _disguise(path: Path) -> str:
    try:
        with path.open("rb") as file:
            what = disguise(file.read(1000))
    except OSError as error:
        return "it is a folder" if path.is_dir() else f"{error.strerror}"
    return f"it is {what}" if what else ""


def _smallest_map(kept: Array) -> tuple[str, bytes]:
    """(kind, bytes) of the shortest note of which weights are there; kept: bool (weights,)."""
    if kept.all():
        return "none", b""
    position = _position_type(kept.size)
    options = [
        ("bitmap", np.packbits(kept, bitorder="little").tobytes()),
        ("zeros", np.flatnonzero(~kept).astype(position).tobytes()),
        ("survivors", np.flatnonzero(kept).astype(position).tobytes()),
    ]
    return min(options, key=lambda option: len(option[1]))


def _position_type(count: int) -> str:
    return "<u2" if count <= 2**16 else "<u4"


def _pack_bits(indices: Array, bits: int) -> bytes:
    """Indices below 2^bits, each in `bits` bits, lowest bit first, without gaps."""
    return np.packbits((indices.reshape(-1, 1) >> np.arange(bits)) & 1, bitorder="little").tobytes()


def _unpack_bits(packed: Array, count: int, bits: int) -> Array:
    each = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    indices: Array = each.astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64))
    return indices


def _entropy_bits(part: int, total: int) -> float:
    """total * H(part / total), in bits."""
    shares = [n / total for n in (part, total - part) if n]
    return -total * sum(share * math.log2(share) for share in shares) if total else 0.0


def _checksum(index: str, parts: Iterable[bytes | bytearray]) -> int:
    """CRC-32 over all of the file's content: told apart is a damaged file, not a forged one."""
    check = zlib.crc32(index.encode())
    for part in parts:
        check = zlib.crc32(part, check)
    return check
