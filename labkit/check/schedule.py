"""The instant checks of `sparsity_at` and `iterative_prune`: how much goes before which epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit.check.diagnosis import Example, named_in, shape_of, table
from labkit.check.engine import Failed, Suite, expect
from labkit.check.nets import Before, Numbers, numbers, pruned_names, short, small_net, tried_names
from labkit.check.pruning import DECIMALS, FRACTION, NOTHING
from labkit.check.suites import public_suite
from labkit.models import prunable_layers

RAMPS = ((80.0, 10, 12), (50.0, 3, 5))  # target, length of the ramp, epochs that are tried
STEPS = ((0, 80.0, 10), (4, 80.0, 10), (9, 80.0, 10), (2, 50.0, 4))  # epoch, target, length of the ramp


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
    yield from_0, ways(lambda e: right(e) if e else 0.0)
    share = "return percent, 0 to 100, not a share of 1."
    yield share, ways(lambda e: right(e) / 100)
    yield share, ways(done)
    grows = "after the ramp it stays at the target and grows no further: min(...) is your friend."
    yield grows, ways(lambda e: target * (e + 1) / ramp)
    yield grows, ways(lambda e: min(target * (e + 1) / ramp, 100.0))
    yield grows, ways(lambda e: target * (e + 1) / ramp if e <= ramp else target)
    late = (
        "the target is reached one epoch too late: the ramp has ramp_epochs steps, the last one before "
        "epoch ramp_epochs - 1."
    )
    yield late, ways(lambda e: target * min((e + 1) / (ramp + 1), 1.0))
    yield late, ways(lambda e: right(e) if e != ramp - 1 else right(e - 1))
    yield (
        "the target is never reached: the last step is target itself.",
        ways(lambda e: target * min(e + 1, ramp - 1) / ramp),
    )
    ramp_missing = "the target is for the end of the ramp: before, it is target * (epoch + 1) / ramp_epochs."
    yield ramp_missing, ways(lambda e: target)
    yield ramp_missing, ways(lambda e: 80.0)
    straight = "the ramp is a straight line: every step adds the same, target / ramp_epochs."
    yield straight, ways(lambda e: target * (1 - (1 - done(e)) ** 3))
    yield straight, ways(lambda e: 100 * (1 - (1 - target / 100) ** done(e)))
    stays = "after the ramp the target stays: something has to be returned for those epochs too."
    yield stays, ways(lambda e: right(e) if e < ramp else 0.0)
    yield stays, ways(lambda e: right(e) if e < ramp else math.nan)
    yield "this is the share of weights kept; return the share pruned.", ways(lambda e: 100.0 - right(e))
    fixed = "the numbers 8, 80 and 10 are the defaults only: calculate with target and ramp_epochs."
    yield fixed, ways(lambda e: min(8.0 * (e + 1), 80.0))
    yield fixed, ways(lambda e: min(8.0 * (e + 1), target))
    yield fixed, ways(lambda e: 80.0 * done(e))
    yield fixed, ways(lambda e: target * min(e + 1, 10) / 10)
    whole = "do not round: 33.333 percent is a sparsity too. `//` and int() round down."
    for digits in (0, 1, 2):
        yield whole, [round(right(e), digits) for e in range(epochs)]
        yield whole, [round(target / ramp, digits) * min(e + 1, ramp) for e in range(epochs)]
    yield whole, ways(lambda e: float(math.floor(right(e))))
    yield whole, ways(lambda e: float(target // ramp * min(e + 1, ramp)))


def sparsity_at(answer: Any) -> Suite:
    suite = public_suite(answer, "sparsity_at")

    def schedule(at: Any, target: float, ramp: int, epochs: int) -> list[Any]:
        given = {} if (target, ramp) == (80.0, 10) else {"target": target, "ramp_epochs": ramp}
        return [at(epoch, **given) for epoch in range(epochs)]

    def example(at: Any, ramp: tuple[float, int, int]) -> Example:
        def came() -> list[float]:
            return [math.nan if value is None else float(value) for value in schedule(at, *ramp)]

        return came, partial(ramp_mistakes, *ramp)

    def expect_ramp(at: Any, target: float, ramp: int, epochs: int) -> None:
        came = schedule(at, target, ramp, epochs)
        expect_numbers(came)
        wanted = [target * min(epoch + 1, ramp) / ramp for epoch in range(epochs)]
        # float32 has 7 digits
        wrong = [e for e in range(epochs) if came[e] is None or not abs(float(came[e]) - wanted[e]) <= 1e-4]
        if not wrong:
            return
        shown = ["None" if value is None else f"{float(value):.4g}" for value in came]
        given = "" if (target, ramp) == (80.0, 10) else f", target={target:g}, ramp_epochs={ramp}"
        call = f"sparsity_at({wrong[0]}{given})"
        raise Failed(
            f"{call} should be {wanted[wrong[0]]:g}, but it is {shown[wrong[0]]}\n"
            + table({"epoch": list(range(epochs)), "should": wanted, "is": shown}),
            named_in(example(at, one) for one in RAMPS),
        )

    @suite.check()
    def first(at: Any) -> None:
        """8 percent before epoch 0, 16 before epoch 1, and so on; from epoch 9 on it stays at 80."""
        if (once := at(1)) is not None:
            again = at(1)
            hint = "calculate it from the arguments alone: no counter, no global variable."
            steady = shape_of(once) != () or isinstance(once, str) or abs(float(once) - float(again)) < 1e-6
            expect(steady, "for the same epoch it gives another number each time", hint)
        expect_ramp(at, *RAMPS[0])

    @suite.check(after=first)
    def arguments(at: Any) -> None:
        """With target=50 and ramp_epochs=3 it is a third of 50 percent, two thirds of it, and 50 percent."""
        expect_ramp(at, *RAMPS[1])

    return suite


def expect_numbers(came: list[Any]) -> None:
    """Fail unless these are numbers, or None for some epochs but not for all."""
    if all(value is None for value in came):
        raise Failed("it returns nothing (None)", "end in `return ...`: what is printed is not returned.")
    for value in came:
        shape, kind = shape_of(value), type(value).__name__
        if isinstance(value, str):
            raise Failed("it returns a text", "return the number itself, not a text.")
        if shape not in (None, ()) or isinstance(value, dict):
            hint = "return the number for this one epoch, not the whole schedule."
            raise Failed(f"it returns a {kind} and not a number", hint)
        expect(shape == () or value is None, f"it returns {kind} and not a number")


def tried(net: nn.Module) -> Numbers:
    """The weights to be pruned, and the shortcuts', by name."""
    now = numbers(net)
    return {name: now[name] for name in tried_names()}


def zeros(weights: Numbers) -> np.ndarray:
    """How many zeros each weight has."""
    return np.array([float((w == 0).sum()) for w in weights.values()])


def step_mistakes(epoch: int, target: float, ramp: int) -> Iterator[tuple[str, np.ndarray]]:
    """The zeros of each weight that common mistakes make before that epoch."""
    q, right, weights = target * (epoch + 1) / ramp, pruned_names(), tried(small_net())

    def percentages(change: Callable[[str], float | None]) -> np.ndarray:
        """If each weight is pruned to the percentage that `change` gives for its name."""
        at = [(np.abs(w), change(name)) for name, w in weights.items()]
        return np.array([0.0 if q is None else float((a < np.percentile(a, q)).sum()) for a, q in at])

    def every(at: float) -> np.ndarray:
        return percentages(lambda name: at if name in right else None)

    def only(names: list[str]) -> np.ndarray:
        return percentages(lambda name: q if name in names else None)

    yield NOTHING.format("the weights of the net that was given"), every(0.0)
    at_once = "this is the target at once: q = sparsity_at(epoch, target, ramp_epochs)."
    yield at_once, every(target)
    default = "this is the default q: prune_by_percentage(layer, q=...) needs the schedule's percentage."
    yield default, every(70.0)
    defaults = "this is the ramp of the defaults: use target and ramp_epochs, and pass them on to every call."
    yield defaults, every(8.0 * (epoch + 1))
    yield "this is a ramp of 10 epochs: pass ramp_epochs on as well.", every(target * (epoch + 1) / 10)
    yield "this is a ramp to 80 percent: pass target on as well.", every(80.0 * (epoch + 1) / ramp)
    yield FRACTION, every(q / 100)
    counted = (
        "this is the percentage of the epoch before: epochs count from 0, epoch e is step e + 1 of the ramp."
    )
    yield counted, every(target * epoch / ramp)
    first = "epochs count from 0, and before epoch 0 the first step is due."
    yield first, every(q if epoch else 0.0)
    last = "the last step is left out: prune if epoch < ramp_epochs, so in epoch ramp_epochs - 1 too."
    yield last, every(q if epoch < ramp - 1 else 0.0)
    total = "this is the share of one step: q counts all steps so far, target * (epoch + 1) / ramp_epochs."
    yield total, every(target / ramp)
    yield DECIMALS, every(int(q))
    yield DECIMALS, every(float(int(target / ramp) * (epoch + 1)))
    yield "this is the share to keep, not the share to prune.", every(100.0 - q)
    shortcut = "the shortcut (id_mapping) stays dense: use labkit.prunable_layers(net)."
    yield shortcut, percentages(lambda _: q)
    kinds = "linear layers and convolutions are both pruned: use labkit.prunable_layers(net)."
    yield kinds, only([name for name in right if weights[name].ndim == 4])
    yield kinds, only([name for name in right if weights[name].ndim == 2])
    yield "only the first layer was pruned: does a `return` stand inside the loop?", only(right[:1])
    last_only = "only the last layer was pruned: does prune_by_percentage stand inside the loop?"
    yield last_only, only(right[-1:])
    threshold = np.percentile(np.concatenate([np.abs(weights[name]).ravel() for name in right]), q)
    one = (
        "this is one threshold for the whole network: here each layer has its own, from prune_by_percentage."
    )
    yield one, np.array([float((np.abs(w) < threshold).sum() * (n in right)) for n, w in weights.items()])


def iterative_prune(answer: Any) -> Suite:
    suite = public_suite(answer, "iterative_prune")

    def options(target: float, ramp: int) -> dict[str, Any]:
        return {} if (target, ramp) == (80.0, 10) else {"target": target, "ramp_epochs": ramp}

    def example(prune: Any, epoch: int, *ramp: Any) -> Example:
        def came() -> np.ndarray:
            net = small_net()
            prune(net, epoch, **options(*ramp))
            return zeros(tried(net))

        return came, partial(step_mistakes, epoch, *ramp)

    def expect_step(prune: Any, net: nn.Module, epoch: int, target: float, ramp: int) -> None:
        before = tried(net)
        prune(net, epoch, **options(target, ramp))
        after, q = tried(net), target * (epoch + 1) / ramp
        shares = {name: q if name in pruned_names() else 0.0 for name in before}
        thresholds = {name: np.percentile(np.abs(w), shares[name]) for name, w in before.items()}
        wrong = {
            # a weight that lies at the threshold may stay or go
            name: int((((after[name] == 0) != (np.abs(w) < t)) & (np.abs(np.abs(w) - t) > 1e-6 * t)).sum())
            for (name, w), t in zip(before.items(), thresholds.values(), strict=True)
        }
        if not any(wrong.values()):
            return
        should = [float((np.abs(w) < thresholds[name]).sum()) for name, w in before.items()]
        worst = max(wrong, key=lambda name: wrong[name] / before[name].size)
        rows = {
            "layer": [short(name) for name in before],
            "weights": [w.size for w in before.values()],
            "zeros should": should,
            "zeros are": zeros(after),
        }
        share = (after[worst] == 0).mean()
        message = f"epoch {epoch}: {short(worst)} is {share:.1%} sparse, should be {shares[worst]:g}%"
        if np.abs(zeros(after) - should).max() <= 1:
            message = f"epoch {epoch}: as many weights went as should, but in {short(worst)} not the smallest"
        hint = named_in((example(prune, *step) for step in STEPS), 0.5)
        raise Failed(f"{message}\n{table(rows)}", hint)

    @suite.check()
    def step(prune: Any) -> None:
        """Before epochs 0, 4, 9 each prunable layer is pruned to 8, 40, 80 percent; shortcuts stay dense."""
        net = small_net()
        for one in STEPS[:3]:
            expect_step(prune, net, *one)
        for _, layer in prunable_layers(net):  # as after more training: other weights are the smallest now
            layer.weight.data += layer.weight.data.flip(0) + 0.01
        expect_step(prune, net, *STEPS[2])

    @suite.check(after=step)
    def arguments(prune: Any) -> None:
        """With target=50 and ramp_epochs=4, it is 37.5 percent before epoch 2."""
        expect_step(prune, small_net(), *STEPS[3])

    @suite.check()
    def others_stay(prune: Any) -> None:
        """Nothing but those weights changes, neither biases nor batch norms, and no Parameter is replaced."""
        net = small_net()
        before = Before(net)
        prune(net, 4)
        before.expect_only_zeros(net)

    @suite.check()
    def after(prune: Any) -> None:
        """After the ramp the network is left alone."""
        net = small_net()
        for _, layer in prunable_layers(net):
            layer.weight.data.flatten()[: int(0.8 * layer.weight.numel())] = 0
        before = copy.deepcopy(net.state_dict())
        prune(net, 10)
        changed = [key for key, value in net.state_dict().items() if not torch.equal(before[key], value)]
        message = f"weights changed before epoch 10, after a ramp of 10 epochs: {', '.join(changed)}"
        expect(
            not changed, message, "do nothing from epoch ramp_epochs on: prune only if epoch < ramp_epochs."
        )

    return suite
