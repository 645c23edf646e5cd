"""What callers pass, looked at before any work is done: a mistake is a sentence that names the argument.

Each function returns the value as it can be used, or raises `ArgumentError`.
"""

from __future__ import annotations

import difflib
import operator
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.errors import ArgumentError
from labkit.paths import expanded

MOST_SEED = 2**32 - 1  # NumPy's; torch takes more
CALLBACK_METHODS = ("before_epoch", "after_step", "after_epoch")


def shown(value: object) -> str:
    """A value as it reads in a sentence: numbers and short text as they are, anything else by its kind."""
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"the function {value.__name__} itself"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def whole_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """A whole number from `least` to `most`; True and 2.0 are none."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        span = f"from {least} to {most}" if most is not None else f"{least} or larger"
        given = number if isinstance(value, Tensor) and number is not None else value
        raise ArgumentError(f"{name} should be a whole number, {span}, not {shown(given)}.")
    return number


def number(value: Any, name: str) -> float:
    """Anything that is one number, as a float."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"{name} should be a number, not {shown(value)}.") from None


def seed(value: Any) -> int:
    """A whole number that every random number generator takes as its seed."""
    return whole_number(value, "seed", 0, MOST_SEED)


def truth(value: Any, name: str, hint: str = "") -> bool:
    """True or False; 1 and 0 will do. Text is refused: every text but '' would count as True."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise ArgumentError(f"{name} should be True or False, not {shown(value)}.{hint and ' ' + hint}")


def network(value: Any, name: str = "net") -> Any:
    """A network: a `torch.nn.Module`, made already."""
    if isinstance(value, nn.Module):
        return value
    hint = ""
    if isinstance(value, types.FunctionType | type):
        hint = f" Call it to make one: {value.__name__}()."
    elif isinstance(value, Mapping):
        hint = " Put the weights into a network first: net.load_state_dict(...)."
    raise ArgumentError(f"{name} should be a network (a torch.nn.Module), not {shown(value)}.{hint}")


def tensor(value: Any, name: str) -> Tensor:
    """A tensor."""
    if isinstance(value, Tensor):
        return value
    hint = " Pass its weight: layer.weight." if isinstance(value, nn.Module) else ""
    raise ArgumentError(f"{name} should be a tensor, not {shown(value)}.{hint}")


def path(value: Any, name: str = "path") -> Path:
    """The path of a file or folder, `~` replaced."""
    if isinstance(value, str | os.PathLike):
        return expanded(value)
    raise ArgumentError(f"{name} should be a path, not {shown(value)}.")


def device(value: torch.device | str) -> torch.device:
    """A device that this machine has."""
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError):
        raise ArgumentError(f"device should be 'cpu' or 'cuda', not {shown(value)}.") from None
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise ArgumentError(f"device {found} cannot be used here: {why}. 'cpu' always can.") from None
    return found


def function(value: Any, name: str, example: str, takes: Sequence[str] = ()) -> Callable[..., Any]:
    """Something to call later, with the arguments `takes` if they are named.

    `None` is what is left of a function that was called where it is passed.
    """
    if callable(value):
        if takes and not _accepts(value, len(takes)):
            taken = ", ".join(signature(value).parameters)
            raise ArgumentError(f"{name} should take ({', '.join(takes)}), but it takes ({taken}).")
        return value
    called = "; a function is passed without brackets" if value is None else ""
    raise ArgumentError(f"{name} should be a function such as {example}, not {shown(value)}{called}.")


def _accepts(function: Callable[..., Any], count: int) -> bool:
    try:
        signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


def criterion(value: Any) -> Callable[..., Any]:
    """A loss: a module such as `nn.CrossEntropyLoss()`, or a function of (logits, targets)."""
    if isinstance(value, type) and issubclass(value, nn.Module):
        raise ArgumentError(f"criterion is the class {value.__name__}: make one, {value.__name__}().")
    return function(value, "criterion", "nn.CrossEntropyLoss()")


def callbacks(values: Any) -> tuple[Any, ...]:
    """Objects with at least one of the methods that a training loop calls."""
    methods = ", ".join(CALLBACK_METHODS)
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ArgumentError(f"callbacks should be a list, such as [KeepZeros(net)], not {shown(values)}.")
    found = tuple(values)
    for one in found:
        if isinstance(one, type) or not any(callable(getattr(one, name, None)) for name in CALLBACK_METHODS):
            raise ArgumentError(f"a callback should be an object with {methods}, not {shown(one)}.")
    return found


def options(given: Iterable[str], target: Callable[..., Any], caller: str, without: Iterable[str]) -> None:
    """Refuse keyword arguments that `caller` cannot pass on to `target`."""
    known = [name for name in signature(target).parameters if name not in without]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else f". It takes those of labkit.{target.__name__}."
            raise ArgumentError(f"{caller} has no option {name}{meant}")


def make_optimizer(factory: Any, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that `factory` makes for the network's parameters."""
    if isinstance(factory, torch.optim.Optimizer):
        raise ArgumentError(
            f"optimizer is {shown(factory)} that has its parameters already: pass what makes one, "
            "such as labkit.sgd(lr=0.01) or torch.optim.Adam."
        )
    make = function(factory, "optimizer", "labkit.sgd(lr=0.01)")
    try:
        made = make(net.parameters())
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"the optimizer cannot be made: {error}.") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise ArgumentError(f"optimizer should make a torch.optim.Optimizer, but it made {shown(made)}.")
    return made
