"""The released notebooks as a student sees them: JupyterLab in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install 'labkit[jupyter]'")
pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import sync_playwright

from tests.browser.jupyterlab import SECONDS, Lab, chromium, served

RELEASE = Path(__file__).parents[2] / "notebooks" / "release" / "compression"
SOURCE = RELEASE.parents[1] / "source" / "compression"
NAMES = sorted(path.name for path in RELEASE.glob("*.ipynb"))
PRUNING, FINETUNING = "01_percentile_pruning.ipynb", "02_masked_finetuning.ipynb"
SIGNED = """\
def prune_by_percentage(layer, q=70.0):
    with torch.no_grad():
        w = layer.weight
        w[w < np.percentile(w.numpy(), q)] = 0
"""
RIGHT = SIGNED.replace("w[w <", "w[w.abs() <").replace("(w.numpy()", "(w.abs().numpy()")
pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(RELEASE, folder, dirs_exist_ok=True)
    for name in NAMES:  # beside each to be run, its earlier ones as their student left them
        shutil.copytree(RELEASE, folder / Path(name).stem)
        for earlier in NAMES[: NAMES.index(name)]:
            (folder / Path(name).stem / earlier).write_text(answered(earlier), encoding="utf-8")
    with (
        served(folder, tmp_path_factory.mktemp("scratch")) as address,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(SECONDS * 1000)
        yield Lab(page, address)


def set_up(lab: Lab, name: str) -> str:
    """Open a notebook and run its set-up cells; what the last of them prints."""
    lab.open(name)
    printed = [lab.run(cell["id"]) for cell in lab.cells() if "setup" in cell["tags"]]
    return printed[1]  # after Colab's cell, which says nothing here


def reference(name: str) -> dict[str, str]:
    """The answers of a source notebook by their cell."""
    cells = json.loads((SOURCE / name).read_text(encoding="utf-8"))["cells"]
    return {
        cell["id"]: "".join(line for line in cell["source"] if " SOLUTION" not in line)
        for cell in cells
        if "answer" in cell["metadata"].get("tags", [])
    }


def answered(name: str) -> str:
    """The released notebook with the reference's answers."""
    answers = reference(name)
    notebook = json.loads((RELEASE / name).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = answers.get(cell["id"], cell["source"])
    return json.dumps(notebook)


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_runs_from_its_first_cell_to_its_last(lab: Lab, name: str) -> None:
    lab.open(f"{Path(name).stem}/{name}")
    answers = reference(name)
    for cell in lab.cells():
        if cell["type"] != "code":
            continue
        if cell["id"] in answers:
            lab.type_into(cell["id"], answers[cell["id"]])
        printed = lab.run(cell["id"])
        assert "Traceback" not in printed and "✗" not in printed, f"{cell['id']}: {printed}"
        alt_texts(lab, cell["id"])
        seldom = ("vnd.jupyter.error", *(("stderr",) if "setup" in cell["tags"] else ()))
        assert not [kind for kind in seldom if kind in lab.html(cell["id"])], cell["id"]
    assert lab.page.locator(".jp-Dialog").count() == 0
    lab.save()
    lab.close()


def test_a_stub_a_wrong_and_a_right_answer(lab: Lab) -> None:
    set_up(lab, PRUNING)
    answer, check = "prune-by-percentage", "test-prune-threshold"
    lab.run(answer)
    unwritten = lab.run(check)
    assert "✗" in unwritten and "✓" not in unwritten
    assert "not answered yet" in unwritten
    assert "Traceback" not in unwritten
    lab.type_into(answer, SIGNED)
    lab.run(answer)
    wrong = lab.run(check)
    assert "✗" in wrong and "Hint: signed weights" in wrong
    assert "Traceback" not in wrong
    lab.type_into(answer, RIGHT)
    assert lab.run(answer) == ""
    right = lab.run(check)
    assert "✗" not in right
    assert "3 of 3 public checks passed. More are run at grading." in right
    lab.run("mask")
    assert alt_texts(lab, "mask")
    said = lab.run("submit")
    assert "prune_by_percentage is not saved as it was last checked" in said
    lab.save()
    assert "prune_by_percentage 3 of 3" in lab.run("submit")
    lab.close()


def test_a_training_shows_its_progress_and_its_curve(lab: Lab) -> None:
    set_up(lab, FINETUNING)
    lab.type_into("finetune-after-prune", FINETUNE)
    for cell in ("finetune-after-prune", "places", "prune-once"):
        lab.run(cell)
    assert "4 of 4 public checks passed" in lab.run("test-finetune-masks")
    training = lab.run("one-shot")
    assert "epoch  2/2" in training and "images/s" in training
    (alt,) = alt_texts(lab, "one-shot")
    assert "one-shot: 2 epochs" in alt
    lab.run("curve")
    (alt,) = alt_texts(lab, "curve")
    assert "test accuracy" in alt
    lab.close()


def alt_texts(lab: Lab, cell: str) -> list[str]:
    """Of each picture below a cell; none may be without."""
    pictures = re.findall(r"<img[^>]*>", lab.html(cell))
    found = [re.search(r'alt="([^"]+)"', picture) for picture in pictures]
    assert all(found), pictures
    return [one[1] for one in found if one]


FINETUNE = """\
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.detach() != 0 for _, layer in labkit.prunable_layers(net)} if prune else {}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        with torch.no_grad():
            for layer, mask in masks.items():
                layer.weight.mul_(mask)
"""
