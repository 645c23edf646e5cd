from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from labkit import precision
from labkit.datasets import ImageSet
from labkit.models import resnet20
from labkit.precision import best_precision, float32_only, forward_in, resolve
from labkit.training import evaluate, finetune


def dtype_inside(net: nn.Module) -> list[torch.dtype]:
    """The types that the second block gets from the first, one for each forward pass from now on."""
    seen: list[torch.dtype] = []
    net.body_op[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].dtype))
    return seen


@pytest.mark.parametrize(("capability", "wanted"), [((7, 5), "float32"), ((8, 0), "bfloat16")])
def test_gpus_that_only_emulate_bfloat16_train_in_float32(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_precision("cuda") == wanted


@pytest.mark.parametrize(("has_it", "wanted"), [(False, "float32"), (True, "bfloat16")])
def test_processors_are_asked_whether_they_have_bfloat16(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, wanted: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    assert best_precision("cpu") == resolve("auto", "cpu") == wanted
    assert resolve("float32", "cpu") == "float32"


def test_a_torch_that_cannot_be_asked_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert best_precision("cpu") == "float32"


def test_an_unknown_precision_is_named(small_set: ImageSet) -> None:
    with pytest.raises(ValueError, match=r"'float16'.*auto, float32, bfloat16"):
        finetune(resnet20(), small_set, epochs=1, precision="float16")


def test_a_students_loop_computes_in_bfloat16_and_sees_float32(small_set: ImageSet) -> None:
    few = small_set.subset(slice(8))  # bfloat16 takes seconds on a processor that only emulates it
    net = resnet20()
    inside = dtype_inside(net)
    outside = []

    def epoch(
        net: nn.Module, trainloader: Any, criterion: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        for inputs, targets in trainloader:
            optimizer.zero_grad()
            outputs = net(inputs)
            criterion(outputs, targets).backward()
            optimizer.step()
            outside.extend([inputs.dtype, outputs.dtype, *(p.dtype for p in net.parameters())])
            outside.extend(p.grad.dtype for p in net.parameters() if p.grad is not None)

    run = finetune(net, few, epochs=1, batch_size=4, epoch_fn=epoch, precision="bfloat16")
    assert inside == [torch.bfloat16] * 2
    assert set(outside) == {torch.float32}
    assert run.settings["precision"] == "bfloat16"


def test_the_record_says_what_auto_came_to(small_set: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "best_precision", lambda device: "bfloat16")
    few = small_set.subset(slice(8))
    assert finetune(resnet20(), few, epochs=1, batch_size=8).settings["precision"] == "bfloat16"


def test_nothing_stays_behind() -> None:
    net = resnet20()
    inputs = torch.randn(2, 3, 32, 32)
    net.eval()
    before = net(inputs)
    with forward_in(net, "bfloat16"):
        low = net(inputs)
    assert not torch.equal(low, before) and torch.allclose(low, before, atol=0.1)
    assert torch.equal(net(inputs), before)
    assert not net._forward_hooks and not net._forward_pre_hooks


def test_an_error_in_the_forward_pass_does_not_leave_bfloat16_on() -> None:
    net = resnet20()
    with forward_in(net, "bfloat16"):
        with pytest.raises(RuntimeError):
            net(torch.randn(2, 5, 32, 32))
        assert not torch.is_autocast_enabled("cpu")
        assert net(torch.randn(2, 3, 32, 32)).dtype == torch.float32


def test_a_copy_made_while_training_is_a_network_of_its_own() -> None:
    net = resnet20()
    with forward_in(net, "bfloat16"):
        other = copy.deepcopy(net)
        nn.init.zeros_(other.final_fc.linear.weight)
        nn.init.zeros_(other.final_fc.linear.bias)
        assert other(torch.randn(2, 3, 32, 32)).abs().max() == 0


def test_evaluation_is_float32_whatever_surrounds_it(small_set: ImageSet) -> None:
    net = resnet20()
    wanted = evaluate(net, small_set)
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate(net, small_set) == wanted


def test_evaluation_within_a_training_loop_is_float32_too(small_set: ImageSet) -> None:
    seen = []

    def epoch(
        net: nn.Module, trainloader: Any, criterion: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        seen.append(evaluate(net, small_set))
        net(torch.randn(2, 3, 32, 32))
        seen.append(dtype_inside(net))  # type: ignore[arg-type]
        net(torch.randn(2, 3, 32, 32))
        optimizer.step()

    net = resnet20()
    wanted = evaluate(net, small_set)
    finetune(net, small_set, epochs=1, epoch_fn=epoch, precision="bfloat16")
    assert seen[0].loss == pytest.approx(wanted.loss, abs=1e-6)
    assert seen[1] == [torch.bfloat16]  # type: ignore[comparison-overlap]


def test_float32_only_keeps_tf32_out_and_puts_it_back() -> None:
    before = torch.backends.cudnn.allow_tf32
    with float32_only(torch.device("cpu")):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_float32_only_also_where_tf32_was_set_by_its_new_name() -> None:
    cudnn: Any = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):
        pytest.skip("this torch has only the old name")
    before = cudnn.allow_tf32
    try:
        cudnn.conv.fp32_precision = "tf32"
        cudnn.rnn.fp32_precision = "ieee"
        with float32_only(torch.device("cpu")):
            assert cudnn.conv.fp32_precision == "ieee"
        assert cudnn.conv.fp32_precision == "tf32"
    finally:
        cudnn.allow_tf32 = before
    assert cudnn.allow_tf32 == before
