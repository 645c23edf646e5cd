"""What can be run, by name: the report's eleven finetunings, ours with zeros held, and the plain sweeps.

Each is the report's protocol put together from the notebooks' own functions; here is only what a
notebook's experiment cells say outside of functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from labkit.errors import LabError
from labkit.models import ResNet, prunable_layers
from labkit.reproduce.lab import Lab

Rows = Iterator[tuple[str, ResNet]]


@dataclass(frozen=True)
class Sweep:
    """Networks that are only evaluated: a row of a table for each.

    start: the experiment whose network is changed here, or None for the baseline. rows(lab, start)
        gives each row's name and network. functions: the notebooks' names that it uses.
    """

    name: str
    table: str
    rows: Callable[[Lab, ResNet], Rows]
    functions: tuple[str, ...] = ()
    start: str | None = None
    bits: ClassVar[None] = None


@dataclass(frozen=True)
class Finetuning:
    """A network that is trained: one row of a table.

    network(lab, start): what the training begins with, `start` itself or another. options(lab): what
        `labkit.train` gets besides the recipe. functions, start: as in a Sweep. bits: of the trained
        network, None for floating point.
    """

    name: str
    table: str
    row: str
    network: Callable[[Lab, ResNet], ResNet]
    options: Callable[[Lab], dict[str, Any]]
    functions: tuple[str, ...] = ()
    start: str | None = None
    bits: int | None = None


Experiment = Sweep | Finetuning

BITS = (5, 4, 3, 2)


def _unchanged(lab: Lab, start: ResNet) -> ResNet:
    return start


def _one_shot(lab: Lab, start: ResNet) -> ResNet:
    for _, layer in prunable_layers(start):
        lab["01.prune_by_percentage"](layer, q=80.0)
    return start


def _quantized(bits: int, lab: Lab, start: ResNet) -> ResNet:
    """The weights of `start` under notebook 06's STE; symmetric is no report's finetuning."""
    net = lab.baseline(bits=bits)
    net.load_state_dict(start.state_dict())
    return net


def _pruning_sweep(lab: Lab, start: ResNet) -> Rows:
    for q in (20, 40, 60, 70, 80):
        net = lab.baseline()
        for _, layer in prunable_layers(net):
            lab["01.prune_by_percentage"](layer, q=float(q))
        yield str(q), net


def _global_sweep(lab: Lab, start: ResNet) -> Rows:
    for q in (20, 40, 60, 70, 80):
        net = lab.baseline()
        lab["04.global_prune_by_percentage"](net, q=float(q))
        yield str(q), net


def _bits_sweep(symmetric: bool, lab: Lab, start: ResNet) -> Rows:
    for bits in (6, *BITS):
        yield str(bits), lab.baseline(bits=bits, symmetric=symmetric)


def _pruned_bits_sweep(lab: Lab, start: ResNet) -> Rows:
    for bits in BITS:
        yield str(bits), _quantized(bits, lab, start)


def _epochs(epoch_fn: str, before_epoch: str | None = None) -> Callable[[Lab], dict[str, Any]]:
    """The options of a training whose epochs are a notebook's function."""

    def options(lab: Lab) -> dict[str, Any]:
        chosen: dict[str, Any] = {"epoch_fn": lab[epoch_fn]}
        if before_epoch is not None:
            # the best epoch is one at the full sparsity
            chosen |= {"before_epoch": lab[before_epoch], "keep_best_from": lab.profile.ramp_epochs}
        return chosen

    return options


def _all() -> Iterator[Experiment]:
    yield Sweep("baseline", "pruning", lambda lab, start: iter([("baseline", start)]))
    yield Sweep("pruning-sweep", "pruning_sweep", _pruning_sweep, ("01.prune_by_percentage",))
    yield Sweep("global-sweep", "global_sweep", _global_sweep, ("04.global_prune_by_percentage",))
    yield Sweep("asymmetric", "asymmetric", partial(_bits_sweep, False), ("06.STE",))
    yield Sweep("symmetric", "symmetric", partial(_bits_sweep, True), ("06.STE",))

    masked, prune = "02.finetune_after_prune", "01.prune_by_percentage"
    yield Finetuning("one-shot", "pruning", "one-shot", _one_shot, _epochs(masked), (prune, masked))
    for name, epoch_fn, before in (
        ("iterative", "03.iterative_epoch", "03.before_epoch"),
        ("global", "04.free_then_masked", "04.prune_before"),
    ):
        yield Finetuning(name, "pruning", name, _unchanged, _epochs(epoch_fn, before), (epoch_fn, before))
    for bits in BITS:
        yield Finetuning(
            f"asymmetric-finetune:{bits}", "asymmetric_finetuned", str(bits),
            partial(_quantized, bits), lambda lab: {}, ("06.STE",), bits=bits,
        )  # fmt: skip
    yield Sweep("pruned-quantized", "pruned_quantized_before", _pruned_bits_sweep, ("06.STE",), "global")
    plain, held = "07.plain_epoch", "07.finetune_quantized"
    for bits in BITS:  # as the report did it: nothing holds the zeros
        yield Finetuning(
            f"pruned-quantized-finetune:{bits}", "pruned_quantized_after", str(bits),
            partial(_quantized, bits), _epochs(plain), ("06.STE", plain), "global", bits,
        )  # fmt: skip
    for bits in BITS:
        yield Finetuning(
            f"pruned-quantized-held:{bits}", "pruned_quantized_after", str(bits),
            partial(_quantized, bits), _epochs(held), ("06.STE", held), "global", bits,
        )  # fmt: skip


EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _all()}


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names in the order of the list above; all of them for no names.

    A name without its bit width means all widths: `asymmetric-finetune`. What an experiment starts from
    is added. Raises LabError for a name that there is not.
    """
    wanted: set[str] = set()
    for name in names or EXPERIMENTS:
        matching = [known for known in EXPERIMENTS if known == name or known.split(":")[0] == name]
        if not matching:
            raise LabError(f"there is no experiment {name!r}. There are: {', '.join(EXPERIMENTS)}.")
        wanted.update(matching)
    wanted |= {start for name in wanted if (start := EXPERIMENTS[name].start) is not None}
    return [experiment for name, experiment in EXPERIMENTS.items() if name in wanted]
