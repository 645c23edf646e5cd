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


def coded_picture() -> ImageSet:
    """One picture whose pixels tell where they came from: row, column, and that they are no border."""
    rows, columns = np.mgrid[0:32, 0:32]
    pixels = torch.from_numpy(np.stack([rows + 1, columns + 1, np.full((32, 32), 255)]).astype(np.uint8))
    return ImageSet("coded", pixels[None], torch.zeros(1, dtype=torch.int64), ("one",), (0, 0, 0), (1, 1, 1))


def variant(pixels: np.ndarray, dy: int, dx: int, mirrored: bool) -> np.ndarray:
    """NumPy's own crop of the padded picture at (dy, dx), mirrored or not."""
    crop = np.pad(pixels, ((0, 0), (4, 4), (4, 4)))[:, dy : dy + 32, dx : dx + 32]
    return crop[:, :, ::-1] if mirrored else crop


@pytest.mark.parametrize("at_once", [False, True], ids=["batch by batch", "whole epoch, as on a GPU"])
def test_augmentation_has_torchvisions_distribution(at_once: bool) -> None:
    one = coded_picture()
    pixels = one.images[0].numpy()
    number = {
        variant(pixels, dy, dx, mirrored).tobytes(): (dy, dx, mirrored)
        for dy in range(9)
        for dx in range(9)
        for mirrored in (False, True)
    }
    assert len(number) == 162  # every outcome looks different, so each can be told from its pixels
    # what RandomCrop(32, padding=4) + RandomHorizontalFlip make is among them, and nothing else is
    torch.manual_seed(0)
    theirs = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    assert all(theirs(one.images[0]).numpy().tobytes() in number for _ in range(500))

    count = 162 * 50
    many = ImageSet(
        "coded", one.images.expand(count, -1, -1, -1), one.labels.expand(count), ("one",), one.mean, one.std
    )
    loader = Loader(many, batch_size=500, device="cpu")
    if at_once:
        loader._chunk = count
    seen = np.zeros((9, 9, 2))
    for inputs, _ in loader:
        for picture in (inputs * 255).round().to(torch.uint8).contiguous().numpy():
            dy, dx, mirrored = number[picture.tobytes()]
            seen[dy, dx, int(mirrored)] += 1
    # uniform over all 162 at once: then offsets are uniform, flips are even, and neither knows of the other
    chi_square = float(((seen - 50) ** 2 / 50).sum())
    assert chi_square < 161 + 4 * np.sqrt(2 * 161)


def test_an_epoch_prepared_at_once_is_an_epoch(small_set: ImageSet) -> None:
    loader = Loader(small_set, batch_size=40, device="cpu", padding=0)
    loader._chunk = len(small_set)
    used: list[int] = []
    loader.on_batch = used.append
    batches = list(loader)
    assert [len(targets) for _, targets in batches] == used == [40, 40, 16]
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(targets.sort().values, small_set.labels.sort().values)
    # the label decides the brightness, so pictures and labels have stayed together
    brightness = torch.stack([inputs[targets == k].mean() for k in range(10)])
    assert (brightness.diff() > 0).all() and loader.epoch == 1


def test_pictures_are_copied_to_a_device_once(small_set: ImageSet) -> None:
    first, second = small_set.on("meta"), small_set.on(torch.device("meta"))
    assert first[0] is second[0] and first[0].device.type == "meta"
    assert small_set.on("cpu")[0] is small_set.images


def test_a_batch_size_of_zero_is_refused(small_set: ImageSet) -> None:
    with pytest.raises(ValueError, match="batch_size should be a whole number, 1 or larger, not 0"):
        Loader(small_set, batch_size=0)
