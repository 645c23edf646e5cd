"""Several files for a notebook, several notebooks in a file, answers elsewhere: what is graded as what."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

pytest.importorskip("nbgrader")

from labkit.grading.intake import take_in
from labkit.grading.repair import grade_id_of
from labkit.grading.submission import read_submission
from tests.grader.test_intake import GRADED, NAME, OTHER, packed, with_words
from tests.grader.test_repair import ALL, answered, folder_of, released, written


def only_answers(*names: str) -> NotebookNode:
    """A new notebook that defines what these ones ask for, and nothing else."""
    sources = ["import math"]
    for name in names:
        known = (cell for cell in released(name).cells if grade_id_of(cell) is not None)
        for cell in known:
            if cell.cell_type == "code" and cell.metadata["nbgrader"]["solution"]:
                written_in = re.sub(r"raise NotImplementedError\(.*\)", "return 0.0", cell.source)
                sources.append(f"{written_in}\n# {name}")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def answer_to(nb: NotebookNode, name: str) -> str:
    (found,) = [cell.source for cell in nb.cells if grade_id_of(cell) == name]
    return str(found)


def test_one_file_with_the_answers_of_two_notebooks_is_graded_as_both(tmp_path: Path) -> None:
    files = {"Untitled.ipynb": written(only_answers(NAME, OTHER))}
    submission = read_submission("ada", folder_of(tmp_path, files), ALL)
    assert sorted(submission.notebooks) == [NAME, OTHER]
    assert answer_to(submission.notebooks[NAME], "iterative_prune").endswith(f"# {NAME}")
    assert answer_to(submission.notebooks[OTHER], "global_prune_by_percentage").endswith(f"# {OTHER}")
    assert submission.files == [f"Untitled.ipynb was graded as {NAME}, {OTHER}"]


def test_a_notebook_that_holds_the_answers_of_another_one_is_graded_as_that_too(tmp_path: Path) -> None:
    nb = answered()
    nb.cells += only_answers(OTHER).cells
    submission = read_submission("ada", folder_of(tmp_path, {f"{NAME}.ipynb": written(nb)}), ALL)
    assert sorted(submission.notebooks) == [NAME, OTHER]
    assert submission.notes[OTHER][0] == f"was handed in as {NAME}.ipynb"


def test_a_function_that_two_notebooks_ask_for_is_no_sign_of_either(tmp_path: Path) -> None:
    asymmetric, symmetric = (name for name in GRADED if "symmetric" in name)  # both ask for STE
    files = {"Untitled.ipynb": written(only_answers(asymmetric))}
    submission = read_submission("ada", folder_of(tmp_path, files), ALL)
    assert submission.notebooks == {}
    assert {asymmetric, symmetric} <= submission.not_graded.keys()
    (tmp_path / "Untitled.ipynb").rename(tmp_path / f"{asymmetric}.ipynb")
    submission = read_submission("ada", tmp_path, ALL)
    assert list(submission.notebooks) == [asymmetric]
    assert symmetric in submission.missing


def test_an_answer_in_a_new_notebook_is_graded_beside_the_words_in_the_old_one(tmp_path: Path) -> None:
    files = {f"{NAME}.ipynb": with_words(NAME), "Untitled.ipynb": written(only_answers(NAME))}
    submission = read_submission("ada", folder_of(tmp_path, files), ALL)
    nb = submission.notebooks[NAME]
    assert answer_to(nb, "q_schedule") == "Because."
    assert answer_to(nb, "sparsity_at").endswith(f"# {NAME}")
    sources = [cell.source for cell in nb.cells]
    assert sources.index("import math") < sources.index(answer_to(nb, "sparsity_at"))
    assert submission.notes[NAME] == ["the answer sparsity_at, iterative_prune was found in Untitled.ipynb"]
    assert [line.partition(" was ")[2] for line in submission.files] == [f"graded as {NAME}"] * 2


def test_a_notebook_of_helpers_is_told_apart_from_a_copy(tmp_path: Path) -> None:
    nb = answered()
    next(
        cell for cell in nb.cells if grade_id_of(cell) == "sparsity_at"
    ).source = "from mine import sparsity_at"
    taken = take_in(
        folder_of(tmp_path, {f"{NAME}.ipynb": written(nb), "mine.ipynb": written(only_answers(NAME))}), ALL
    )
    assert taken.files[NAME].where == f"{NAME}.ipynb"
    assert taken.general == [
        "mine.ipynb is none of the notebooks and was not graded: it defines iterative_prune, sparsity_at"
    ]
    assert list(taken.beside) == ["mine.ipynb"]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("v1", "v2"),
        ("v9", "v10"),
        ("attempt 1", "attempt 2"),
        ("hw (1)", "hw (2)"),
        ("2026-01-09", "2026-01-10"),
    ],
)
def test_of_two_versions_the_last_is_graded(tmp_path: Path, older: str, newer: str) -> None:
    files = {f"{older}/{NAME}.ipynb": written(answered()), f"{newer}/{NAME}.ipynb": written(answered())}
    for name in (files, dict(reversed(files.items()))):
        taken = take_in(folder_of(tmp_path, {"w.zip": packed(name)}), ALL)
        assert taken.files[NAME].where == f"w.zip/{newer}/{NAME}.ipynb"
        assert f"w.zip/{older}/{NAME}.ipynb is another copy and was not graded" in taken.notes[NAME]


def test_of_two_versions_in_an_archive_the_one_that_it_dates_later_is_graded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for folder, day in (("final", 2), ("old", 1)):
            archive.writestr(
                zipfile.ZipInfo(f"{folder}/{NAME}.ipynb", (2026, 1, day, 0, 0, 0)), written(answered())
            )
    taken = take_in(folder_of(tmp_path, {"w.zip": buffer.getvalue()}), ALL)
    assert taken.files[NAME].where == f"w.zip/final/{NAME}.ipynb"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_two_entries_of_one_name_the_last_counts_as_when_they_are_unpacked(
    tmp_path: Path, kind: str
) -> None:
    buffer, name = io.BytesIO(), f"{NAME}.ipynb"
    contents = (written(released()), written(answered()))
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for data in contents:
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for data in contents:
                about = tarfile.TarInfo(name)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
    taken = take_in(folder_of(tmp_path, {f"w.{kind}": buffer.getvalue()}), ALL)
    assert taken.files[NAME].data == contents[1]
    assert taken.general == [f"w.{kind}/{name} is in its archive more than once: the last one counts"]
    assert taken.account.why_not_missing(OTHER) == []


@pytest.mark.parametrize("there", [True, False])
def test_jupyters_autosaved_copy_is_graded_only_where_there_is_no_other(tmp_path: Path, there: bool) -> None:
    autosaved = f".ipynb_checkpoints/{NAME}-checkpoint.ipynb"
    files = {autosaved: written(answered())} | ({f"{NAME}.ipynb": written(answered())} if there else {})
    taken = take_in(folder_of(tmp_path, files), ALL)
    assert taken.files[NAME].where == (f"{NAME}.ipynb" if there else autosaved)
    assert taken.notes[NAME] == (
        [] if there else [f"was handed in as {autosaved}, which Jupyter saved by itself"]
    )
    assert taken.general == []


def test_an_untouched_notebook_waits_for_a_human_if_its_answers_may_be_elsewhere(tmp_path: Path) -> None:
    files = {
        f"{NAME}.ipynb": written(released()),
        f"{OTHER}.ipynb": with_words(OTHER),
        f"{NAME}.py": b"x = 1",
    }
    submission = read_submission("ada", folder_of(tmp_path, files), ALL)
    assert list(submission.notebooks) == [OTHER]
    assert submission.not_graded[NAME].startswith("it is as it was released, and answers may be in")
    (tmp_path / f"{NAME}.py").unlink()
    submission = read_submission("ada", tmp_path, ALL)
    assert sorted(submission.notebooks) == [NAME, OTHER]


@pytest.mark.parametrize(
    "written_in", ["def sparsity_at(epoch): return 1", "def helper(): return 1", "def broken("]
)
def test_a_script_beside_an_answered_notebook_is_a_module(tmp_path: Path, written_in: str) -> None:
    files = {f"{NAME}.ipynb": written(answered()), "mine.py": written_in.encode(), f"{NAME}.py": b"x = 1"}
    taken = take_in(folder_of(tmp_path, files), ALL)
    assert [fate.end for fate in taken.account.fates] == ["graded", "beside", "beside"]
    assert taken.beside["mine.py"] == written_in.encode()


def test_a_null_character_at_the_end_of_an_answer_is_dropped(tmp_path: Path) -> None:
    nb = answered()
    next(cell for cell in nb.cells if grade_id_of(cell) == "sparsity_at").source += "\n\0\0"
    submission = read_submission("ada", folder_of(tmp_path, {f"{NAME}.ipynb": written(nb)}), ALL)
    assert "\0" not in answer_to(submission.notebooks[NAME], "sparsity_at")
