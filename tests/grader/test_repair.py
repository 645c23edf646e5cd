"""Damaged notebooks, made from the lab's own release, and what `repair` and `take_in` make of them."""

from __future__ import annotations

import ast
import difflib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

pytest.importorskip("nbformat")

from labkit.grading.intake import take_in
from labkit.grading.reading import Unreadable, read_notebook
from labkit.grading.repair import defined_names, grade_id_of, repair
from labkit.grading.submission import read_submission
from tests.conftest import REPOSITORY

RELEASE = REPOSITORY / "notebooks" / "release" / "compression"
NAMES = sorted(path.stem for path in RELEASE.glob("*.ipynb"))
RAMP = """\
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * min(epoch + 1, ramp_epochs) / ramp_epochs"""
WALK = """\
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    return walk(net, epoch)"""
WORDS = "It came back because the first nine epochs are free."
Change = Callable[[NotebookNode], None]


def released(name: str = "03_iterative_pruning") -> NotebookNode:
    return nbformat.read(RELEASE / f"{name}.ipynb", 4)


def answered() -> NotebookNode:
    """Notebook 03 as a student hands it in."""
    nb = released()
    cell(nb, "sparsity_at").source = RAMP
    cell(nb, "iterative_prune").source = WALK
    cell(nb, "q_schedule").source = WORDS
    return nb


def cell(nb: NotebookNode, name: str) -> NotebookNode:
    (found,) = [each for each in nb.cells if grade_id_of(each) == name]
    return found


def own(source: str, name: str = "own") -> NotebookNode:
    return nbformat.v4.new_code_cell(source, id=name)


def at(nb: NotebookNode, name: str) -> int:
    return nb.cells.index(cell(nb, name))


def marks(nb: NotebookNode) -> list[str]:
    return [name for each in nb.cells if (name := grade_id_of(each))]


def test_a_whole_notebook_stays_as_it_is() -> None:
    nb = answered()
    nb.cells.insert(at(nb, "sparsity_at"), own("def walk(net, epoch):\n    pass"))
    mended = repair(nb, released())
    assert mended.notes == []
    assert mended.notebook.cells == nb.cells


# what is done to a notebook, and what is said about it
def lose_marks(nb: NotebookNode) -> None:
    for each in nb.cells:
        each.metadata = nbformat.from_dict({})


def lose_marks_and_ids(nb: NotebookNode) -> None:
    lose_marks(nb)
    for number, each in enumerate(nb.cells):
        each.id = f"new{number}"


def new_ids(nb: NotebookNode) -> None:
    for number, each in enumerate(nb.cells):
        each.id = f"new{number}"


def delete_test(nb: NotebookNode) -> None:
    nb.cells.remove(cell(nb, "test_sparsity_at"))


def edit_test(nb: NotebookNode) -> None:
    cell(nb, "test_sparsity_at").source = "4.0"


def double_test(nb: NotebookNode) -> None:
    nb.cells.append(nbformat.from_dict(dict(cell(nb, "test_sparsity_at"), id="twin")))


def double_answer(nb: NotebookNode) -> None:
    twin = nbformat.from_dict(dict(cell(nb, "sparsity_at"), id="twin", source="def sparsity_at(epoch): pass"))
    nb.cells.insert(at(nb, "sparsity_at"), twin)


def split_answer(nb: NotebookNode) -> None:
    first = cell(nb, "sparsity_at")
    head, tail = first.source.split("\n")
    first.source = head + "\n    share = min(epoch + 1, ramp_epochs)"
    second = nbformat.from_dict(dict(first, id="second-half", source=tail))
    nb.cells.insert(at(nb, "sparsity_at") + 1, second)


def split_off_unmarked(nb: NotebookNode) -> None:
    first = cell(nb, "sparsity_at")
    head, tail = first.source.split("\n")
    first.source = head + "\n    share = min(epoch + 1, ramp_epochs)"
    nb.cells.insert(at(nb, "sparsity_at") + 1, own(tail))


def move_answer(nb: NotebookNode) -> None:
    nb.cells.append(nb.cells.pop(at(nb, "iterative_prune")))


def answer_elsewhere(nb: NotebookNode) -> None:
    cell(nb, "sparsity_at").source = cell(released(), "sparsity_at").source
    nb.cells.append(own(RAMP))


def delete_answer_cell_but_write_elsewhere(nb: NotebookNode) -> None:
    nb.cells.remove(cell(nb, "sparsity_at"))
    nb.cells.insert(0, own(RAMP))


def copied_marks(nb: NotebookNode) -> None:
    """A cell that claims to be another kind of cell, and one that claims a mark which there is not."""
    nb.cells.append(nbformat.v4.new_markdown_cell("x", metadata={"nbgrader": {"grade_id": "sparsity_at"}}))
    nb.cells.append(nbformat.v4.new_code_cell("x = 1", metadata={"nbgrader": {"grade_id": "none"}}))
    nb.cells.append(nbformat.v4.new_code_cell("x = 1", metadata={"nbgrader": ["no", "mapping"]}))


DAMAGE: dict[Change, list[str]] = {
    lose_marks: ["sparsity_at had lost its mark", "q_schedule had lost its mark", "setup had lost its mark"],
    lose_marks_and_ids: [
        "the answer sparsity_at was found by what it defines",
        "the answer q_schedule was found by where it stood",
        "test_sparsity_at had lost its mark",
    ],
    new_ids: [],
    delete_test: ["test_sparsity_at was missing: put back"],
    edit_test: ["test_sparsity_at was edited: it is run as released"],
    double_test: ["test_sparsity_at was there 2 times"],
    double_answer: ["the answer sparsity_at was there 2 times: the last one written in counts"],
    split_answer: ["the answer sparsity_at was split into 2 cells: put together again"],
    split_off_unmarked: ["the answer sparsity_at was split: put together again"],
    move_answer: ["its cells were in another order"],
    answer_elsewhere: ["the answer sparsity_at was found by what it defines"],
    delete_answer_cell_but_write_elsewhere: ["the answer sparsity_at was found by what it defines"],
    copied_marks: [],
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_notebook_gets_its_answers_onto_the_releases_cells(damage: Change) -> None:
    nb = answered()
    damage(nb)
    before = nbformat.from_dict(nb)
    mended = repair(nb, released())
    assert nb == before, "the submission itself was changed"
    assert marks(mended.notebook) == marks(released())
    for name in marks(released()):
        here, there = cell(mended.notebook, name), cell(released(), name)
        assert here.metadata == there.metadata and here.id == there.id
        if not there.metadata["nbgrader"]["solution"]:
            assert here.source == there.source
    namespace: dict[str, object] = {}
    exec(cell(mended.notebook, "sparsity_at").source, namespace)
    assert namespace["sparsity_at"](4) == 40.0
    assert cell(mended.notebook, "iterative_prune").source == WALK
    assert cell(mended.notebook, "q_schedule").source == WORDS
    for note in DAMAGE[damage]:
        assert note in mended.notes
    if not DAMAGE[damage]:
        assert mended.notes == []
    nbformat.validate(mended.notebook)
    again = repair(mended.notebook, released())
    assert again.notes == [] and again.notebook.cells == mended.notebook.cells


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [lose_marks, lose_marks_and_ids], ids=lambda damage: damage.__name__)
def test_experiments_that_lost_their_tags_are_still_not_run(name: str, damage: Change) -> None:
    nb = released(name)
    experiments = [each.source for each in nb.cells if "experiment" in each.metadata.get("tags", [])]
    damage(nb)
    for each in nb.cells:
        each.source += "\n"  # touched
    mended = repair(nb, released(name)).notebook
    tagged = [each.source.rstrip() for each in mended.cells if "experiment" in each.metadata.get("tags", [])]
    assert tagged == [source.rstrip() for source in experiments]
    assert marks(mended) == marks(released(name))


def test_an_own_helper_goes_where_the_answer_goes() -> None:
    nb = answered()
    nb.cells += [own("def walk(net, epoch):\n    return epoch"), nb.cells.pop(at(nb, "iterative_prune"))]
    mended = repair(nb, released()).notebook
    assert mended.cells[at(mended, "iterative_prune") - 1].source.startswith("def walk")
    assert at(mended, "iterative_prune") < at(mended, "test_iterative_ramp")


def test_a_picture_in_an_answer_in_words_stays() -> None:
    nb = answered()
    cell(nb, "q_schedule").attachments = {"a.png": {"image/png": "iVBORw0KGgo="}}
    mended = repair(nb, released()).notebook
    assert cell(mended, "q_schedule").attachments == cell(nb, "q_schedule").attachments


def test_what_was_added_to_the_setup_is_still_run_after_ours() -> None:
    nb = answered()
    cell(nb, "setup").source += "\nimport itertools"
    mended = repair(nb, released())
    place = at(mended.notebook, "setup")
    assert mended.notebook.cells[place].source == cell(released(), "setup").source
    assert mended.notebook.cells[place + 1].source == "import itertools"
    assert mended.notes == ["what was added to setup became a cell of its own"]


def test_an_edited_setup_is_run_after_ours() -> None:
    nb = answered()
    cell(nb, "setup").source = cell(nb, "setup").source.replace("import math", "import math, itertools")
    mended = repair(nb, released())
    place = at(mended.notebook, "setup")
    assert mended.notebook.cells[place].source == cell(released(), "setup").source
    assert "import math, itertools" in mended.notebook.cells[place + 1].source
    assert mended.notes == ["setup was edited: it is run as released"]


def test_nothing_is_invented_for_an_answer_that_is_not_there() -> None:
    nb = answered()
    for name in ("sparsity_at", "q_schedule"):
        nb.cells.remove(cell(nb, name))
    mended = repair(nb, released())
    assert cell(mended.notebook, "sparsity_at").source == cell(released(), "sparsity_at").source
    assert cell(mended.notebook, "q_schedule").source == cell(released(), "q_schedule").source
    assert {"sparsity_at was missing: put back", "q_schedule was missing: put back"} <= set(mended.notes)


# words in a cell of one's own
def unanswered() -> NotebookNode:
    nb = answered()
    cell(nb, "q_schedule").source = cell(released(), "q_schedule").source
    return nb


def note(source: str, name: str = "own", **parts: object) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(source, id=name, **parts)


BESIDE = "the answer q_schedule stood in a cell of its own beside the one for it"


@pytest.mark.parametrize("stub", [None, "", " \n"])
@pytest.mark.parametrize("place", ["below", "above"])
def test_words_beside_an_untouched_stub_are_the_answer(place: str, stub: str | None) -> None:
    nb = unanswered()
    if stub is not None:
        cell(nb, "q_schedule").source = stub
    nb.cells.insert(at(nb, "q_schedule") + (place == "below"), note(WORDS))
    mended = repair(nb, released())
    assert mended.notes == [BESIDE]
    assert cell(mended.notebook, "q_schedule").source == WORDS
    assert len(mended.notebook.cells) == len(released().cells)
    again = repair(mended.notebook, released())
    assert again.notes == [] and again.notebook.cells == mended.notebook.cells


def test_words_in_several_cells_are_one_answer_with_its_pictures() -> None:
    nb = unanswered()
    picture = {"image/png": "iVBORw0KGgo="}
    where = at(nb, "q_schedule")
    nb.cells.insert(where + 1, note("Two", "two", attachments={"b.png": picture}))
    nb.cells.insert(where + 2, note("", "blank"))
    nb.cells.insert(where + 3, note("Three", "three"))
    nb.cells.insert(where, note("One", "one", attachments={"a.png": picture}))
    answer = cell(repair(nb, released()).notebook, "q_schedule")
    assert answer.source == "One\n\nTwo\n\nThree"
    assert answer.attachments == {"a.png": picture, "b.png": picture}


def test_a_written_answer_takes_no_cell_beside_it() -> None:
    nb = answered()
    nb.cells.insert(at(nb, "q_schedule") + 1, note("By the way"))
    mended = repair(nb, released())
    assert mended.notes == [] and mended.notebook.cells == nb.cells


def heading_edited(nb: NotebookNode) -> None:
    below = nb.cells[at(nb, "q_schedule") + 1]
    below.id, below.source = "new", below.source + "\n\nI read this."


def heading_replaced(nb: NotebookNode) -> None:
    """With the id that it had."""
    nb.cells[at(nb, "q_schedule") + 1].source = "Done with this one!"


def question_edited(nb: NotebookNode) -> None:
    above = nb.cells[at(nb, "q_schedule") - 1]
    above.id, above.source = "new", above.source.replace("Question", "My question")


def under_other_text(nb: NotebookNode) -> None:
    """The question is gone: what stands above the stub may be about anything."""
    nb.cells[at(nb, "q_schedule") - 1] = note("I have pruned for three hours.")


def code_between(nb: NotebookNode) -> None:
    nb.cells[at(nb, "q_schedule") + 1 : at(nb, "q_schedule") + 1] = [own("1 + 1"), note("Two", "two")]


def before_another_answer(nb: NotebookNode) -> None:
    nb.cells.insert(at(nb, "iterative_prune"), nb.cells.pop(at(nb, "q_schedule")))
    nb.cells.insert(at(nb, "iterative_prune"), note("Here I walk."))


@pytest.mark.parametrize(
    "change",
    [
        heading_edited,
        heading_replaced,
        question_edited,
        under_other_text,
        code_between,
        before_another_answer,
    ],
    ids=lambda change: change.__name__,
)
def test_other_text_beside_a_stub_is_no_answer(change: Change) -> None:
    nb = unanswered()
    change(nb)
    mended = repair(nb, released())
    assert BESIDE not in mended.notes
    assert cell(mended.notebook, "q_schedule").source == cell(released(), "q_schedule").source


# answers that are not where or what they should be
def as_type(nb: NotebookNode, name: str, kind: str, source: str | None = None) -> None:
    """As a key press in Jupyter does: the mark and the id stay."""
    old = cell(nb, name)
    given = {"id": old.id, "metadata": old.metadata, "source": old.source if source is None else source}
    more: dict[str, object] = {"outputs": [], "execution_count": None} if kind == "code" else {}
    nb.cells[at(nb, name)] = nbformat.from_dict({"cell_type": kind, **given, **more})


def merged(nb: NotebookNode, first: str, second: str, kept: str) -> None:
    """Two neighbours as one cell, with the mark and the type of one of them."""
    texts = [cell(nb, first).source, cell(nb, second).source]
    cell(nb, kept).source = "\n\n".join(texts)
    nb.cells.remove(cell(nb, second if kept == first else first))


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("kind", ["raw", "markdown"])
def test_code_in_a_text_cell_is_graded_as_code(kind: str, lost: bool) -> None:
    nb = answered()
    as_type(nb, "sparsity_at", kind)
    if lost:
        lose_marks_and_ids(nb)
    mended = repair(nb, released())
    assert cell(mended.notebook, "sparsity_at").cell_type == "code"
    assert cell(mended.notebook, "sparsity_at").source == RAMP
    assert mended.answers["sparsity_at"].state == "written"
    assert f"the answer sparsity_at stood in a {kind} cell" in mended.notes


@pytest.mark.parametrize("kind", ["raw", "code"])
def test_words_in_another_kind_of_cell_are_words(kind: str) -> None:
    nb = answered()
    as_type(nb, "q_schedule", kind)
    mended = repair(nb, released())
    assert cell(mended.notebook, "q_schedule").cell_type == "markdown"
    assert cell(mended.notebook, "q_schedule").source == WORDS
    assert mended.notes == [f"the answer q_schedule stood in a {kind} cell"]


@pytest.mark.parametrize("kept", ["sparsity_at", "test_sparsity_at"])
def test_an_answer_merged_with_its_test_is_taken_apart(kept: str) -> None:
    nb = answered()
    merged(nb, "sparsity_at", "test_sparsity_at", kept)
    mended = repair(nb, released())
    assert cell(mended.notebook, "sparsity_at").source == RAMP
    assert cell(mended.notebook, "test_sparsity_at").source == cell(released(), "test_sparsity_at").source
    assert "what was added to test_sparsity_at became a cell of its own" in mended.notes


def test_two_answers_in_one_cell_are_both_there() -> None:
    nb = answered()
    cell(nb, "sparsity_at").source += "\n\n\n" + WALK
    nb.cells.remove(cell(nb, "iterative_prune"))
    mended = repair(nb, released())
    for name in ("sparsity_at", "iterative_prune"):
        assert {"sparsity_at", "iterative_prune"} <= defined_names(cell(mended.notebook, name).source)
        assert mended.answers[name].state == "written"


@pytest.mark.parametrize("wrapped", ["Here it is:\n\n{}\n\nIt works.", "See:\n```python\n{}\n```\nGood?"])
@pytest.mark.parametrize("kind", ["raw", "markdown"])
def test_code_among_words_is_taken_out(kind: str, wrapped: str) -> None:
    nb = answered()
    as_type(nb, "sparsity_at", kind, wrapped.format(RAMP))
    mended = repair(nb, released())
    assert cell(mended.notebook, "sparsity_at").source == RAMP
    assert mended.answers["sparsity_at"].state == "written"


@pytest.mark.parametrize("place", [-1, 1])
def test_a_stub_put_back_never_overwrites_an_answer(place: int) -> None:
    nb = answered()
    cell(nb, "sparsity_at").metadata = nbformat.from_dict({})
    here = next(i for i, each in enumerate(nb.cells) if each.source == RAMP)
    nb.cells[here].id = "mine"
    stub = nbformat.from_dict(cell(released(), "sparsity_at"))
    nb.cells.insert(here + max(place, 0), stub)
    nb.cells.insert(at(nb, "test_sparsity_at"), own(stub.source, "another-stub"))
    mended = repair(nb, released())
    assert cell(mended.notebook, "sparsity_at").source == RAMP
    assert [each.source for each in mended.notebook.cells].count(stub.source) == 0


def test_an_answer_in_an_edited_experiment_brings_no_experiment_along() -> None:
    nb = released("01_percentile_pruning")
    experiment = next(each for each in nb.cells if each.id == "sweep")
    experiment.source = f"{RAMP.replace('sparsity_at', 'prune_by_percentage')}\n\n{experiment.source}\n1 + 1"
    mended = repair(nb, released("01_percentile_pruning"))
    assert cell(mended.notebook, "prune_by_percentage").source.startswith("def prune_by_percentage(epoch")
    assert "labkit.evaluate" not in cell(mended.notebook, "prune_by_percentage").source
    assert [each.id for each in mended.notebook.cells if "labkit.evaluate" in each.source].count("sweep") == 1


STUB = released().cells[at(released(), "sparsity_at")].source


@pytest.mark.parametrize(
    ("source", "state", "why"),
    [
        (STUB, "unanswered", ""),
        ("", "unanswered", ""),
        (STUB.replace("80.0", "50.0"), "unanswered", ""),
        (STUB + "\n    # I would sort them, but how?", "unclear", "words instead of code"),
        ("I did not find out how to do this.", "unclear", "words instead of code"),
        ("# I did not find out how to do this.", "unclear", "words instead of code"),
        ('"""I give up."""', "unclear", "words instead of code"),
        (RAMP.replace(":", "", 1), "broken", "a syntax error in line 1"),
        ("Epochs is not layers", "unclear", "words instead of code"),
        ("target * epoch / ramp_epochs", "broken", "does not define sparsity_at"),
        ("at = 80.0 * min(1, 2)", "broken", "does not define sparsity_at"),
        (RAMP.replace("sparsity_at", "sparsity"), "broken", "does not define sparsity_at"),
        (f"%%timeit -n1\n{RAMP}", "broken", "%%timeit in its first line"),
        (f"%%bash\n{RAMP}", "broken", "%%bash in its first line"),
        (
            STUB.replace("    raise", "    epoch = 2\n    raise"),
            "broken",
            "NotImplementedError is still in it",
        ),
        (f"%%time\n{RAMP}", "written", ""),
        (f"!mkdir out\nfiles = !ls\n{RAMP}", "written", ""),
        (f"{RAMP}\0", "written", ""),
        (f"{RAMP}\n    raise NotImplementedError", "written", ""),
        ("from helpers import sparsity_at", "written", ""),
        ("from helpers import *", "written", ""),
        ("sparsity_at = lambda epoch: 80.0", "written", ""),
        (f"if True:\n    {RAMP.replace(chr(10), chr(10) + '    ')}", "written", ""),
    ],
)
def test_what_an_answers_cell_holds(source: str, state: str, why: str) -> None:
    nb = answered()
    cell(nb, "sparsity_at").source = source
    answer = repair(nb, released()).answers["sparsity_at"]
    assert answer.state == state
    assert why in answer.why and bool(why) == bool(answer.why)


@pytest.mark.parametrize(
    ("kind", "source", "found"),
    [
        ("code", "epoch = 3\nprint(80.0 * epoch)", "something was written beside it"),
        ("markdown", "My idea: min(epoch, 10)", "something was written beside it"),
        ("raw", "def sparsity_at(epoch)\n    return", "a raw cell holds what may be its code"),
        ("code", "def sparsity_at(epoch)\n    return", "a code cell holds what may be its code"),
    ],
)
def test_what_is_beside_an_empty_answer_is_for_a_human(kind: str, source: str, found: str) -> None:
    nb = answered()
    cell(nb, "sparsity_at").source = STUB
    make = {"code": own, "markdown": note}.get(kind, nbformat.v4.new_raw_cell)
    nb.cells.insert(at(nb, "sparsity_at"), make(source))
    answer = repair(nb, released()).answers["sparsity_at"]
    assert (answer.state, answer.stub) == ("unclear", True)
    assert answer.why == f"its cell is empty, and {found}"


def test_a_misspelled_name_far_away_is_for_a_human() -> None:
    nb = answered()
    cell(nb, "sparsity_at").source = STUB
    nb.cells.append(own(RAMP.replace("sparsity_at", "sparsityAt")))
    answer = repair(nb, released()).answers["sparsity_at"]
    assert (answer.state, answer.why) == ("unclear", "its cell is empty, and another one defines sparsityAt")


def test_words_far_from_their_cell_are_for_a_human() -> None:
    for change in (lambda nb: nb.cells.insert(2, note(WORDS)), lambda nb: edit_text(nb, WORDS)):
        nb = unanswered()
        change(nb)
        answer = repair(nb, released()).answers["q_schedule"]
        assert answer.state == "unclear" and answer.why.startswith("its cell is empty")


def test_code_is_not_taken_for_words_by_where_it_stands() -> None:
    nb = answered()
    nb.cells[at(nb, "q_schedule")] = own("walk = None")
    mended = repair(nb, released())
    assert cell(mended.notebook, "q_schedule").source == cell(released(), "q_schedule").source
    assert "walk = None" in [each.source for each in mended.notebook.cells]


def edit_text(nb: NotebookNode, words: str) -> None:
    text = next(each for each in nb.cells if each.cell_type == "markdown" and "Your turn" in each.source)
    text.source = text.source.replace("Your turn", "My turn") + f" {words}"


# what mending costs
@pytest.mark.slow
def test_each_cell_is_parsed_a_few_times_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(parts: int) -> int:
        """Characters that are parsed while an answer in many parts is mended, and one that is nowhere."""
        nb = answered()
        cell(nb, "iterative_prune").source = cell(released(), "iterative_prune").source
        for n in range(parts):
            nb.cells.insert(at(nb, "sparsity_at") + 1, own("    x = 1", f"part-{n}"))
            nb.cells.append(own("def helper(): pass", f"own-{n}"))
        parsed.clear()
        repair(nb, released())
        return sum(parsed)

    parsed: list[int] = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda source: (parsed.append(len(source)), parse(source))[1])  # type: ignore[func-returns-value]
    assert work(400) < 2.2 * work(200)
    assert work(400) < 400 * 100 + 50_000


def test_an_answer_in_many_parts_is_said_to_be_split_once() -> None:
    nb = answered()
    for n in range(5):
        nb.cells.insert(at(nb, "sparsity_at") + 1, own("    x = 1", f"part-{n}"))
    mended = repair(nb, released())
    assert mended.notes == ["the answer sparsity_at was split: put together again"]
    assert cell(mended.notebook, "sparsity_at").source == RAMP + "\n    x = 1" * 5


def test_a_cell_of_endless_lines_is_not_compared_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    matcher = difflib.SequenceMatcher

    def counting(isjunk: None = None, a: Sequence[str] = "", b: Sequence[str] = "") -> object:
        compared.append(len(a))
        return matcher(isjunk, a, b)

    monkeypatch.setattr(difflib, "SequenceMatcher", counting)
    nb = released("04_global_pruning")
    experiments = [each.source for each in nb.cells if "experiment" in each.metadata.get("tags", [])]
    nb.cells.append(own("\n".join(experiments * 100)))
    nb.cells.append(own(experiments[0] + "\nprint(1)", "touched"))
    mended = repair(nb, released("04_global_pruning"))
    assert max(compared) < 1000
    tags = {each.id: each.metadata.get("tags") for each in mended.notebook.cells}
    assert (tags["own"], tags["touched"]) == (None, ["experiment"])


def test_a_cell_too_long_to_parse_defines_nothing() -> None:
    assert defined_names("def f(): pass\n" + "x\n" * 40_000) == {"f"}
    assert defined_names("def f(): pass\n" + "x\n" * 60_000) == set()


# files
def written(nb: NotebookNode) -> bytes:
    return nbformat.writes(nb).encode()


def as_format_3(nb: NotebookNode) -> bytes:
    return json.dumps(nbformat.convert(nb, 3)).encode()


def as_format(minor: int) -> Callable[[NotebookNode], bytes]:
    def change(nb: NotebookNode) -> bytes:
        content = json.loads(written(nb))
        content["nbformat_minor"] = minor
        for each in content["cells"]:
            each.pop("id", None)
        return json.dumps(content).encode()

    return change


def without_parts(nb: NotebookNode) -> bytes:
    content = json.loads(written(nb))
    for each in content["cells"]:
        for part in ("outputs", "execution_count"):
            each.pop(part, None)
    content.pop("nbformat")
    content["metadata"] = None
    content["cells"].insert(0, {"cell_type": "heading", "source": "x"})
    return json.dumps(content).encode()


def bad_outputs(nb: NotebookNode) -> bytes:
    content = json.loads(written(nb))
    content["cells"][3]["outputs"] = [{"output_type": "no such kind"}, 3]
    content["cells"][3]["execution_count"] = "four"
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "save",
    [
        written,
        lambda nb: b"\xef\xbb\xbf" + written(nb),
        lambda nb: written(nb).decode().encode("utf-16"),
        lambda nb: written(nb).replace(b"\n", b"\r\n").replace(b"\\n", b"\\r\\n"),
        as_format_3,
        *map(as_format, range(6)),
        without_parts,
        bad_outputs,
    ],
    ids=[
        "plain",
        "bom",
        "utf-16",
        "crlf",
        "format 3",
        *(f"format 4.{n}" for n in range(6)),
        "bare",
        "outputs",
    ],
)
def test_what_editors_leave_is_read(save: Callable[[NotebookNode], bytes]) -> None:
    nb, _ = read_notebook(save(answered()))
    nbformat.validate(nb)
    mended = repair(nb, released()).notebook
    assert cell(mended, "sparsity_at").source == RAMP
    assert cell(mended, "q_schedule").source == WORDS
    assert marks(mended) == marks(released())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b"this is no notebook", "it does not begin as one"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "it is no text"),
        (b"PK\x03\x04...", "it is a zip file"),
        (b'{"cells": [1, 2,]}', "a comma too many before line 1"),
        (b'{"cells": [],}', "a comma too many before line 1"),
        (b'{"cells": [{"cell_type": "code", "source": "x = ', "cut short"),
        (b'{"cells": [', "cut short"),
        (b'{"cells": [] "metadata": {}}', "its JSON is damaged at line 1, column 14"),
        (b"[1, 2]", "it is JSON, but not a notebook"),
        (b'{"cells": 3}', "its list of cells is damaged"),
        (b'{"cells": [], "nbformat": 7}', "notebook format 7, which is newer"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"worksheets": 3, "nbformat": 3}', "an old notebook format that cannot be converted"),
    ],
)
def test_what_cannot_be_read_is_told_with_a_reason(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read_notebook(data)


def test_a_notebook_that_was_cut_short_says_so() -> None:
    whole = written(answered())
    with pytest.raises(Unreadable, match="cut short"):
        read_notebook(whole[: len(whole) // 2])


# which file is which notebook
def folder_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


ALL = {name: released(name) for name in NAMES}


@pytest.mark.parametrize(
    "where",
    [
        "03_iterative_pruning (1).ipynb",
        "Copy of 03_iterative_pruning.ipynb",
        "03_iterative_pruning-Copy1.ipynb",
        "03_Iterative Pruning.ipynb",
        "81234_smith_03_iterative_pruning.ipynb",
        "homework.ipynb",
        "my work/03_iterative_pruning.ipynb",
    ],
)
def test_a_renamed_file_is_found(tmp_path: Path, where: str) -> None:
    intake = take_in(folder_of(tmp_path, {where: written(answered())}), ALL)
    assert list(intake.files) == ["03_iterative_pruning"]
    assert intake.notes["03_iterative_pruning"] == [f"was handed in as {where}"]


def test_a_file_without_marks_is_known_by_its_functions(tmp_path: Path) -> None:
    nb = answered()
    lose_marks_and_ids(nb)
    assert list(take_in(folder_of(tmp_path, {"a.ipynb": written(nb)}), ALL).files) == ["03_iterative_pruning"]


def test_zips_in_zips_are_opened_and_rubbish_is_not(tmp_path: Path) -> None:
    data = written(answered())
    inner = zipped(
        {"lab/03_iterative_pruning.ipynb": data, "__MACOSX/lab/._03_iterative_pruning.ipynb": b"x"}
    )
    folder_of(
        tmp_path, {"work.zip": zipped({"all.zip": inner, "notes.txt": b"x"}), "broken.zip": b"PK\x03\x04"}
    )
    intake = take_in(tmp_path, ALL)
    assert intake.files["03_iterative_pruning"].data == data
    assert intake.notes == {
        "03_iterative_pruning": ["was handed in as work.zip/all.zip/lab/03_iterative_pruning.ipynb"]
    }
    assert [note.partition(" (")[0] for note in intake.general] == [
        "broken.zip cannot be unpacked",
        "work.zip/notes.txt is a text, not a notebook, and was not graded",
    ]


def test_of_several_files_for_a_notebook_the_plainest_counts(tmp_path: Path) -> None:
    files = ["03_iterative_pruning.ipynb", "old/03_iterative_pruning.ipynb", "03_iterative_pruning (1).ipynb"]
    intake = take_in(folder_of(tmp_path, dict.fromkeys(files, written(answered()))), ALL)
    assert intake.files["03_iterative_pruning"].where == files[0]
    assert intake.notes["03_iterative_pruning"] == [
        "03_iterative_pruning (1).ipynb is another copy and was not graded",
        "old/03_iterative_pruning.ipynb is another copy and was not graded",
    ]


def test_links_and_foreign_notebooks_are_left_alone(tmp_path: Path) -> None:
    secret = folder_of(tmp_path / "other", {"03_iterative_pruning.ipynb": written(answered())})
    folder = folder_of(tmp_path / "mine", {"cats.ipynb": written(nbformat.v4.new_notebook(cells=[own("1")]))})
    (folder / "03_iterative_pruning.ipynb").symlink_to(secret / "03_iterative_pruning.ipynb")
    (folder / "all").symlink_to(secret)
    intake = take_in(folder, ALL)
    assert intake.files == {}
    assert intake.general == [
        "03_iterative_pruning.ipynb is a link and was not opened",
        "all is a link and was not opened",
        "cats.ipynb is none of the notebooks",
    ]
    # and each may hold what is missing, the notebook under another name too
    assert intake.account.why_not_missing("03_iterative_pruning") == intake.general


def test_a_zip_that_swells_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.grading.opening.MOST_BYTES", 2**20)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("03_iterative_pruning.ipynb", b" " * 2**22)
    intake = take_in(folder_of(tmp_path, {"w.zip": bomb.getvalue()}), ALL)
    assert intake.files == {}
    assert intake.general == ["w.zip/03_iterative_pruning.ipynb is larger than 1 MB and was not opened"]


def test_an_optional_notebook_is_neither_missed_nor_told_of(tmp_path: Path) -> None:
    optional = {"08_in_the_libraries.ipynb": written(ALL["08_in_the_libraries"])}
    handed_in = {"03_iterative_pruning.ipynb": written(answered())}
    for files in (handed_in, {**handed_in, **optional}):
        submission = read_submission("ada", folder_of(tmp_path, files), ALL)
        assert list(submission.notebooks) == ["03_iterative_pruning"]
        assert submission.missing == [name for name in ALL if name[:2] not in ("03", "08")]
        assert submission.general == []
