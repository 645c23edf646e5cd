"""The instant checks of `sparsity_at` and `iterative_prune`: how much goes before which epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from labkit.check.diagnosis import named, shape_of, table
from labkit.check.engine import Failed, Suite, as_array, expect
from labkit.check.fixtures import TinyNet
from labkit.check.pruning import FRACTION, NOTHING
from labkit.check.suites import public_suite
from labkit.models import prunable_layers
from labkit.sparsity import count_zeros

NOT_PASSED_ON = (
    "that is the ramp of the defaults: use target and ramp_epochs, and pass them on to every call."
)


def ramp_mistakes(target: float, ramp: int, epochs: int) -> Iterator[tuple[str, list[float]]]:
    """What common mistakes give for the epochs from 0 on."""

    def ways(at: Callable[[int], float]) -> list[float]:
        return [at(epoch) for epoch in range(epochs)]

    def right(epoch: int) -> float:
        return target * min(epoch + 1, ramp) / ramp

    def done(epoch: int) -> float:
        return min(epoch + 1, ramp) / ramp

    from_0 = "epochs are counted from 0, and before epoch 0 the first step is due: epoch e is step e + 1."
    yield from_0, ways(lambda e: target * min(e, ramp) / ramp)
    yield from_0, ways(lambda e: target * min(e, ramp - 1) / (ramp - 1))
    yield "percent are asked for, 0 to 100, not a share of 1.", ways(lambda e: right(e) / 100)
    grows = "after the ramp it stays at the target and grows no further: min(...) is your friend."
    yield grows, ways(lambda e: target * (e + 1) / ramp)
    yield grows, ways(lambda e: min(target * (e + 1) / ramp, 100.0))
    late = (
        "the target comes one epoch too late: ramp_epochs steps, the last one before epoch ramp_epochs - 1."
    )
    yield late, ways(lambda e: target * min((e + 1) / (ramp + 1), 1.0))
    straight = "the ramp is a straight line: every step adds the same, target / ramp_epochs."
    yield straight, ways(lambda e: target * (1 - (1 - done(e)) ** 3))
    yield straight, ways(lambda e: 100 * (1 - (1 - target / 100) ** done(e)))
    stays = "after the ramp the target stays: something has to be returned for those epochs too."
    yield stays, ways(lambda e: right(e) if e < ramp else 0.0)
    yield stays, ways(lambda e: right(e) if e < ramp else math.nan)
    yield "that is the share that is left: asked for are the zeros.", ways(lambda e: 100.0 - right(e))
    fixed = "the numbers 8, 80 and 10 are the defaults only: calculate with target and ramp_epochs."
    yield fixed, ways(lambda e: min(8.0 * (e + 1), 80.0))
    yield fixed, ways(lambda e: min(8.0 * (e + 1), target))
    yield fixed, ways(lambda e: 80.0 * done(e))
    yield fixed, ways(lambda e: target * min(e + 1, 10) / 10)
    whole = "do not round: 12.5 percent is a sparsity too. `//` and int() round down."
    yield whole, ways(lambda e: float(round(right(e))))
    yield whole, ways(lambda e: float(math.floor(right(e))))
    yield whole, ways(lambda e: float(target // ramp * min(e + 1, ramp)))


def sparsity_at(answer: Any) -> Suite:
    suite = public_suite(answer, "sparsity_at")

    def expect_ramp(at: Any, target: float, ramp: int, epochs: int, given: dict[str, Any]) -> None:
        once, *came = [at(epoch, **given) for epoch in (1, *range(epochs))]
        expect_numbers(came)
        got = [math.nan if value is None else float(value) for value in came]
        hint = "calculate it from the arguments alone: no counter, no global variable."
        moved = once is not None and abs(float(once) - got[1]) > 1e-6
        expect(not moved, "for the same epoch it gives another number each time", hint)
        wanted = [target * min(epoch + 1, ramp) / ramp for epoch in range(epochs)]
        wrong = [epoch for epoch in range(epochs) if not abs(got[epoch] - wanted[epoch]) <= 1e-6]
        if not wrong:
            return
        shown = ["None" if value is None else f"{float(value):.4g}" for value in came]
        call = ", ".join([str(wrong[0]), *(f"{name}={value:g}" for name, value in given.items())])
        raise Failed(
            f"sparsity_at({call}) should be {wanted[wrong[0]]:g}, but it is {shown[wrong[0]]}\n"
            + table({"epoch": list(range(epochs)), "should": wanted, "is": shown}),
            named(got, ramp_mistakes(target, ramp, epochs)),
        )

    @suite.check()
    def first(at: Any) -> None:
        """8 percent before epoch 0, 16 before epoch 1, and so on; from epoch 9 on it stays at 80."""
        expect_ramp(at, 80.0, 10, 12, {})

    @suite.check(after=first)
    def arguments(at: Any) -> None:
        """With target=50 and ramp_epochs=4 the steps are 12.5, 25, 37.5 and 50 percent."""
        expect_ramp(at, 50.0, 4, 6, {"target": 50.0, "ramp_epochs": 4})

    return suite


def expect_numbers(came: list[Any]) -> None:
    """Fail unless these are numbers, or None for some epochs but not for all."""
    if all(value is None for value in came):
        raise Failed("it returns nothing (None)", "end in `return ...`: what is printed is not returned.")
    for value in came:
        shape, kind = shape_of(value), type(value).__name__
        if isinstance(value, str):
            raise Failed("it returns a text", "return the number itself, not a text.")
        if shape not in (None, ()):
            hint = "return the number for this one epoch, not the whole schedule."
            raise Failed(f"it returns {kind} of shape {shape}, and not a number", hint)
        expect(shape == () or value is None, f"it returns {kind}, and not a number")


def percentages(net: TinyNet, change: Callable[[str, np.ndarray], float | None]) -> np.ndarray:
    """The zeros of each layer, the shortcut's last, if it is pruned to the percentage that `change` gives."""
    zeros = []
    for name, w in weights(net).items():
        q = change(name, w)
        a = np.abs(w)
        zeros.append(0.0 if q is None else float((a < np.percentile(a, q)).sum()))
    return np.array(zeros)


def weights(net: TinyNet) -> dict[str, np.ndarray]:
    """The weights of the prunable layers, and of the shortcut, by name."""
    layers = {**dict(prunable_layers(net)), "id_mapping": net.id_mapping.conv}
    return {name.removesuffix(".conv"): as_array(layer.weight) for name, layer in layers.items()}


def layer_zeros(net: TinyNet) -> np.ndarray:
    return np.array([float(count_zeros(torch.from_numpy(w))) for w in weights(net).values()])


def step_mistakes(net: TinyNet, epoch: int, target: float, ramp: int) -> Iterator[tuple[str, np.ndarray]]:
    """The zeros of each layer that common mistakes make before that epoch."""
    names = [name for name in weights(net) if name != "id_mapping"]
    q = target * (epoch + 1) / ramp

    def every(at: float) -> np.ndarray:
        return percentages(net, lambda name, w: at if name in names else None)

    everything = np.concatenate([np.abs(w).ravel() for name, w in weights(net).items() if name in names])
    threshold = np.percentile(everything, q)
    yield NOTHING.format("the weights of the net that was given"), every(0.0)
    yield "that is the target at once: q = sparsity_at(epoch, target, ramp_epochs).", every(target)
    yield (
        "that is the default q: prune_by_percentage(layer, q=...) needs the schedule's percentage.",
        every(70.0),
    )
    if (target, ramp) != (80.0, 10):
        yield NOT_PASSED_ON, every(8.0 * (epoch + 1))
        yield "that is a ramp of 10 epochs: pass ramp_epochs on as well.", every(target * (epoch + 1) / 10)
        yield "that is a ramp to 80 percent: pass target on as well.", every(80.0 * (epoch + 1) / ramp)
    yield FRACTION, every(q / 100)
    counted = (
        "that is the percentage of the epoch before: epochs count from 0, epoch e is step e + 1 of the ramp."
    )
    yield counted, every(target * epoch / ramp)
    total = (
        "that is the share of one step: asked for is what is gone in all, target * (epoch + 1) / ramp_epochs."
    )
    yield total, every(target / ramp)
    yield "that is what should be left, not what should go.", every(100.0 - q)
    yield (
        "the shortcut (id_mapping) stays dense: use labkit.prunable_layers(net).",
        percentages(net, lambda *_: q),
    )
    kinds = "linear layers and convolutions are both pruned: use labkit.prunable_layers(net)."
    yield kinds, percentages(net, lambda name, w: q if name in names and w.ndim == 4 else None)
    yield kinds, percentages(net, lambda name, w: q if name in names and w.ndim == 2 else None)
    only = "only the first layer was pruned: does a `return` stand inside the loop?"
    yield only, percentages(net, lambda name, w: q if name == names[0] else None)
    only = "only the last layer was pruned: does prune_by_percentage stand inside the loop?"
    yield only, percentages(net, lambda name, w: q if name == names[-1] else None)
    one = (
        "that is one threshold for the whole network: here each layer has its own, from prune_by_percentage."
    )
    yield (
        one,
        percentages(net, lambda name, w: 100 * (np.abs(w) < threshold).mean() if name in names else None),
    )


def iterative_prune(answer: Any) -> Suite:
    suite = public_suite(answer, "iterative_prune")

    def expect_step(prune: Any, epoch: int, target: float, ramp: int, given: dict[str, Any]) -> None:
        net = TinyNet()
        prune(net, epoch, **given)
        q, names = target * (epoch + 1) / ramp, list(weights(net))
        sizes = [w.size for w in weights(net).values()]
        should = percentages(TinyNet(), lambda name, w: None if name == "id_mapping" else q)
        got = layer_zeros(net)
        off = np.abs(got - should)
        if (off <= 1).all():  # where the percentile falls on a weight, that one may stay or go
            return
        rows = {"layer": names, "weights": sizes, "zeros should": should, "zeros are": got}
        layer = names[int(np.argmax(off / np.array(sizes)))]
        share = got[names.index(layer)] / sizes[names.index(layer)]
        wanted = 0 if layer == "id_mapping" else q
        hint = named(got, step_mistakes(TinyNet(), epoch, target, ramp), 1.0)
        raise Failed(f"{layer} is {share:.1%} sparse, should be {wanted:g}%\n{table(rows)}", hint)

    @suite.check()
    def step(prune: Any) -> None:
        """Before epoch 4 every prunable layer is pruned to 40 percent; the shortcut stays dense."""
        expect_step(prune, 4, 80.0, 10, {})

    @suite.check(after=step)
    def arguments(prune: Any) -> None:
        """With target=90 and ramp_epochs=6, it is 45 percent before epoch 2."""
        expect_step(prune, 2, 90.0, 6, {"target": 90.0, "ramp_epochs": 6})

    @suite.check()
    def after(prune: Any) -> None:
        """After the ramp the network is left alone."""
        net = TinyNet()
        for _, layer in prunable_layers(net):
            layer.weight.data.flatten()[: int(0.8 * layer.weight.numel())] = 0
        before = copy.deepcopy(net.state_dict())
        prune(net, 12)
        changed = [key for key, value in net.state_dict().items() if not torch.equal(before[key], value)]
        hint = "from epoch ramp_epochs on it does nothing: prune only if epoch < ramp_epochs."
        expect(
            not changed, f"weights changed in epoch 12, after a ramp of 10 epochs: {', '.join(changed)}", hint
        )

    return suite
