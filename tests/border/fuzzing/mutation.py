"""Changes to honest messages, as chance makes them, or somebody who knows the format.

Most frames stay well-formed on the outside, so that they get past the first check of whoever reads them.
"""

from __future__ import annotations

import copy
import json
import math
import re
from random import Random
from typing import Any

MOST_BYTES = 2**20  # of a frame: what is larger takes longer, and says no more
_ALIKE = [k * (2**61 - 1) for k in range(20_000)]  # numbers with one hash
HEAVY = {
    "@deep": "[" * 100_000,
    "@set": f'["s", {_ALIKE}]',
    "@keys": f'["d", {[[["u", [number]], 0] for number in _ALIKE]}]'.replace("'", '"'),
}
# stands in a tree for what `json.dumps` would not write
RAW = {
    "@nested": "[" * 900 + "]" * 900,
    "@digits": "9" * 5000,
    "@infinite": "1e999",
    "@half": '"\\ud800"',
    "@twice": '{"a": 1, "a": [2]}',
}
_TEXTS = RAW | HEAVY
_RAW = re.compile(f'"({"|".join(_TEXTS)})"')
_KEY = re.compile(r'"(\w+)": ')
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 3, 2**31, 2**53, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, math.nan, math.inf,
    "", "x", "0", "\ud800", "\0\x1b[8m", "x" * 3000, [], {}, [[]], [0] * 300, {"": {}}, *RAW,
]  # fmt: skip


def changed(tree: Any, chance: Random, odd: list[Any]) -> Any:
    """The tree with up to four changes, and now and then a part of it many times over. odd: what may be put
    in a place."""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        tree = _change(tree, chance, odd)
    lists = (
        [(box, key) for box, key in places(tree) if isinstance(box, list)] if chance.random() < 0.015 else []
    )
    if lists:
        box, key = chance.choice(lists)
        box[key : key + 1] = [box[key]] * int(2 ** chance.uniform(1, 12))
    return tree


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Where each value in a tree is: (the list or dictionary, its index or key there)."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree] if isinstance(tree, list | dict) else []
    while waiting:
        box = waiting.pop()
        for key, value in list(box.items() if isinstance(box, dict) else enumerate(box)):
            found.append((box, key))
            if isinstance(value, list | dict):
                waiting.append(value)
    return found


def _change(tree: Any, chance: Random, odd: list[Any]) -> Any:
    found = places(tree)
    if not found:
        return _odd(chance, odd)
    box, key = chance.choice(found)
    match chance.randrange(8):
        case 0 | 1:
            box[key] = _odd(chance, odd)
        case 2:
            other, where = chance.choice(found)
            box[key] = copy.deepcopy(other[where])
        case 3:
            del box[key]
        case 4:
            for _ in range(chance.randrange(1, 60)):
                box[key] = [box[key]]
        case 5 if isinstance(box, list):
            box.insert(key, copy.deepcopy(box[key]))
        case _:
            box[key] = _near(box[key], chance)
    return tree


def _odd(chance: Random, odd: list[Any]) -> Any:
    return copy.deepcopy(chance.choice(odd if chance.random() < 0.998 else list(HEAVY)))


def _near(value: Any, chance: Random) -> Any:
    """Another value of the same kind, for the most part."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice(
            (value + 1, value - 1, -value, value << chance.randrange(1, 80), value % 2**53 + 0.5)
        )
    if isinstance(value, float):
        return chance.choice((-value, value * 1e300, math.nan, round(value) if math.isfinite(value) else 0))
    if isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        return chance.choice(
            (value[:at], value * 2, f"{value[:at]}{chr(chance.randrange(2**16))}{value[at:]}")
        )
    if isinstance(value, list):
        return chance.choice((value[::-1], value[:-1], value + value, chance.sample(value, len(value))))
    return dict(zip(value, chance.sample([*value.values()], len(value)), strict=True)) if value else value


def written(tree: Any, chance: Random) -> bytes:
    """The tree as JSON, now and then with a key twice, or in another coding."""
    text = _RAW.sub(lambda match: _TEXTS[match[1]], json.dumps(tree, ensure_ascii=chance.random() < 0.8))
    keys = _KEY.findall(text) if chance.random() < 0.1 else []
    if keys:
        one, other = chance.choice(keys), chance.choice(keys)
        text = text.replace(f'"{one}": ', f'"{other}": ', 1)
    coding = "utf-16" if chance.random() < 0.02 else "utf-8"
    return text.encode(coding, "surrogatepass")[:MOST_BYTES]


def damaged(data: bytes, chance: Random) -> bytes:
    """Some bits flipped, bytes cut, doubled, overwritten or put in."""
    new = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(new) + 1)
        part = slice(at, at + int(2 ** chance.uniform(0, 8)))
        match chance.randrange(6):
            case 0 | 1 if at < len(new):
                new[at] ^= 1 << chance.randrange(8)
            case 2:
                del new[part]
            case 3:
                del new[at:]
            case 4:
                new[at:at] = new[part] * chance.randrange(1, 4)
            case _:
                new[part] = chance.randbytes(part.stop - part.start)
    return bytes(new)
