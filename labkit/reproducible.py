"""Same seed, same result: seeding, determinism, and what a run should write down about its machine."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit import arguments


def seed_everything(seed: int = 42, deterministic: bool = True) -> dict[str, Any]:
    """Seed Python, NumPy and torch (CPU and every GPU); with `deterministic`, fix cuDNN's algorithms too.

    Returns the settings as plain data, for a run's record. Python's own hash seed can be set only
    before Python starts, so it is reported, not changed. Raises ArgumentError unless the seed is a whole
    number from 0 to 2^32 - 1.
    """
    seed = arguments.seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # seeds every GPU as well
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    return {
        "seed": seed,
        "deterministic": deterministic,
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "random"),
    }


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Versions and hardware as plain data: what someone needs in order to repeat a figure."""
    device = torch.device(device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": gpu or f"{_processor()}, {torch.get_num_threads()} threads",
    }


def _processor() -> str:
    """The processor's name where the system tells it, else `CPU`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "CPU"


def code_fingerprint(*things: Any) -> str:
    """A short hash of functions and classes as they are written now, to tell whether they changed since.

    Functions of the same module that they call by name are followed, so that a changed helper
    counts as a change too. Comments, docstrings and line numbers do not count, and it is the same hash
    in every kernel.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()

    def add(thing: Any) -> None:
        owner = getattr(thing, "__self__", None)
        if isinstance(owner, type):  # STE.apply: the class is what matters
            thing = owner
        if isinstance(thing, int | float | str | bool | None):
            digest.update(repr(thing).encode())
            return
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, type):
            digest.update(thing.__qualname__.encode())
            for member in vars(thing).values():
                function = getattr(member, "__func__", member)  # a staticmethod holds its function there
                if isinstance(function, types.FunctionType):
                    add(function)
        elif isinstance(thing, types.FunctionType):
            add_code(thing.__code__, thing.__doc__)
            for default in (*(thing.__defaults__ or ()), *sorted((thing.__kwdefaults__ or {}).items())):
                add_constant(default)
            for name in thing.__code__.co_names:
                used = thing.__globals__.get(name)
                # this notebook's functions and those of its siblings, which are no imported modules
                if (
                    getattr(used, "__module__", None) in (thing.__module__, "__main__")
                    or (isinstance(used, types.FunctionType) and used.__module__ not in sys.modules)
                    or isinstance(used, int | float | str)
                ):
                    add(used)
            for cell in thing.__closure__ or ():
                add(cell.cell_contents)

    def add_code(code: types.CodeType, docstring: str | None = None) -> None:
        digest.update(code.co_code)
        digest.update(repr(code.co_names).encode())
        for number, constant in enumerate(code.co_consts):
            if number > 0 or constant != docstring:
                add_constant(constant)

    def add_constant(value: Any) -> None:
        if isinstance(value, types.CodeType):
            add_code(value)
        elif isinstance(value, frozenset):  # in an order that depends on the kernel
            digest.update(repr(sorted(map(repr, value))).encode())
        elif isinstance(value, tuple | list | dict):
            digest.update(f"{len(value)}".encode())
            for part in value.items() if isinstance(value, dict) else value:
                add_constant(part)
        elif isinstance(value, bytes | complex):
            digest.update(repr(value).encode())
        else:
            add(value)

    for thing in things:
        add(thing)
    return digest.hexdigest()[:16]
