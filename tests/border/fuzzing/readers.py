"""What reads bytes that a student's code may have written, each with honest frames and what it promises."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from random import Random
from typing import Any, cast, get_args

import nbformat
import numpy as np
import torch
from torch import Tensor

from labkit.check.engine import Failed
from labkit.grading import answered
from labkit.grading.answered import Unbelievable
from labkit.grading.channel import Channel, ChannelError, Malformed
from labkit.grading.outputs import safe_markdown
from labkit.grading.plain import DTYPES, Decoder, Encoder, Opaque
from labkit.grading.reading import Unreadable, read_notebook
from labkit.grading.remote import Calls, Lost
from labkit.grading.repair import repair
from labkit.grading.student import Student
from labkit.grading.verdicts import Graded, VerdictKind
from tests.border.fuzzing.calls import Lent, Message, call_streams
from tests.border.fuzzing.mutation import ODD, changed, damaged, places, written
from tests.border.fuzzing.notebooks import NOTEBOOKS, RELEASED
from tests.border.fuzzing.run import Reader, expect
from tests.grader.test_answered import HONEST, JOB

TREES = [
    *ODD, *DTYPES, *"talusdfyoTAO", ["T", 0], ["A", 0], ["O", 0], ["f", "nan"], ["o", "x"], ["y", "bool"], ["l", []],
    ["d", [["training", True]]], ["t", "bool", [1], 0, None], ["a", "<f8", [1], 0, True], ["t", "int64", [0, 9], 0, 0],
]  # fmt: skip


class Wire:
    """The end of a socket whose other end has sent these bytes and closed."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def recv_into(self, place: memoryview) -> int:
        size = min(len(place), len(self._rest))
        place[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def recv(self, most: int) -> bytes:
        data, self._rest = bytes(self._rest[:most]), self._rest[most:]
        return data

    def send(self, data: memoryview) -> int:
        return len(data)

    def setblocking(self, flag: bool) -> None: ...

    def settimeout(self, seconds: float) -> None: ...


def channel(data: bytes) -> Channel:
    return Channel(cast(Any, Wire(data)))


def soon() -> float:
    return time.monotonic() + 3600


# ---- messages: the channel itself, plain values, and calls


def message(header: dict[str, Any], buffers: Sequence[bytes], chance: Random, change: bool) -> bytes:
    """A message as it travels, changed or as it is."""
    parts, tree = list(buffers), json.loads(json.dumps(header))
    if change and chance.random() < 0.3:
        _refit(tree, parts, chance)
    tree["sizes"] = [len(part) for part in parts]
    text = written(changed(tree, chance, TREES) if change else tree, chance)
    length = len(text) if not change or chance.random() < 0.97 else chance.randrange(2**32)
    return length.to_bytes(4, "big") + text + b"".join(parts)


def _refit(tree: Any, parts: list[bytes], chance: Random) -> None:
    """Give a tensor another shape and dtype, with as many bytes as it then needs."""
    found = [box[key] for box, key in places(tree) if _is_tensor(box[key])]
    if found:
        value = chance.choice(found)
        shape = chance.choice(
            (value[2], [], [0], [1, *value[2]], value[2][1:], [3], [2, 2], [0, 2**40], [1] * 40)
        )
        dtype = chance.choice((value[1], *DTYPES))
        value[1:3] = dtype, list(shape)
        size = DTYPES[dtype].itemsize if dtype in DTYPES else np.dtype(dtype).itemsize
        for length in shape:
            size *= length
        if value[3] < len(parts) and size < 2**20:
            parts[value[3]] = chance.randbytes(size)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 5 and value[0] in ("t", "a")


def stream(messages: Sequence[Message], chance: Random, damage: float = 0.1) -> bytes:
    """Messages one after the other, one of them changed. damage: how likely its bytes are, too."""
    other = chance.randrange(len(messages))
    data = b"".join(message(*one, chance, at == other) for at, one in enumerate(messages))
    return damaged(data, chance) if chance.random() < damage else data


def read_message(data: bytes) -> tuple[dict[str, Any], list[bytearray]]:
    header, buffers = channel(data).receive(soon())
    expect(isinstance(header, dict), "a header that is no dictionary")
    expect([len(one) for one in buffers] == header["sizes"], "other sizes than announced")
    return header, buffers


def read_plain(data: bytes) -> None:
    header, buffers = read_message(data)
    value = Decoder(buffers).decode(header.get("value"))
    kinds = (
        bool,
        int,
        float,
        str,
        list,
        tuple,
        set,
        dict,
        Tensor,
        np.ndarray,
        np.generic,
        torch.dtype,
        Opaque,
    )
    waiting = [value]
    while waiting:
        one = waiting.pop()
        expect(one is None or isinstance(one, kinds), f"a {type(one).__name__}")
        if isinstance(one, list | tuple | set):
            waiting += one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
    Encoder().encode(value)


def plain_messages() -> list[Message]:
    values = [
        None, True, 3, -(10**30), 2.5, float("nan"), "text", "ü\n", [1, [2, (3, None)]], {"a": [1], 2: (3,)}, {1, (2, 3)},
        [torch.randn(3, 4), torch.zeros(2**20, dtype=torch.bool)], {"x": np.arange(6).reshape(2, 3), "y": torch.float16},
        [torch.ones(2, dtype=torch.complex64), torch.empty(0, 4), np.float32(2.5), np.array([True]), object()],
    ]  # fmt: skip
    made = []
    for value in values:
        encoder = Encoder()
        tree = encoder.encode(value)
        made.append(({"value": tree}, [bytes(one) for one in encoder.buffers]))
    return made


def read_calls(data: bytes) -> object:
    lent = Lent()
    facts, shapes = lent.facts(), lent.shapes()

    def refused(*_: Any) -> Any:
        raise LookupError

    gone = ("crashed", "it is gone")
    calls = Calls(channel(data), soon(), refused, lambda sentence: None, lambda: gone, lambda words: True)
    try:
        names = calls.names(["answer", "number"])
        if callable(answer := names.get("answer")):
            result = answer(*lent.arguments())
            if isinstance(result, list) and result and isinstance(result[0], Tensor):
                with suppress(RuntimeError):  # torch says of gradients what it likes, as of a student's own
                    result[0].sum().backward()
    except Exception as error:
        if not getattr(error, "from_student", False):
            raise
        return error
    finally:
        expect(lent.facts() == facts, "a setting was taken over")
        now = lent.shapes()
        wrong = [name for name in now if now[name] != shapes.get(name, now[name])]  # a new one is a lent one
        expect(not wrong, f"another shape was taken over: {wrong}")
    with suppress(Exception):  # torch may refuse it, and must live
        lent.use()
    return result if callable(answer) else None


# ---- what the tests' process says, and how a student's ended


def read_answer(data: bytes) -> Graded:
    graded = answered.read(data, JOB)
    expect([one.cell for one in graded.verdicts] == ["test_a", "test_b"], "other cells than the job's")
    expect(all(0 <= one.points <= one.possible for one in graded.verdicts), "points that no cell gives")
    expect(all(one.kind in get_args(VerdictKind) for one in graded.verdicts), "a kind that is none")
    json.dumps(asdict(graded), ensure_ascii=False, allow_nan=False).encode()
    return graded


def read_end(data: bytes) -> tuple[str, str]:
    student = Student.__new__(Student)
    student._keeper = cast(Any, Wire(data))
    kind, sentence = student.why_gone()
    expect(kind in get_args(VerdictKind) and len(sentence) < 200, "no verdict, or a long one")
    return kind, sentence


def lines(chance: Random) -> bytes:
    """What the keeper says, line by line."""
    said = [
        changed(chance.choice((0, 1, -9, -11, "memory", "ready")), chance, ODD)
        for _ in range(chance.randrange(4))
    ]
    data = b"".join(written(one, chance) + b"\n" for one in said)
    return damaged(data, chance) if chance.random() < 0.2 else data


# ---- notebooks


def read_file(data: bytes) -> object:
    notebook, notes = read_notebook(data)
    mended = repair(notebook, RELEASED)
    cells = mended.notebook.cells
    for cell in cells:
        if cell.cell_type != "code":
            safe_markdown(cell.source, cell.get("attachments", {}))
    for one in (notebook, mended.notebook):
        json.dumps([one, notes, mended.notes], ensure_ascii=False, allow_nan=False).encode()
        if zlib.crc32(data) % 20 == 0:  # it takes longer than all the rest
            nbformat.validate(one)
    return mended


def _json(texts: Sequence[str]) -> Callable[[Random], bytes]:
    def frame(chance: Random) -> bytes:
        data = written(changed(json.loads(chance.choice(texts)), chance, ODD), chance)
        return damaged(data, chance) if chance.random() < 0.1 else data

    return frame


def readers() -> list[Reader]:
    """All of them. Makes the honest messages, which takes a moment."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # some hold random weights
        values, calls = plain_messages(), call_streams()
    one_of_all = [*values, *(one for stream in calls for one in stream)]
    return [
        Reader("channel", lambda c: stream([c.choice(one_of_all)], c, 0.5), read_message, (ChannelError,)),
        Reader("plain", lambda c: stream([c.choice(values)], c), read_plain, (ChannelError,)),
        Reader("calls", lambda c: stream(c.choice(calls), c), read_calls, (Lost, Failed, Malformed)),
        Reader("answer", _json([answered.written(HONEST).decode()]), read_answer, (Unbelievable,)),
        Reader("end", lines, read_end, ()),
        Reader("notebook", _json(NOTEBOOKS), read_file, (Unreadable,)),
    ]
