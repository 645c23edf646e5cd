"""The instant checks of `prune_by_percentage` and `global_prune_by_percentage`: which weights go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit.check.diagnosis import Mistakes, expect_named, named, table
from labkit.check.engine import Suite, as_array, expect
from labkit.check.fixtures import TinyNet, linear, with_weight
from labkit.check.suites import public_suite
from labkit.models import default_device, prunable_layers

NOTHING = "nothing changed: the zeros have to end up in {}, in place; a copy does not help."
SIGNED = "the percentile is taken of w itself: take it of the magnitudes |w|."
SIGNED_MASK = "compare |w| with the threshold, not w: a large negative weight is not a small one."
SIGNED_BOTH = (
    "signed weights: take the percentile of |w|, and compare |w| with it, so that the sign does not count."
)
FRACTION = "np.percentile takes q from 0 to 100, so it is not divided by 100 (torch.quantile takes 0 to 1)."
LARGEST = "the largest weights went: keep those with |w| >= t."
KEPT = "q percent of the weights stayed, but q percent have to go."
SIGNS = "the signs are lost: multiply the weight by the mask, not |w|."
MASK = "that is the mask itself: multiply the weight by it."
IGNORED = "70 percent went, whatever q says: take the percentile at q."
SHARE = "q percent of the largest |w| is no percentile: np.percentile sorts the weights and counts them."
ALMOST = "they are made small, not zero: a pruned weight is exactly 0.0."
PARAMETER = "write into it (layer.weight.data.mul_(mask)): an optimizer holds on to the old Parameter."

TEN = np.array([[-14.0, -5, -3, 1, 4], [-8, -2, 6, 7, 10]])


def ten_weights_pruned(q: float) -> np.ndarray:
    """TEN as it should be after pruning."""
    return TEN * (np.abs(TEN) >= np.percentile(np.abs(TEN), q))


def layer_mistakes(q: float) -> list[tuple[str, np.ndarray]]:
    """What common mistakes make of TEN."""
    w, a = TEN, np.abs(TEN)
    t, signed = np.percentile(a, q), np.percentile(w, q)
    return [
        (NOTHING.format("layer.weight itself"), w),
        (SIGNED, w * (a >= signed)),
        (SIGNED_MASK, w * (w >= t)),
        (SIGNED_BOTH, w * (w >= signed)),
        (FRACTION, w * (a >= np.percentile(a, q / 100))),
        (LARGEST, w * (a <= t)),
        (KEPT, w * (a >= np.percentile(a, 100 - q))),
        (SHARE, w * (a >= q / 100 * a.max())),
        (
            "each row has a threshold of its own: take one percentile over the whole layer.",
            w * (a >= np.percentile(a, q, axis=1, keepdims=True)),
        ),
        (SIGNS, a * (a >= t)),
        (MASK, 1.0 * (a >= t)),
        (IGNORED, w * (a >= np.percentile(a, 70))),
        (
            "between two weights the percentile is interpolated, which is np.percentile's default.",
            w * (a >= np.percentile(a, q, method="lower")),
        ),
        (ALMOST, np.where(a >= t, w, 1e-6)),
    ]


def prune_by_percentage(answer: Any) -> Suite:
    suite = public_suite(answer, "prune_by_percentage")

    def expect_pruned(prune: Any, q: float, mistakes: Mistakes) -> None:
        layer = with_weight(linear(5, 2), torch.from_numpy(TEN))
        prune(layer, q=q)
        wanted, got = ten_weights_pruned(q), layer.weight

        def picture() -> str:
            return table({"weight": TEN, "should": wanted, "is": got})

        expect_named(got, wanted, "the weight", mistakes, 0.0, picture=picture)

    @suite.check()
    def smallest_go(prune: Any) -> None:
        """Of ten weights, q = 60 takes the six smallest in magnitude and leaves the rest as they were."""
        expect_pruned(prune, 60.0, layer_mistakes(60.0))

    @suite.check(after=smallest_go)
    def percent(prune: Any) -> None:
        """q is in percent: q = 20 takes two of ten weights."""
        expect_pruned(prune, 20.0, ())

    @suite.check()
    def in_place(prune: Any) -> None:
        """layer.weight is the same Parameter afterwards, of the same dtype and on the same device."""
        layer = with_weight(linear(5, 2), torch.from_numpy(TEN)).to(default_device())
        parameter, dtype, device = layer.weight, layer.weight.dtype, layer.weight.device
        prune(layer, q=30.0)
        expect(layer.weight is parameter, "layer.weight is another object now", PARAMETER)
        hint = "multiply the weight by the mask in place: then it keeps its dtype."
        expect(layer.weight.dtype == dtype, f"its dtype was {dtype} and is {layer.weight.dtype} now", hint)
        hint = "the notebook's network is there: bring the mask to weight.device."
        expect(layer.weight.device == device, f"it was on {device} and is on {layer.weight.device} now", hint)

    return suite


Numbers = dict[str, np.ndarray]  # a net's parameters by name


def numbers(net: nn.Module) -> Numbers:
    return {name: as_array(parameter) for name, parameter in sorted(net.named_parameters())}


def flat(values: Numbers) -> np.ndarray:
    return np.concatenate([value.ravel() for value in values.values()])


def net_mistakes(net: nn.Module, q: float) -> Iterator[tuple[str, np.ndarray]]:
    """What common mistakes make of all parameters of `net`, one after the other as `flat` gives them."""
    before = numbers(net)
    kinds = {f"{name}.weight": type(layer) for name, layer in prunable_layers(net)}
    right = list(kinds)
    convs = [name for name in right if kinds[name] is nn.Conv2d]
    linears = [name for name in right if kinds[name] is nn.Linear]
    shortcuts = [name for name in before if "id_mapping" in name]
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

    t = percentile(right)
    signed = percentile(right, lambda w: w)
    each = [percentile([name]) for name in right]
    sizes = [before[name].size for name in right]

    yield NOTHING.format("each layer.weight itself"), flat(before)
    one_each = (
        "each layer has a threshold of its own: take one percentile over the weights of all layers together."
    )
    yield one_each, changed(right, lambda w: w * (np.abs(w) >= np.percentile(np.abs(w), q)))
    mean = "the mean of the layers' thresholds is not the percentile of all weights: concatenate them first."
    yield mean, cut(float(np.mean(each)))
    yield mean, cut(float(np.average(each, weights=sizes)))
    yield "that is the first layer's threshold for all: collect every layer's weights first.", cut(each[0])
    yield "that is the last layer's threshold for all: collect every layer's weights first.", cut(each[-1])
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
    yield "the last layer has to be pruned too.", cut(t, right[:-1])
    by_name = (
        "layers are told by their type, not by a name that ends in conv: use labkit.prunable_layers(net)."
    )
    yield by_name, cut(percentile(called_conv), called_conv)
    yield SIGNED, cut(signed)
    yield SIGNED_MASK, changed(right, lambda w: w * (w >= t))
    yield SIGNED_BOTH, changed(right, lambda w: w * (w >= signed))
    yield FRACTION, cut(percentile(right, at=q / 100))
    yield IGNORED, cut(percentile(right, at=70))
    yield KEPT, cut(percentile(right, at=100 - q))
    yield LARGEST, changed(right, lambda w: w * (np.abs(w) <= t))
    yield SHARE, cut(q / 100 * max(float(np.abs(before[name]).max()) for name in right))
    yield (
        "w squared is compared with a percentile of |w|: compare |w|.",
        changed(right, lambda w: w * (w * w >= t)),
    )
    scaled = (
        "compare |w| as it is: divided by something of each layer's own, it is one threshold for each layer."
    )
    yield scaled, relative(lambda w: float(np.abs(w).max()))
    yield scaled, relative(lambda w: float(w.std(ddof=1)))
    spared = "a layer may lose every weight: the threshold is the same for all of them."
    yield spared, changed(right, lambda w: w * (np.abs(w) >= t) if (np.abs(w) >= t).any() else w)
    yield SIGNS, changed(right, lambda w: np.abs(w) * (np.abs(w) >= t))
    yield MASK, changed(right, lambda w: 1.0 * (np.abs(w) >= t))
    yield ALMOST, cut(t)  # within the tolerance of `named`, but not exactly


def global_prune_by_percentage(answer: Any) -> Suite:
    suite = public_suite(answer, "global_prune_by_percentage")
    q = 75.0

    def hint(net: nn.Module) -> str | None:
        return named(flat(numbers(net)), net_mistakes(TinyNet(), q), 1e-6)

    @suite.check()
    def smallest_go(prune: Any) -> None:
        """q = 75 takes the smallest 75 percent of all prunable weights together, not of each layer."""
        net, before = TinyNet(), numbers(TinyNet())
        prunable = [f"{name}.weight" for name, _ in prunable_layers(net)]
        t = np.percentile(np.concatenate([np.abs(before[name]).ravel() for name in prunable]), q)
        prune(net, q=q)
        after = numbers(net)
        should = {name: np.abs(before[name]) < t for name in prunable}
        should["id_mapping.conv.weight"] = np.zeros_like(before["id_mapping.conv.weight"], dtype=bool)
        went = {name: after[name] == 0 for name in should}
        wrong = sum(int((went[name] != should[name]).sum()) for name in should)
        picture = table(
            {
                "layer": [name.partition(".")[0] for name in should],
                "weights": [mask.size for mask in should.values()],
                "should go": [mask.sum() for mask in should.values()],
                "went": [mask.sum() for mask in went.values()],
            }
        )
        total = sum(before[name].size for name in prunable)
        zeros, wanted = (sum(int(masks[name].sum()) for name in prunable) for masks in (went, should))
        message = f"{zeros} of {total} weights went, should be {wanted}; {wrong} are on the wrong side"
        expect(wrong == 0, f"{message}\n{picture}", hint(net) if wrong else None)

    @suite.check()
    def others_stay(prune: Any) -> None:
        """The others keep their values; shortcuts, biases and batch norms stay; no Parameter is replaced."""
        net, before = TinyNet().to(default_device()), numbers(TinyNet())
        parameters = dict(net.named_parameters())
        prunable = [f"{name}.weight" for name, _ in prunable_layers(net)]
        prune(net, q=q)
        for name, parameter in net.named_parameters():
            expect(parameter is parameters.get(name), f"{name} is another object now", PARAMETER)
        after = numbers(net)
        changed = [
            name
            for name, w in before.items()
            if not np.array_equal(after[name], w * (after[name] != 0) if name in prunable else w)
        ]
        message = f"values changed that should have stayed, in {', '.join(changed)}"
        expect(not changed, message, hint(net) if changed else None)

    return suite
