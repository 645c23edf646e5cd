"""What notebook 08 says of torch.nn.utils.prune, parametrize and torchao: the numbers agree."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from labkit.profiles import PROFILES
from tests.lab.harness import SOURCE

CELLS = {
    cell["id"]: "".join(cell["source"])
    for cell in json.loads((SOURCE / "08_in_the_libraries.ipynb").read_text(encoding="utf-8"))["cells"]
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the notebook's cells, run in their order, leave behind: what each test looks at, at its place."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found: dict[str, Any] = {}

    def run(*cells: str) -> None:
        for cell in cells:
            exec(compile(CELLS[cell], f"<08, {cell}>", "exec"), names)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SOURCE)  # it takes functions from the notebooks beside it
        patch.setitem(PROFILES, "quick", replace(PROFILES["quick"], train_size=128, test_size=50))
        run("setup", "earlier", "prune-layers")
        found["differ"] = names["differ"]
        for whose in ("mine", "theirs"):
            layers = names["layers_of"](names[whose])
            found[f"zeros of {whose}"] = sum(int((layer.weight == 0).sum()) for layer in layers)
        run("train-both")
        found["apart"] = names["apart"](names["mine"], names["theirs"])
        found["moved"] = names["apart"](names["mine"], names["start"]())
        run("parametrize")
        with torch.no_grad():
            for whose in ("mine", "theirs"):
                found[f"outputs of {whose}"] = names[whose].eval()(names["pictures"])
        run("chain")
        found["used"], found["before"] = names["used"], names["before"]
        try:
            run("torchao")
        except ImportError:
            return found
        found["through torchao"] = names["through_torchao"]
    return found


def test_pruning_takes_the_same_weights_but_for_rounding(found: dict[str, Any]) -> None:
    assert found["differ"] <= 1  # one threshold
    assert found["zeros of mine"] == pytest.approx(0.8 * 268_336, abs=1)
    assert found["zeros of theirs"] == pytest.approx(0.8 * 268_336, abs=1)


def test_a_mask_in_the_forward_pass_trains_what_a_mask_after_the_step_trains(found: dict[str, Any]) -> None:
    assert found["apart"] == 0
    assert found["moved"] > 1e-3


def test_a_parametrization_computes_what_a_quantized_layer_computes(found: dict[str, Any]) -> None:
    assert torch.equal(found["outputs of mine"], found["outputs of theirs"])  # after an epoch of each
    used, before = found["used"], found["before"]
    assert torch.equal(used == 0, before == 0) and (used != before).any()


def test_the_grids_of_torchao_are_the_fields(found: dict[str, Any]) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    through_torchao = found["through torchao"]
    w = torch.randn(5, 3, 3, 3)
    for bits in (4, 3, 2):
        m, half = w.abs().max(), 2 ** (bits - 1) - 1
        field = torch.round(w / m * half) / half * m
        assert torch.allclose(through_torchao(w, bits, True), field, atol=1e-6)
        channels = through_torchao(w, bits, False, per_channel=True)
        assert max(len(channel.unique()) for channel in channels) <= 2**bits
        assert (channels - w).abs().mean() < (through_torchao(w, bits, False) - w).abs().mean()
