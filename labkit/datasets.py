"""The two data sets of the lab, as plain tensors: CIFAR-10 and Shapes-10.

A data set is one uint8 tensor of pictures and one int64 tensor of labels, once in memory (184 MB
for all of CIFAR-10). CIFAR-10 is looked for on this machine, then downloaded (`labkit.download`);
Shapes-10 is drawn (`labkit.shapes`) and needs neither network nor disk.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from labkit import arguments
from labkit.download import fetch_cifar10, read_verified
from labkit.errors import ArgumentError, LabError


@dataclass(frozen=True)
class ImageSet:
    """Pictures with their labels.

    images: uint8 (N, 3, 32, 32), contiguous, on the CPU. labels: int64 (N,), 0..9.
    mean, std: per channel, in units of [0, 1], what normalising subtracts and divides by.

    Raises ArgumentError for tensors of another kind.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    _copies: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name, dtype, dimensions in (("images", torch.uint8, 4), ("labels", torch.int64, 1)):
            given = arguments.tensor(getattr(self, name), name)
            if given.dtype != dtype or given.dim() != dimensions:
                found = f"{given.dtype} of {given.dim()}"
                raise ArgumentError(f"{name} should be {dtype} of {dimensions} dimensions, not {found}.")
        if len(self.images) != len(self.labels):
            raise ArgumentError(f"there are {len(self.images)} images and {len(self.labels)} labels.")

    def __len__(self) -> int:
        return len(self.images)

    def on(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """(images, labels) on that device: copied there once, whoever asks; on the CPU not copied at all."""
        device = arguments.device(device)
        if device == torch.device("cuda"):  # a tensor that lies there says cuda:0
            device = torch.device("cuda", torch.cuda.current_device())
        if device == self.images.device:
            return self.images, self.labels
        if device not in self._copies:
            self._copies[device] = self.images.to(device), self.labels.to(device)
        return self._copies[device]

    def subset(self, indices: Tensor | slice) -> ImageSet:
        """The same data set with only these pictures; a slice shares memory, an index tensor copies.

        Raises ArgumentError for positions of another kind, or beyond the last picture.
        """
        given: object = indices
        if isinstance(given, int):
            raise ArgumentError(f"subset takes a slice or positions: the first {given} are slice({given}).")
        try:
            return replace(self, images=self.images[indices], labels=self.labels[indices])
        except (IndexError, TypeError) as error:
            raise ArgumentError(f"there are {len(self):,} pictures to choose from: {error}.") from None

    def split(self, held_out: int, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """(the rest, `held_out` randomly chosen pictures): a validation set that training never sees.

        Raises ArgumentError, a ValueError, unless 0 < held_out < len(self).
        """
        if not isinstance(held_out, int) or not 0 < held_out < len(self):
            raise ArgumentError(f"cannot hold out {arguments.shown(held_out)} of {len(self)} pictures")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(arguments.seed(seed)))
        return self.subset(order[held_out:]), self.subset(order[:held_out])


def expect_image_set(value: object, name: str) -> ImageSet:
    """`value`, if it is an ImageSet; else ArgumentError with the way to one."""
    if isinstance(value, ImageSet):
        return value
    ways = {
        "DataLoader": "labkit makes the batches itself: pass labkit.cifar10() or labkit.shapes10().",
        "CIFAR10": "labkit has the same images as tensors: pass labkit.cifar10().",
        "Loader": "Pass the images that it loads: loader.data.",
        "function": "Call it: with its brackets it gives the images.",
    }
    way = ways.get(type(value).__name__, "")
    raise ArgumentError(
        f"{name} should be an ImageSet, such as labkit.cifar10(), not {arguments.shown(value)}. {way}".strip()
    )


CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)


def cifar10(train: bool = True, root: str | Path | None = None) -> ImageSet:
    """CIFAR-10: 50,000 pictures for training or 10,000 for testing, in the official order.

    root: a folder to look in before the others that `labkit.download` lists, and to download to if
        none of them has a good copy.

    Read on the first call, then kept: a second call returns the same object, so copy before writing.
    Raises LabError if there is no good copy and none can be downloaded.
    """
    return _read_cifar10(_is_train(train), _cifar10_in(root))


def _cifar10_in(root: str | Path | None) -> Path:
    return fetch_cifar10(None if root is None else arguments.path(root, "root"))


def _is_train(train: object) -> bool:
    return arguments.truth(train, "train", "train=False gives the images for testing.")


def torchvision_cifar10(
    train: bool = True, root: str | Path | None = None, transform: Callable[[Any], Any] | None = None
) -> Any:
    """torchvision's own CIFAR10 over the same files, for teaching: (PIL picture, label) pairs.

    Raises LabError if torchvision is missing or does not match torch; `cifar10` does not need it.
    """
    try:
        from torchvision.datasets import CIFAR10
    except Exception as error:  # a torchvision of another torch fails with whatever it trips over first
        raise LabError(
            f"torchvision cannot be imported ({type(error).__name__}: {error}). Install a pair that matches "
            "with `pip install torch torchvision`, or use labkit.cifar10, which does not need torchvision."
        ) from None
    train, folder = _is_train(train), _cifar10_in(root)
    kind = CIFAR10
    if folder.name != kind.base_folder:  # torchvision joins its root with this name
        kind = type("CIFAR10", (CIFAR10,), {"base_folder": folder.name})
    return kind(folder.parent, train=train, transform=transform)


def shapes10(train: bool = True, size: int | None = None, seed: int = 0) -> ImageSet:
    """Shapes-10, drawn here: 20,000 pictures for training or 5,000 for testing, or `size` of them.

    The same arguments give the same pictures on every machine; see `labkit.shapes.draw`.
    """
    from labkit.shapes import draw  # it imports this module

    return draw(_is_train(train), size, seed)


@cache
def _read_cifar10(train: bool, folder: Path) -> ImageSet:
    """Fill the tensors batch by batch, so that no more than one batch is in memory twice."""
    names = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    images, labels = torch.empty(0, 3, 32, 32, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    for index, name in enumerate(names):
        batch = _read_batch(folder, name)
        count = len(batch[b"labels"])
        if not index:
            images = torch.empty(len(names) * count, 3, 32, 32, dtype=torch.uint8)
            labels = torch.empty(len(names) * count, dtype=torch.int64)
        rows = slice(index * count, (index + 1) * count)
        images.numpy()[rows] = batch[b"data"].reshape(-1, 3, 32, 32)
        labels[rows] = torch.tensor(batch[b"labels"])
        del batch  # before the next one is read
    return ImageSet("cifar10", images, labels, CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD)


def _read_batch(folder: Path, name: str) -> Any:
    """One batch file's dictionary: b"data" uint8 (N, 3072), b"labels" a list of N numbers.

    Unpickling can run code that the file names. These bytes are the official ones, by their md5: that is
    what makes it safe. BatchUnpickler is a second lock, and knows only the names that those files use.
    """
    return BatchUnpickler(io.BytesIO(read_verified(folder, name)), encoding="bytes").load()


class BatchUnpickler(pickle.Unpickler):
    """Reads a batch file of CIFAR-10 (Python 2, protocol 2) and nothing that needs other names."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): lambda _, shape, code: np.ndarray(shape, code),
        ("numpy", "ndarray"): np.ndarray,
        # The files say align=0, copy=1 where NumPy now wants booleans.
        ("numpy", "dtype"): lambda code, align, copy: np.dtype(code, align=bool(align), copy=bool(copy)),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a CIFAR-10 file") from None
