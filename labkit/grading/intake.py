"""Which of the files that a student handed in is which notebook, wherever it is and whatever it is called.

Learning platforms and students rename files, put them into folders, and zip folders that hold zips; answers
arrive in a new notebook, or as a script. What becomes of each file is written into one account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from nbformat import NotebookNode

from labkit.grading.accounting import Account
from labkit.grading.copies import Copy, choose, fill_in, is_answer, is_written, may_be_answered
from labkit.grading.files import CHECKPOINTS, Found, printable
from labkit.grading.kinds import by_name, is_told, is_usable, is_usual
from labkit.grading.opening import OURS, File, Opening
from labkit.grading.reading import Unreadable, read_notebook
from labkit.grading.repair import defined_names, grade_id_of
from labkit.notebooks import called

# how sure it is which notebook a file is: by its exact name, a changed name, its content; by an answer in it
EXACT, RENAMED, BY_CONTENT, BY_ANSWER, AUTOSAVED = range(5)
MOST_MODULE = 2**20  # bytes of a script that is read
A_NOTEBOOK = re.compile(rb'"(cells|nbformat)"\s*:')
# an archive with the notebooks in it, such as `labkit submit` makes, needs no mending
IN_PLACE = re.compile(r"([^/]+\.(zip|tar|tgz|tar\.\w+)/)?")
WHAT = {
    "document": "is a document, not a notebook: ask for the .ipynb",
    "words": "is a text, not a notebook, and was not graded",
    "data": "is not a notebook, and was not graded",
}


@dataclass
class Intake:
    """What was found: the copy of each notebook that is graded, and what became of every file.

    beside: what the notebooks' cells may import or read, by its place: modules, data, notebooks of helpers.
    """

    account: Account = field(default_factory=Account)
    chosen: dict[str, Copy] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, File]:
        """The file of each notebook."""
        return {name: copy.file for name, copy in self.chosen.items()}

    @property
    def general(self) -> list[str]:
        """What is to be said about files that are no one notebook's."""
        return self.account.lines()


def take_in(folder: Path, released: Mapping[str, NotebookNode]) -> Intake:
    """Find the notebooks of `released` among everything under `folder`."""
    return _Sorting(released).result(folder)


def matters(file: Found) -> bool:
    """Whether what is in a file can change how a submission is graded."""
    return not is_told(file.where) or is_usable(file.where) or file.where in OURS


@dataclass(eq=False)
class _Paper:
    """A notebook or a script: what is asked of it before one knows which notebook it is, if any."""

    file: File

    @cached_property
    def _seen(self) -> tuple[frozenset[str], dict[str, str], str]:
        if self.file.kind == "script":
            return frozenset(), _defines([_text(self.file)]), ""
        try:
            nb, _ = read_notebook(self.file.data)
        except Unreadable as why:
            return frozenset(), {}, str(why)
        marks = frozenset(name for cell in nb.cells if (name := grade_id_of(cell)) is not None)
        return marks, _defines([cell.source for cell in nb.cells if cell.cell_type == "code"]), ""

    @property
    def marks(self) -> frozenset[str]:
        return self._seen[0]

    @property
    def defines(self) -> dict[str, str]:
        """Each function and class, and the cell that defines it."""
        return self._seen[1]

    @property
    def why(self) -> str:
        """Why it cannot be read as a notebook; empty if it can."""
        return self._seen[2]


class _Sorting:
    def __init__(self, released: Mapping[str, NotebookNode]) -> None:
        self._released = released
        self._asked = {name: _Asked.of(nb) for name, nb in released.items()}
        self._graded = frozenset(name for name, nb in released.items() if is_graded(nb))
        self._copies: dict[str, list[Copy]] = {}
        self._papers: list[_Paper] = []
        self._others: list[File] = []
        self._intake = Intake()

    def result(self, folder: Path) -> Intake:
        for file in Opening(self._intake.account, self._graded).files(folder):
            self._sort(file)
        for name in sorted(self._graded):
            if not may_be_answered(self._copies.get(name, [])):
                self._look_for_answers(name)
        used = {name: self._chosen(name, copies) for name, copies in self._copies.items()}
        self._account_for(used)
        for name, notes in self._intake.notes.items():
            notes += self._intake.account.lines(name)
        return self._intake

    def _sort(self, file: File) -> None:
        paper, is_named = _Paper(file), by_name(file.where) == "notebook"
        if file.kind != "script":
            name = self._called(file.where)
            if file.kind != "notebook":
                self._others.append(file)
                return
            if not is_named and paper.why and not A_NOTEBOOK.search(file.data):
                self._others.append(_plain(file))  # JSON, or a text that begins with a bracket
                return
            if name is not None and (is_named or not paper.why):
                self._add(name, file, _how(name, file.where))
            elif name is None and not paper.why:
                for name in self._by_content(paper):
                    self._add(name, file, BY_CONTENT)
        self._papers.append(paper)

    def _add(self, name: str, file: File, how: int) -> None:
        self._copies.setdefault(name, []).append(Copy(file, self._released[name], how))

    def _called(self, where: str) -> str | None:
        return called(_stem(where), self._released)

    def _by_content(self, paper: _Paper) -> list[str]:
        """The notebook whose cells, or whose answers' functions, the file shares most; none if unclear."""
        scores = {name: asked.shared(paper) for name, asked in self._asked.items()}
        best = max(scores.values(), default=0)
        winners = [name for name, score in scores.items() if score == best and best]
        return winners if len(winners) == 1 else []

    def _look_for_answers(self, name: str) -> None:
        """Add the files that hold a notebook's answers, though they are no copies of it."""
        taken = {copy.file for copy in self._copies.get(name, [])}
        for paper in self._papers:
            if paper.file.kind == "notebook" and paper.file not in taken and self._answered_in(paper, name):
                self._add(name, paper.file, BY_ANSWER)

    def _answered_in(self, paper: _Paper, name: str) -> bool:
        """Whether a file defines a function that this notebook asks for, and no other one."""
        others = {one for other, asked in self._asked.items() if other != name for one in asked.functions}
        return any(
            is_written(paper.defines[one], stub)
            for one, stub in self._asked[name].functions.items()
            if one in paper.defines and one not in others
        )

    def _chosen(self, name: str, copies: list[Copy]) -> list[Copy]:
        """The copies of a notebook that are graded: the chosen one, and those that have what it lacks."""
        chosen, others = choose(copies)
        used = fill_in(chosen, others)
        self._intake.chosen[name] = chosen
        notes = self._intake.notes.setdefault(name, [])
        where = chosen.file.where
        if IN_PLACE.fullmatch(where.removesuffix(f"{name}.ipynb")) is None:
            autosaved = ", which Jupyter saved by itself" if chosen.how == AUTOSAVED else ""
            notes.append(f"was handed in as {printable(where)}{autosaved}")
        return [chosen, *used]

    def _account_for(self, used: Mapping[str, list[Copy]]) -> None:
        account = self._intake.account
        unsure = frozenset(name for name in self._graded if name not in used or used[name][0].emptiness == 2)
        alone = not self._graded & used.keys()  # nothing else can be graded
        for paper in self._papers:
            where = paper.file.where
            names = [name for name, copies in used.items() if any(one.file is paper.file for one in copies)]
            if names and paper.why:
                account.name(where, f"cannot be read ({printable(paper.why)})", names, names[0])
            elif self._graded.intersection(names):
                account.grade(where, names)
            elif names:  # a notebook in which nothing is graded
                account.keep(where)
            elif paper.file.kind == "script":
                self._settle_script(paper, unsure, alone)
            else:
                self._settle_notebook(paper, unsure)
        for file in self._others:
            self._settle_other(file, unsure, alone)

    def _settle_notebook(self, paper: _Paper, unsure: frozenset[str]) -> None:
        """A notebook of which nothing was graded."""
        file, account = paper.file, self._intake.account
        of = next((name for name, copies in self._copies.items() if file in [one.file for one in copies]), "")
        if of and _how(of, file.where) == AUTOSAVED:
            account.keep(file.where)
        elif of and (self._called(file.where) == of or paper.marks & self._asked[of].marks):
            account.name(file.where, "is another copy and was not graded", notebook=of)
        elif not file.data.strip():  # no notebook can be in it
            account.name(file.where, "is empty")
        elif paper.why:
            account.name(file.where, f"cannot be read ({printable(paper.why)})", self._graded)
        elif of:
            defines = ", ".join(sorted(self._asked[of].functions.keys() & paper.defines.keys()))
            account.name(file.where, f"is none of the notebooks and was not graded: it defines {defines}")
        else:
            account.name(file.where, "is none of the notebooks", unsure)
        if not paper.why and not paper.marks:  # it may be a notebook of helpers
            self._intake.beside[file.where] = file.data

    def _settle_script(self, paper: _Paper, unsure: frozenset[str], alone: bool) -> None:
        """A module of the student's own is kept; a notebook's export, if that is all there is, is named."""
        where = paper.file.where
        holds = {name for name in unsure if self._asked[name].functions.keys() & paper.defines.keys()}
        holds |= unsure if alone else unsure & {self._called(where)}
        if holds:
            self._intake.account.name(where, "is a Python script, not a notebook: ask for the .ipynb", holds)
        else:
            self._intake.account.keep(where)
        self._intake.beside[where] = paper.file.data

    def _settle_other(self, file: File, unsure: frozenset[str], alone: bool) -> None:
        """A document, words, a picture, data: none of them can be graded, and some may hold answers."""
        account, name = self._intake.account, self._called(file.where)
        holds = unsure if alone or (name is None and file.kind == "document") else unsure & {name}
        if holds or not (file.kind == "data" or is_usual(file.where)):
            account.name(file.where, WHAT.get(file.kind, WHAT["data"]), holds)
        else:
            account.keep(file.where)
        if file.data and is_usable(file.where):
            self._intake.beside[file.where] = file.data


@dataclass(frozen=True)
class _Asked:
    """What a notebook asks for. functions: those that students write, with their stubs."""

    marks: frozenset[str]
    functions: Mapping[str, str]

    @staticmethod
    def of(nb: NotebookNode) -> _Asked:
        marked = {name: cell for cell in nb.cells if (name := grade_id_of(cell)) is not None}
        answers = {name: cell for name, cell in marked.items() if is_answer(cell)}
        functions = {
            one: cell.source
            for cell in answers.values()
            if cell.cell_type == "code"
            for one in defined_names(cell.source)
        }
        return _Asked(frozenset(marked), functions)

    def shared(self, paper: _Paper) -> int:
        return len(self.marks & paper.marks) + len(self.functions.keys() & paper.defines.keys())


def is_graded(nb: NotebookNode) -> bool:
    """Whether anything is graded in a notebook of the release."""
    return any(cell.metadata.get("nbgrader", {}).get("grade") for cell in nb.cells)


def _how(name: str, where: str) -> int:
    path = PurePosixPath(where)
    if CHECKPOINTS in path.parts:
        return AUTOSAVED
    return EXACT if path.name == f"{name}.ipynb" else RENAMED


def _defines(cells: list[str]) -> dict[str, str]:
    return {name: source for source in cells for name in defined_names(source)}


def _text(file: File) -> str:
    return file.data[:MOST_MODULE].decode("utf-8-sig", "replace")


def _plain(file: File) -> File:
    """A file that begins like a notebook and is none, as what its name says."""
    kind = by_name(file.where)
    return replace(file, kind="data" if kind == "unknown" else kind)


def _stem(where: str) -> str:
    """A file's name without its endings: `01` of `01.ipynb.txt`; without the dot of `.01.ipynb.icloud`."""
    path = PurePosixPath(where)
    while path.suffix[1:].isalpha():
        path = path.with_suffix("")
    return path.name.lstrip(".")
