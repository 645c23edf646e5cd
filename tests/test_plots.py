"""Every picture has its axes named, says in a sentence what it shows, and opens no window."""

from __future__ import annotations

import base64
import html
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labkit import plots
from labkit.datasets import ImageSet
from labkit.models import prunable_layers, resnet20
from labkit.sparsity import LayerSparsity, SparsityReport, sparsity_report

NAMES = [name for name, _ in prunable_layers(resnet20())]


def images(count: int = 100) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    classes = tuple(f"class {i}" for i in range(10))
    return ImageSet("noise", pixels, torch.arange(count) % 10, classes, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def pruned_net(bits: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    net = resnet20(bits, False, None if bits is None else lambda w, bits, symmetric: torch.round(w * 8) / 8)
    with torch.no_grad():
        for _, layer in prunable_layers(net):
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0
    return net


def history(epochs: int) -> list[dict[str, Any]]:
    return [
        {"epoch": e, "train_loss": 1 / (e + 1), "train_accuracy": 0.5 + e / 100}
        | {"test_loss": 1.2 / (e + 1), "test_accuracy": 0.4 + e / 100}
        for e in range(epochs)
    ]


W = torch.arange(-140, 161) / 200
CASES: dict[str, tuple[Callable[[], plots.Picture], str]] = {
    "pictures": (lambda: plots.pictures(images(), 20), "20 images of noise"),
    "few pictures": (lambda: plots.pictures(images(), 3), "3 images of noise"),
    "pictures without some classes": (lambda: plots.pictures(images(4), 20), "4 images of noise"),
    "histograms": (lambda: plots.weight_histograms(resnet20(), pruned_net()), "20 layers"),
    "histograms of two networks without zeros": (
        lambda: plots.weight_histograms(resnet20(), resnet20(), NAMES[:2], called=("untrained", "trained")),
        "untrained and trained; zeros go from 0 to 0",
    ),
    "histograms of quantized": (
        lambda: plots.weight_histograms(resnet20(), pruned_net(4), NAMES[:2]),
        "2 layers",
    ),
    "histograms of tensors": (
        lambda: plots.weight_histograms({"a": torch.zeros(9)}, {"a": torch.full((3, 3), float("nan"))}),
        "zeros go from 9 to 0 of 9",
    ),
    "sensitivity": (
        lambda: plots.sensitivity(
            {n: [(q, 0.9 - i * q / 2000) for q in (20, 50, 80)] for i, n in enumerate(NAMES)}
        ),
        "most sensitive is final_fc.linear, down to 14.0 %; the least head_conv.0.conv, never below 90.0 %",
    ),
    "sensitivity on many percentages": (
        lambda: plots.sensitivity({n: [(q, 0.9 - q / 200) for q in range(0, 100, 5)] for n in NAMES[:7]}),
        "7 layers is pruned by 0 to 95 %",
    ),
    "sensitivity on other percentages": (
        lambda: plots.sensitivity({"a": [(20, 0.5)], "b": [(30, 0.5)]}),
        "2 layers is pruned by 20 to 30 %",
    ),
    "sparsity": (lambda: plots.sparsity_by_layer(sparsity_report(pruned_net())), "all layers: 50.0 %"),
    "sparsities": (
        lambda: plots.sparsity_by_layer(
            {
                "mine": SparsityReport((LayerSparsity("a", 1, 4), LayerSparsity("b", 4, 4))),
                "other": SparsityReport((LayerSparsity("b", 1, 4),)),
            }
        ),
        "mine: 62.5 %, by layer 25.0 % to 100.0 %; other: 25.0 %",
    ),
    "bits": (
        lambda: plots.accuracy_against_bits({"asymmetric": {4: 0.8972, 2: 0.0899}, "one": {3: 0.5}}, 0.9151),
        "asymmetric 9.0 % at 2 bits, 89.7 % at 4; one 50.0 % at 3 bits; baseline 91.5 %",
    ),
    "accuracy by sparsity": (
        lambda: plots.accuracy_against_sparsity({"per layer": {20: 0.9, 80: 0.1}}),
        "per layer 90.0 % at 20 % sparsity, 10.0 % at 80.",
    ),
    "training": (
        lambda: plots.training_curve({"a": history(20), "b": history(3)}),
        "a: 20 epochs, best test accuracy 59.0 % after 20, last 59.0 %; b: 3 epochs",
    ),
    "one epoch": (lambda: plots.training_curve({"a": history(1)}), "a: 1 epoch,"),
    "untested": (lambda: plots.training_curve({"a": [{"epoch": 0, "train_loss": 1.0}]}), "a: 1 epoch."),
    "mask": (lambda: plots.mask_picture(pruned_net().body_op[0].conv1[0].conv), "16 by 16 kernels of 3 x 3"),
    "mask of a matrix": (lambda: plots.mask_picture(torch.eye(10, 64)), "10 of 640 weights are left"),
    "mask of nothing left": (lambda: plots.mask_picture(torch.zeros(2, 3, 3, 3)), "6 of 6 kernels are empty"),
    "levels": (
        lambda: plots.levels_picture(W, torch.round(W * 10 / 3) * 0.3),
        "on 6 levels from -0.600 to 0.900; largest error 0.150; zero is a level; 1 pruned weights → 0.",
    ),
    "levels without zero": (
        lambda: plots.levels_picture(W + 1, torch.ones_like(W)),
        "301 weights from 0.300 to 1.800 on 1 level from 1.000 to 1.000; largest error 0.800.",
    ),
    "levels of a broken quantizer": (
        lambda: plots.levels_picture(W, torch.full_like(W, float("nan"))),
        "301 quantized weights are NaN or infinite",
    ),
    "levels of zeros": (lambda: plots.levels_picture(torch.zeros(4), torch.zeros(4)), "4 pruned weights → 0"),
    "trade-off": (
        lambda: plots.trade_off({"float": (1_098_016, 0.9151), "small": (77_803, 0.8994)}),
        "smallest is small with 77.8 kB and 89.9 %; most accurate is float with 1,098.0 kB and 91.5 %",
    ),
    "crowded trade-off": (
        lambda: plots.trade_off({f"model {i}": (1e5, 0.9) for i in range(40)}),
        "40 models",
    ),
    "schedule": (
        lambda: plots.schedule([torch.tensor(8.0 * min(e + 1, 10)) for e in range(20)]),  # type: ignore[misc]
        "8 % before epoch 0, 80 % from epoch 9 on",
    ),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[str, plots.Picture, str]:
    draw, sentence = CASES[request.param]
    fig = draw()
    fig.draw_without_rendering()  # warnings, such as a glyph that is missing, are errors in this suite
    return request.param, fig, sentence


@pytest.mark.slow
def test_a_picture_is_drawn_with_named_axes_and_a_sentence(case: tuple[str, plots.Picture, str]) -> None:
    name, fig, sentence = case
    assert sentence in fig.labkit_alt
    assert fig.labkit_alt.endswith(".")
    drawn = [ax for ax in fig.axes if ax.axison]
    if "pictures" in name:
        assert not drawn
    elif "histograms" in name:
        assert (fig.get_supxlabel(), fig.get_supylabel()) == ("weight", "weights per bin")
    else:
        assert drawn
        for ax in drawn:
            shares_x = ax.get_shared_x_axes().get_siblings(ax)
            if ax.get_label() == "<colorbar>":
                assert ax.get_xlabel()
            else:
                assert ax.get_ylabel()
                assert any(other.get_xlabel() for other in shares_x)


@pytest.mark.slow
def test_nothing_is_cut_off_at_the_pictures_edge(case: tuple[str, plots.Picture, str]) -> None:
    _, fig, _ = case
    drawn, page = fig.get_tightbbox(), fig.bbox_inches
    assert page.x0 - 0.01 <= drawn.x0 and drawn.x1 <= page.x1 + 0.01
    assert page.y0 - 0.01 <= drawn.y0 and drawn.y1 <= page.y1 + 0.01


def test_a_notebook_shows_one_image_with_its_sentence_and_no_other_text() -> None:
    ipython = pytest.importorskip("IPython.core.interactiveshell")
    shell = ipython.InteractiveShell()
    fig = plots.schedule([10, 20])
    data, metadata = shell.display_formatter.format(fig)
    assert set(data) == {"text/html", "image/png", "text/plain"}
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == fig.labkit_alt == metadata["image/png"]["alt"]
    assert f'src="data:image/png;base64,{data["image/png"]}"' in data["text/html"]
    assert f'alt="{html.escape(fig.labkit_alt)}"' in data["text/html"]


def test_a_picture_ignores_the_notebooks_style_and_leaves_it_alone() -> None:
    plain = plots.schedule([10, 20])
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "text.color": "white"}):
        styled = plots.schedule([10, 20])
        assert mpl.rcParams["font.size"] == 30
    plain.canvas.draw()
    styled.canvas.draw()
    assert styled.axes[0].get_facecolor() == plain.axes[0].get_facecolor()
    assert styled.axes[0].xaxis.label.get_size() == plain.axes[0].xaxis.label.get_size()


@pytest.mark.slow
def test_no_window_opens_and_pyplot_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, labkit\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from labkit import plots\n"
        "plots.schedule([1, 2]).savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "picture.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.pictures(images(), 0),
        lambda: plots.weight_histograms({"a": torch.ones(1)}, {"b": torch.ones(1)}),
        lambda: plots.weight_histograms({"a": torch.ones(1)}, {"a": torch.ones(1)}, ["b"]),
        lambda: plots.sensitivity({}),
        lambda: plots.sensitivity({"a": []}),
        lambda: plots.sparsity_by_layer({}),
        lambda: plots.sparsity_by_layer(SparsityReport(())),
        lambda: plots.accuracy_against_bits({}),
        lambda: plots.accuracy_against_sparsity({"a": {}}),
        lambda: plots.training_curve({}),
        lambda: plots.training_curve({"a": []}),
        lambda: plots.mask_picture(nn.ReLU()),
        lambda: plots.mask_picture(torch.ones(3)),
        lambda: plots.levels_picture(torch.ones(3), torch.ones(4)),
        lambda: plots.levels_picture(torch.ones(0), torch.ones(0)),
        lambda: plots.trade_off({}),
        lambda: plots.schedule([]),
    ],
)
def test_nothing_to_draw_is_a_sentence(draw: Callable[[], plots.Picture]) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        draw()


def test_the_heat_map_holds_the_curves_numbers() -> None:
    fig = plots.sensitivity({"a": [(20, 0.9), (80, 0.1)], "b": [(20, 0.8)]})
    table = np.ma.filled(fig.axes[0].images[0].get_array(), np.nan)  # type: ignore[arg-type]
    np.testing.assert_array_equal(table, [[0.9, 0.1], [0.8, np.nan]])


def test_the_mask_is_drawn_where_the_weights_are() -> None:
    weight: Tensor = torch.zeros(2, 3, 3, 3)
    weight[1, 2, 0, 1] = -0.5
    image = plots.mask_picture(weight).axes[0].images[0].get_array()
    assert image.shape == (8, 12)
    assert np.argwhere(image == 1).tolist() == [[1 * 4 + 0, 2 * 4 + 1]]


def test_labels_of_a_trade_off_cover_no_point_and_no_other_label() -> None:
    points = {"float": (1.1e6, 0.915), "80 %": (2.7e5, 0.884), "4 bits": (1.6e5, 0.914)}
    points |= {"3 bits": (1.2e5, 0.906), "both, 4 bits": (7.8e4, 0.9), "both, 5 bits": (8.6e4, 0.903)}
    fig = plots.trade_off(points)
    fig.draw_without_rendering()
    boxes = [mpl.text.Text.get_window_extent(text) for text in fig.axes[0].texts]
    assert len(boxes) == len(points)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert not any(box.contains(*fig.axes[0].transData.transform(point)) for point in points.values())


def test_the_palette_is_okabe_and_itos() -> None:
    assert sorted(plots.PALETTE) == sorted(
        ["#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"]
    )
