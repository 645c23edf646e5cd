from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from labkit import reproducible
from labkit.reproducible import code_fingerprint, environment, seed_everything


def helper(x: float) -> float:
    return x + 1


def uses_helper(x: float) -> float:
    return helper(x)


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]


def test_one_call_seeds_everything() -> None:
    settings = seed_everything(7)
    first = draws()
    seed_everything(7)
    assert draws() == first
    seed_everything(8)
    assert draws() != first
    assert settings["seed"] == 7 and settings["deterministic"] is True


def test_environment_is_plain_data() -> None:
    facts = environment()
    assert facts["torch"] == torch.__version__
    assert facts["device"].endswith(f", {torch.get_num_threads()} threads")


def test_a_processor_that_the_system_does_not_name_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproducible.Path, "read_text", lambda self: "processor\t: 0\n")
    monkeypatch.setattr(reproducible.platform, "processor", lambda: "")
    assert reproducible.environment()["device"].startswith("CPU, ")


def make(source: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "notebook", "torch": torch}
    exec(source, namespace)
    return namespace["f"]


def test_fingerprint_sees_code_but_not_comments() -> None:
    base = make("def f(x):\n    return x + 1")
    assert code_fingerprint(base) == code_fingerprint(make("def f(x):\n    # why\n\n    return x + 1"))
    assert code_fingerprint(base) != code_fingerprint(make("def f(x):\n    return x + 2"))
    assert code_fingerprint(base) != code_fingerprint(make("def f(x):\n    return x - 1"))
    assert code_fingerprint(make("def f(x, k=1): return k")) != code_fingerprint(
        make("def f(x, k=2): return k")
    )


@pytest.mark.slow
def test_fingerprint_is_the_same_in_every_kernel_and_without_docstrings() -> None:
    code = (
        "from labkit.reproducible import code_fingerprint\n"
        "class K: pass\n"
        "def helper(x): return x\n"
        "def f(x, how=helper, k=K(), *, names=('a', 'b')):\n"
        "    {doc}return x in {{'a', 'b', 'c', 'd'}}\n"
        "print(code_fingerprint(f))\n"
    )
    both = code.format(doc="") + code.format(doc="'What it is for.'\n    ")

    def printed(seed: str) -> list[str]:
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", both]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, *others = printed("1") + printed("2")
    assert others == [first] * 3


def test_equal_numbers_of_one_cell_count_as_those_of_two() -> None:
    together = "A = 1234.5\nB = 1234.5\ndef f(x): return x * A * B"
    namespace: dict[str, Any] = {"__name__": "notebook"}
    for line in together.splitlines():
        exec(line, namespace)
    assert code_fingerprint(make(together)) == code_fingerprint(namespace["f"])


def test_fingerprint_follows_helpers_and_classes() -> None:
    code = "def g(x):\n    return x * {}\ndef f(x):\n    return g(x)"
    assert code_fingerprint(make(code.format(2))) != code_fingerprint(make(code.format(3)))
    ste = (
        "class S(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, w):\n        return w * {}\n"
        "    @staticmethod\n    def backward(ctx, g):\n        return g\n"
        "f = S.apply"
    )
    assert code_fingerprint(make(ste.format(2))) == code_fingerprint(make(ste.format(2)))
    assert code_fingerprint(make(ste.format(2))) != code_fingerprint(make(ste.format(3)))
    assert code_fingerprint(uses_helper) == code_fingerprint(uses_helper)
