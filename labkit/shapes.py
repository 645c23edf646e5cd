"""Shapes-10: ten classes of 32x32 colour pictures, drawn from a seed; no download, no files.

One large shape is the label. Small shapes lie behind it and one may cover part of it; colours, textures,
noise, position, size, proportions and angle are random. A few pictures are too hard for anyone, as in
real data. Every class is its own mirror image, so a horizontal flip never changes a label.

Each class is a table of signed distances to its outline (negative inside). To draw a shape is to ask
for every pixel which point of that table it falls on: one lookup, whatever the shape.

The same arguments give the same bytes on every machine and NumPy version: the random numbers are the raw
64-bit output of PCG64, which NumPy keeps stable, and pixels are made from them element by element with
+ - * / sqrt, floor and comparisons, which IEEE arithmetic rounds alike everywhere. (It promises nothing
for sines, or for sums over an axis, whose order is the library's choice.)
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labkit import arguments
from labkit.datasets import ImageSet

CLASSES = ("disc", "ring", "crescent", "triangle", "square", "pentagon", "star", "cross", "heart", "arrow")
TRAIN_SIZE, TEST_SIZE = 20_000, 5_000
MOST_SIZE = 1_000_000  # 3 GB
# Per channel, those of the default training set to within 0.0001; fixed, whatever the size or seed.
MEAN = (0.4990, 0.4992, 0.5011)
STD = (0.1858, 0.1857, 0.1853)

PIXELS = 32
BLOCK = 50  # pictures drawn together from one random stream, five of each class
GRID = 192  # points per side of a distance table
REACH = 1.35  # the table spans -REACH..REACH both ways; shapes have a radius of about 1

Array = NDArray[np.floating[Any]]  # always float32; NumPy's own types lose count of that
Indices = NDArray[np.int64]

AXIS: Array = np.arange(PIXELS, dtype=np.float32) - np.float32((PIXELS - 1) / 2)  # pixels from the centre
# Rounded to 6 decimals, so that a last bit that differs between maths libraries cannot reach a pixel.
TURNS = 360
COSINE: Array = np.array([round(math.cos(2 * math.pi * k / TURNS), 6) for k in range(TURNS)], np.float32)
SINE: Array = np.array([round(math.sin(2 * math.pi * k / TURNS), 6) for k in range(TURNS)], np.float32)


def draw(train: bool = True, size: int | None = None, seed: int = 0) -> ImageSet:
    """Shapes-10: 20,000 pictures for training or 5,000 for testing, or the first `size` of that stream.

    A smaller set is the beginning of a larger one. Every 50 pictures hold five of each class, in random
    order. Training and test pictures come from independent random numbers, and so does every seed.
    Drawn on the first call and then kept: equal arguments return the same tensors, so copy before writing.

    Raises ArgumentError, a ValueError, unless size and seed are whole numbers, size >= 1 and seed >= 0.
    """
    if size is None:
        size = TRAIN_SIZE if train else TEST_SIZE
    size = arguments.whole_number(size, "size", 1, MOST_SIZE)
    return _draw(bool(train), size, arguments.seed(seed))


@lru_cache(maxsize=4)
def _draw(train: bool, size: int, seed: int) -> ImageSet:
    images = np.empty((size, 3, PIXELS, PIXELS), np.uint8)
    labels = np.empty(size, np.int64)
    for start in range(0, size, BLOCK):
        dice = Dice(seed, 0 if train else 1, start // BLOCK)
        block_labels = dice.shuffled(np.arange(BLOCK) % len(CLASSES))
        # The last block is drawn whole, then cut: its pictures must not depend on `size`.
        images[start : start + BLOCK] = paint(block_labels, dice)[: size - start]
        labels[start : start + BLOCK] = block_labels[: size - start]
    return ImageSet("shapes10", torch.from_numpy(images), torch.from_numpy(labels), CLASSES, MEAN, STD)


class Dice:
    """Random numbers for one block of pictures; a key of whole numbers says for which."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def raw(self, *shape: int) -> NDArray[np.uint64]:
        return self._bits.random_raw(math.prod(shape)).reshape(shape)

    def between(self, low: float, high: float, *shape: int) -> Array:
        """Uniform numbers from low to high."""
        return low + (high - low) * ((self.raw(*shape) >> np.uint64(40)).astype(np.float32) * 2.0**-24)

    def below(self, limit: int, *shape: int) -> Indices:
        """Whole numbers 0..limit - 1."""
        return ((self.raw(*shape) >> np.uint64(32)).astype(np.int64) * limit) >> 32

    def bell(self, *shape: int) -> Array:
        """Roughly normal numbers with mean 0 and standard deviation 1: the sums of four random bytes."""
        count = math.prod(shape)
        random_bytes = self.raw(-(-count // 2)).astype("<u8").view(np.uint8)[: 4 * count]
        a, b, c, d = random_bytes.astype(np.float32).reshape(4, *shape)
        return (a + b + c + d - 510) / 147.8

    def shuffled(self, values: Indices) -> Indices:
        return values[np.argsort(self.raw(len(values)), kind="stable")]


def paint(labels: Indices, dice: Dice) -> NDArray[np.uint8]:
    """One picture for each label, (N, 3, 32, 32): background, clutter, the shape, a cover, noise."""
    n = len(labels)
    ground = dice.between(60, 195, n, 3)
    picture = textured(ground, dice)

    def small_shape(largest: float, spread: float) -> None:
        colour = dice.between(30, 225, n, 3)[:, :, None, None]
        lay_over(picture, colour, coverage(dice.below(len(CLASSES), n), (2.5, largest), spread, dice))

    for _ in range(3):
        small_shape(largest=5, spread=15)

    sign = 1 - 2 * dice.below(2, n, 3).astype(np.float32)
    colour = ground + sign * dice.between(10, 85, n, 3)
    lay_over(picture, textured(colour, dice), coverage(labels, (7.5, 12.5), 4, dice))

    small_shape(largest=7, spread=8)

    picture += dice.bell(n, 3, PIXELS, PIXELS) * (2 + dice.between(0, 5.4, n, 1, 1, 1) ** 2)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def lay_over(picture: Array, colour: Array, amount: Array) -> None:
    """Move the picture towards the colour, in place: not at all where amount is 0, fully where it is 1."""
    step = colour - picture
    step *= amount
    picture += step


def coverage(shapes: Indices, radius: tuple[float, float], spread: float, dice: Dice) -> Array:
    """How much of each pixel a shape covers, 0..1, (N, 1, 32, 32); place, size and angle are random.

    shapes: (N,) class numbers. radius: least and greatest, in pixels. spread: how far, in pixels, the
    shape's centre may lie from the picture's in either direction.
    """
    n = len(shapes)
    size = dice.between(*radius, n, 1, 1)
    stretch = dice.between(0.87, 1.15, n, 1, 1)
    turn = dice.below(TURNS, n, 1, 1)
    x = AXIS - dice.between(-spread, spread, n, 1, 1)
    y = AXIS[:, None] - dice.between(-spread, spread, n, 1, 1)
    # From pixels to the shape's own axes: turned, divided by the size, longer one way, shorter the other.
    cosine, sine = COSINE[turn] / size, SINE[turn] / size
    column = grid_index((x * cosine + y * sine) * stretch)
    row = grid_index((y * cosine - x * sine) / stretch)
    distance = distance_tables()[shapes[:, None, None], row, column]
    # An edge through the middle of a pixel covers half of it, one half a pixel away all or nothing.
    return np.clip(0.5 - distance * size, 0, 1)[:, None]


def grid_index(position: Array) -> Indices:
    """The table's row or column for a position on a shape's axis; beyond the table, its border."""
    return np.clip((position + REACH) * (GRID / (2 * REACH)), 0, GRID - 1).astype(np.int64)


def textured(colour: Array, dice: Dice) -> Array:
    """Colours (N, 3) spread over pictures (N, 3, 32, 32), uneven: clouds and stripes of random strength."""
    n = len(colour)
    pattern = clouds(n, dice) * dice.between(0, 1, n, 1, 1) + stripes(n, dice) * dice.between(0, 1, n, 1, 1)
    return colour[:, :, None, None] + pattern[:, None] * dice.between(-24, 24, n, 3, 1, 1)


def clouds(n: int, dice: Dice, cells: int = 4) -> Array:
    """Smooth noise, -1..1, (N, 32, 32): random values on a coarse grid, straight lines between them."""
    values = dice.between(-1, 1, n, cells + 1, cells + 1)
    left = np.arange(PIXELS) * cells // PIXELS
    share = np.arange(PIXELS, dtype=np.float32) * (cells / PIXELS) - left.astype(np.float32)
    rows = values[:, left] * (1 - share[:, None]) + values[:, left + 1] * share[:, None]
    return rows[:, :, left] * (1 - share) + rows[:, :, left + 1] * share


def stripes(n: int, dice: Dice) -> Array:
    """Waves, -1..1, (N, 32, 32), in a random direction, 4 to 16 pixels from crest to crest."""
    turn, length = dice.below(TURNS, n, 1, 1), dice.between(4, 16, n, 1, 1)
    phase = (AXIS * COSINE[turn] + AXIS[:, None] * SINE[turn]) / length + dice.between(0, 1, n, 1, 1)
    return 4 * np.abs(phase - np.floor(phase) - 0.5) - 1


@lru_cache(maxsize=1)
def distance_tables() -> Array:
    """Signed distance to each class's outline, (10, GRID, GRID), rows from top to bottom, as in CLASSES."""
    axis = (np.arange(GRID) + 0.5) * (2 * REACH / GRID) - REACH
    x, y = np.meshgrid(axis, axis)

    def disc(radius: float, right: float = 0, down: float = 0) -> NDArray[np.float64]:
        return np.sqrt((x - right) ** 2 + (y - down) ** 2) - radius

    def polygon(*corners: tuple[float, float]) -> NDArray[np.float64]:
        """The distance to the nearest edge; inside if a ray to the right crosses an odd number of edges."""
        nearest = np.full(x.shape, np.inf)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            ex, ey = bx - ax, by - ay
            share = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (x - ax - share * ex) ** 2 + (y - ay - share * ey) ** 2)
            inside ^= ((ay > y) != (by > y)) & ((x - ax) * abs(ey) < (y - ay) * ex * (1 if ey > 0 else -1))
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    def box(width: float, height: float, down: float = 0) -> NDArray[np.float64]:
        top, bottom = down - height / 2, down + height / 2
        return polygon((-width / 2, top), (width / 2, top), (width / 2, bottom), (-width / 2, bottom))

    def on_circles(count: int, *radii: float) -> list[tuple[float, float]]:
        """Corners all round, the first one at the top; two radii alternate and make a star."""
        turns = [TURNS * k // count for k in range(count)]
        return [
            (radii[k % len(radii)] * float(SINE[turn]), -radii[k % len(radii)] * float(COSINE[turn]))
            for k, turn in enumerate(turns)
        ]

    heart_tip = polygon((0, 0.95), (-0.83, -0.07), (0, -0.7), (0.83, -0.07))
    arrow_head = polygon((0, -1), (0.85, -0.1), (-0.85, -0.1))
    tables = {
        "disc": disc(0.85),
        "ring": np.abs(disc(0.68)) - 0.22,
        "crescent": np.maximum(disc(0.95), -disc(0.75, right=0.5)),
        "triangle": polygon(*on_circles(3, 1.05)),
        "square": box(1.45, 1.45),
        "pentagon": polygon(*on_circles(5, 0.95)),
        "star": polygon(*on_circles(10, 1.1, 0.5)),
        "cross": np.minimum(box(1.9, 0.6), box(0.6, 1.9)),
        "heart": np.minimum(np.minimum(disc(0.5, 0.42, -0.35), disc(0.5, -0.42, -0.35)), heart_tip),
        "arrow": np.minimum(arrow_head, box(0.6, 1.1, down=0.4)),
    }
    return np.stack([tables[name] for name in CLASSES]).astype(np.float32)
