"""In a stand-in's process: a reference of an earlier notebook, run where a student's own does not pass.

The process is held as a student's is, and holds the definitions of that notebook: no test, nobody's work.
What it is called with, a student's code has made: it can break this process, and nothing else.
"""

from __future__ import annotations

from typing import Any, NoReturn

from labkit import siblings
from labkit.grading.arrived import Arrived
from labkit.grading.channel import Channel
from labkit.grading.own import join
from labkit.grading.plain import Decoder, Encoder

MOST_MESSAGE = 200


def lend(channel: Channel, notebook: str, text: str) -> NoReturn:
    """Serve the functions that the notebook with this text defines. Raises ChannelError at the end."""
    functions = siblings.define(notebook, text)
    channel.send({})
    serve(channel, functions)


def serve(channel: Channel, functions: dict[str, Any]) -> NoReturn:
    """Answer until the channel closes."""
    while True:
        header, buffers = channel.receive()
        try:
            answer, encoder = _run(functions, header, buffers)
        except Exception as error:
            answer, encoder = {"raised": f"{type(error).__name__}: {error}"[:MOST_MESSAGE]}, Encoder()
        channel.send(answer, encoder.buffers)


def _run(
    functions: dict[str, Any], header: dict[str, Any], buffers: list[bytearray]
) -> tuple[dict[str, Any], Encoder]:
    """(what it gave and what it changed, its encoder): told as a student's function tells it."""
    packed, asked = buffers[: header["packed"]], buffers[header["packed"] :]
    arrived = Arrived(header, packed, _not_here, {})
    join(arrived, header["own"], asked)
    arrived.take_over(header["changes"], asked, moves=True)
    arrived.settle()
    positional, named = Decoder(asked, arrived.table.thing).decode(header["arguments"])
    name, *attributes = header["path"].split(".")
    function = functions[name].apply if attributes else functions[name]
    result = function(*positional, **named)
    encoder = Encoder(arrived.table.signs())
    return {"result": encoder.encode(result), "changes": arrived.changes(encoder, aside=True)}, encoder


def _not_here(path: str) -> Any:
    """For a function of the student's that a test has passed along."""

    def missing(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{path} is not there where the reference stands in")

    return missing
