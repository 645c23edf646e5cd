"""The first law of accounting: a file is graded, kept beside a notebook, or named with the reason.

Hand-ins are made at random of what students' files go through on their way. The maker knows every file that
it has put somewhere, and where it has put which answers.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.grading.collect import collect
from labkit.grading.intake import take_in
from labkit.grading.repair import grade_id_of
from labkit.grading.submission import read_submission
from tests.grader.test_repair import ALL, NAMES, released

GRADED = [name for name in NAMES if name[:2] != "08"]
WORDS = "My own answer, which nobody else would write like this."


def solved(name: str) -> bytes:
    """A notebook with each answer written: code that is only a marker, and words."""
    nb = released(name)
    for cell in nb.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            stub = cell.source
            cell.source = f"{stub}\n# {WORDS}" if cell.cell_type == "code" else WORDS
    return nbformat.writes(nb).encode()


SOLVED = {name: solved(name) for name in GRADED}
STUBS = {name: nbformat.writes(released(name)).encode() for name in GRADED}


@dataclass
class HandIn:
    """What is to be written: files by place. leaves: every file that nothing can be unpacked from."""

    files: dict[str, bytes] = field(default_factory=dict)
    leaves: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)  # notebooks whose answers are somewhere in it


def as_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def as_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


PACKED: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "work.zip": as_zip,
    "work.ZIP": as_zip,
    "work.ipynb": as_zip,
    "download": as_zip,
    "work.tar": as_tar,
    "work.tar.gz": lambda files: gzip.compress(as_tar(files)),
    "work.tgz": lambda files: gzip.compress(as_tar(files)),
    "work.tar.bz2": lambda files: bz2.compress(as_tar(files)),
    "work.tar.xz": lambda files: lzma.compress(as_tar(files)),
}
ALONE: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
NAMED: list[Callable[[str], str]] = [
    "{}.ipynb".format, "{}.ipynb.txt".format, "{}.ipynb.json".format, "{}.json".format, "{}.txt".format,
    "{} (1).ipynb".format, "Copy of {}.ipynb".format, "{}.IPYNB".format, "ada_{}-2.ipynb".format, "{}".format,
    "deep/er/{}.ipynb".format, ".ipynb_checkpoints/{}-checkpoint.ipynb".format, "{}.ipynb.download".format,
]  # fmt: skip
NEW_NAMES = ["Untitled.ipynb", "homework.ipynb", "final/final.json", "hw"]
CONFLICT = b"<<<<<<< HEAD\n{}\n=======\n[]\n>>>>>>> theirs\n"
RAR, SEVEN_ZIP = b"Rar!\x1a\x07\x01\x00x", b"7z\xbc\xaf\x27\x1cx"
SCRATCH = {"cells": [{"cell_type": "code", "source": "def of_my_own(): return 1"}]}
# how an answer arrives that cannot be run, and the file that holds it
LOST: list[tuple[str, bytes]] = [
    ("{}.py", b"# coding: utf-8\nprint('an export')\n"), ("{}.html", b"<!DOCTYPE html><html>"),
    ("{}.pdf", b"%PDF-1.7"), ("{}.docx", as_zip({"word/document.xml": b"<w/>"})), ("{}.rar", RAR),
    ("{}.7z", SEVEN_ZIP), ("{}.ipynb", b"version https://git-lfs.github.com/spec/v1\n"), ("{}.txt", b"words"),
    ("{}.ipynb", b"<html>Sign in</html>"), ("{}.ipynb", CONFLICT), ("{}.ipynb", b'{"cells": ['),
    ("{}.ipynb", b""), ("{}.tar.gz", b"\x1f\x8bdamaged"), ("{}.zip", b"PK\x03\x04damaged"),
    ("{}.png", b"\x89PNG"), ("work.rar", RAR), ("lab.7z", SEVEN_ZIP), ("lab.pdf", b"%PDF-1.7"),
    ("lab.docx", b"PK\x03\x04"), ("draft.ipynb", b'{"cells": [{"source": "def f'),
    ("scratch.ipynb", json.dumps(SCRATCH).encode()),
]  # fmt: skip
BESIDE: list[tuple[str, bytes]] = [
    ("helpers.py", b"def helper():\n    return 1\n"), ("pkg/__init__.py", b""), ("plot.png", b"\x89PNG"),
    ("data/numbers.csv", b"1,2\n"), ("net.pt", b"PK\x03\x04xx"), ("runs/one.json", b'{"loss": 1}'),
    ("README.md", b"# Mine"), ("notes.txt", b"remember"), ("receipt.json", b"{}"), ("Makefile", b"all:\n"),
    ("essay.pdf", b"%PDF-1.7"), ("empty.ipynb", b""), ("list.json", b"[1, 2]"), ("setup.cfg", b"[a]\n"),
]  # fmt: skip


def hand_in(seed: int) -> HandIn:
    """Some of the notebooks, each damaged in one of these ways, and other files beside them."""
    chance, made = random.Random(seed), HandIn()
    loose: dict[str, bytes] = {}
    for name in chance.sample(GRADED, chance.randint(0, 4)):
        how = chance.choice(["named", "named", "new name", "alone", "lost", "stub too", "twice"])
        if how == "lost":
            where, data = chance.choice(LOST)
            loose[where.format(name)] = data
        elif how == "new name" and (fresh := chance.choice(NEW_NAMES)) not in loose:
            loose[fresh] = SOLVED[name]
        elif how == "alone":
            suffix = chance.choice(list(ALONE))
            loose[f"{name}.ipynb{suffix}"] = ALONE[suffix](SOLVED[name])
        else:
            loose[chance.choice(NAMED)(name)] = SOLVED[name]
            if how == "stub too":
                loose.setdefault(f"stubs/{name}.ipynb", STUBS[name])
            if how == "twice":
                loose.setdefault(f"old/{name}.ipynb", SOLVED[name])
        made.answered.add(name)
    loose |= dict(chance.sample(BESIDE, chance.randint(0, 4)))
    while loose:
        part = {name: loose.pop(name) for name in chance.sample(sorted(loose), chance.randint(1, len(loose)))}
        put(made, part, chance)
    return made


def put(made: HandIn, files: dict[str, bytes], chance: random.Random) -> None:
    """Leave these files as they are, or put them into an archive, or into an archive in an archive."""
    alone = tuple(f".ipynb{suffix}" for suffix in ALONE)
    leaves = [f"{name}/{Path(name).stem}" if name.endswith(alone) else name for name in files]
    for _ in range(chance.choice([0, 0, 1, 2])):
        kind = chance.choice(list(PACKED))
        name = f"{len(made.files)}-{kind}"
        files = {name: PACKED[kind](files)}
        leaves = [f"{name}/{leaf}" for leaf in leaves]
    made.files |= files
    made.leaves += leaves


def write(made: HandIn, folder: Path) -> Path:
    for name, data in made.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("seed", range(60))
def test_every_file_comes_to_exactly_one_end(tmp_path: Path, seed: int) -> None:
    made = hand_in(seed)
    account = take_in(write(made, tmp_path), ALL).account
    assert Counter(fate.where for fate in account.fates) == Counter(made.leaves)
    said = {*account.lines(), *(line for name in NAMES for line in account.lines(name))}
    for fate in account.fates:
        assert bool(fate.why) == (fate.end == "named")
        if fate.end == "named":  # among the files, with the notebook, or as the reason why that is not graded
            assert str(fate) in said or any(
                str(fate) in account.why_not_missing(name) for name in fate.notebooks
            )


@pytest.mark.parametrize("seed", range(60))
def test_no_answer_that_was_handed_in_is_a_silent_zero(tmp_path: Path, seed: int) -> None:
    made = hand_in(seed)
    submission = read_submission("ada", write(made, tmp_path), ALL)
    ends = [*submission.notebooks, *submission.not_graded, *submission.missing]
    assert sorted(ends) == GRADED
    for name in made.answered:
        assert name not in submission.missing
        if name in submission.notebooks:
            answers = [
                cell for cell in submission.notebooks[name].cells if grade_id_of(cell) in answers_of(name)
            ]
            assert all(WORDS in cell.source for cell in answers)


def by_name(value: object) -> str:
    """The id of a test: a file's name, not its bytes, in which a zip says when it was made."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("beside", [[], GRADED[2:3]], ids=["alone", "beside another notebook"])
@pytest.mark.parametrize(("where", "data"), LOST, ids=by_name)
def test_answers_that_cannot_be_run_wait_for_a_human(
    tmp_path: Path, where: str, data: bytes, beside: list[str]
) -> None:
    made = HandIn({f"{name}.ipynb": SOLVED[name] for name in beside} | {where.format(GRADED[1]): data})
    submission = read_submission("ada", write(made, tmp_path), ALL)
    assert list(submission.notebooks) == beside
    assert GRADED[1] in submission.not_graded
    assert where.format(GRADED[1]) in f"{submission.general} {submission.files}"


@pytest.mark.parametrize(("where", "data"), [one for one in BESIDE if one[0] != "empty.ipynb"], ids=by_name)
def test_whoever_hands_in_no_notebook_is_looked_at(tmp_path: Path, where: str, data: bytes) -> None:
    submission = read_submission("ada", write(HandIn({where: data}), tmp_path), ALL)
    assert list(submission.not_graded) == GRADED
    (line,) = submission.general
    assert line.startswith(f"{where} is ")


def answers_of(name: str) -> set[str | None]:
    return {
        grade_id_of(cell)
        for cell in released(name).cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "place", ["{who}_{id}_9_{file}", "{who}_{id}_assignsubmission_file_/{file}", "{who}/{file}"]
)
def test_collecting_loses_no_file_and_no_student(tmp_path: Path, place: str, seed: int) -> None:
    students = {"ada": hand_in(seed), "ben": hand_in(seed + 1000), "cleo": hand_in(seed + 2000)}
    flat = "/" not in place  # where the platform puts all files into one folder
    files = {
        place.format(who=who, id=number, file=name.replace("/", "-") if flat else name): data
        for number, (who, made) in enumerate(students.items())
        for name, data in made.files.items()
    }
    path = tmp_path / "download.zip"
    path.write_bytes(as_zip(files))
    there = [who for who, made in students.items() if made.files]
    if not there:
        return
    found = collect(path, tmp_path / "course", "lab")
    assert found.left_out == []
    assert [name.partition("_")[0] for name in found.new] == there
    kept = [path.read_bytes() for path in (tmp_path / "course").rglob("*") if path.is_file()]
    assert sorted(kept) == sorted(files.values())
