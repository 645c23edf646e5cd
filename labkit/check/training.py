"""The instant checks of `finetune_after_prune` and `finetune_quantized`: an epoch in which zeros hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from labkit.check.diagnosis import named, table
from labkit.check.engine import Suite, expect
from labkit.check.epochs import LEVELS, NO_MASK, SAME, Trial, criterion, loader, replays, right_way
from labkit.check.nets import PARAMETER, short
from labkit.check.suites import public_suite

# true of every answer
HOLD = "after each optimizer.step(), every layer.weight is multiplied by its mask, weight != 0 on entry."
EPOCH = "for each batch, once and in order: zero_grad, net(inputs), criterion, backward, step; then the mask."


def diagnosis(trial: Trial, bits: int | None = None) -> str | None:
    """The mistake behind where `trial` ended: by what can be seen in it, else by the way that ends there."""
    names = {id(p): name for name, p in trial.parameters.items()}
    if any(id(p) not in names for p in trial.net.parameters()):
        return PARAMETER
    unmoved = trial.unmoved()
    if len(unmoved) == len(names):
        return _why_nothing_moved(trial)
    if trial.same_memory():
        return "the optimizer that was given made no step: do not make another one, call its step()."
    if not trial.same_settings():
        return "the settings of the optimizer were changed: use it as it was given."
    if (replayed := named(trial.weights(), replays(bits), SAME)) is not None:
        return replayed
    if unmoved:
        still = ", ".join(name.removeprefix("body.") for name in unmoved)
        return f"{still} did not move: nothing is frozen, every parameter is trained."
    return _by_the_values(trial, bits)


def _why_nothing_moved(trial: Trial) -> str | None:
    if trial.net.training and not trial.ran():
        return (
            "no batch went through net: loop over trainloader, and train the net that was given, not a copy."
        )
    if any(p.grad is not None and bool(p.grad.any()) for p in trial.net.parameters()):
        return "the gradients are there, but no step was made: optimizer.step() after backward()."
    return (
        "no weight had a gradient when it was time for a step: first zero_grad(), then backward() of the "
        "loss of net(inputs), then step(), without detach() or torch.no_grad() in between."
    )


def _by_the_values(trial: Trial, bits: int | None) -> str | None:
    back, gone = trial.back(), trial.gone()
    open_layers = [short(name) for name in back if back[name]]
    held = [short(name) for name in back if not back[name]]
    if open_layers and trial.largest_back() < 1e-5:
        return "they are made small, not zero: a pruned weight is exactly 0.0."
    if bits is not None and trial.on_levels():
        return LEVELS
    if (mixed_up := trial.held_by_another()) is not None:
        layer, other = mixed_up
        return f"{layer} has the mask of {other}: keep masks by the layer or its name, not by shape."
    if trial.lost_shortcut():
        return "the shortcut (id_mapping) is never pruned: use labkit.prunable_layers(net)."
    if open_layers and gone:
        return (
            "other weights are zero now: hold the mask of those that were zero on entry, and prune no more."
        )
    if gone:
        level = " It is that of layer.weight, not of its quantized level." if bits is not None else ""
        return f"{gone} weights became zero that were not: the mask is weight != 0 on entry.{level}"
    if open_layers and held:
        return (
            f"the zeros of {', '.join(held)} hold, those of {', '.join(open_layers)} do not: "
            "every layer of labkit.prunable_layers(net) needs a mask, its own."
        )
    return HOLD if open_layers else EPOCH


def _expect_zeros(trial: Trial, hint: Callable[[], str | None]) -> None:
    back, zeros = trial.back(), {name: int(mask.sum()) for name, mask in trial.pruned.items()}
    count = sum(back.values())
    if not count:
        return
    picture = table(
        {
            "layer": [short(name) for name in back],
            "pruned": list(zeros.values()),
            "still zero": [zeros[name] - back[name] for name in back],
        }
    )
    expect(False, f"{count} of {sum(zeros.values())} pruned weights came back\n{picture}", hint())


def _expect_training(trial: Trial, hint: Callable[[], str | None]) -> None:
    still = [short(name) for name, share in trial.trained().items() if share <= 0.9]
    if still:
        expect(False, f"most surviving weights did not move, in {', '.join(still)}", hint())


def _expect_epoch(trial: Trial, wanted: np.ndarray, hint: Callable[[], str | None]) -> None:
    got = trial.weights()
    expect(got.shape == wanted.shape, "the net has other parameters now", PARAMETER)
    away = float(np.nan_to_num(np.abs(got - wanted), nan=np.inf).max())
    if away > SAME:
        expect(False, f"a weight ends {away:.2g} away from where the epoch leads it", hint())


def finetune_after_prune(answer: Any) -> Suite:
    suite = public_suite(answer, "finetune_after_prune")

    @cache  # for the checks that look at one epoch; an epoch that raises an error is tried by each of them
    def after_epoch(finetune: Any, **given: bool) -> Trial:
        trial = Trial()
        finetune(trial.net, loader(), criterion(), trial.optimizer, **given)
        return trial

    def hint(finetune: Any) -> str | None:
        found = diagnosis(after_epoch(finetune))
        if found == NO_MASK and not any(after_epoch(finetune, prune=False).back().values()):
            return "it is the wrong way round: the mask is applied if prune is False, and not if it is True."
        return found

    @suite.check()
    def zeros_hold(finetune: Any) -> None:
        """After an epoch every pruned weight is still zero, although momentum and weight decay push it."""
        _expect_zeros(after_epoch(finetune), partial(hint, finetune))

    @suite.check()
    def others_move(finetune: Any) -> None:
        """The weights that were not pruned are trained."""
        _expect_training(after_epoch(finetune), partial(hint, finetune))

    @suite.check(after=(zeros_hold, others_move))
    def each_batch(finetune: Any) -> None:
        """Each batch makes one step of the given optimizer, and the zeros hold before the next one comes."""
        _expect_epoch(after_epoch(finetune), right_way(None), partial(hint, finetune))

    @suite.check(after=others_move)
    def may_return(finetune: Any) -> None:
        """With prune=False no mask is held: pruned weights may come back."""
        trial = after_epoch(finetune, prune=False)
        _expect_training(trial, lambda: "with prune=False it trains as well, only without the mask.")
        back, zeros = sum(trial.back().values()), sum(int(mask.sum()) for mask in trial.pruned.values())
        held = "look at the argument `prune` before masking."
        expect(back > zeros / 2, f"{zeros - back} of {zeros} pruned weights are still zero", held)

    return suite


def finetune_quantized(answer: Any) -> Suite:
    suite = public_suite(answer, "finetune_quantized")

    @cache
    def after_epoch(finetune: Any) -> Trial:
        trial = Trial(bits=4)
        finetune(trial.net, loader(), criterion(), trial.optimizer)
        return trial

    def hint(finetune: Any) -> str | None:
        found = diagnosis(after_epoch(finetune), bits=4)
        hidden = "STE hides zeros in the forward pass only; the weight behind them is trained."
        return f"{hidden} {found[0].upper()}{found[1:]}" if found == NO_MASK else found

    @suite.check()
    def zeros_hold(finetune: Any) -> None:
        """After an epoch the pruned weights of the quantized network are still zero underneath."""
        _expect_zeros(after_epoch(finetune), partial(hint, finetune))

    @suite.check()
    def others_move(finetune: Any) -> None:
        """The floating-point weights behind the levels are trained."""
        _expect_training(after_epoch(finetune), partial(hint, finetune))

    @suite.check(after=(zeros_hold, others_move))
    def each_batch(finetune: Any) -> None:
        """Each batch makes one step of the given optimizer, and the zeros hold before the next one comes."""
        _expect_epoch(after_epoch(finetune), right_way(4), partial(hint, finetune))

    return suite
