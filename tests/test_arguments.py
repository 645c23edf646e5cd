"""A wrong argument is a sentence that names it, said before any work is done and without our traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import labkit
from labkit import checkpoints
from labkit.errors import ArgumentError, LabError
from labkit.quantization import grid
from labkit.training import Evaluation
from tests.conftest import random_pictures

lab: Any = labkit  # what mypy would say of a wrong argument is not the question
PICTURES: Any = random_pictures(20)
BATCHES = DataLoader(TensorDataset(torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)))


def small() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def same(w: torch.Tensor, bits: int | None, symmetric: bool) -> torch.Tensor:
    return w


class Rounded(torch.autograd.Function):
    """A quantizer that is passed as a class instead of as its `apply`."""


def two_arguments(net: Any, loader: Any) -> None:
    """An epoch that takes too little."""


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    # data
    (lambda: lab.evaluate(small(), BATCHES), "data .* ImageSet.* not a DataLoader"),
    (lambda: lab.evaluate(small(), lab.shapes10), "not the function shapes10 itself. Call it"),
    (lambda: lab.evaluate(PICTURES, small()), "net .* not an ImageSet"),
    (lambda: lab.evaluate(small(), PICTURES, batch_size=2.5), "batch_size .* not 2.5"),
    (lambda: lab.evaluate(small(), PICTURES.subset(slice(0))), "no images"),
    (lambda: lab.finetune(small(), BATCHES, epochs=1), "train_set .* not a DataLoader"),
    (lambda: lab.finetune(small(), lab.Loader(PICTURES), epochs=1), r"loader\.data"),
    (lambda: lab.finetune(small(), PICTURES, BATCHES, epochs=1), "test_set .* not a DataLoader"),
    (lambda: lab.shapes10("test"), "train .* True or False, not 'test'"),
    (lambda: lab.shapes10(600), "train .* not 600"),
    (lambda: lab.cifar10("data"), "train .* not 'data'"),
    (lambda: lab.cifar10(root=3), "root .* not 3"),
    (lambda: lab.Loader(BATCHES), "data .* not a DataLoader"),
    (lambda: lab.Loader(PICTURES, train="yes"), "train .* not 'yes'"),
    (lambda: lab.Loader(PICTURES, device="gpu"), "device .* 'cpu' or 'cuda', not 'gpu'"),
    (lambda: lab.Loader(PICTURES, padding=-1), "padding .* not -1"),
    (lambda: PICTURES.on("gpu"), "device .* not 'gpu'"),
    (lambda: PICTURES.subset(5), r"slice\(5\)"),
    (lambda: PICTURES.subset(torch.tensor([20])), "there are 20 pictures"),
    (lambda: PICTURES.split(0.1), "cannot hold out 0.1 of 20"),
    (lambda: lab.ImageSet("x", torch.zeros(2, 3, 4, 4), torch.zeros(2), (), (0,) * 3, (1,) * 3), "uint8"),
    # networks
    (lambda: lab.evaluate(lab.resnet20, PICTURES), r"Call it to make one: resnet20\(\)"),
    (lambda: lab.evaluate(small().state_dict(), PICTURES), "load_state_dict"),
    (lambda: lab.evaluate(nn.Identity(), PICTURES), "no parameters"),
    (lambda: list(lab.prunable_layers(lab.resnet20)), "net .* not the function"),
    (lambda: lab.sparsity(torch.zeros(3)), "not a Tensor"),
    (lambda: lab.sparsity_report(None), "not None"),
    (lambda: lab.levels_report(PICTURES), "net .* not an ImageSet"),
    (lambda: lab.size_report("net.pt"), "net .* not 'net.pt'"),
    (lambda: lab.KeepZeros("net"), "net .* not 'net'"),
    (lambda: lab.Mask(small()), r"Mask\.of\(net\)"),
    (lambda: lab.Mask({"a": [0, 1]}), "the mask of a .* not a list"),
    (lambda: lab.distinct_levels([1.0]), "w .* tensor, not a list"),
    (lambda: lab.distinct_levels(nn.Linear(2, 2)), r"layer\.weight"),
    (lambda: lab.resnet20(2.5, quantizer=same), "bits .* from 1 to 32, not 2.5"),
    (lambda: lab.resnet20("4", quantizer=same), "bits .* not '4'"),
    (lambda: lab.resnet20(0, quantizer=same), "bits .* not 0"),
    (lambda: lab.resnet20(True, quantizer=same), "bits .* not True"),
    (lambda: lab.resnet20(4, same), "symmetric .* quantizer=STE.apply"),
    (lambda: lab.resnet20(4, quantizer=Rounded), "pass Rounded.apply"),
    (lambda: lab.resnet20(4, quantizer=lambda w: w), r"\(w, bits, symmetric\), but it takes \(w\)"),
    (lambda: lab.profile("quick").baseline(bits=2.5), "bits .* not 2.5"),
    (lambda: grid(0, 1, 40), "bits .* from 1 to 20, not 40"),
    # training
    (lambda: lab.finetune(small(), PICTURES, epochs=-1), "epochs .* not -1"),
    (lambda: lab.finetune(small(), PICTURES, epochs=2.0), "epochs .* not 2.0"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, epoch_fn=None), "epoch_fn .* not None; .*brackets"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, epoch_fn=two_arguments), "takes .net, loader."),
    (lambda: lab.finetune(small(), PICTURES, epoch=1), "no option epoch; did you mean epochs"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, optimizer=lab.sgd()), "no option optimizer"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, lr=-1), "cannot be made: .*learning rate"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, batch_size=0), "batch_size .* not 0"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, seed="a"), "seed .* not 'a'"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, precision="half"), "precision"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, criterion=nn.CrossEntropyLoss), "make one"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, callbacks=[lab.KeepZeros]), "class KeepZeros"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, callbacks=lab.KeepZeros(small())), "list"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, callbacks=[print]), "after_step"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, folder=3), "folder .* not 3"),
    (lambda: lab.finetune(small().requires_grad_(False), PICTURES, epochs=1), "requires_grad"),
    (lambda: lab.train(small(), PICTURES, epochs=1, schedule=0.1), "schedule .* not 0.1"),
    (lambda: lab.train(small(), PICTURES, epochs=1, optimizer="sgd"), "optimizer .* not 'sgd'"),
    (lambda: lab.train(small(), PICTURES, epochs=1, optimizer=lambda parameters: 3), "it made 3"),
    (
        lambda: lab.train(
            small(), PICTURES, epochs=1, optimizer=torch.optim.Adam(small().parameters())
        ),
        "an Adam that has its parameters already",
    ),
    (lambda: lab.finetune(small(), PICTURES, epochs=0).last, "epochs=0"),
    (lambda: lab.finetune(small(), PICTURES, epochs=1, keep_best_from=1).best, "keep_best_from"),
    # files and the rest
    (lambda: lab.load(3), "not 3"),
    (lambda: lab.load(""), "not ''"),
    (lambda: lab.save("net.pt", small()), "path .* not a Sequential"),
    (lambda: lab.save(small().state_dict(), "net.pt"), "net .* not an OrderedDict"),
    (lambda: lab.load_compressed(small(), "net.pt"), "path .* not a Sequential"),
    (lambda: lab.save_compressed("net.pt", small()), "net .* not 'net.pt'"),
    (lambda: lab.seed_everything(-1), "seed .* not -1"),
    (lambda: lab.seed_everything("42"), "seed .* not '42'"),
    (lambda: lab.compare("pruning", [0.9]), "ours .* not a list"),
    (lambda: lab.compare("pruning", {"baseline": Evaluation(1.0, 0.9)}), "not an Evaluation"),
    (lambda: lab.recipe([]), "there is no recipe"),
    (lambda: lab.profile(["quick"]), "there is no profile"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "sentence"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_wrong_argument_is_named(mistake: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        mistake()


def test_who_expects_a_value_error_gets_one() -> None:
    with pytest.raises(ValueError, match="epochs"):
        lab.finetune(small(), PICTURES, epochs=-1)
    assert issubclass(ArgumentError, LabError)


def does_nothing(net: nn.Module, loader: Any, criterion: nn.Module, optimizer: Any) -> None:
    """What is left of an answer whose loop was deleted."""


def own_optimizer(net: nn.Module, loader: Any, criterion: nn.Module, optimizer: Any) -> None:
    mine = torch.optim.SGD(net.parameters(), lr=0.1)
    for inputs, targets in loader:
        mine.zero_grad()
        criterion(net(inputs), targets).backward()
        mine.step()


@pytest.mark.parametrize("epoch_fn", [does_nothing, own_optimizer])
def test_an_epoch_without_a_step_of_the_given_optimizer_is_no_training(epoch_fn: Any) -> None:
    with pytest.raises(LabError, match=f"{epoch_fn.__name__} trained nothing in epoch 0"):
        lab.finetune(small(), PICTURES, epochs=2, epoch_fn=epoch_fn)


def test_gradients_that_a_cell_switched_off_do_not_stop_a_training() -> None:
    with torch.no_grad():
        assert len(lab.finetune(small(), PICTURES, epochs=1).history) == 1
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("returned", [None, 0.5])
def test_a_quantizer_without_a_return_is_told(returned: Any) -> None:
    net = lab.resnet20(4, quantizer=lambda w, bits, symmetric: returned)
    for use in (lambda: lab.evaluate(net, PICTURES), lambda: lab.levels_report(net)):
        with pytest.raises(LabError, match=f"quantizer returned {returned}"):
            use()


def test_what_means_the_same_is_taken() -> None:
    numpy = pytest.importorskip("numpy")
    assert len(lab.shapes10(numpy.bool_(False), size=numpy.int64(10))) == 10
    assert len(lab.shapes10(0, size=10)) == 10
    assert len(lab.finetune(small(), PICTURES, epochs=torch.tensor(1)).history) == 1
    ours = {"baseline": torch.tensor(0.9), "one-shot": numpy.float32(0.5)}
    assert lab.compare("pruning", ours).ours["one-shot"] == 0.5


def test_notes_may_be_numbers(tmp_path: Path) -> None:
    lab.save(small(), tmp_path / "w", epochs=20)
    assert checkpoints.notes(tmp_path / "w") == {"epochs": "20"}
    (tmp_path / "other").write_text("words")
    for name in ("other", "missing"):
        with pytest.raises(LabError, match=name):
            checkpoints.notes(tmp_path / name)
