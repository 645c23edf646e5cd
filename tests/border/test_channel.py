"""Messages over a socket: what is too large, damaged, late or cut off is said to be so, and nothing else."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest

pytest.importorskip("nbgrader")

from labkit.grading import channel
from labkit.grading.channel import Channel, ChannelError, Gone, Malformed, TimedOut

Pair = tuple[Channel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """One end as the checker has it, and the bare other end, which may send what it likes."""
    ours, theirs = socket.socketpair()
    end = Channel(ours)
    yield end, theirs
    end.close()
    theirs.close()


def soon() -> float:
    """A deadline that is met on any machine."""
    return time.monotonic() + 60


def at_once() -> float:
    """A deadline that is to pass."""
    return time.monotonic() + 0.1


def message(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("!I", len(text)) + text + data


def test_a_message_arrives_as_it_was_sent(pair: Pair) -> None:
    end, theirs = pair
    other = Channel(theirs)
    other.send({"op": "é\ud800", "n": 2**200, "x": None}, [b"ab", b"", memoryview(b"cde"), bytearray(3)])
    header, buffers = end.receive(soon())
    assert header == {"op": "é\ud800", "n": 2**200, "x": None, "sizes": [2, 0, 3, 3]}
    assert buffers == [b"ab", b"", b"cde", bytes(3)]
    buffers[0][0] = 1  # a tensor on top of it may be written


def test_messages_keep_their_order_and_their_borders(pair: Pair) -> None:
    end, theirs = pair
    data = b"".join(message({"number": n, "sizes": [n]}, bytes([n]) * n) for n in range(5))
    for start in range(0, len(data), 3):  # in small pieces
        theirs.sendall(data[start : start + 3])
    assert [end.receive(soon())[1] for _ in range(5)] == [[bytes([n]) * n] for n in range(5)]


def test_big_messages_go_both_ways(pair: Pair) -> None:
    end, theirs = pair
    other, size, rounds = Channel(theirs), 20 * 2**20, 3

    def echo() -> None:
        for _ in range(rounds):
            header, buffers = other.receive()
            other.send(header, buffers)

    thread = threading.Thread(target=echo)
    thread.start()
    for number in range(rounds):
        end.send({"number": number}, [bytes([number]) * size, b"end"], soon())
        header, buffers = end.receive(soon())
        assert header["number"] == number
        assert buffers == [bytes([number]) * size, b"end"]
    thread.join()


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"null", b"[]", b"3", b'"sizes"', b'{"sizes": 3}', b'{"sizes": null}', b'{"sizes": ["1"]}',
        b'{"sizes": [-1]}', b'{"sizes": [1.5]}', b'{"sizes": [true]}', b'{"sizes": [1e3]}', b"{}", b"\xff\xfe{}",
        b'{"sizes": [' + b"9" * 5000 + b"]}", b"[" * 100_000, b'{"a":' * 50_000, b'{"sizes": [99999999999]}',
        b'{"sizes": [%d, %d]}' % (2**28, 2**28 + 1), b'{"sizes": [' + b"0," * 100_000 + b"0]}",
    ],
    ids=lambda header: header[:30].decode("latin-1"),
)  # fmt: skip
def test_a_header_that_is_none_is_malformed(pair: Pair, header: bytes) -> None:
    end, theirs = pair
    thread = threading.Thread(target=theirs.sendall, args=(message(header),))
    thread.start()
    with pytest.raises(Malformed):
        end.receive(soon())
    thread.join()


def test_an_announced_size_costs_no_memory_beyond_the_limit(pair: Pair) -> None:
    end, theirs = pair
    theirs.sendall(struct.pack("!I", 2**32 - 1))
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="4294967295 bytes"):
            end.receive(soon())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_bytes_that_are_announced_and_do_not_come_take_no_memory(pair: Pair) -> None:
    end, theirs = pair
    theirs.sendall(message({"sizes": [10, channel.MOST_BYTES - 10]}, bytes(1000)))
    theirs.close()
    tracemalloc.start()
    try:
        with pytest.raises(Gone):
            end.receive(soon())
        assert tracemalloc.get_traced_memory()[1] < 4 * channel.PIECE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [channel.PIECE - 1, channel.PIECE, channel.PIECE + 1, 3 * channel.PIECE])
def test_buffers_around_the_size_of_a_piece_arrive_whole(pair: Pair, size: int) -> None:
    end, theirs = pair
    data = random.Random(size).randbytes(size)
    thread = threading.Thread(target=theirs.sendall, args=(message({"sizes": [size, 1]}, data + b"x"),))
    thread.start()
    assert end.receive(soon())[1] == [data, b"x"]
    thread.join()


def test_more_than_there_is_memory_for_is_malformed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    end, theirs = pair
    whole = Channel._exactly

    def short_of_memory(self: Channel, size: int, deadline: float | None) -> bytearray:
        if size == 5:
            raise MemoryError
        return whole(self, size, deadline)

    monkeypatch.setattr(Channel, "_exactly", short_of_memory)
    theirs.sendall(message({"sizes": [5]}, b"abcde"))
    with pytest.raises(Malformed, match="memory"):
        end.receive(soon())


def test_the_limits_themselves_are_allowed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    end, theirs = pair
    monkeypatch.setattr(channel, "MOST_BYTES", 10)
    theirs.sendall(message({"sizes": [4, 6]}, b"0123456789") + message({"sizes": [4, 7]}, b"01234567890"))
    assert end.receive(soon())[1] == [b"0123", b"456789"]
    with pytest.raises(Malformed, match="sizes"):
        end.receive(soon())


@pytest.mark.parametrize("sent", [b"", b"\0\0", message({"sizes": [4]})[:9], message({"sizes": [4]}, b"abc")])
def test_what_does_not_come_in_time(pair: Pair, sent: bytes) -> None:
    end, theirs = pair
    theirs.sendall(sent)
    deadline = at_once()
    with pytest.raises(TimedOut):
        end.receive(deadline)
    assert time.monotonic() >= deadline - 0.01


def test_dripping_bytes_do_not_put_the_deadline_off(pair: Pair) -> None:
    end, theirs = pair
    stop = threading.Event()

    def drip() -> None:
        theirs.sendall(message({"sizes": [10_000]}))
        while not stop.wait(0.02):
            theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(TimedOut):
        end.receive(at_once())
    stop.set()
    thread.join()


def test_sending_to_one_that_does_not_read_ends_in_time(pair: Pair) -> None:
    end, _ = pair
    with pytest.raises(TimedOut):
        end.send({}, [bytes(2**24)], at_once())


@pytest.mark.parametrize("sent", [b"", b"\0\0", message({"sizes": [4]})[:9], message({"sizes": [4]}, b"abc")])
def test_the_other_side_ends(pair: Pair, sent: bytes) -> None:
    end, theirs = pair
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(Gone):
        end.receive(soon())
    with pytest.raises(Gone):
        end.send({}, [bytes(2**20)], soon())


def test_random_bytes_and_random_damage_are_never_another_exception() -> None:
    chance = random.Random(11)
    sound = message({"op": "call", "sizes": [3, 2], "tree": ["l", [1, ["f", "nan"]]]}, b"abcde")
    came = 0
    for number in range(400):
        data = bytearray(sound)
        if number % 4 == 0:
            data = bytearray(chance.randbytes(chance.randrange(40)))
        for _ in range(chance.randrange(1, 4) if data else 0):
            data[chance.randrange(len(data))] = chance.randrange(256)
        ours, theirs = socket.socketpair()
        theirs.sendall(data)
        theirs.close()
        try:
            header, buffers = Channel(ours).receive(soon())
            assert isinstance(header, dict) and all(type(one) is bytearray for one in buffers)
            came += 1
        except ChannelError:
            pass
        finally:
            ours.close()
    assert 10 < came < 390
