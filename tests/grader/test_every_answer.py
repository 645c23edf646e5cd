"""The second law of accounting: every answer is graded by a run of its own code, or a human is asked.

Notebooks of the lab, answered and then damaged at random as Jupyter and people damage them. No kernel: the
cells that would be run are executed here, where each answer is a function that only carries its mark.
"""

from __future__ import annotations

import json
import random
import types
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.answers import answers_in
from labkit.cells import python
from labkit.grading.asked import answers_tested, with_questions
from labkit.grading.reading import read_notebook
from labkit.grading.repair import Mended, grade_id_of, repair
from labkit.grading.submission import Assignment, Submission, cells_of, marked_by_hand
from labkit.grading.verdicts import Cell, Graded, Verdict, VerdictKind
from tests.conftest import REPOSITORY

COURSE = REPOSITORY / "notebooks"
ASSIGNMENT = Assignment.read(COURSE / "release" / "compression", COURSE / "source" / "compression")
NAMES = [name for name in ASSIGNMENT.source if name != "00_baseline"]
SEEDS, CHUNK = 240, 40
Notebook = dict[str, Any]
JsonCell = dict[str, Any]
Damage = Callable[[random.Random, Notebook], None]


def mark(name: str) -> str:
    return f"This is what the student wrote for {name}."


def code_for(name: str, stub: str) -> str:
    """An answer that defines what the stub does, and does nothing but carry its mark."""
    head = stub.splitlines()[0]
    if not head.startswith("class"):
        return f'{head}\n    """{mark(name)}"""\n    half = 1 / 2\n\n    return half'
    method = "    @staticmethod\n    def {}(ctx, *given):\n        return given"
    methods = "\n\n".join(method.format(one) for one in ("forward", "backward"))
    return f'{head}\n    """{mark(name)}"""\n\n{methods}'


def answered(name: str) -> Notebook:
    nb: Notebook = json.loads(nbformat.writes(ASSIGNMENT.released[name]))
    for cell in nb["cells"]:
        cell["source"] = "".join(cell["source"])
        marks = cell["metadata"].get("nbgrader", {})
        if marks.get("solution"):
            name = marks["grade_id"]
            is_code = cell["cell_type"] == "code"
            cell["source"] = code_for(name, cell["source"]) if is_code else mark(name)
    return nb


# ---- damages


def answers_of(nb: Notebook) -> list[JsonCell]:
    marked = (cell for cell in nb["cells"] if cell["metadata"].get("nbgrader", {}).get("solution"))
    return list(marked) or nb["cells"]


def change_type(rng: random.Random, nb: Notebook) -> None:
    cell = rng.choice(answers_of(nb))
    retype(cell, rng.choice([kind for kind in ("code", "markdown", "raw") if kind != cell["cell_type"]]))


def retype(cell: JsonCell, kind: str) -> None:
    cell["cell_type"] = kind
    for part in ("outputs", "execution_count"):
        cell.pop(part, None)
    if kind == "code":
        cell.update(outputs=[], execution_count=None)


def merge(rng: random.Random, nb: Notebook) -> None:
    """As Jupyter: texts below each other, marks and type of the upper or of the selected one."""
    at = nb["cells"].index(rng.choice(answers_of(nb)))
    upper = max(0, min(at - rng.randrange(2), len(nb["cells"]) - 2))
    first, second = nb["cells"][upper : upper + 2]
    kept = deepcopy(rng.choice([first, second]))
    kept["source"] = first["source"] + rng.choice(["\n\n", "\n"]) + second["source"]
    nb["cells"][upper : upper + 2] = [kept]


def split(rng: random.Random, nb: Notebook) -> None:
    cell = rng.choice(answers_of(nb))
    lines = cell["source"].split("\n")
    if len(lines) > 1:
        at = rng.randrange(1, len(lines))
        rest = deepcopy(cell) | {"id": f"rest-{rng.random()}"[:20].replace(".", "-")}
        if rng.random() < 0.5:
            rest["metadata"] = {}
        cell["source"], rest["source"] = "\n".join(lines[:at]), "\n".join(lines[at:])
        nb["cells"].insert(nb["cells"].index(cell) + 1, rest)


def move(rng: random.Random, nb: Notebook) -> None:
    cell = rng.choice(answers_of(nb) if rng.random() < 0.7 else nb["cells"])
    nb["cells"].remove(cell)
    nb["cells"].insert(rng.randrange(len(nb["cells"]) + 1), cell)


def copy(rng: random.Random, nb: Notebook) -> None:
    cell = deepcopy(rng.choice(answers_of(nb)))
    if rng.random() < 0.5:
        cell["metadata"] = {}
    nb["cells"].insert(rng.randrange(len(nb["cells"]) + 1), cell)


def put_stub_back(rng: random.Random, nb: Notebook) -> None:
    """Below or above the answer, with the mark; the answer keeps it or not."""
    cell = rng.choice(answers_of(nb))
    stub = next((one for one in released_cells() if same_mark(one, cell)), None)
    if stub is not None:
        if rng.random() < 0.7:
            cell["metadata"] = {}
        nb["cells"].insert(nb["cells"].index(cell) + rng.randrange(2), deepcopy(stub))


def released_cells() -> Iterator[JsonCell]:
    for nb in ASSIGNMENT.released.values():
        yield from json.loads(nbformat.writes(nb, split_lines=False))["cells"]


def same_mark(one: JsonCell, other: JsonCell) -> bool:
    marks = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in (one, other)]
    return marks[0] is not None and marks[0] == marks[1]


def type_words(rng: random.Random, nb: Notebook) -> None:
    words = rng.choice(
        ["I think this is right, see above.", "# it works now", "Note: checked twice", "    (see 01)"]
    )
    cell = rng.choice(answers_of(nb))
    lines = cell["source"].split("\n")
    lines.insert(rng.choice([0, len(lines)]), words)
    cell["source"] = "\n".join(lines)


def lose_marks(rng: random.Random, nb: Notebook) -> None:
    cells = nb["cells"] if rng.random() < 0.5 else [rng.choice(nb["cells"])]
    for cell in cells:
        cell["metadata"] = {}
    if rng.random() < 0.5:
        for number, cell in enumerate(nb["cells"]):
            cell["id"] = f"new-{number}"


def paste_elsewhere(rng: random.Random, nb: Notebook) -> None:
    """The answer is written into another cell, the stub stays in its own."""
    cell = rng.choice(answers_of(nb))
    stub = next((one for one in released_cells() if same_mark(one, cell)), None)
    other = rng.choice([one for one in nb["cells"] if one is not cell])
    if stub is not None and other["cell_type"] == cell["cell_type"]:
        pair = [other["source"], cell["source"]]
        other["source"] = rng.choice(["\n", "\n\n"]).join(pair if rng.random() < 0.5 else pair[::-1])
        cell["source"] = stub["source"]


def add_magic(rng: random.Random, nb: Notebook) -> None:
    cell = rng.choice(answers_of(nb))
    if cell["cell_type"] == "code":
        cell["source"] = (
            rng.choice(["%%time\n", "%%timeit -n1\n", "!mkdir out\n", "files = !ls\n"]) + cell["source"]
        )


def delete_trusted(rng: random.Random, nb: Notebook) -> None:
    trusted = [cell for cell in nb["cells"] if cell["metadata"].get("nbgrader", {}).get("locked")]
    if trusted:
        nb["cells"].remove(rng.choice(trusted))


DAMAGES: tuple[Damage, ...] = (
    change_type, merge, split, move, copy, put_stub_back, type_words, lose_marks, paste_elsewhere, add_magic,
    delete_trusted,
)  # fmt: skip


HARMLESS = (change_type, merge, move, copy, put_stub_back, lose_marks, paste_elsewhere, delete_trusted)


# ---- what becomes of them


@dataclass(frozen=True)
class Outcome:
    name: str
    nb: Notebook
    mended: Mended
    graded: Graded

    def is_accounted_for(self, answer: str) -> bool:
        """Whether the student's own code was there when its tests ran, or a human is asked."""
        known = next(cell for cell in ASSIGNMENT.released[self.name].cells if grade_id_of(cell) == answer)
        if known.cell_type != "code":
            cells = self.mended.notebook.cells
            (source,) = [cell.source for cell in cells if grade_id_of(cell) == answer]
            is_there = any(mark(answer) in cell.source for cell in cells)
            asked = any(one.cell == answer and one.asks for one in self.graded.verdicts)
            return is_there and (source.strip() != known.source.strip() or asked)
        tests = [one for one in self.graded.verdicts if one.printed == answer]
        return bool(tests) and all(one.kind == "passed" or one.asks for one in tests)


def outcome(name: str, nb: Notebook) -> Outcome:
    read, _ = read_notebook(json.dumps(nb).encode())
    mended = repair(read, ASSIGNMENT.released[name])
    submission = Submission("ada", {name: mended.notebook}, {name: mended.answers})
    cells = cells_of(name, submission, ASSIGNMENT)
    by_hand = marked_by_hand(ASSIGNMENT.source[name])
    return Outcome(name, nb, mended, with_questions(ran(name, cells, mended), mended.answers, cells, by_hand))


def ran(name: str, cells: tuple[Cell, ...], mended: Mended) -> Graded:
    """What the tests come to: passed where the student's function is there. printed: the answer tested."""
    fake = types.SimpleNamespace(autograd=types.SimpleNamespace(Function=object))
    names: dict[str, Any] = {"torch": fake}
    verdicts = []
    for cell in cells:
        if cell.kind in ("answer", "own"):
            try:
                exec(compile(python(cell.source), cell.id, "exec"), names)
            except Exception as error:
                assert error is not None  # as in Jupyter: the next cell runs all the same
        if cell.kind == "test":
            (tested,) = answers_tested(cell, cells, mended.answers)
            thing = names.get(tested.names[0])
            mine = getattr(thing, "__doc__", None) == mark(tested.name)
            kind: VerdictKind = "passed" if mine else "not answered"
            sentence = "" if thing is not None else f"{tested.names[0]} is not defined: its cell failed."
            points = cell.points if mine else 0.0
            verdicts.append(
                Verdict(cell.grade_id or "", kind, points, cell.points, sentence, printed=tested.name)
            )
    return Graded(name, tuple(verdicts), {})


def damaged(seed: int, damages: Sequence[Damage] = DAMAGES) -> tuple[str, Notebook, list[str]]:
    rng = random.Random(seed)
    name = rng.choice(NAMES)
    nb, done = answered(name), []
    for damage in rng.choices(damages, k=rng.choice([1, 1, 2, 3])):
        damage(rng, nb)
        done.append(damage.__name__)
    return name, nb, done


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_answer_is_graded_by_its_own_code_or_a_human_is_asked(first: int) -> None:
    for seed in range(first, first + CHUNK):
        name, nb, done = damaged(seed)
        came, case = outcome(name, nb), f"seed {seed}: {name} after {', '.join(done)}"
        lost = [answer for answer in came.mended.answers if not came.is_accounted_for(answer)]
        assert not lost, f"{case}: nobody looks at {lost}"
        assert answers_in(name, nb["cells"]) == list(came.mended.answers.values()), (
            f"{case}: labkit submit judges otherwise"
        )


def test_code_that_is_whole_is_run_wherever_it_is() -> None:
    for seed in range(CHUNK):
        name, nb, done = damaged(seed, HARMLESS)
        tests = [one for one in outcome(name, nb).graded.verdicts if one.printed]
        assert {one.kind for one in tests} == {"passed"}, f"seed {seed}: {name} after {', '.join(done)}"


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_damaged_is_graded(name: str) -> None:
    came = outcome(name, answered(name))
    assert {one.kind for one in came.graded.verdicts} == {"passed"}
    assert {one.state for one in came.mended.answers.values()} == {"written"}
    assert came.mended.notes == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_written_is_a_zero_that_nobody_is_asked_about(name: str) -> None:
    nb = json.loads(nbformat.writes(ASSIGNMENT.released[name]))
    came = outcome(name, nb)
    assert {(one.kind, one.points, one.asks) for one in came.graded.verdicts} == {("not answered", 0.0, "")}
    assert {one.state for one in came.mended.answers.values()} == {"unanswered"}
