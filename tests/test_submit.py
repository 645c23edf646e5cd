"""`labkit submit`: what is in the zip, what the receipt says, and what the student is told before."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import labkit
from labkit import colab
from labkit.check import engine
from labkit.cli import app
from labkit.errors import LabError
from labkit.notebooks import called, identify
from labkit.submit import pack, submit

RELEASE = Path(__file__).parents[1] / "notebooks" / "release" / "compression"
PRUNING = "01_percentile_pruning"
ANSWER = """\
def prune_by_percentage(layer, q=70.0):
    with torch.no_grad():
        w = layer.weight
        w[w.abs() < np.percentile(w.abs().numpy(), q)] = 0
"""
SEEN = """\
prune_by_percentage
  ✗ Of ten weights, q = 50 takes the five smallest.
      the weight at index (0, 0) should be -10, but it is 0
      weight  -10  -8  -6  -4  -2  1  3  5  7  9
      should  -10  -8  -6   0   0  0  0  0  7  9
      is        0   0   0   0   0  1  3  5  7  9
                ^   ^   ^          ^  ^  ^
      Hint: all negative weights went.
  ✓ q is in percent: q = 20 takes two of ten weights.
1 of 2 public checks passed. More are run at grading.
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student's folder: the released notebooks, nothing answered, and no check run in this process."""
    folder = tmp_path / "lab"
    shutil.copytree(RELEASE, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LABKIT_RUNS", raising=False)
    monkeypatch.setattr(engine, "shown", {})
    return folder


def edit(path: Path, change: Callable[[dict[str, dict[str, Any]]], object]) -> None:
    """Change a notebook's cells, given by id."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change({cell["id"]: cell for cell in notebook["cells"]})
    path.write_text(json.dumps(notebook), encoding="utf-8")


def cell_with(path: Path, text: str) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}
    (found,) = [name for name, source in code.items() if text in source]
    return str(found)


def answer(folder: Path) -> Path:
    """Notebook 01 with its function written."""
    path = folder / f"{PRUNING}.ipynb"
    stub = cell_with(path, "raise NotImplementedError")
    edit(path, lambda cells: cells[stub].update(source=ANSWER))
    return path


def output(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def receipt(path: Path) -> Any:
    return json.loads(contents(path)["receipt.json"])


def test_all_notebooks_as_they_are_with_their_hashes(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit()
    packed = contents(lab / "submission.zip")
    assert set(packed) == {path.name for path in RELEASE.glob("*.ipynb")} | {"receipt.json"}
    assert all(packed[path.name] == path.read_bytes() for path in RELEASE.glob("*.ipynb"))
    said = receipt(lab / "submission.zip")
    for name, about in said["files"].items():
        assert about == {"bytes": len(packed[name]), "sha256": hashlib.sha256(packed[name]).hexdigest()}
    assert said["versions"]["labkit"] == labkit.__version__
    assert "Hand in this one file." in capsys.readouterr().out


def test_unanswered_cells_are_named(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(lab)
    submit()
    printed = capsys.readouterr().out
    assert "! 02_masked_finetuning: not answered yet: finetune_after_prune, q_masks" in printed
    assert f"! {PRUNING}: not answered yet: q_sensitivity." in printed
    said = receipt(lab / "submission.zip")["notebooks"][PRUNING]["answers"]
    assert said == {"prune_by_percentage": "written", "q_sensitivity": "unanswered"}


def test_public_checks_are_read_from_the_saved_outputs(lab: Path) -> None:
    path = answer(lab)
    test = cell_with(path, "labkit.check.prune_by_percentage")
    edit(path, lambda cells: cells[test].update(outputs=[output(SEEN)], execution_count=7))
    said = pack(lab).receipt["notebooks"]
    assert said[PRUNING]["checks"]["prune_by_percentage"] == {
        "seen": "in the saved outputs",
        "outcomes": {
            "Of ten weights, q = 50 takes the five smallest.": "failed",
            "q is in percent: q = 20 takes two of ten weights.": "passed",
        },
    }
    assert said["02_masked_finetuning"]["checks"] == {"finetune_after_prune": "not run"}
    assert "prune_by_percentage 1 of 2" in str(pack(lab))


def checked_here(source: str) -> None:
    """The instant check of this answer, as a cell runs it: with its source to be found."""
    import linecache

    import numpy as np
    import torch

    file = "<a cell>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"np": np, "torch": torch}
    exec(compile(source, file, "exec"), names)
    labkit.check.prune_by_percentage(names["prune_by_percentage"])


def test_a_check_of_this_session_counts_if_what_it_checked_is_saved(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(lab)
    checked_here(ANSWER)
    about = pack(lab).receipt["notebooks"][PRUNING]["checks"]["prune_by_percentage"]
    assert about["seen"] == "in this session"
    assert set(about["outcomes"].values()) == {"passed"}
    checked_here(ANSWER.replace("0\n", "0.0\n"))  # changed since it was saved
    made = pack(lab)
    assert made.receipt["notebooks"][PRUNING]["checks"]["prune_by_percentage"] == "not run"
    assert any("prune_by_percentage is not saved as it was last checked" in one for one in made.warnings)


def test_the_same_files_make_the_same_zip_but_for_the_time(lab: Path) -> None:
    first, second = pack(lab), pack(lab)
    second.receipt["time"] = first.receipt["time"]
    assert first.zipped() == second.zipped()
    with zipfile.ZipFile(io.BytesIO(first.zipped())) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_records_of_runs_go_along_and_nothing_that_lies_beside_them(lab: Path) -> None:
    run = lab / "runs" / "quick" / "02-held"
    run.mkdir(parents=True)
    (run / "record.json").write_text('{"label": "held", "history": []}')
    (run / "checkpoint.pt").write_bytes(b"weights")
    (run / "other.json").write_text('{"password": "secret"}')
    (run / "broken.json").write_text("{")
    with contextlib.suppress(OSError):  # on Windows not everybody may make one
        (run / "elsewhere.json").symlink_to(run / "record.json")
    runs = [name for name in pack(lab).files if name.startswith("runs/")]
    assert runs == ["runs/quick/02-held/record.json"]


def test_a_training_leaves_such_a_record(lab: Path) -> None:
    net = labkit.resnet20()
    pictures = labkit.shapes10(train=True, size=20)
    labkit.train(net, pictures, epochs=1, batch_size=10, folder=lab / "runs" / "one", label="one")
    assert "runs/one/record.json" in pack(lab).files


@pytest.mark.slow
def test_a_stopped_cell_a_large_notebook_and_a_broken_one_are_said(lab: Path) -> None:
    path = answer(lab)
    test = cell_with(path, "labkit.check.prune_by_percentage")
    error = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}
    big = output("x" * 11 * 2**20)
    edit(path, lambda cells: cells[test].update(outputs=[big, error], execution_count=7))
    (lab / "05_asymmetric_quantization.ipynb").write_text("{")
    warnings = pack(lab).warnings
    assert f"{PRUNING}: cell [7] stopped with an error: fix the cause and run it again." in warnings
    assert any("clear the outputs of cell [7]" in one for one in warnings)
    assert any(one.startswith("05_asymmetric_quantization.ipynb cannot be read") for one in warnings)


def retype(path: Path, name: str, kind: str) -> None:
    """As a key press in Jupyter does."""
    edit(path, lambda cells: cells[name].update(cell_type=kind))


def states(folder: Path, name: str = PRUNING) -> dict[str, str]:
    said: dict[str, str] = pack(folder).receipt["notebooks"][name]["answers"]
    return said


@pytest.mark.parametrize("kind", ["raw", "markdown"])
def test_an_answer_that_is_no_code_cell_is_named(lab: Path, kind: str) -> None:
    path = answer(lab)
    retype(path, "prune-by-percentage", kind)
    assert states(lab)["prune_by_percentage"] == "written", "the grader takes it, too"
    said = f"{PRUNING}: prune_by_percentage: it stood in a {kind} cell: make that a code cell (Esc, Y)"
    assert any(one.startswith(said) for one in pack(lab).warnings)


def test_a_stub_that_was_left_below_does_not_count(lab: Path) -> None:
    path = lab / f"{PRUNING}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    stub = next(n for n, cell in enumerate(notebook["cells"]) if cell["id"] == "prune-by-percentage")
    mine = {"id": "mine", "metadata": {}, "outputs": [], "execution_count": 3, "cell_type": "code"}
    notebook["cells"].insert(stub, {**mine, "source": ANSWER})
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert states(lab) == {"prune_by_percentage": "written", "q_sensitivity": "unanswered"}


@pytest.mark.parametrize(
    ("source", "state", "said"),
    [
        ("My idea is to sort them.", "unclear", "its cell holds words instead of code; move the answer into"),
        (ANSWER.replace(":", "", 1), "broken", "its cell has a syntax error in line 1."),
        ("%%timeit\n" + ANSWER, "broken", "%%timeit in its first line keeps what the cell defines"),
    ],
)
def test_what_will_not_be_run_is_said(lab: Path, source: str, state: str, said: str) -> None:
    path = answer(lab)
    edit(path, lambda cells: cells["prune-by-percentage"].update(source=source))
    assert states(lab)["prune_by_percentage"] == state
    warnings = pack(lab).warnings
    assert any(one.startswith(f"{PRUNING}: prune_by_percentage: {said}") for one in warnings)


def test_half_of_a_class_is_said(lab: Path) -> None:
    path = lab / "05_asymmetric_quantization.ipynb"
    head = "class STE(torch.autograd.Function):\n    def forward(ctx, w, bit):\n        return w\n"
    rest = "    def backward(ctx, g):\n        raise NotImplementedError\n"
    cell = cell_with(path, "class STE(")
    edit(path, lambda cells: cells[cell].update(source=head + rest))
    assert f"{path.stem}: STE: STE.backward is still to be written." in pack(lab).warnings


def test_another_courses_notebook_is_judged_by_its_own_marks(lab: Path) -> None:
    badge = "[![Open](x.svg)](https://colab.research.google.com/x/release/own/01_halves.ipynb)"
    marks = {"nbgrader": {"grade_id": "halve", "solution": True}}
    stub = "def halve(x):\n    raise NotImplementedError"
    words = {"nbgrader": {"grade_id": "q_why", "solution": True}}
    cells = [
        {"cell_type": "markdown", "source": badge, "metadata": {}},
        {"cell_type": "code", "source": stub, "metadata": marks},
        {"cell_type": "markdown", "source": "*Your answer here.*", "metadata": words},
    ]
    path = lab / "01_halves.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert states(lab, "01_halves") == {"halve": "unanswered", "q_why": "unanswered"}
    cells[1]["source"], cells[2]["source"] = "def halve(x):\n    return x / 2", "Because."
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert states(lab, "01_halves") == {"halve": "written", "q_why": "written"}


# ---- files that are not what they should be


@pytest.mark.parametrize("ending", [".ipynb.txt", ".ipynb.json", ".json", ".txt"])
def test_a_wrong_ending_is_named(lab: Path, ending: str) -> None:
    path = answer(lab)
    path.rename(lab / f"{PRUNING}{ending}")
    (said,) = [one for one in pack(lab).warnings if one.startswith(f"{PRUNING}{ending}")]
    assert said.endswith(
        f"has the wrong ending and stays out: rename it to {PRUNING}.ipynb and submit again."
    )


def test_an_export_is_no_notebook(lab: Path) -> None:
    (lab / f"{PRUNING}.ipynb").unlink()
    (lab / f"{PRUNING}.py").write_text(ANSWER)
    assert (
        f"{PRUNING}.py has the wrong ending and stays out: save it as {PRUNING}.ipynb." in pack(lab).warnings
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without fifos")
def test_pipes_links_and_folders_are_named_and_nothing_hangs(lab: Path) -> None:
    names = ("02_masked_finetuning", "03_iterative_pruning", "04_global_pruning")
    for name in names:
        (lab / f"{name}.ipynb").unlink()
    os.mkfifo(lab / f"{names[0]}.ipynb")
    (lab / f"{names[1]}.ipynb").symlink_to("nowhere")
    (lab / f"{names[2]}.ipynb").mkdir()
    made = pack(lab)
    assert {f"{name}.ipynb" for name in names}.isdisjoint(made.files)
    for name, what in zip(names, ("not a file", "a link to nothing", "a folder"), strict=True):
        assert f"{name}.ipynb is {what} and stays out." in made.warnings


def test_conflict_markers_of_git_are_named(lab: Path) -> None:
    path = answer(lab)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('{"', '<<<<<<< HEAD\n{"', 1), encoding="utf-8")
    said = "has git's conflict markers, the first in line 1: keep one version of each part."
    assert f"{path.name} {said}" in pack(lab).warnings
    path.write_bytes(b"")
    assert f"{path.name} is empty: save it in Jupyter and submit again." in pack(lab).warnings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_notebook_in_any_of_unicodes_encodings_is_read(lab: Path, encoding: str) -> None:
    path = answer(lab)
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert states(lab)["prune_by_percentage"] == "written"


def test_a_folder_that_cannot_be_written_has_a_way_out(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, write: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(sys.modules["labkit.submit"], "write_atomically", refused)
    with pytest.raises(LabError, match=r"Read-only file system.*--out FILE"):
        submit()


# ---- what was run since it was saved


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}


def test_an_error_that_was_fixed_in_this_session_is_unsaved_not_stopped(lab: Path) -> None:
    path = answer(lab)
    test = cell_with(path, "labkit.check.prune_by_percentage")
    edit(path, lambda cells: cells[test].update(outputs=[ERROR], execution_count=3))
    checked_here(ANSWER)
    warnings = pack(lab).warnings
    assert f"{PRUNING} is not saved as it was last run: save it (Ctrl+S) and submit again." in warnings
    assert not [one for one in warnings if "stopped with an error" in one]


@pytest.mark.parametrize("saved", [False, True])
def test_the_last_cell_that_was_run_tells_whether_the_notebook_is_saved(
    lab: Path, saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = answer(lab)
    edit(path, lambda cells: cells["prune-by-percentage"].update(execution_count=2, outputs=[ERROR]))
    if saved:
        edit(path, lambda cells: cells["prune-by-percentage"].update(execution_count=3))
    history = ["", "import math", ANSWER, ANSWER, "labkit.submit()"]
    shell = types.SimpleNamespace(history_manager=types.SimpleNamespace(input_hist_raw=history))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    warnings = pack(lab).warnings
    assert any("is not saved as it was last run" in one for one in warnings) is not saved
    assert any("stopped with an error" in one for one in warnings) is saved


def test_a_check_that_failed_is_named(lab: Path) -> None:
    path = answer(lab)
    check = cell_with(path, "labkit.check.")
    edit(path, lambda cells: cells[check].update(outputs=[output(SEEN)]))
    assert f"{PRUNING}: prune_by_percentage passed 1 of 2 public checks." in pack(lab).warnings


def test_when_nothing_is_missing_that_is_said(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in lab.glob("*.ipynb"):
        written = json.loads(path.read_text(encoding="utf-8"))
        for cell in written["cells"]:
            source = "".join(cell["source"])
            if "raise NotImplementedError" in source:
                cell["source"] = re.sub("raise NotImplementedError.*", "return 1", source)
            elif source.strip() == "*Your answer here.*":
                cell["source"] = "Yes."
        path.write_text(json.dumps(written), encoding="utf-8")
    submit()
    assert capsys.readouterr().out.startswith("Nothing is missing.")


def test_of_two_copies_the_one_of_the_right_name_goes_in(lab: Path) -> None:
    right = answer(lab)
    shutil.copy(RELEASE / right.name, lab / f"Copy of {right.name}")
    made = pack(lab)
    assert made.files[right.name] == right.read_bytes()
    assert any(f"Copy of {right.name} is another copy" in one for one in made.warnings)


def test_a_renamed_notebook_is_found_and_a_missing_one_is_said(lab: Path) -> None:
    answer(lab).rename(lab / "ada_01_Percentile Pruning (2).ipynb")
    (lab / "02_masked_finetuning.ipynb").rename(lab / "homework.ipynb")  # known by its Colab badge
    (lab / "04_global_pruning.ipynb").unlink()
    made = pack(lab)
    assert made.receipt["notebooks"][PRUNING]["file"] == "ada_01_Percentile Pruning (2).ipynb"
    assert made.receipt["notebooks"]["02_masked_finetuning"]["file"] == "homework.ipynb"
    assert made.receipt["missing"] == ["04_global_pruning"]
    assert any(one.startswith("not here: 04_global_pruning") for one in made.warnings)


def test_a_name_that_fits_two_notebooks_is_none() -> None:
    assert called("01_double and 02_triple", ("01_double", "02_triple")) is None
    assert identify("shopping list.ipynb", b'{"cells": []}') is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["empty"], "go to the folder that holds them"),
        ([".", "--out", "work.tar"], "let it end in .zip"),
        ([f"{PRUNING}.ipynb"], "is a file: name the folder that holds your notebooks"),
        (["nowhere"], "is not there: name the folder that holds your notebooks"),
        ([".", "--out", "made.zip"], "made.zip is a folder: name a file"),
        ([".", "--out", "00_baseline.ipynb/x.zip"], "labkit submit --out FILE"),
    ],
)
def test_a_mistake_is_a_sentence(lab: Path, arguments: list[str], said: str) -> None:
    for name in ("empty", "made.zip"):
        (lab / name).mkdir()
    ended = CliRunner().invoke(app, ["submit", *arguments], env={"COLUMNS": "300"})
    assert ended.exit_code == 2
    assert said in " ".join(ended.output.split())
    assert not [path for path in lab.glob("**/*.zip") if path.is_file()]


# ---- as in Colab, of which only the modules that labkit asks for are there


@pytest.fixture
def in_colab(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`google.colab` with notebook 01 on the screen and the others in Drive; gives what was downloaded."""
    screen = json.loads(answer(lab).read_text(encoding="utf-8"))
    screen["metadata"]["colab"] = {"name": f"Copy of {PRUNING}.ipynb"}
    drive, content = tmp_path / "drive", tmp_path / "content"
    content.mkdir()
    monkeypatch.chdir(content)
    lab.rename(drive)
    (drive / f"{PRUNING}.ipynb").unlink()
    monkeypatch.setattr(colab, "FOLDERS", (content, drive))
    downloaded: list[str] = []
    parts: dict[str, dict[str, Any]] = {
        "google": {"__path__": []},
        "google.colab": {"__path__": []},
        "google.colab._message": {"blocking_request": lambda name, timeout_sec: {"ipynb": screen}},
        "google.colab.files": {"download": downloaded.append},
    }
    for name, members in parts.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return downloaded


def test_in_colab_the_open_notebook_and_those_in_drive(
    in_colab: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    submit()
    packed = contents(Path("submission.zip"))
    assert ANSWER.splitlines()[0] in packed[f"{PRUNING}.ipynb"].decode()
    assert len(packed) == len(list(RELEASE.glob("*.ipynb"))) + 1
    assert in_colab == [str(Path.cwd() / "submission.zip")]
    assert "list of files on the left" not in capsys.readouterr().out


def test_in_colab_of_two_copies_the_newer_goes_in_and_the_other_is_named(in_colab: list[str]) -> None:
    (drive,) = colab.FOLDERS[1:]
    name = "02_masked_finetuning.ipynb"
    upload = Path(name).absolute()
    shutil.copy(RELEASE / name, upload)
    assert not [one for one in pack(Path.cwd(), in_colab=True).warnings if "copy" in one], "they are the same"
    edit(drive / name, lambda cells: cells["setup"].update(source="mine"))
    os.utime(upload, (1, 1))
    made = pack(Path.cwd(), in_colab=True)
    assert made.files[name] == (drive / name).read_bytes()
    assert any(one.startswith(f"{upload} is an older copy") for one in made.warnings)


def test_in_colab_without_an_answer_from_the_screen(
    in_colab: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "google.colab._message")
    monkeypatch.delitem(sys.modules, "google.colab.files")
    submit()
    printed = capsys.readouterr().out
    assert "! the open notebook is not among Colab's files" in printed
    assert f"! not here: {PRUNING}" in printed
    assert "Download it from the list of files on the left." in printed


# ---- and on the instructor's side


@pytest.mark.slow
def test_the_zip_is_collected_and_taken_in_without_a_note(lab: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbgrader")
    import nbformat

    from labkit.grading.collect import collect
    from labkit.grading.intake import take_in

    answer(lab)
    submit(out=tmp_path / "ada.zip")
    course = tmp_path / "course"
    assert collect(tmp_path / "ada.zip", course, "compression").new == ["ada"]
    released = {path.stem: nbformat.read(path, 4) for path in RELEASE.glob("*.ipynb")}
    taken = take_in(course / "submitted" / "ada" / "compression", released)
    assert set(taken.files) == set(released)
    assert not any(taken.notes.values()), taken.notes
