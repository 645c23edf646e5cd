"""The instant checks of `global_prune_by_percentage`: one threshold for all layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from labkit.check import pruning
from labkit.check.diagnosis import Near, named_in, table
from labkit.check.engine import Failed, Suite
from labkit.check.nets import (
    Before,
    flat,
    numbers,
    pruned_names,
    short,
    shortcut_names,
    small_net,
    tried_names,
    untouched,
)
from labkit.check.suites import public_suite
from labkit.models import prunable_layers

PERCENTAGES = (75.0, 0.5, 0.0)
DEFAULT = 70.0


def net_mistakes(q: float) -> Iterator[tuple[str, Any]]:
    """What common mistakes make of all parameters of the net, one after the other as `flat` gives them."""
    net, before = small_net(), untouched()
    kinds = {f"{name}.weight": type(layer) for name, layer in prunable_layers(net)}
    right = list(kinds)
    convs = [name for name in right if issubclass(kinds[name], nn.Conv2d)]
    linears = [name for name in right if issubclass(kinds[name], nn.Linear)]
    exactly = [name for name in right if kinds[name] in (nn.Conv2d, nn.Linear)]
    shortcuts = shortcut_names(net)
    biases = [name for name in before if name.removesuffix("bias") + "weight" in right and "bias" in name]
    norms = [name for name in before if "bn" in name]
    norm_weights = [name for name in norms if "weight" in name]
    called_conv = [name for name in right if name.endswith(".conv.weight")]

    def percentile(names: list[str], of: Callable[[np.ndarray], np.ndarray] = np.abs, at: float = q) -> float:
        return float(np.percentile(np.concatenate([of(before[name]).ravel() for name in names]), at))

    def changed(names: list[str], change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return flat({name: change(w) if name in names else w for name, w in before.items()})

    def cut(threshold: float, names: list[str] = right) -> np.ndarray:
        return changed(names, lambda w: w * (np.abs(w) >= threshold))

    def relative(size: Callable[[np.ndarray], float]) -> np.ndarray:
        least = percentile(right, lambda w: np.abs(w) / size(w))
        return changed(right, lambda w: w * (np.abs(w) / size(w) >= least))

    def in_one_loop() -> np.ndarray:
        after, seen = dict(before), []
        for name in right:
            seen.append(name)
            after[name] = before[name] * (np.abs(before[name]) >= percentile(seen))
        return flat(after)

    def counted(whole: Callable[[float], int]) -> np.ndarray:
        return cut(float(np.append(everything, np.inf)[whole(q / 100 * len(everything))]))

    everything = np.sort(np.concatenate([np.abs(before[name]).ravel() for name in right]))
    t = percentile(right)
    signed = percentile(right, lambda w: w)
    each = [percentile([name]) for name in right]
    sizes = [before[name].size for name in right]

    yield pruning.NOTHING.format("each layer.weight itself"), flat(before)
    one_each = (
        "each layer has a threshold of its own: take one percentile over the weights of all layers together."
    )
    yield one_each, changed(right, lambda w: w * (np.abs(w) >= np.percentile(np.abs(w), q)))
    mean = "the mean of the layers' thresholds is not the percentile of all weights: concatenate them first."
    yield mean, cut(float(np.mean(each)))
    yield mean, cut(float(np.average(each, weights=sizes)))
    yield "this is the first layer's threshold for all: collect every layer's weights first.", cut(each[0])
    yield "this is the last layer's threshold for all: collect every layer's weights first.", cut(each[-1])
    loop = "it prunes while it still collects: collect all weights in one loop, prune in a second one."
    yield loop, in_one_loop()
    without = "shortcuts (id_mapping) are not pruned and not counted: use labkit.prunable_layers(net)."
    yield without, cut(percentile(right + shortcuts))
    yield without, cut(t, right + shortcuts)
    yield without, cut(percentile(right + shortcuts), right + shortcuts)
    no_bias = "biases and batch norms do not belong to it: take layer.weight of labkit.prunable_layers(net)."
    yield no_bias, cut(percentile(right + biases))
    yield no_bias, cut(percentile(right + biases), right + biases)
    yield no_bias, cut(percentile(right + biases + norms))
    yield no_bias, cut(t, right + biases + norms)
    yield no_bias, cut(percentile(right + norm_weights), right + norm_weights)
    yield "linear layers belong to it too: use labkit.prunable_layers(net).", cut(percentile(convs), convs)
    yield "convolutions belong to it too: use labkit.prunable_layers(net).", cut(percentile(linears), linears)
    subclass = (
        "a subclass of nn.Linear is a linear layer, too: use labkit.prunable_layers(net), or isinstance."
    )
    yield subclass, cut(percentile(exactly), exactly)
    yield "the last layer has to be pruned too.", cut(t, right[:-1])
    by_name = (
        "layers are told by their type, not by a name that ends in conv: use labkit.prunable_layers(net)."
    )
    yield by_name, cut(percentile(called_conv), called_conv)
    yield pruning.SIGNED, cut(signed)
    yield pruning.SIGNED_MASK, changed(right, lambda w: w * (w >= t))
    yield pruning.SIGNED_BOTH, changed(right, lambda w: w * (w >= signed))
    yield pruning.FRACTION, cut(percentile(right, at=q / 100))
    yield pruning.IGNORED, cut(percentile(right, at=70))
    yield pruning.KEPT, cut(percentile(right, at=100 - q))
    yield pruning.LARGEST, changed(right, lambda w: w * (np.abs(w) <= t))
    yield pruning.SHARE, cut(q / 100 * max(float(np.abs(before[name]).max()) for name in right))
    yield pruning.SQUARED, changed(right, lambda w: w * (w * w >= t))
    yield pruning.DECIMALS, cut(percentile(right, at=int(q)))
    yield pruning.SMALL_Q, cut(percentile(right, at=100 * q if q <= 1 else q))
    yield pruning.COUNTED, counted(math.floor)
    yield pruning.COUNTED, counted(round)
    yield pruning.COUNTED, counted(math.ceil)
    yield pruning.AT_THRESHOLD, changed(right, lambda w: w * (np.abs(w) > t))
    scaled = (
        "compare |w| as it is: divided by something of each layer's own, it is one threshold for each layer."
    )
    yield scaled, relative(lambda w: float(np.abs(w).max()))
    yield scaled, relative(lambda w: float(w.std(ddof=1)))
    spared = "a layer may lose every weight: the threshold is the same for all of them."
    yield spared, changed(right, lambda w: w * (np.abs(w) >= t) if (np.abs(w) >= t).any() else w)
    yield pruning.SIGNS, changed(right, lambda w: np.abs(w) * (np.abs(w) >= t))
    yield pruning.MASK, changed(right, lambda w: 1.0 * (np.abs(w) >= t))
    yield pruning.ALMOST, Near(cut(t))


def global_prune_by_percentage(answer: Any) -> Suite:
    suite = public_suite(answer, "global_prune_by_percentage")

    def pruned(prune: Any, **given: float) -> nn.Module:
        net = small_net()
        prune(net, **given)
        return net

    def hint(prune: Any) -> str | None:
        def after(q: float) -> np.ndarray:
            return flat(numbers(pruned(prune, q=q)))

        return named_in(((partial(after, q), partial(net_mistakes, q)) for q in PERCENTAGES), 1e-6)

    def expect_smallest_gone(prune: Any, percent: float, **given: float) -> None:
        before, after = untouched(), numbers(pruned(prune, **given))
        t = np.percentile(np.concatenate([np.abs(before[name]).ravel() for name in pruned_names()]), percent)
        should = {
            name: np.abs(before[name]) < (t if name in pruned_names() else 0.0) for name in tried_names()
        }
        went = {name: after[name] == 0 for name in should}
        wrong = sum(int((went[name] != should[name]).sum()) for name in should)
        if not wrong:
            return
        picture = table(
            {
                "layer": [short(name) for name in should],
                "weights": [mask.size for mask in should.values()],
                "should go": [mask.sum() for mask in should.values()],
                "went": [mask.sum() for mask in went.values()],
            }
        )
        total = sum(before[name].size for name in pruned_names())
        zeros, wanted = (sum(int(masks[name].sum()) for name in pruned_names()) for masks in (went, should))
        asked = f"q = {percent:g}" if given else "without q"
        message = (
            f"{asked}: {zeros} of {total} weights went, should be {wanted}; {wrong} are on the wrong side"
        )
        raise Failed(f"{message}\n{picture}", hint(prune))

    @suite.check()
    def smallest_go(prune: Any) -> None:
        """q = 75 takes the smallest 75 percent of all prunable weights together, not of each layer."""
        expect_smallest_gone(prune, 75.0, q=75.0)

    @suite.check(after=smallest_go)
    def percent(prune: Any) -> None:
        """q is in percent: 0.5 takes a few weights, 0 takes none; without q, 70 percent go."""
        for q in PERCENTAGES[1:]:
            expect_smallest_gone(prune, q, q=q)
        expect_smallest_gone(prune, DEFAULT)

    @suite.check()
    def others_stay(prune: Any) -> None:
        """The others keep their values; shortcuts, biases and batch norms stay; no Parameter is replaced."""
        net = small_net()
        before = Before(net)
        prune(net, q=75.0)
        before.expect_only_zeros(net, lambda: hint(prune))

    return suite
