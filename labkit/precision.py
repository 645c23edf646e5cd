"""Which floating point numbers a network trains in, chosen for the hardware; evaluation is always float32.

bfloat16 has float32's range and 8 bits of precision. Processors that multiply it in hardware train the
ResNet-20 about twice as fast in it (benchmarks/README.md). Weights, gradients of weights, optimizer and
loss stay float32: what changes are the convolutions and the activations between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import ArgumentError

PRECISIONS = ("auto", "float32", "bfloat16")

exact: ContextVar[bool] = ContextVar("exact", default=False)
"""Whether `float32_only` holds: then `forward_in` stands back, as when a training loop evaluates."""


def best_precision(device: torch.device | str) -> str:
    """`bfloat16` where the device multiplies it in hardware, else `float32`."""
    if torch.device(device).type == "cuda":
        # Turing (Colab's T4) only emulates it, which is slower than float32
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        fast = probe is not None and probe()  # AMX comes with it
    return "bfloat16" if fast else "float32"


def resolve(precision: str, device: torch.device | str) -> str:
    """`precision`, with `auto` replaced by the device's best. Raises ArgumentError for an unknown name."""
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision is {precision!r}, should be one of {', '.join(PRECISIONS)}.")
    return best_precision(device) if precision == "auto" else precision


@contextmanager
def forward_in(net: nn.Module, precision: str) -> Iterator[None]:
    """Within it, `net(inputs)` computes in `precision` and returns float32, whoever calls it.

    Hooks on the network do it, so that a student's own training loop gains as much as labkit's and
    needs no line for it. The backward pass follows the types of the forward pass.
    """
    if precision == "float32":
        with float32_only(next(net.parameters()).device):
            yield
        return
    running: list[ExitStack] = []

    def enter(_: nn.Module, inputs: Any) -> None:
        device = next(net.parameters()).device
        running.append(ExitStack())
        if not exact.get():
            running[-1].enter_context(torch.autocast(device.type, torch.bfloat16))

    def leave(_: nn.Module, inputs: Any, output: Any) -> Any:
        running.pop().close()
        low = isinstance(output, Tensor) and output.dtype == torch.bfloat16
        return output.float() if low else output

    uncompiled: Any = torch.compiler.disable  # a compiled network's hooks run as they are
    hooks = [
        net.register_forward_pre_hook(uncompiled(enter)),
        # always_call: an error in the forward pass must not leave the rest of the program in bfloat16
        net.register_forward_hook(uncompiled(leave), always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def float32_only(device: torch.device) -> Iterator[None]:
    """Within it, float32 means float32: no autocast around it, and no TF32 in a GPU's convolutions."""
    switch, name, off = _tf32_switch()
    before_tf32 = getattr(switch, name)
    setattr(switch, name, off)
    before = exact.set(True)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        exact.reset(before)
        setattr(switch, name, before_tf32)


def _tf32_switch() -> tuple[Any, str, Any]:
    """(object, attribute, value) that keeps TF32 out of convolutions."""
    cudnn: Any = torch.backends.cudnn
    try:
        _ = cudnn.allow_tf32
    except RuntimeError:  # torch does not give the old name's value once somebody has set the new one
        return cudnn.conv, "fp32_precision", "ieee"
    return cudnn, "allow_tf32", False
