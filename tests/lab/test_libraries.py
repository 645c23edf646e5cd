"""What notebook 08 says of torch.nn.utils.prune, parametrize and torchao: the numbers agree."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.lab.harness import SOURCE

CELLS = {
    cell["id"]: "".join(cell["source"])
    for cell in json.loads((SOURCE / "08_in_the_libraries.ipynb").read_text(encoding="utf-8"))["cells"]
}


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs cells of the notebook, by their ids, in one namespace; gives the namespace."""
    monkeypatch.chdir(SOURCE)  # it takes functions from the notebooks beside it
    monkeypatch.setenv("LABKIT_PROFILE", "quick")
    namespace: dict[str, Any] = {"__name__": "__main__"}

    def run(*cells: str) -> dict[str, Any]:
        for cell in cells:
            exec(compile(CELLS[cell], f"<08, {cell}>", "exec"), namespace)
        return namespace

    run("setup", "earlier")
    return run


def test_pruning_takes_the_same_weights_but_for_rounding(notebook: Any) -> None:
    names = notebook("prune-layers")
    mine, theirs = names["layers_of"](names["mine"]), names["layers_of"](names["theirs"])
    assert names["differ"] <= 1  # one threshold
    assert sum(int((layer.weight == 0).sum()) for layer in mine) == pytest.approx(0.8 * 268_336, abs=1)
    assert sum(int((layer.weight == 0).sum()) for layer in theirs) == pytest.approx(0.8 * 268_336, abs=1)


def test_a_mask_in_the_forward_pass_trains_what_a_mask_after_the_step_trains(notebook: Any) -> None:
    names = notebook("prune-layers", "train-both")
    assert names["apart"](names["mine"], names["theirs"]) == 0
    assert names["apart"](names["mine"], names["start"]()) > 1e-3


def test_a_parametrization_computes_what_a_quantized_layer_computes(notebook: Any) -> None:
    names = notebook("prune-layers", "train-both", "parametrize")
    mine, theirs = names["mine"].eval(), names["theirs"].eval()
    with torch.no_grad():
        assert torch.equal(mine(names["pictures"]), theirs(names["pictures"]))  # after an epoch of each
    names = notebook("chain")
    assert torch.equal(names["used"] == 0, names["before"] == 0) and (names["used"] != names["before"]).any()


def test_the_grids_of_torchao_are_the_fields(notebook: Any) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    names = notebook("prune-layers", "train-both", "parametrize", "torchao")
    w = torch.randn(5, 3, 3, 3)
    for bits in (4, 3, 2):
        m, half = w.abs().max(), 2 ** (bits - 1) - 1
        field = torch.round(w / m * half) / half * m
        assert torch.allclose(names["through_torchao"](w, bits, True), field, atol=1e-6)
        channels = names["through_torchao"](w, bits, False, per_channel=True)
        assert max(len(channel.unique()) for channel in channels) <= 2**bits
        assert (channels - w).abs().mean() < (names["through_torchao"](w, bits, False) - w).abs().mean()
