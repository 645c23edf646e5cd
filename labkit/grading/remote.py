"""The checker's end of the border: a student's function as a callable that lives in another process.

    prune = Remote(calls, "prune_by_percentage")
    prune(layer, q=50.0)     # layer changes in place, as if the function had been called here

Arguments go over by value; what comes back is plain data, and the changes to what was passed. Gradients flow
through the results. An exception arrives with its kind, its message and the student's own line.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.check.engine import Failed
from labkit.grading import arguments, changes
from labkit.grading.channel import Channel, ChannelError, Malformed, TimedOut
from labkit.grading.outputs import safe_text
from labkit.grading.plain import Decoder, Encoder

MOST_WORDS = 200  # of an exception's name and message together: by these a student can learn of a test
DRAW: tuple[Callable[[], object], ...] = (random.random, np.random.random_sample, lambda: torch.rand(()))
MOST_ASKED = 10_000  # times that one call may ask for an earlier notebook's reference


Ask = Callable[[str, str, dict[str, Any], list[Any], float], tuple[dict[str, Any], list[bytearray]]]


class Lost(BaseException):
    """The student's process is no longer there; no check goes on after this. kind: why, as in a verdict."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class Remote:
    """A callable of the student's, by its name. Its attributes are callables too: `STE.apply`."""

    def __init__(self, calls: Calls, path: str, name: str | None = None) -> None:
        self._calls, self._path = calls, path
        self.__name__ = name or path.rpartition(".")[2]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._calls.call(self._path, args, kwargs)

    def __getattr__(self, name: str) -> Remote:
        if name.startswith("__"):
            raise AttributeError(name)
        return Remote(self._calls, f"{self._path}.{name}")


class Calls:
    """The calls of one test cell.

    reference: has an earlier notebook's reference run in a process of its own, see `StandIns.ask`.
    on_trouble: called with a sentence when something came that no honest process sends. wrote: whether words
    stand in the student's own cells; others are not shown as the name of their function or as a line of it.
    """

    def __init__(
        self,
        channel: Channel,
        deadline: float,
        reference: Ask,
        on_trouble: Callable[[str], None],
        why_gone: Callable[[], tuple[str, str]],
        wrote: Callable[[str], bool],
    ) -> None:
        self._channel, self._deadline = channel, deadline
        self._reference, self._on_trouble, self._why_gone = reference, on_trouble, why_gone
        self._wrote = wrote
        self._identities = arguments.Identities()
        self._number = 0

    def names(self, wanted: list[str]) -> dict[str, Any]:
        """The student's names: callables as `Remote`, other values as they are, none that is missing."""
        header, buffers = self._exchange({"op": "describe", "names": wanted}, [])
        found: dict[str, Any] = {}
        try:
            for name in wanted:
                told = header["names"][name]
                if told["kind"] == "callable":
                    called = str(told["name"])
                    found[name] = Remote(self, name, called if self._wrote(called) else name)
                elif told["kind"] == "value":
                    found[name] = Decoder(buffers).decode(told["value"])
        except (LookupError, TypeError, Malformed):
            raise self._forged("names that are none") from None
        return found

    def call(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the student's `path`; raises what it raised, or Lost."""
        self._number += 1
        number = self._number
        header, buffers, table = arguments.pack((args, kwargs), self._own, self._identities)
        storages = arguments.storage_bytes(header, table)
        question = header | {"op": "call", "path": path, "call": number}
        question |= {"grad": torch.is_grad_enabled(), "seeds": _seeds()}
        leaves = [t for t in table.tensors if t.requires_grad]
        shapes = changes.shapes_of(table)
        answer, received = self._exchange(question, buffers)
        try:
            asked = 0
            while "reference" in answer:
                asked += 1
                if asked > MOST_ASKED:
                    raise Malformed("endless questions")
                answer, received = self._answer_reference(answer, received, question, buffers)
            rebuilt = None
            if "changes" in answer or "raised" not in answer:  # none if it broke before or after the call
                try:
                    changes.apply(answer["changes"], table, storages, received)
                except changes.Rebuilt as error:
                    rebuilt = error
            for drew, draw in zip(answer.get("drew", ()), DRAW, strict=False):
                if drew is True:  # here the function would have moved this generator on
                    draw()
            if "raised" in answer:  # which says more than what it has left behind
                raise _exception(answer, self._wrote)
            if rebuilt is not None:
                raise rebuilt
            changes.expect_shapes(shapes)
            outputs: list[tuple[int, Tensor]] = []
            result = Decoder(received, table.thing, lambda n, t: _kept(outputs, n, t)).decode(
                answer["result"]
            )
        except (Malformed, LookupError, TypeError) as error:
            if getattr(error, "from_student", False):
                raise
            raise self._forged(str(error)) from None
        except changes.Rebuilt as error:
            raise Failed(f"after the call, {error}") from None
        return self._with_gradients(number, result, outputs, leaves) if outputs and leaves else result

    def backward(self, number: int, gradients: list[Tensor | None]) -> list[Tensor | None]:
        encoder = Encoder()
        trees = [encoder.encode(gradient) for gradient in gradients]
        answer, received = self._exchange(
            {"op": "backward", "call": number, "gradients": trees}, encoder.buffers
        )
        if "raised" in answer:
            raise _exception(answer, self._wrote)
        try:
            values = [Decoder(received).decode(tree) for tree in answer["gradients"]]
        except (Malformed, LookupError, TypeError) as error:
            raise self._forged(str(error)) from None
        return [value if isinstance(value, Tensor) else None for value in values]

    def _with_gradients(
        self, number: int, result: Any, outputs: list[tuple[int, Tensor]], leaves: list[Tensor]
    ) -> Any:
        """`result` with its tensors hung into this process's graph, behind `leaves`."""
        outputs.sort(key=lambda pair: pair[0])
        tensors = [tensor for _, tensor in outputs]
        hung = _Through.apply(self, number, len(tensors), *tensors, *leaves)
        new = {id(old): now for old, now in zip(tensors, hung, strict=True)}

        def replaced(value: Any) -> Any:
            if isinstance(value, Tensor):
                return new.get(id(value), value)
            if isinstance(value, list | tuple):
                return type(value)(replaced(item) for item in value)
            if isinstance(value, dict):
                return {key: replaced(item) for key, item in value.items()}
            return value

        return replaced(result)

    def _answer_reference(
        self, asked: dict[str, Any], received: list[bytearray], packed: dict[str, Any], buffers: list[Any]
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """Have an earlier notebook's reference run, on copies of the call's objects as the student's code
        has changed them; nothing of that is computed with here."""
        match asked["reference"]:
            case [str(notebook), str(path)]:
                pass
            case _:
                raise Malformed("a question for nothing")
        told = {key: asked[key] for key in ("changes", "arguments", "own")} | {"packed": len(buffers)}
        try:
            answer, given = self._reference(
                notebook, path, packed | told, [*buffers, *received], self._deadline
            )
        except LookupError:
            wanted = f"{path[:50]!r} of {notebook[:50]!r}"
            self._on_trouble(f"its process asked for the reference {wanted}, which it is not lent")
            answer, given = {"raised": "this function of an earlier notebook is not lent"}, []
        except TimedOut:
            raise Lost("timeout", "it took too long") from None
        return self._exchange(answer, given)

    def _exchange(self, header: dict[str, Any], buffers: list[Any]) -> tuple[dict[str, Any], list[bytearray]]:
        try:
            self._channel.send(header, buffers, self._deadline)
            answer, received = self._channel.receive(self._deadline)
        except Malformed as error:
            raise self._forged(str(error)) from None
        except ChannelError:
            if time.monotonic() >= self._deadline:
                raise Lost("timeout", "it took too long") from None
            raise Lost(*self._why_gone()) from None
        return answer, received

    def _own(self, obj: Any) -> str | None:
        return obj._path if type(obj) is Remote else None

    def _forged(self, what: str) -> Lost:
        self._on_trouble(f"its process sent {what}")
        return Lost("crashed", "what came back was no result")


class _Through(torch.autograd.Function):
    """Results that come out of the student's process; backward asks that process for the gradients."""

    @staticmethod
    def forward(ctx: Any, calls: Calls, number: int, count: int, *tensors: Tensor) -> Any:
        ctx.calls, ctx.number, ctx.count = calls, number, count
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        flown = ctx.calls.backward(ctx.number, list(gradients))
        return None, None, None, *([None] * ctx.count), *flown


def _seeds() -> list[int]:
    """For the random numbers of the next call, which are the same after the same seed, as they would be here.

    From the states of Python's, numpy's and torch's generator; hashed, so that a student's code cannot tell
    from it what a test will draw.
    """
    numpy = np.random.get_state(legacy=False)["state"]
    states = (
        str(hash(random.getstate()[1])).encode(),
        numpy["key"].tobytes() + str(numpy["pos"]).encode(),
        torch.get_rng_state().numpy().tobytes(),
    )
    return [int.from_bytes(hashlib.sha256(state).digest()[:4], "big") for state in states]


def _kept(outputs: list[tuple[int, Tensor]], number: int, tensor: Tensor) -> Tensor:
    outputs.append((number, tensor))
    return tensor


def _pythons_own(name: str) -> type[Exception] | None:
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _exception(told: dict[str, Any], wrote: Callable[[str], bool]) -> BaseException:
    """The exception that the student's code raised: of Python's own kind, or of one derived from that."""
    kinds, message, line = told["raised"], told.get("message", ""), told.get("line")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds) or not kinds:
        raise Malformed("an exception that is none")
    kinds = [safe_text(kind)[:100] for kind in kinds]
    message = safe_text(message)[: MOST_WORDS - len(kinds[0])]
    if kinds[0] == "MemoryError" or "allocate memory" in message or "not enough memory" in message:
        return Lost("out of memory", "it asked for more memory than there is")
    known = next((kind for name in kinds if (kind := _pythons_own(name)) is not None), RuntimeError)
    error = Exception()
    with contextlib.suppress(Exception):  # it may want other arguments, as UnicodeDecodeError does
        error = known(message)
    if type(error).__name__ != kinds[0] or str(error) != message:
        says = {"__init__": lambda self: None, "__str__": lambda self: message}
        try:
            error = type(kinds[0], (known,), says)()
        except Exception:  # ExceptionGroup
            error = type(kinds[0], (RuntimeError,), says)()
    error.from_student = True  # type: ignore[attr-defined]
    match line:
        case [int(number), str(text)] if 0 <= number < 2**31 and wrote(text):
            error.student_line = (number, safe_text(text)[:MOST_WORDS])  # type: ignore[attr-defined]
    return error
