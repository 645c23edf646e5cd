"""How a suite of public checks begins: with what can be told from the code alone, before it runs."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from labkit.check.engine import Suite, expect, functions_of
from labkit.check.session import outdated


def public_suite(answer: Any, name: str) -> Suite:
    """A suite that begins with what is wrong before the answer runs: it is not the latest, it wants a GPU."""
    suite = Suite(answer, name)
    called = name.partition(",")[0]
    if (why := outdated(answer, called)) is not None:

        @suite.check()
        def latest(_: Any) -> None:
            """What is checked is the latest version."""
            message = (
                f"the cell with {called} was not run to its end: {why}. An older version is still defined"
            )
            expect(False, message, "fix that cell, or run the one that is meant, then run this check again.")

        suite.needs = (latest,)
    if any(_wants_gpu(function.__code__) for function in functions_of(answer)):

        @suite.check()
        def no_gpu(_: Any) -> None:
            """It runs on a machine without a GPU: grading has none."""
            expect(False, "the code mentions cuda", "use .to(weight.device) or device=weight.device instead.")

    return suite


def is_written(answer: Any, name: str) -> Suite:
    """For an answer whose public checks stand in its notebook: all that can be told elsewhere."""
    suite = Suite(answer, name)

    @suite.check()
    def no_stub(_: Any) -> None:
        """It is written."""
        if any("NotImplementedError" in names for names in _names_used(answer)):
            raise NotImplementedError

    return suite


def _wants_gpu(code: types.CodeType) -> bool:
    if "cuda" in code.co_names:
        return "is_available" not in code.co_names
    asks = "is_available" in code.co_names or {"device", "type"} <= set(
        code.co_names
    )  # x.device.type == "cuda"
    return "cuda" in code.co_consts and not asks


def _names_used(thing: Any) -> Iterator[tuple[object, ...]]:
    """Attribute names and string constants in the code of a function or of a class's methods."""
    for function in functions_of(thing):
        yield function.__code__.co_names + function.__code__.co_consts
