"""Train, finetune, evaluate: one loop, used by every notebook, by `labkit train` and by the tests.

The loop does the bookkeeping (progress, history, best epoch, checkpoints, resume); the arithmetic of
one epoch is a function `epoch_fn(net, trainloader, criterion, optimizer)`, and the functions that
students write have just that signature. Callbacks are plain objects with any of the methods
`before_epoch(net, epoch)`, `after_step(net)`, `after_epoch(net, record)`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from labkit import arguments
from labkit.datasets import ImageSet, expect_image_set
from labkit.errors import ArgumentError, LabError
from labkit.inference import frozen
from labkit.loaders import Loader
from labkit.memory import keep_freed_memory
from labkit.models import quantized_layers
from labkit.precision import float32_only, forward_in, resolve
from labkit.progress import EpochProgress
from labkit.reproducible import code_fingerprint, environment
from labkit.runs import Run, RunFolder, fingerprint

EPOCH_ARGUMENTS = ("net", "trainloader", "criterion", "optimizer")
EpochFunction = Callable[[nn.Module, Loader, nn.Module, torch.optim.Optimizer], object]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[float], float]
"""Maps the share of training done, 0 to 1, to a factor on the learning rate."""

CHECK_LOSS_EVERY = 50  # steps, on a CPU; to look at the loss is to wait for a GPU: once an epoch there


class Evaluation(NamedTuple):
    """Mean cross-entropy and accuracy (0 to 1) over a data set."""

    loss: float
    accuracy: float


class TrainingDiverged(LabError):  # noqa: N818 (reads better where it is caught)
    """The training loss became NaN or infinite."""


def evaluate(net: nn.Module, data: ImageSet | Loader, batch_size: int = 250) -> Evaluation:
    """Loss and accuracy of `net` over all of `data`, in float32 and evaluation mode.

    The network's mode is put back afterwards. The loss is the mean over pictures; with equal
    batches that is the mean of batch means, which is how the report counts. Raises ArgumentError for a
    DataLoader or anything else that is not one of labkit's.
    """
    device = _device_of(net)
    if not isinstance(data, Loader):
        expect_image_set(data, "data")
    keep_freed_memory()
    loader = data if isinstance(data, Loader) else Loader(data, batch_size, train=False, device=device)
    score = Score(nn.CrossEntropyLoss())
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad(), float32_only(device):
            ready = frozen(net)
            for inputs, targets in loader:
                score(ready(inputs), targets)
    finally:
        net.train(was_training)
    return score.result()


class Score(nn.Module):
    """A criterion that also keeps the mean loss and the accuracy of everything it has seen.

    It adds up on the device, so that watching a run costs no synchronisation.
    """

    def __init__(self, criterion: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.criterion = criterion
        self.reset()

    def reset(self) -> None:
        self.loss_sum: Tensor | float = 0.0
        self.correct: Tensor | int = 0
        self.seen = 0

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self.criterion(logits, targets)
        with torch.no_grad():
            mean = loss.detach()
            if mean.device.type != "mps":  # Apple's GPU knows no float64
                mean = mean.double()
            self.loss_sum = self.loss_sum + mean * len(targets)
            self.correct = self.correct + (logits.detach().argmax(1) == targets).sum()
            self.seen += len(targets)
        return loss

    def result(self) -> Evaluation:
        if not self.seen:
            return Evaluation(math.nan, math.nan)
        return Evaluation(float(self.loss_sum) / self.seen, int(self.correct) / self.seen)


def train_epoch(
    net: nn.Module,
    trainloader: Iterable[tuple[Tensor, Tensor]],
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """One pass over the training pictures."""
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        loss = criterion(net(inputs), targets)
        loss.backward()
        optimizer.step()


def sgd(
    lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4, nesterov: bool = False
) -> OptimizerFactory:
    """A recipe for `torch.optim.SGD`, to be given its parameters later."""
    return partial(torch.optim.SGD, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def constant(done: float) -> float:
    """The learning rate stays."""
    return 1.0


def one_cycle(done: float, warmup: float = 0.2) -> float:
    """Up in a straight line for the first fifth, then down to zero in a straight line."""
    return done / warmup if done < warmup else (1 - done) / (1 - warmup)


def cosine(done: float) -> float:
    """From the full learning rate down to zero along half a cosine (Loshchilov and Hutter 2017)."""
    return (1 + math.cos(math.pi * done)) / 2


def train(
    net: nn.Module,
    train_set: ImageSet,
    test_set: ImageSet | None = None,
    *,
    epochs: int,
    optimizer: OptimizerFactory | None = None,
    schedule: Schedule = constant,
    criterion: nn.Module | None = None,
    epoch_fn: EpochFunction = train_epoch,
    before_epoch: Callable[[nn.Module, int], object] | None = None,
    callbacks: Sequence[Any] = (),
    batch_size: int = 256,
    validation_set: ImageSet | None = None,
    keep_best_from: int = 0,
    precision: str = "auto",
    folder: str | Path | None = None,
    seed: int = 42,
    label: str = "training",
) -> Run:
    """Train `net` in place for `epochs`; at the end it holds the weights of its best epoch.

    epoch_fn: one epoch, which steps the optimizer that it is given. before_epoch(net, epoch): called first
        in each epoch.
    validation_set: chooses the best epoch if given; else `test_set` does (as the report did: say so
        where you quote it); with neither, the last epoch is kept.
    keep_best_from: epochs before this one are not candidates for the best.
    precision: of the forward pass: `float32`, `bfloat16`, or `auto`, which takes bfloat16 where the
        hardware is fast at it. `evaluate` and what it returns are float32 in any case.
    folder: where a checkpoint is written after each epoch. A run that was interrupted goes on from
        there, a finished one is read back, provided that its settings, data, starting weights and
        functions are the same; otherwise it starts afresh. A disk that fills up meanwhile costs the
        checkpoint and not the run.
    seed: decides shuffling and augmentation. On a CPU a resumed run ends in the same bits.

    Returns the run's record. Raises TrainingDiverged when the loss is no longer a finite number, and
    LabError before the first epoch for arguments of another kind or a folder that cannot be written,
    after it if `epoch_fn` did not train.
    """
    device = _device_of(net)
    epochs = arguments.whole_number(epochs, "epochs", 0)
    keep_best_from = arguments.whole_number(keep_best_from, "keep_best_from", 0)
    arguments.function(epoch_fn, "epoch_fn", "finetune_after_prune", takes=EPOCH_ARGUMENTS)
    arguments.function(schedule, "schedule", "labkit.cosine", takes=("done",))
    if before_epoch is not None:
        arguments.function(before_epoch, "before_epoch", "iterative_prune", takes=("net", "epoch"))
    callbacks = arguments.callbacks(callbacks)
    for name, data in (("validation_set", validation_set), ("test_set", test_set)):
        if data is not None and not isinstance(data, Loader):
            expect_image_set(data, name)
    expect_image_set(train_set, "train_set")
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ArgumentError("net cannot be trained: requires_grad is False for all of its parameters.")
    keep_freed_memory()
    precision = resolve(precision, device)
    loader = Loader(train_set, batch_size, device=device, seed=seed)
    score = Score(arguments.criterion(criterion or nn.CrossEntropyLoss()))
    opt = arguments.make_optimizer(optimizer or sgd(), net)
    base_lrs = [group["lr"] for group in opt.param_groups]
    settings = {
        "epochs": epochs, "batch_size": batch_size, "keep_best_from": keep_best_from, "seed": seed,
        "optimizer": {key: value for key, value in opt.defaults.items() if value not in (None, False)},
        "schedule": getattr(schedule, "__name__", str(schedule)), "criterion": repr(score.criterion),
        "precision": precision, "train_set": f"{train_set.name}, {len(train_set)} pictures",
        "chosen_on": _chooser(validation_set, test_set),
        "code": code_fingerprint(_own(epoch_fn), before_epoch, schedule, *_quantizers(net)),
    }  # fmt: skip
    run = Run(label, settings, environment(device), fingerprint(settings, net, train_set))
    saved = RunFolder(folder, run.fingerprint) if folder is not None else None
    if saved is not None:
        saved.restore(run, net, opt)
        if len(run.history) < epochs:
            saved.expect_writable()

    steps_per_epoch = len(loader)
    steps = len(run.history) * steps_per_epoch

    def after_step(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if device.type == "cpu" and (steps % CHECK_LOSS_EVERY == 0 or steps == 1):
            _check_finite(score, opt, epoch=loader.epoch)
        for callback in callbacks:
            _call(callback, "after_step", net)
        _set_lr(opt, base_lrs, schedule(steps / (epochs * steps_per_epoch)))

    _set_lr(opt, base_lrs, schedule(steps / max(1, epochs * steps_per_epoch)))
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())  # a cell may have switched gradients off around it
        progress = stack.enter_context(EpochProgress(label, len(train_set), run.history, epochs))
        loader.on_batch = progress.advance
        # a hook on the optimizer, so that callbacks run after each step of anybody's loop
        stack.callback(opt.register_step_post_hook(after_step).remove)
        for epoch in range(len(run.history), epochs):
            started = time.perf_counter()
            loader.epoch = epoch
            score.reset()
            net.train()
            lr = opt.param_groups[0]["lr"]
            if before_epoch is not None:
                before_epoch(net, epoch)
            for callback in callbacks:
                _call(callback, "before_epoch", net, epoch)
            before = steps
            with forward_in(net, precision):
                epoch_fn(net, loader, score, opt)
            _check_finite(score, opt, epoch)
            if steps == before:
                raise LabError(
                    f"{_name_of(epoch_fn)} trained nothing in epoch {epoch}: for each batch it has to call "
                    "step() of the optimizer that it is given."
                )
            record = {"epoch": epoch, "lr": lr, **_named("train", score.result())}
            seconds = time.perf_counter() - started
            record |= {"seconds": seconds, "images_per_second": score.seen / seconds}
            for name, data in (("validation", validation_set), ("test", test_set)):
                if data is not None:
                    record |= _named(name, evaluate(net, data))
            run.add(record, net, eligible=epoch >= keep_best_from)
            for callback in callbacks:
                _call(callback, "after_epoch", net, record)
            progress.epoch_done(record)
            if saved is not None:
                saved.write(run, net, opt)
    run.load_best(net)
    return run


def finetune(
    net: nn.Module,
    train_set: ImageSet,
    test_set: ImageSet | None = None,
    *,
    epochs: int = 20,
    lr: float = 0.002,
    momentum: float = 0.875,
    weight_decay: float = 1e-4,
    batch_size: int = 256,
    label: str = "finetuning",
    **options: Any,
) -> Run:
    """`train` with the report's recipe: SGD at a constant, small learning rate, best epoch kept.

    Takes every option of `train` but `optimizer`; see there.
    """
    arguments.options(options, train, "finetune", without=("optimizer",))
    recipe = sgd(lr, momentum, weight_decay)
    return train(
        net, train_set, test_set,
        epochs=epochs, optimizer=recipe, batch_size=batch_size, label=label, **options,
    )  # fmt: skip


def _device_of(net: nn.Module) -> torch.device:
    """Where the network's parameters are. Raises ArgumentError if it is none, or has none."""
    parameter = next(arguments.network(net).parameters(), None)
    if parameter is None:
        raise ArgumentError(f"net, {arguments.shown(net)}, has no parameters: there is nothing to train.")
    device: torch.device = parameter.device
    return device


def _own(epoch_fn: EpochFunction) -> EpochFunction | None:
    """What of it tells one run from another: labkit's own epoch counts as none."""
    return None if epoch_fn is train_epoch else epoch_fn


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", "epoch_fn"))


def _quantizers(net: nn.Module) -> list[Any]:
    return [layer.quantizer for _, layer in quantized_layers(net)]


def _chooser(validation_set: ImageSet | None, test_set: ImageSet | None) -> str:
    if validation_set is not None:
        return "validation"
    return "test" if test_set is not None else "last epoch"


def _named(prefix: str, result: Evaluation) -> dict[str, float]:
    return {f"{prefix}_loss": result.loss, f"{prefix}_accuracy": result.accuracy}


def _call(callback: Any, method: str, *arguments: Any) -> None:
    function = getattr(callback, method, None)
    if function is not None:
        function(*arguments)


def _set_lr(optimizer: torch.optim.Optimizer, base: Sequence[float], factor: float) -> None:
    for group, lr in zip(optimizer.param_groups, base, strict=True):
        group["lr"] = lr * factor


def _check_finite(score: Score, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    if math.isfinite(float(score.loss_sum)):
        return
    lr = optimizer.param_groups[0]["lr"]
    raise TrainingDiverged(
        f"the training loss is no longer a finite number (epoch {epoch}, learning rate {lr:g}).\n"
        f"Try a learning rate ten times smaller ({lr / 10:g}), and look for a division by zero or a log of "
        "zero in your own code, for example the scale of an all-zero tensor in STE."
    )
