from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import transforms

from labkit.datasets import ImageSet
from labkit.loaders import Loader, random_crop, random_flip
from tests.conftest import random_pictures


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_test_batches_are_what_torchvision_makes(small_set: ImageSet) -> None:
    pipeline = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(small_set.mean, small_set.std)]
    )
    wanted = torch.stack([pipeline(image.permute(1, 2, 0).numpy()) for image in small_set.images])
    loader = Loader(small_set, batch_size=40, train=False, device="cpu")
    got = torch.cat([inputs for inputs, _ in loader])
    assert torch.allclose(got, wanted, atol=1e-5)
    assert torch.equal(torch.cat([targets for _, targets in loader]), small_set.labels)
    assert len(loader) == 3


def test_each_picture_comes_once_an_epoch_in_a_new_order(small_set: ImageSet) -> None:
    loader = Loader(small_set, batch_size=32, device="cpu", padding=0)
    orders = []
    for _ in range(2):
        targets = torch.cat([targets for _, targets in loader])
        assert torch.equal(targets.sort().values, small_set.labels.sort().values)
        orders.append(targets)
    assert not torch.equal(*orders)
    assert loader.epoch == 2


def test_an_epoch_is_the_same_whenever_it_is_asked_for(small_set: ImageSet) -> None:
    first, second = (Loader(small_set, batch_size=32, device="cpu", seed=5) for _ in range(2))
    list(first)
    second.epoch = 1
    for (a, _), (b, _) in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_crop_shifts_each_picture_uniformly_with_black_moving_in() -> None:
    # a picture whose pixels tell where they came from: the crop can be read off
    base = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)
    crops = random_crop(base.expand(20_000, 1, 4, 4), 2, generator())
    padded = torch.nn.functional.pad(base, [2] * 4)[0, 0]
    counts = np.zeros((5, 5), int)
    for y in range(5):
        for x in range(5):
            counts[y, x] = int((crops[:, 0] == padded[y : y + 4, x : x + 4]).all(dim=(1, 2)).sum())
    assert counts.sum() == 20_000  # nothing else ever comes out
    assert abs(counts - 800).max() < 5 * np.sqrt(800)


def test_crop_and_flip_keep_shape_and_dtype(small_set: ImageSet) -> None:
    for function in (lambda x: random_crop(x, 4, generator()), lambda x: random_flip(x, generator())):
        result = function(small_set.images)
        assert result.shape == small_set.images.shape and result.dtype == torch.uint8


def test_half_of_the_pictures_are_mirrored() -> None:
    images = torch.zeros(10_000, 1, 1, 2, dtype=torch.uint8)
    images[..., 1] = 1
    flipped = random_flip(images, generator())[:, 0, 0, 0] == 1
    assert abs(int(flipped.sum()) - 5000) < 250


def test_border_is_black_before_normalising() -> None:
    data = random_pictures(64)
    data.images.fill_(255)
    inputs, _ = next(iter(Loader(data, batch_size=64, device="cpu")))
    black = (0 - data.mean[0]) / data.std[0]
    assert torch.isclose(inputs.min(), torch.tensor(black), atol=1e-5)


def test_pictures_are_not_copied_by_a_loader_on_the_cpu(small_set: ImageSet) -> None:
    loader = Loader(small_set, device="cpu")
    assert loader._images.data_ptr() == small_set.images.data_ptr()


def test_a_batch_size_of_zero_is_refused(small_set: ImageSet) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        Loader(small_set, batch_size=0)
