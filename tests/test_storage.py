"""What is written is read back bit for bit, and the sizes told are the sizes on disk."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labkit.errors import LabError
from labkit.models import QuantizedConv, prunable_layers, quantized_layers, resnet20
from labkit.storage import StorageError, load_compressed, save_compressed, size_report
from labkit.storage.codec import _pack_bits, _smallest_map, _unpack_bits


def scale_and_round(w: Tensor, bits: int, symmetric: bool) -> Tensor:
    """The tests' own quantizer; in float32 its levels are not what low + k * step gives in float64."""
    live = w.detach()
    high = live.abs().max() if symmetric else live.max()
    low = -high if symmetric else live.min()
    k = torch.round((live - low) / (high - low + 1e-8) * (2**bits - 1))
    return torch.where(live == 0, live, k / (2**bits - 1) * (high - low) + low)


def drop(net: nn.Module, share: float) -> None:
    """Zeros the smallest `share` of all prunable weights."""
    sizes = torch.cat([layer.weight.detach().abs().flatten() for _, layer in prunable_layers(net)])
    limit = sizes.sort().values[int(share * len(sizes))] if share else 0
    with torch.no_grad():
        for _, layer in prunable_layers(net):
            layer.weight[layer.weight.abs() < limit] = 0


def some_net(bits: int | None = None, share: float = 0.0, symmetric: bool = False) -> nn.Module:
    """A ResNet-20 whose batch norms are not at their start values."""
    torch.manual_seed(3)
    net = resnet20(bits, symmetric, None if bits is None else scale_and_round)  # type: ignore[arg-type]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    drop(net, share)
    return net.eval()


def effective_state(net: nn.Module) -> dict[str, Tensor]:
    state = {name: v for name, v in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, layer in quantized_layers(net):
        state[f"{name}.conv.weight"] = layer.effective_weight.detach()
    return state


def bits_of(value: Tensor) -> bytes:
    return (value + 0.0).numpy().tobytes()  # + 0.0 makes -0.0 a 0.0


@pytest.mark.parametrize("symmetric", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("share", [0.0, 0.8, 0.99])
@pytest.mark.parametrize("bits", [None, 1, 2, 4, 5, 8])
def test_reading_back_gives_the_effective_weights_bit_for_bit(
    bits: int | None, share: float, symmetric: bool, tmp_path: Path
) -> None:
    net = some_net(bits, share, symmetric)
    path = tmp_path / "net.safetensors"
    written = save_compressed(net, path)
    assert path.stat().st_size == written.total == size_report(net).total
    fresh = resnet20().eval()
    load_compressed(path, fresh)
    state = fresh.state_dict()
    for name, value in effective_state(net).items():
        assert bits_of(state[name]) == bits_of(value), name
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(x), fresh(x))


def test_a_pruned_4_bit_net_is_smaller_than_naive_ways_to_store_it(tmp_path: Path) -> None:
    net = some_net(4, 0.8)
    report = size_report(net)
    count = sum(value.numel() for value in effective_state(net).values())
    assert report.float32 == 4 * count == 1_096_168
    assert report.total < report.float32 / 10
    assert report.total < size_report(some_net(4)).total
    assert report.total < size_report(some_net(None, 0.8)).total
    assert report.ratio == report.float32 / report.total
    assert save_compressed(net, tmp_path / "x").ratio == report.ratio


def test_the_parts_are_what_an_independent_count_gives() -> None:
    net = some_net(4, 0.8)
    report = size_report(net)
    levels = masks = codebooks = weights = 0
    ideal = 0.0
    for name, value in effective_state(net).items():
        owner = net.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.BatchNorm2d):
            ideal += 32 * value.numel()
            continue
        n, alive = value.numel(), int((value != 0).sum())
        is_quantized = name.startswith("body_op")
        if alive < n:
            masks += min(math.ceil(n / 8), 2 * alive, 2 * (n - alive))
            ideal -= alive * math.log2(alive / n) if alive else 0
            ideal -= (n - alive) * math.log2(1 - alive / n)
        if is_quantized:
            levels += math.ceil(alive * 4 / 8)
            codebooks += 4 * len(np.unique(value[value != 0]))
        else:
            weights += 4 * alive
        ideal += alive * (4 if is_quantized else 32) + (64 if is_quantized else 0)
    assert (report.levels, report.masks, report.codebooks, report.weights) == (
        levels,
        masks,
        codebooks,
        weights,
    )
    assert report.batch_norm == 4 * 4 * 784
    assert report.ideal_bits == pytest.approx(ideal)
    assert report.ideal_bits / 8 < report.total
    assert report.total == sum(size for _, size in report.parts)


def test_a_float_net_takes_its_float32_values_and_a_header() -> None:
    report = size_report(some_net())
    assert report.weights + report.batch_norm == report.float32
    assert (report.levels, report.masks, report.codebooks) == (0, 0, 0)
    assert report.ideal_bits / 8 == report.float32


def test_the_report_can_be_read_as_text_and_as_a_table() -> None:
    report = size_report(some_net(4, 0.8))
    text = str(report)
    for part in (
        "level indices",
        "masks",
        "codebooks",
        "float weights and biases",
        "batch norm",
        "header",
        "total",
    ):
        assert part in text
    assert f"{report.total:,} bytes" in text
    assert f"{report.ratio:.1f} times smaller than float32" in text
    assert report._repr_html_().count('scope="row"') == 9


@pytest.mark.parametrize(
    ("kept", "kind", "size"),
    [
        ([True] * 100, "none", 0),
        ([False] * 100, "survivors", 0),
        ([False] * 99 + [True], "survivors", 2),
        ([True] * 98 + [False] * 2, "zeros", 4),
        ([True, False] * 50, "bitmap", 13),
    ],
)
def test_the_shortest_map_is_taken(kept: list[bool], kind: str, size: int) -> None:
    where, data = _smallest_map(np.array(kept))
    assert (where, len(data)) == (kind, size)


@pytest.mark.parametrize("bits", [0, 1, 3, 7, 8, 11, 16])
def test_indices_are_packed_without_gaps_and_come_back(bits: int) -> None:
    indices = np.random.default_rng(0).integers(0, 2**bits, 77)
    packed = _pack_bits(indices, bits)
    assert len(packed) == math.ceil(77 * bits / 8)
    as_number = sum(int(index) << (bits * place) for place, index in enumerate(indices))
    assert int.from_bytes(packed, "little") == as_number
    np.testing.assert_array_equal(_unpack_bits(np.frombuffer(packed, np.uint8), 77, bits), indices)


def odd_net(quantizer: Callable[..., Tensor], bits: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    conv = QuantizedConv(3, 5, 3, bits=bits, quantizer=quantizer)
    return nn.Sequential(conv, nn.BatchNorm2d(5, affine=False), nn.Flatten(), nn.Linear(20, 3))


def float_twin() -> nn.Sequential:
    return nn.Sequential(
        QuantizedConv(3, 5, 3), nn.BatchNorm2d(5, affine=False), nn.Flatten(), nn.Linear(20, 3)
    )


@pytest.mark.parametrize(
    "quantizer",
    [
        lambda w, bits, symmetric: torch.zeros_like(w),
        lambda w, bits, symmetric: torch.full_like(w, -0.25),
        lambda w, bits, symmetric: w,  # more levels than 3 bits have
        lambda w, bits, symmetric: torch.round(w * 40).clamp(-8, 8) / 4,  # 17 levels
        lambda w, bits, symmetric: torch.round(w * 4).double() / 4,
        lambda w, bits, symmetric: torch.round(w.permute(3, 2, 1, 0) * 4).permute(3, 2, 1, 0) / 4,
        lambda w, bits, symmetric: torch.full_like(w, 1e-45),
    ],
    ids=["zeros", "constant", "identity", "too many levels", "float64", "non-contiguous", "subnormal"],
)
def test_whatever_a_quantizer_does_comes_back(quantizer: Callable[..., Tensor], tmp_path: Path) -> None:
    net, fresh = odd_net(quantizer), float_twin()
    path = tmp_path / "odd"
    assert save_compressed(net, path).total == path.stat().st_size
    load_compressed(path, fresh)
    assert torch.equal(fresh[0].conv.weight.double(), net[0].effective_weight.double())  # type: ignore[arg-type, arg-type]
    assert torch.equal(fresh[3].weight, net[3].weight)  # type: ignore[arg-type, arg-type]
    assert torch.equal(fresh[3].bias, net[3].bias)  # type: ignore[arg-type, arg-type]


def test_zero_bits_with_one_level_comes_back(tmp_path: Path) -> None:
    save_compressed(odd_net(lambda w, bits, symmetric: torch.full_like(w, 2.0), bits=0), tmp_path / "x")
    fresh = float_twin()
    load_compressed(tmp_path / "x", fresh)
    assert (fresh[0].conv.weight == 2).all()


def test_a_bare_layer_can_be_stored(tmp_path: Path) -> None:
    conv, fresh = QuantizedConv(2, 2, 3, bits=2, quantizer=scale_and_round), QuantizedConv(2, 2, 3)  # type: ignore[arg-type]
    save_compressed(conv, tmp_path / "layer")
    load_compressed(tmp_path / "layer", fresh)
    assert torch.equal(fresh.conv.weight, conv.effective_weight)


def test_the_same_net_gives_the_same_bytes_and_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "net.safetensors"
    save_compressed(some_net(2, 0.5), path)
    first = path.read_bytes()
    save_compressed(some_net(8), path)
    assert path.read_bytes() != first
    save_compressed(some_net(2, 0.5), path)
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (torch.full((3, 20), 0.1, dtype=torch.float64), "need more than float32"),
        (torch.full((3, 20), float("nan")), "no finite floating-point number"),
    ],
)
def test_what_float32_cannot_give_back_is_refused_and_no_file_left(
    values: Tensor, sentence: str, tmp_path: Path
) -> None:
    net = odd_net(lambda w, bits, symmetric: w)
    net[3].weight = nn.Parameter(values)
    with pytest.raises(StorageError, match=rf"cannot store 3\.weight.*{sentence}"):
        save_compressed(net, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def unchanged_after(path: Path, net: nn.Module) -> str:
    """The sentence with which loading fails; the net must be as before."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(LabError) as caught:
        load_compressed(path, net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def test_files_that_are_not_ours_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    assert "there is no file" in unchanged_after(tmp_path / "missing", resnet20())
    (tmp_path / "text").write_text("hello, this is not a model at all")
    assert "cannot be read as a compressed model" in unchanged_after(tmp_path / "text", resnet20())
    (tmp_path / "empty").touch()
    assert "cannot be read" in unchanged_after(tmp_path / "empty", resnet20())
    save_file({"w": torch.zeros(3, dtype=torch.bfloat16)}, tmp_path / "other")
    assert "was not written by labkit.save_compressed" in unchanged_after(tmp_path / "other", resnet20())


def test_a_file_for_another_net_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_compressed(float_twin(), path)
    assert "has no 0.conv.weight" in unchanged_after(path, resnet20())
    longer = float_twin().append(nn.Linear(3, 2))
    assert "it lacks 4.bias" in unchanged_after(path, longer)
    wider = float_twin()
    wider[3] = nn.Linear(20, 4)
    assert "3.weight is (3, 20) in the file, (4, 20) in the net" in unchanged_after(path, wider)


def test_a_net_that_would_quantize_again_is_refused(tmp_path: Path) -> None:
    save_compressed(some_net(2), tmp_path / "x")
    net = resnet20(2, False, scale_and_round)  # type: ignore[arg-type]
    assert "would quantize the weights again" in unchanged_after(tmp_path / "x", net)


def test_every_damaged_byte_of_the_content_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_compressed(odd_net(lambda w, bits, symmetric: torch.round(w * 4) / 4), path)
    good = path.read_bytes()
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        unchanged_after(path, float_twin())
    for length in (0, 5, 100, len(good) - 1):
        path.write_bytes(good[:length])
        unchanged_after(path, float_twin())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("levels 5x3x3x3 bitmap", "levels 5x3x3x3 survivors"),
        ("levels 5x3x3x3", "strange 5x3x3x3"),
        ("bitmap", "nowhere"),
        (" 3 7 0.conv", " 9999999999 7 0.conv"),
        (" 3 7 0.conv", " -3 7 0.conv"),
        (" 3 7 0.conv", " 3 1 0.conv"),
        ("dense 3 3.bias", "dense 3"),
        ("dense 3 3.bias", "dense x 3.bias"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_though_its_checksum_fits(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    torch.manual_seed(0)
    save_compressed(odd_net(lambda w, bits, symmetric: torch.round(w * 12).clamp(-3, 4) / 4), path)
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    text = header["__metadata__"]["labkit"]
    assert old in text
    header["__metadata__"]["labkit"] = text.replace(old, new)
    forged = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(forged)) + forged + raw[8 + size :])
    monkeypatch.setattr("labkit.storage.codec._checksum", lambda *_: int(text.split("\n")[1], 16))
    unchanged_after(path, float_twin())


def test_the_reports_baseline_pruned_to_80_percent_at_4_bits_is_14_times_smaller(
    report_baseline: Path, tmp_path: Path
) -> None:
    net = resnet20(4, False, scale_and_round)  # type: ignore[arg-type]
    net.load_state_dict(torch.load(report_baseline, weights_only=True, map_location="cpu"))
    drop(net, 0.8)
    assert 13.5 < save_compressed(net, tmp_path / "x").ratio < 14.5
