"""Batches of pictures, made on the device that trains on them.

The data set stays one uint8 tensor. An epoch shuffles, crops, flips and normalises it batch by batch
as tensor operations: no worker processes, no PIL, and the same distribution as torchvision's
RandomCrop(32, padding=4) + RandomHorizontalFlip + Normalize.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit import arguments
from labkit.datasets import ImageSet, expect_image_set
from labkit.errors import ArgumentError
from labkit.models import default_device


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Shift each picture by -padding..padding pixels in both directions, black moving in.

    images: (N, C, H, W), any dtype. Returns the same shape and dtype. Offsets are uniform and
    independent for each picture and direction, drawn on the generator's device.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    shifts = torch.randint(2 * padding + 1, (2, count), generator=generator, device=images.device)
    # every possible crop as a view (N, C, 2p+1, 2p+1, H, W); indexing copies only the ones drawn
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(count, device=images.device), :, shifts[0], shifts[1]]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each picture left to right with probability 1/2; shape and dtype stay."""
    flip = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


class Loader:
    """Iterates over (inputs, targets): inputs float32 (B, 3, 32, 32) normalised, targets int64 (B,).

    train=True shuffles, crops and flips, anew in each epoch; train=False keeps the order and the
    pictures. The last batch may be smaller. Inputs are channels_last in memory, which is the faster
    layout for convolutions on CPUs and GPUs alike.

    epoch: counted from 0, goes up after each full pass. Together with the seed it decides the
        shuffling and the augmentation, so that a resumed run sees the batches it would have seen.
    on_batch: called with the number of pictures after each batch has been used (for progress bars).

    Raises ArgumentError, a ValueError, for arguments of another kind.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int = 256,
        train: bool = True,
        device: torch.device | str | None = None,
        seed: int = 42,
        padding: int = 4,
    ) -> None:
        self.data = expect_image_set(data, "data")
        if not len(data):
            raise ArgumentError("the data set holds no images.")
        self.batch_size = batch_size = arguments.whole_number(batch_size, "batch_size", 1)
        self.train = arguments.truth(train, "train")
        self.device = arguments.device(device) if device is not None else default_device()
        self.seed = arguments.seed(seed)
        self.padding = arguments.whole_number(padding, "padding", 0)
        self.epoch = 0
        self.on_batch: Callable[[int], object] | None = None
        self._images, self._labels = data.on(self.device)
        # On a GPU the whole epoch is cropped and flipped at once, a handful of kernels in all. On a CPU
        # a batch at a time: it stays in the cache, and memory holds the pictures only once.
        self._chunk = batch_size if self.device.type == "cpu" else len(data)
        # (pixel / 255 - mean) / std as one multiplication and one addition
        std = torch.tensor(data.std, device=self.device).view(1, 3, 1, 1)
        mean = torch.tensor(data.mean, device=self.device).view(1, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator(self.device).manual_seed(self.seed * 100_003 + self.epoch)
        count = len(self.data)
        order = torch.randperm(count, generator=generator, device=self.device) if self.train else None
        for start in range(0, count, self._chunk):
            part = slice(start, start + self._chunk)
            chosen: Tensor | slice = part if order is None else order[part]
            images, labels = self._images[chosen], self._labels[chosen]
            if self.train:
                images = random_flip(random_crop(images, self.padding, generator), generator)
            batches = torch.split(images, self.batch_size), torch.split(labels, self.batch_size)
            for inputs, targets in zip(*batches, strict=True):
                yield self._normalise(inputs), targets
                if self.on_batch is not None:
                    self.on_batch(len(targets))
        self.epoch += 1

    def _normalise(self, images: Tensor) -> Tensor:
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).add_(self._shift)
