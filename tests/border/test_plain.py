"""What comes out of a student's process: written down, read back, and forged."""

from __future__ import annotations

import copy
import json
import random
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("nbgrader")

from labkit.grading.channel import Malformed
from labkit.grading.plain import Decoder, Encoder, Opaque


def crossed(value: Any) -> Any:
    """The value as it arrives."""
    encoder = Encoder()
    tree = json.loads(json.dumps(encoder.encode(value)))
    return Decoder([bytearray(buffer) for buffer in encoder.buffers]).decode(tree)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -(10**30), 2.5, "text", "", [], (), {}, [1, [2, (3, None)]], {"a": [1], 2: (3,)}, {1, 2},
        1e300, -0.0, "ü\n",
    ],
)  # fmt: skip
def test_plain_values_arrive_as_they_are(value: Any) -> None:
    assert crossed(value) == value
    assert type(crossed(value)) is type(value)


def test_numbers_that_are_none() -> None:
    assert crossed(float("inf")) == float("inf")
    assert crossed([float("nan")])[0] != crossed([float("nan")])[0]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5), torch.empty(0, 4), torch.arange(6).reshape(2, 3), torch.tensor([True, False]),
        torch.randn(4, 3).t(), torch.randn(8)[::3], torch.randn(3, dtype=torch.float64),
        torch.randn(3).to(torch.bfloat16), torch.randn(3).half(), torch.randn(2, dtype=torch.complex64).conj(),
        torch.randn(1, 3).expand(4, 3),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)  # fmt: skip
def test_tensors(tensor: torch.Tensor) -> None:
    got = crossed(tensor)
    assert got.dtype == tensor.dtype and got.shape == tensor.shape
    assert torch.equal(got, tensor)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3)[::-1, ::-1], np.array(3), np.zeros((0, 2)), np.array([True, False]),
        np.arange(4, dtype=np.int8), np.arange(4, dtype=">f4"), np.asfortranarray(np.ones((2, 3))),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)  # fmt: skip
def test_arrays(array: np.ndarray) -> None:
    got = crossed(array)
    assert got.dtype == array.dtype and got.shape == array.shape
    assert np.array_equal(got, array)


def test_numpys_scalars_stay_numpys() -> None:
    assert isinstance(crossed(np.float32(2.5)), np.float32)
    assert isinstance(crossed(np.int64(3)), np.int64)


@pytest.mark.parametrize(
    ("number", "plain"),
    [(Fraction(1, 3), 1 / 3), (Fraction(80), 80.0), (Decimal("62.5"), 62.5), (Decimal("NaN"), float("nan"))],
)
def test_numbers_of_other_kinds_arrive_as_floats(number: Any, plain: float) -> None:
    assert type(crossed(number)) is float
    assert crossed([number])[0] == pytest.approx(plain, nan_ok=True)
    assert isinstance(crossed(Fraction(10**400)), Opaque)  # more than a float holds


class Sure(float):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = float.__hash__


class Lying(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return "no"


def test_subclasses_arrive_as_what_they_are_made_of() -> None:
    assert type(crossed(Sure(2))) is float
    assert type(crossed(torch.ones(2).as_subclass(Lying))) is torch.Tensor


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 1,
        (x for x in "ab"),
        Ellipsis,
        b"bytes",
        np.array([object()]),
        torch.ones(2).to_sparse(),
        type,
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_opaque(value: Any) -> None:
    assert isinstance(crossed(value), Opaque)


def test_what_is_nested_without_end_is_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "nested too deeply" in repr(crossed(endless))


FORGED: list[Any] = [
    [], ["?"], ["t"], ["t", "float32", [2], 0, None], ["t", "float32", [-1], 0, None], ["t", "object", [1], 0, None],
    ["t", "float32", [2**39, 2**39], 0, None], ["t", "float32", "x", 0, None], ["t", "float32", [1], 99, None],
    ["t", "float32", [1], -1, None], ["a", "|O", [1], 0, False], ["a", "O8", [1], 0, False], ["a", "f4,f4", [1], 0, True],
    ["d", [[["l", []], 1]]], ["d", [1]], ["s", [["l", []]]], ["T", 0], ["f", "abc"], ["y", "object"], ["l", 3],
    [["l"], 1], {"a": 1}, ["t", "float32", [True], 0, None], ["u", {"0": 1}],
    ["l", [["t", "uint8", [4], 0, None]] * 2], ["d", [["x", ["t", "bool", [4], 0, None]], ["y", ["a", "|b1", [4], 0, False]]]],
]  # fmt: skip


@pytest.mark.parametrize("tree", FORGED, ids=lambda tree: str(tree)[:40])
def test_a_forged_value_is_malformed_and_nothing_else(tree: Any) -> None:
    with pytest.raises(Malformed):
        Decoder([bytearray(4)]).decode(tree)


def test_too_many_items_are_malformed() -> None:
    with pytest.raises(Malformed, match="items"):
        Decoder([]).decode(["l", [["l", [0] * 1000] for _ in range(501)]])


@pytest.mark.parametrize("size", [2**40, 2**39, 2**30])
def test_an_empty_tensor_has_no_impossible_size(size: int) -> None:
    for shape in ([0, size], [size, 0], [2**20, 0, size]):
        for tree in (["t", "uint8", shape, 0, None], ["a", "|u1", shape, 0, False]):
            with pytest.raises(Malformed):
                Decoder([bytearray()]).decode(tree)


ALIKE = [k * (2**61 - 1) for k in range(100_000)]  # the hash of each is 0


@pytest.mark.parametrize(
    "tree",
    [
        ["s", ALIKE], ["d", [[number, None] for number in ALIKE]],
        ["s", [["u", [number, "x"]] for number in ALIKE]], ["l", [["s", ALIKE[:101] * 10]] * 3],
    ],
    ids=["a set", "keys", "tuples", "many sets"],
)  # fmt: skip
def test_values_of_one_hash_do_not_take_minutes(tree: Any) -> None:
    begin = time.process_time()
    with pytest.raises(Malformed):
        Decoder([]).decode(tree)
    assert time.process_time() - begin < 20  # without the bound an hour


def test_many_different_values_can_be_told_apart() -> None:
    for value in (set(range(100_000)), {k / 8: str(k) for k in range(50_000)}, {-1, -2, 2**61 - 1, 0}):
        assert crossed(value) == value


def test_a_byte_of_2_is_true() -> None:
    got = Decoder([bytearray([0, 1, 2])]).decode(["t", "bool", [3], 0, None])
    assert got.tolist() == [False, True, True]
    assert int(got.sum()) == 2


def test_random_damage_is_malformed_or_another_value() -> None:
    encoder = Encoder()
    value = {"w": torch.randn(3, 4), "l": [1, (2.5, None), np.arange(3)], "n": {"x": "y"}}
    tree = encoder.encode(value)
    chance = random.Random(7)
    pieces: list[Any] = [None, -1, 3, 2**70, "t", "l", [], ["t"], {}, 1.5, True, [[]], "float32"]
    malformed = 0
    for _ in range(3000):
        damaged = copy.deepcopy(tree)
        place = damaged
        while isinstance(place, list) and place:
            number = chance.randrange(len(place))
            if chance.random() < 0.4 or not isinstance(place[number], list):
                place[number] = copy.deepcopy(chance.choice(pieces))
                break
            place = place[number]
        try:
            Decoder([bytearray(buffer) for buffer in encoder.buffers]).decode(damaged)
        except Malformed:
            malformed += 1
    assert malformed > 500
