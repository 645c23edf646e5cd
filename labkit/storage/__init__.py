"""The bytes that a pruned and quantized model really takes, in a file that is read back exactly.

The file is a safetensors container of five arrays, one for each part of the model, and a header
that says what lies where. A weight tensor is stored in whichever of these ways is smallest:

- dense: every weight as float32
- kept: where the zeros are, and the survivors as float32
- levels: where the zeros are, the survivors as level indices of `bits` bits each, and a codebook
  of the distinct float32 levels. A codebook and not scale and offset: it gives back each level bit for
  bit, whatever formula the quantizer used.

Where the zeros are is a bitmap (1 bit a weight) or the list of the zeros' or the survivors' positions
(2 bytes each, 4 in large layers), whichever is smallest; nothing if there are none. Batch norm's four
vectors and biases stay float32. A quantized layer is stored as its effective weight, so the file loads
into the floating-point network, which then computes the same without a quantizer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from labkit import arguments
from labkit.files import write_atomically
from labkit.models import quantized_layers
from labkit.sparsity import html_table
from labkit.storage.codec import Packer, Reader, StorageError, stored_state

__all__ = [
    "CompressedSize",
    "SizeReport",
    "StorageError",
    "load_compressed",
    "save_compressed",
    "size_report",
]


@dataclass(frozen=True)
class SizeReport:
    """What a model takes, in bytes, part by part; `print(report)` shows it.

    levels: packed indices. masks: where the zeros are. codebooks: the levels' values. weights:
    floating-point weights and biases. batch_norm: its four vectors. header: names, shapes, lengths.
    float32: the same weights, biases and batch norm vectors as plain float32, without any header.
    ideal_bits: see `size_report`.
    """

    levels: int
    masks: int
    codebooks: int
    weights: int
    batch_norm: int
    header: int
    float32: int
    ideal_bits: float

    @property
    def total(self) -> int:
        """The size of the file that `save_compressed` writes."""
        return sum(size for _, size in self.parts)

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than the float32 values."""
        return self.float32 / self.total

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        return (
            ("level indices", self.levels),
            ("masks", self.masks),
            ("codebooks", self.codebooks),
            ("float weights and biases", self.weights),
            ("batch norm", self.batch_norm),
            ("header", self.header),
        )

    @property
    def _lines(self) -> list[tuple[str, str]]:
        return [
            *((name, f"{size:,}") for name, size in (*self.parts, ("total", self.total))),
            ("the same in float32", f"{self.float32:,}"),
            ("ideal entropy", f"{self.ideal_bits / 8:,.0f}"),
        ]

    def __str__(self) -> str:
        lines = [f"{name:<26}{size:>12} bytes" for name, size in self._lines]
        return "\n".join([*lines, f"{self.ratio:.1f} times smaller than float32"])

    def _repr_html_(self) -> str:
        caption = f"The model's size, {self.ratio:.1f} times smaller than float32"
        return html_table(caption, ("part", "bytes"), self._lines)


@dataclass(frozen=True)
class CompressedSize:
    """The file that was written, its size in bytes, and the float32 size of the same model."""

    path: Path
    total: int
    float32: int

    @property
    def ratio(self) -> float:
        return self.float32 / self.total

    def __str__(self) -> str:
        return (
            f"{self.path.name}: {self.total:,} bytes, {self.ratio:.1f} times smaller than float32 "
            f"({self.float32:,} bytes)"
        )


def save_compressed(net: nn.Module, path: str | os.PathLike[str]) -> CompressedSize:
    """Writes `net` as small as this module can, whole or not at all.

    Raises StorageError if the net holds values that float32 cannot give back exactly, and LabError if the
    file cannot be written.
    """
    packer, path = Packer(net), arguments.path(path)
    blob = packer.blob()
    write_atomically(path, lambda part: part.write_bytes(blob))
    return CompressedSize(path, len(blob), packer.float32)


def size_report(net: nn.Module) -> SizeReport:
    """What `save_compressed(net, ...)` would write, part by part, next to an ideal.

    The ideal counts, in bits: for a tensor of n weights with s survivors n * H(s / n) for where they
    are (H the binary entropy: positions independent, coded perfectly) and s * b for their values (b
    the bit width, 32 in floating-point layers and biases); 64 for each quantized layer's scale and
    offset; 32 for each batch norm value; no header.
    """
    packer = Packer(net)
    sizes = {part: len(data) for part, data in packer.parts.items()}
    header = len(packer.blob()) - sum(sizes.values())
    return SizeReport(**sizes, header=header, float32=packer.float32, ideal_bits=packer.ideal_bits)


@torch.no_grad()
def load_compressed(path: str | os.PathLike[str], net: nn.Module) -> None:
    """Fills `net`, a float32 network of the same shape without a quantizer, with the weights in the file.

    They are the effective weights of the net that was saved, bit for bit (-0.0 comes back as 0.0).
    Batch norm's step counters, `num_batches_tracked`, are not in the file and stay as they are in `net`,
    which changes only if all is well.

    Raises StorageError if the file is missing, damaged, not from `save_compressed`, or does not fit.
    """
    path = arguments.path(path)
    for name, _ in quantized_layers(net):
        raise StorageError(
            f"{name} would quantize the weights again: load {path.name} into labkit.resnet20() without bits"
        )
    targets = stored_state(net)
    try:
        values = Reader(path).tensors({name: tuple(target.shape) for name, target in targets.items()})
    except StorageError:
        raise
    except (ValueError, KeyError, IndexError) as error:
        raise StorageError(f"{path} is damaged ({error}); save it again") from error
    for name, value in values.items():
        targets[name].copy_(torch.tensor(value))
