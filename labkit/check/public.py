"""The instant checks: what a student can try at once, on examples small enough to follow by hand.

They are public and few; the hidden tests that give the points are in the notebooks. A right answer
passes all of them, and each common mistake meets a check whose hint names it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from labkit.check.engine import Suite, expect, expect_close, functions_of
from labkit.check.fixtures import RoundToSteps, TinyNet, batches, linear, restless_optimizer, with_weight
from labkit.models import default_device, prunable_layers
from labkit.sparsity import sparsity


def prune_by_percentage(answer: Any) -> Suite:
    suite = _suite(answer, "prune_by_percentage")

    def ten() -> nn.Linear:
        return with_weight(linear(5, 2), torch.tensor([[-10.0, -8, -6, -4, -2], [1, 3, 5, 7, 9]]))

    @suite.check()
    def smallest_go(prune: Any) -> None:
        """Of ten weights, q = 50 takes the five smallest in magnitude and leaves the rest as they were."""
        layer = ten()
        prune(layer, q=50.0)
        zeros = int((layer.weight == 0).sum())
        hint = None
        if zeros == 5 and (layer.weight < 0).sum() == 0:
            hint = "all negative weights went: compare |w| with the threshold, not w."
        elif bool((layer.weight != 0).all()):
            hint = "nothing changed: the zeros have to end up in layer.weight itself, in place."
        wanted = [[-10.0, -8, -6, 0, 0], [0, 0, 0, 7, 9]]
        expect_close(layer.weight, wanted, "the weight", hint=hint)

    @suite.check()
    def percent(prune: Any) -> None:
        """q is in percent: q = 20 takes two of ten weights."""
        layer = ten()
        prune(layer, q=20.0)
        zeros = int((layer.weight == 0).sum())
        expect(
            zeros == 2,
            f"expected 2 zeros, but there are {zeros}",
            "np.percentile takes 0 to 100, torch.quantile 0 to 1.",
        )

    @suite.check()
    def in_place(prune: Any) -> None:
        """layer.weight is the same Parameter afterwards, of the same dtype and on the same device."""
        layer = ten()
        parameter = layer.weight
        prune(layer, q=30.0)
        hint = "write into it (layer.weight.data.mul_(mask)); an optimizer holds on to the old Parameter."
        expect(layer.weight is parameter, "layer.weight is another object now", hint)
        expect(layer.weight.dtype == torch.float32, f"its dtype became {layer.weight.dtype}")

    return suite


def finetune_after_prune(answer: Any) -> Suite:
    suite = _suite(answer, "finetune_after_prune")

    @suite.check()
    def zeros_hold(finetune: Any) -> None:
        """After an epoch every pruned weight is still zero, although momentum and weight decay push it."""
        net, optimizer = _half_pruned(TinyNet())
        zeros = _zeros(net)
        finetune(net, batches(), nn.CrossEntropyLoss(), optimizer)
        back = zeros - _zeros_still(net)
        hint = "apply the mask after optimizer.step(): momentum moves a weight whose gradient is zero."
        expect(back == 0, f"{back} of {zeros} pruned weights came back", hint)

    @suite.check()
    def others_move(finetune: Any) -> None:
        """The weights that were not pruned are trained."""
        net, optimizer = _half_pruned(TinyNet())
        before = copy.deepcopy(net.state_dict())
        finetune(net, batches(), nn.CrossEntropyLoss(), optimizer)
        for name, layer in prunable_layers(net):
            free = before[f"{name}.weight"] != 0
            moved = layer.weight[free] != before[f"{name}.weight"][free]
            expect(moved.float().mean() > 0.9, f"most surviving weights of {name} did not move")

    @suite.check()
    def may_return(finetune: Any) -> None:
        """With prune=False no mask is held: pruned weights may come back."""
        net, optimizer = _half_pruned(TinyNet())
        finetune(net, batches(), nn.CrossEntropyLoss(), optimizer, prune=False)
        expect(
            _zeros(net) == 0, "pruned weights are still zero", "look at the argument `prune` before masking."
        )

    return suite


def sparsity_at(answer: Any) -> Suite:
    suite = _suite(answer, "sparsity_at")

    @suite.check()
    def first(at: Any) -> None:
        """Before epoch 0 the schedule already asks for 8 percent."""
        hint = "epochs are counted from 0, so epoch e is step e + 1 of the ramp."
        expect_close(at(0), 8.0, "sparsity_at(0)", hint=hint)

    @suite.check()
    def end(at: Any) -> None:
        """From epoch 9 on it stays at the target of 80 percent."""
        expect_close(at(9), 80.0, "sparsity_at(9)")
        expect_close(
            at(15),
            80.0,
            "sparsity_at(15)",
            hint="after the ramp the sparsity must not grow: min(...) is your friend.",
        )

    return suite


def iterative_prune(answer: Any) -> Suite:
    suite = _suite(answer, "iterative_prune")

    @suite.check()
    def first_step(prune: Any) -> None:
        """Before epoch 4 every prunable layer is pruned to 40 percent; the shortcut stays dense."""
        net = TinyNet()
        prune(net, 4)
        for name, layer in prunable_layers(net):
            zeros = sparsity(layer)
            expect(abs(zeros - 0.4) <= 1 / layer.weight.numel(), f"{name} is {zeros:.1%} sparse")
        expect(
            sparsity(net.id_mapping.conv) == 0,
            "the shortcut (id_mapping) was pruned",
            "use labkit.prunable_layers(net).",
        )

    @suite.check()
    def after(prune: Any) -> None:
        """After the ramp the network is left alone."""
        net = TinyNet()
        for _, layer in prunable_layers(net):
            layer.weight.data.flatten()[: int(0.8 * layer.weight.numel())] = 0
        before = copy.deepcopy(net.state_dict())
        prune(net, 12)
        same = all(torch.equal(before[key], value) for key, value in net.state_dict().items())
        expect(same, "weights changed in epoch 12, after a ramp of 10 epochs")

    return suite


def global_prune_by_percentage(answer: Any) -> Suite:
    suite = _suite(answer, "global_prune_by_percentage")

    @suite.check()
    def overall(prune: Any) -> None:
        """q = 70 makes 70 percent of all prunable weights zero."""
        net = TinyNet()
        prune(net, q=70.0)
        expect(abs(sparsity(net) - 0.7) < 0.002, f"the network is {sparsity(net):.1%} sparse")

    @suite.check()
    def unequal(prune: Any) -> None:
        """One threshold for all layers: those with small weights lose more."""
        net = TinyNet()
        prune(net, q=70.0)
        small, large = sparsity(net.conv1.conv), sparsity(net.head)
        message = f"conv1 (small weights) is {small:.1%} sparse, head (large weights) {large:.1%}"
        expect(
            small > large + 0.1, message, "compute one percentile over the weights of all layers together."
        )

    return suite


def STE(answer: Any, symmetric: bool = False) -> Suite:  # noqa: N802 (named after the student's class)
    suite = _suite(answer, "STE, symmetric" if symmetric else "STE")
    w = torch.tensor([-1.0, -0.7, -0.2, 0.1, 0.35, 0.5])
    wanted = [-1.0, -1.0, -1 / 3, 1 / 3, 1 / 3, 1 / 3] if symmetric else [-1.0, -0.5, 0.0, 0.0, 0.5, 0.5]

    @suite.check()
    def levels(ste: Any) -> None:
        """At 2 bits each of six weights lands on the nearest of four levels."""
        got = ste.apply(w.clone(), 2, symmetric)
        ends = "-m to m, m = max|w|" if symmetric else "the lowest weight to the highest"
        hint = f"the levels are k / (2^bit - 1) of the way from {ends}; k = 0 ... 2^bit - 1."
        expect_close(got, wanted, "STE.apply(w, 2)", 1e-5, hint)

    @suite.check()
    def zero(ste: Any) -> None:
        """A weight that is exactly zero (a pruned one) stays exactly zero."""
        pruned = torch.tensor([-0.9, 0.0, 0.31, 0.0, 0.6])
        got = ste.apply(pruned, 3, symmetric)
        expect_close(got[[1, 3]], [0.0, 0.0], "the pruned weights", 0.0, "multiply by (w != 0) at the end.")

    @suite.check()
    def gradient(ste: Any) -> None:
        """The gradient passes straight through: backward hands it on unchanged."""
        x = w.clone().requires_grad_()
        weights = torch.arange(1.0, 7.0)
        (ste.apply(x, 2, symmetric) * weights).sum().backward()
        expect(
            x.grad is not None,
            "no gradient arrived at w",
            "backward returns one value for each argument of forward: g, None, None.",
        )
        expect_close(x.grad, weights, "the gradient")

    @suite.check()
    def floating_point(ste: Any) -> None:
        """bit = None leaves the weights in floating point."""
        expect_close(ste.apply(w.clone(), None, symmetric), w, "STE.apply(w, None)", 0.0)

    return suite


def finetune_quantized(answer: Any) -> Suite:
    suite = _suite(answer, "finetune_quantized")

    @suite.check()
    def zeros_hold(finetune: Any) -> None:
        """After an epoch the pruned weights of the quantized network are still zero underneath."""
        net, optimizer = _half_pruned(TinyNet(bits=4, quantizer=RoundToSteps.apply))
        zeros = _zeros(net)
        finetune(net, batches(), nn.CrossEntropyLoss(), optimizer)
        back = zeros - _zeros_still(net)
        hint = (
            "STE hides zeros in the forward pass only; the weight behind them is trained. "
            "Mask layer.weight after the step."
        )
        expect(back == 0, f"{back} of {zeros} pruned weights came back", hint)

    @suite.check()
    def others_move(finetune: Any) -> None:
        """The floating-point weights behind the levels are trained."""
        net, optimizer = _half_pruned(TinyNet(bits=4, quantizer=RoundToSteps.apply))
        before = net.conv2.conv.weight.detach().clone()
        finetune(net, batches(), nn.CrossEntropyLoss(), optimizer)
        moved = (net.conv2.conv.weight != before)[before != 0]
        expect(moved.float().mean() > 0.9, "most surviving weights of conv2 did not move")

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


def _suite(answer: Any, name: str) -> Suite:
    """A suite whose first check is about the machine that grades: it has no GPU."""
    suite = Suite(answer, name)
    if any("cuda" in names and "is_available" not in names for names in _names_used(answer)):

        @suite.check()
        def no_gpu(_: Any) -> None:
            """It runs on a machine without a GPU: grading has none."""
            expect(False, "the code mentions cuda", "use .to(weight.device) or device=weight.device instead.")

    return suite


def _names_used(thing: Any) -> Iterator[tuple[object, ...]]:
    """Attribute names and string constants in the code of a function or of a class's methods."""
    for function in functions_of(thing):
        yield function.__code__.co_names + function.__code__.co_consts


def _half_pruned(net: TinyNet) -> tuple[TinyNet, torch.optim.SGD]:
    """`net` with the smaller half of each prunable layer at zero, and an optimizer that already moves."""
    net.to(default_device())  # where the notebook's `device` is, for answers that move their batches there
    optimizer = restless_optimizer(net)
    for _, layer in prunable_layers(net):
        magnitude = layer.weight.detach().abs()
        layer.weight.data[magnitude < magnitude.median()] = 0
    net.train()
    net.start = {name: layer.weight == 0 for name, layer in prunable_layers(net)}  # type: ignore[assignment]
    return net, optimizer


def _zeros(net: nn.Module) -> int:
    return sum(int((layer.weight == 0).sum()) for _, layer in prunable_layers(net))


def _zeros_still(net: TinyNet) -> int:
    """How many of the weights that were zero at the start are zero now."""
    start: Any = net.start
    return sum(int((layer.weight == 0)[start[name]].sum()) for name, layer in prunable_layers(net))
