"""A training in a notebook shows one picture that grows; elsewhere there is none, and it costs no run."""

from __future__ import annotations

import base64
import gc
import subprocess
import sys
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from labkit import plots, progress
from labkit.runs import Run
from labkit.training import TrainingDiverged, sgd, train
from tests.conftest import random_pictures

DRAWN = plots.training_curve


class Sentence:
    """What a training curve is to a notebook that shows its text alone."""

    def __init__(self, curves: dict[str, Any]) -> None:
        ((label, history),) = curves.items()
        self.text = f"{label}: {len(history)} epochs"

    def _repr_mimebundle_(self) -> tuple[dict[str, str], dict[str, Any]]:
        return {"text/plain": self.text}, {}


class Notebook:
    """A stand-in for IPython in a kernel: a clock, and what was shown in which order.

    A picture is its sentence alone: drawing one takes a quarter of a second. Some tests put DRAWN back.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shell: object = types.SimpleNamespace(kernel=object())
        self.now = 0.0
        self.shown: list[tuple[str, int, dict[str, str], dict[str, Any]]] = []  # how, display, data, metadata
        self.displays = 0
        ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        ipython.get_ipython = lambda: self.shell
        ipython.version_info = (9, 0)  # matplotlib asks
        display.DisplayHandle = lambda: self.handle()
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(plots, "training_curve", Sentence)
        monkeypatch.delenv("LABKIT_GRADING", raising=False)

    def handle(self) -> object:
        self.displays += 1
        number = self.displays

        def showing(how: str) -> Callable[..., None]:
            def show(data: dict[str, str], *, metadata: dict[str, Any], raw: bool) -> None:
                assert raw
                self.shown.append((how, number, data, metadata))

            return show

        return types.SimpleNamespace(display=showing("new"), update=showing("update"))

    @property
    def story(self) -> list[tuple[str, int, int]]:
        """Of each drawing: how it came, in which display, and of how many epochs."""
        return [(how, n, int(data["text/plain"].split(": ")[1].split()[0])) for how, n, data, _ in self.shown]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    return Notebook(monkeypatch)


def run(epochs: int = 3, before_epoch: Any = None, **options: Any) -> Run:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    options = {"optimizer": sgd(0.01), "batch_size": 32, "label": "demo"} | options
    data = random_pictures(64)
    return train(net, data, data, epochs=epochs, before_epoch=before_epoch, **options)  # type: ignore[arg-type, arg-type, arg-type, arg-type, arg-type, arg-type, arg-type, arg-type, arg-type]


def takes(notebook: Notebook, seconds: float) -> Callable[[nn.Module, int], None]:
    """A before_epoch by whose clock each epoch takes so long."""

    def pass_time(net: nn.Module, epoch: int) -> None:
        notebook.now += seconds

    return pass_time


def test_one_picture_is_replaced_after_each_epoch(notebook: Notebook) -> None:
    run(3, takes(notebook, 60))
    assert notebook.story == [("new", 1, 1), ("update", 1, 2), ("update", 1, 3)]


def test_it_is_the_training_curve_with_its_sentence(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "training_curve", DRAWN)
    done = run(3, takes(notebook, 60))
    *_, data, metadata = notebook.shown[-1]
    sentence = plots.training_curve({"demo": done.history}).labkit_alt
    assert sentence.startswith("Training curves. demo: 3 epochs, best test accuracy")
    assert data["text/plain"] == metadata["image/png"]["alt"] == sentence
    assert f'alt="{sentence}"' in data["text/html"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_the_picture_comes_before_the_lines_and_the_bar_is_wiped_first(
    notebook: Notebook, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "handle", lambda: types.SimpleNamespace(display=mark, update=mark))

    def mark(*_: Any, **__: Any) -> None:
        print("PICTURE")

    run(2, takes(notebook, 60))
    out = capfd.readouterr().out
    above, _, below = out.partition("PICTURE")
    assert above.split("\r")[-2].strip() == above.split("\r")[-1] == ""
    assert "epoch" not in above and "epoch  1/2" in below and "epoch  2/2" in below


def test_quick_epochs_are_drawn_no_more_than_every_two_seconds_but_all_in_the_end(notebook: Notebook) -> None:
    run(10, takes(notebook, 0.5))
    assert notebook.story == [("new", 1, 1), ("update", 1, 5), ("update", 1, 9), ("update", 1, 10)]


def test_drawing_takes_its_share_of_the_time_at_most(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(curves: dict[str, Any]) -> Sentence:
        notebook.now += 1.0
        return Sentence(curves)

    monkeypatch.setattr(plots, "training_curve", slow)
    run(9, takes(notebook, 10))
    assert [epochs for _, _, epochs in notebook.story] == [1, 5, 9]


class Stop:
    """A callback: the interrupt key before an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def before_epoch(self, net: nn.Module, epoch: int) -> None:
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_that_stops_keeps_the_picture_of_what_was_done(notebook: Notebook) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(5, callbacks=[Stop(2)])
    assert notebook.story == [("new", 1, 1), ("update", 1, 2)]
    with pytest.raises(KeyboardInterrupt):
        run(5, callbacks=[Stop(0)])
    assert notebook.displays == 1  # there was nothing to draw


def test_a_run_whose_loss_is_lost_shows_that_too(notebook: Notebook) -> None:
    with pytest.raises(TrainingDiverged):
        run(5, optimizer=sgd(1e30))
    assert notebook.story == [("new", 1, 1)]


def test_a_run_that_is_read_back_shows_its_picture_once(notebook: Notebook, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(3, folder=tmp_path, callbacks=[Stop(2)])
    assert notebook.story == [("new", 1, 1), ("update", 1, 2)]
    run(3, folder=tmp_path)
    assert notebook.story[2:] == [("new", 2, 2), ("update", 2, 3)]
    run(3, folder=tmp_path)
    assert notebook.story[4:] == [("new", 3, 3)]


@pytest.mark.parametrize("where", ["grading", "terminal", "script", "one epoch"])
def test_nothing_is_drawn_where_nobody_looks(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "grading":
        monkeypatch.setenv("LABKIT_GRADING", "1")
    elif where == "terminal":
        notebook.shell = types.SimpleNamespace()
    elif where == "script":
        notebook.shell = None  # something imported IPython, and no shell runs
    run(1 if where == "one epoch" else 3)
    assert notebook.displays == 0


@pytest.mark.slow
def test_a_script_loads_neither_ipython_nor_matplotlib() -> None:
    code = (
        "import sys\n"
        "from labkit.progress import EpochProgress\n"
        "with EpochProgress('demo', 1, [{'epoch': 0}], 2): pass\n"
        "print([name for name in ('IPython', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("fails", ["drawing", "showing", "replacing"])
def test_a_picture_that_fails_stops_no_training(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no ink")

    def fine(*_: Any, **__: Any) -> None:
        pass

    if fails == "drawing":
        monkeypatch.setattr(plots, "training_curve", broken)
    else:
        first = broken if fails == "showing" else fine
        monkeypatch.setattr(notebook, "handle", lambda: types.SimpleNamespace(display=first, update=broken))
    assert len(run(3, takes(notebook, 60)).history) == 3
    out = capsys.readouterr().out
    assert out.count("demo: no picture of this run (RuntimeError: no ink)") == 1
    assert "epoch  3/3" in out


@pytest.mark.slow
def test_pictures_do_not_pile_up(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[weakref.ref[plots.Picture]] = []

    def watched(*arguments: Any) -> plots.Picture:
        figure = DRAWN(*arguments)
        drawn.append(weakref.ref(figure))
        return figure

    monkeypatch.setattr(plots, "training_curve", watched)
    run(2, takes(notebook, 60))
    gc.collect()
    assert [figure() for figure in drawn] == [None] * 2
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.slow
def test_the_weights_are_the_same_with_and_without_a_picture(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "training_curve", DRAWN)
    with_picture = run(2)
    assert notebook.shown
    notebook.shell = None
    without = run(2)
    assert with_picture.best_weights is not None and without.best_weights is not None
    for name, weight in with_picture.best_weights.items():
        assert weight.equal(without.best_weights[name])


IN_A_KERNEL = """\
import labkit
from torch import nn

few = labkit.shapes10(size=50)
net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
labkit.finetune(net, few, few, epochs=3, batch_size=25, label="tiny");
"""


@pytest.mark.slow
def test_in_a_real_kernel_a_training_leaves_one_picture() -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    kernels = pytest.importorskip("labkit.grading.kernels")
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(IN_A_KERNEL)])
    with kernels.private_jupyter(), kernels.kernel_environment() as env:
        client = nbclient.NotebookClient(nb, kernel_name="python3", timeout=300)
        client.execute(env=env, stderr=subprocess.DEVNULL)
    outputs = nb.cells[0].outputs
    assert not [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"]
    (picture,) = [one for one in outputs if "image/png" in one.get("data", {})]
    assert picture.metadata["image/png"]["alt"].startswith("Training curves. tiny: 3 epochs, best test")
    printed = "".join(one.text for one in outputs if one.output_type == "stream")
    assert "epoch  3/3" in printed and "no picture" not in printed
