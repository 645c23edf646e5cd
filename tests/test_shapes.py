"""Shapes-10 is the same everywhere, and drawn only when asked for."""

from __future__ import annotations

import hashlib
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from labkit import shapes
from labkit.datasets import ImageSet

# The published accuracies and the shipped weights belong to these pictures. If this changes, so must they.
FIRST_PICTURES = "150d84f3f10909df749413064e95076598db0a0ecd09b12e74608ba4e36c5cbd"


def draw_again(train: bool = True, size: int | None = None, seed: int = 0) -> ImageSet:
    """`draw` without its memory of earlier calls."""
    shapes._draw.cache_clear()
    return shapes.draw(train, size, seed)


def same(a: ImageSet, b: ImageSet) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_the_pictures_are_those_of_every_other_machine() -> None:
    digest = hashlib.sha256()
    for train in (True, False):
        data = shapes.draw(train, 120)
        digest.update(data.images.numpy().tobytes())
        digest.update(data.labels.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == FIRST_PICTURES


def test_drawing_twice_gives_the_same_pictures() -> None:
    assert same(draw_again(size=130, seed=3), draw_again(size=130, seed=3))


def test_equal_arguments_are_drawn_once() -> None:
    assert shapes.draw(size=60) is shapes.draw(True, 60, seed=0)


@pytest.mark.parametrize("size", [1, 49, 50, 51, 130])
def test_a_smaller_set_is_the_beginning_of_a_larger_one(size: int) -> None:
    assert same(shapes.draw(size=size), shapes.draw(size=230).subset(slice(0, size)))


def test_training_and_test_pictures_and_seeds_differ() -> None:
    sets = [shapes.draw(train, 200, seed) for train in (True, False) for seed in (0, 1)]
    pictures = {picture.numpy().tobytes() for data in sets for picture in data.images}
    assert len(pictures) == 4 * 200
    assert len({tuple(data.labels.tolist()) for data in sets}) == 4


def test_every_class_is_equally_frequent_and_in_random_order() -> None:
    labels = shapes.draw(size=400).labels
    assert labels.bincount().tolist() == [40] * 10
    blocks = labels.view(-1, shapes.BLOCK)
    assert (blocks.sort().values == torch.arange(10).repeat_interleave(5)).all()
    assert len({tuple(block) for block in blocks.tolist()}) == len(blocks)


def test_the_set_is_what_the_lab_expects_of_one() -> None:
    data = shapes.draw(size=100)
    assert data.images.shape == (100, 3, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.images.is_contiguous()
    assert data.labels.shape == (100,)
    assert data.labels.dtype == torch.int64
    assert len(data.classes) == len(set(data.classes)) == 10
    assert all(name.isalpha() and name.islower() for name in data.classes)


def test_default_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_draw", lambda train, size, seed: (train, size, seed))  # which takes seconds
    assert shapes.draw() == (True, 20_000, 0)  # type: ignore[comparison-overlap]
    assert shapes.draw(train=False) == (False, 5_000, 0)  # type: ignore[comparison-overlap]


def test_the_constants_normalise_unseen_pictures() -> None:
    data = shapes.draw(train=False, size=2_000, seed=1)
    pixels = data.images.double().div(255).transpose(0, 1).flatten(1)
    assert torch.allclose(pixels.mean(1), torch.tensor(data.mean).double(), atol=0.01)
    assert torch.allclose(pixels.std(1), torch.tensor(data.std).double(), atol=0.01)


def test_pixels_use_the_whole_range() -> None:
    images = shapes.draw(size=1_000).images
    assert images.min() == 0
    assert images.max() == 255
    assert images.flatten().bincount().count_nonzero() == 256


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_a_flip_never_changes_the_class(name: str) -> None:
    """Each outline is its own mirror image about one axis, and pictures come at every angle."""
    table = shapes.distance_tables()[shapes.CLASSES.index(name)]
    assert np.allclose(table, table[:, ::-1], atol=1e-5) or np.allclose(table, table[::-1], atol=1e-5)


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_a_distance_grows_by_at_most_the_distance_walked(name: str) -> None:
    table = shapes.distance_tables()[shapes.CLASSES.index(name)]
    step = 2 * shapes.REACH / shapes.GRID
    for axis in (0, 1):
        assert np.abs(np.diff(table, axis=axis)).max() <= step * 1.001
    assert table.min() < -0.1
    border = np.concatenate([table[0], table[-1], table[:, 0], table[:, -1]])
    # A pixel beyond the table takes the border's distance: no shape may come within a pixel of it.
    assert border.min() > 0.5 / 2.5


def test_an_area_is_what_geometry_says() -> None:
    """Covered pixels against the formula, for three shapes: an outline that is off would show here."""
    cell = (2 * shapes.REACH / shapes.GRID) ** 2
    tables = dict(zip(shapes.CLASSES, shapes.distance_tables(), strict=True))
    areas = {name: (table < 0).sum() * cell for name, table in tables.items()}
    assert areas["disc"] == pytest.approx(np.pi * 0.85**2, rel=0.01)
    assert areas["square"] == pytest.approx(1.45**2, rel=0.02)
    assert areas["triangle"] == pytest.approx(3 * np.sqrt(3) / 4 * 1.05**2, rel=0.02)
    assert areas["cross"] == pytest.approx(2 * 1.9 * 0.6 - 0.6**2, rel=0.02)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": -5}, {"size": 2.5}, {"seed": -1}, {"seed": "0"}])
def test_impossible_arguments_are_named(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} should be a whole number, .* not {value!r}"):
        shapes.draw(**wrong)


def test_importing_draws_nothing() -> None:
    spec = importlib.util.spec_from_file_location("once_more", shapes.__file__)
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again._draw.cache_info().misses == 0
    assert again.distance_tables.cache_info().misses == 0
