"""What a student writes into a notebook file costs the instructor little, and comes out in shape."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbformat")

from labkit.grading import reading
from labkit.grading.reading import Unreadable, read_notebook

DEEP: Any = "deep"
for _ in range(600):
    DEEP = [DEEP]
HUGE = int("9" * 4000)  # as large as Python reads
STREAM = {"output_type": "stream", "name": "stdout", "text": "kept\n"}
PNG = "iVBORw0KGgo="


def code(source: object = "", **parts: object) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], **parts}


def text(source: object = "", **parts: object) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": {}, **parts}


def file(*cells: object, **parts: object) -> bytes:
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": cells, **parts}).encode()


def format_3(*cells: object) -> bytes:
    return json.dumps({"nbformat": 3, "metadata": {}, "worksheets": [{"cells": cells}]}).encode()


def peak(data: bytes) -> int:
    """The most memory that reading takes."""
    tracemalloc.start()
    try:
        read_notebook(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [{"output_type": "stream"}, {}, [], 0, {"output_type": "pyout"}])
def test_broken_outputs_cost_no_more_than_their_json(kind: object) -> None:
    # nbformat.validate took 45 KB for each: 225 MB, and half a second
    for data in (file(code(outputs=[kind] * 5000)), format_3(code(outputs=[kind] * 5000))):
        assert peak(data) < 10 * 2**20


ANYTHING: list[Any] = [
    None, 0, -1, True, HUGE, 1.5, "x", "\ud800", "x" * 100_000, [], [DEEP], [3], {}, {"x": DEEP},
    {"": {"": 0}}, {"image/png": PNG}, {"a.png": {"image/png": PNG, "text/html": "<script>"}},
    {"a.png": {"image/png": DEEP}}, {"\ud800": {"image/png": PNG}},
    {"tags": None}, {"tags": ["a", "a", "b,c", 3, DEEP, "", "x" * 1000]},
    {"tags": "test"}, {"tags": {"a": 1}}, {"tags": ["\ud800", "half \udfff"]},
    {"nbgrader": {"grade_id": "\ud83d", "cell_type": "\udc00"}},
    {"nbgrader": DEEP}, {"nbgrader": {"grade_id": DEEP, "points": HUGE, "own": DEEP}},
    {"format": 3, "name": 3},
    [{"output_type": "stream"}], [{"output_type": "stream", "text": DEEP, "name": DEEP}],
    [{"output_type": "display_data", "data": DEEP, "metadata": DEEP}],
    [{"output_type": "display_data", "data": {"application/json": DEEP, "text/plain": ["a", DEEP]}}],
    [{"output_type": "execute_result", "execution_count": HUGE, "data": {"image/png": DEEP}}],
    [{"output_type": "error", "ename": DEEP, "evalue": 3, "traceback": DEEP}],
    [{"output_type": DEEP}],
]  # fmt: skip


@pytest.mark.parametrize("key", ["metadata", "attachments", "outputs", "source", "id", "execution_count"])
def test_whatever_a_cell_holds_the_notebook_is_valid(key: str) -> None:
    for value in ANYTHING:
        twice = [{**make("x"), key: value} for make in (code, text) for _ in range(2)]
        nb, _ = read_notebook(file(*twice, {"cell_type": "raw", key: value}, {"cell_type": DEEP}))
        assert [cell.cell_type for cell in nb.cells] == ["code", "code", "markdown", "markdown", "raw"]
        nbformat.validate(nb)
        nbformat.writes(nb).encode()  # there is nothing in it that UTF-8 could not hold


@pytest.mark.parametrize(
    "metadata",
    [
        None, DEEP, {"kernelspec": DEEP}, {"kernelspec": {"name": DEEP}},
        {"kernelspec": {"name": "\ud800", "display_name": "Python 3"}},
    ],
)  # fmt: skip
def test_the_notebooks_own_metadata_cannot_hurt(metadata: object) -> None:
    nb, _ = read_notebook(file(code(), metadata=metadata))
    nbformat.validate(nb)
    assert nb.metadata == {}


def test_what_grading_reads_of_a_cell_stays() -> None:
    marks = {
        "grade_id": "a",
        "grade": True,
        "points": 2,
        "solution": False,
        "locked": True,
        "schema_version": 3,
    }
    given = {"nbgrader": marks, "tags": ["experiment", "own"], "collapsed": True, "colab": {"x": DEEP}}
    kernel = {"name": "python3", "display_name": "Python 3"}
    data = file(code(["a\n", "b"], id="c", metadata=given), metadata={"kernelspec": {**kernel, "x": DEEP}})
    nb, notes = read_notebook(data)
    assert nb.cells[0].metadata == {"nbgrader": marks, "tags": ["experiment", "own"]}
    assert (nb.cells[0].id, nb.cells[0].source, notes) == ("c", "a\nb", [])
    assert nb.metadata == {"kernelspec": kernel}


def test_good_outputs_stay_beside_damaged_ones() -> None:
    """An experiment's are all that there is of it: it is not run anew."""
    for damaged in ({}, 3, {"output_type": "no such kind"}):
        nb, notes = read_notebook(file(code(outputs=[damaged, STREAM]), code(outputs=[STREAM])))
        assert [cell.outputs for cell in nb.cells] == [[STREAM], [STREAM]]
        assert notes == ["damaged outputs left out"]
    assert read_notebook(file(code(outputs=[STREAM])))[1] == []


def test_pictures_pasted_into_words_stay() -> None:
    nb, _ = read_notebook(file(text("![](attachment:a.png)", attachments={"a.png": {"image/png": PNG}})))
    assert nb.cells[0].attachments == {"a.png": {"image/png": PNG}}


def test_there_are_only_so_many_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_OUTPUTS", 3)
    display = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    nb, notes = read_notebook(file(*[code(outputs=[display] * 2)] * 3))
    assert [len(cell.outputs) for cell in nb.cells] == [2, 1, 0]
    assert notes == ["more than 3 outputs: the rest was left out"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (file(*[text()] * 5000), "it has 5,000 cells, and 2,000 are the most that are read: delete those"),
        (
            file(*[code("x" * 400_000)] * 3),
            "its code cells hold 1,200,000 characters, and 1,000,000 are the most",
        ),
        (file(*[text("x" * 11_000_000)] * 2), "its text cells hold 22,000,000 characters"),
        (b'{"cells": [' + b"{}," * 1_100_000 + b"{}]}", "more than 2,000,000 values: clear its outputs"),
        (b'{"cells": [], "x": ' + b"9" * 5000 + b"}", "a number in it has thousands of digits"),
        (file(nbformat=DEEP), "it does not say which notebook format"),
        (file(nbformat=0), "it does not say which notebook format"),
        (file(nbformat=HUGE), "notebook format 999999999, which is newer"),
        (b'{"worksheets": [{"cells": 3}], "nbformat": 3}', "an old notebook format that cannot be converted"),
        (b'{"worksheets": [], "cells": {}}', "its list of cells is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_too_much_is_told_with_what_to_do(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why) as refused:
        read_notebook(data)
    assert len(str(refused.value)) < 200


def test_a_text_cell_may_hold_the_picture_that_colab_writes_into_it() -> None:
    read_notebook(file(text("![](data:image/png;base64," + "A" * 3_000_000 + ")")))


@pytest.mark.slow
def test_cells_without_an_id_are_numbered_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_CELLS", 10**6, raising=False)
    begin = time.process_time()
    nb, _ = read_notebook(file(*[{"cell_type": "raw"}] * 60_000))  # 2 billion steps, were each from 0
    assert time.process_time() - begin < 30  # one
    assert len({cell.id for cell in nb.cells}) == 60_000


def test_a_made_up_id_takes_nobodys_place() -> None:
    nb, _ = read_notebook(
        file(text(), text(id="own-1"), text(), text(id="own-1"), text(id="bad id"), text(id="x\n"))
    )
    assert [cell.id for cell in nb.cells] == ["own-0", "own-1", "own-2", "own-3", "own-4", "own-5"]


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    nb, _ = read_notebook(file(code("x = '\ud800'"), text(["\ud83d", "\ude00"])))
    assert [cell.source for cell in nb.cells] == ["x = '?'", "??"]


def test_old_formats_say_what_nbformat_reads_in_them() -> None:
    cells = [
        {"cell_type": "code", "input": "x = 1", "prompt_number": 3, "metadata": {"tags": ["answer"]},
         "language": "python", "outputs": [], "collapsed": False},
        {"cell_type": "markdown", "source": "a\nb", "metadata": {}},
        {"cell_type": "raw", "source": "c", "metadata": {}},
        {"cell_type": "heading", "source": "Title", "level": 2, "metadata": {}},
    ]  # fmt: skip
    ours, notes = read_notebook(format_3(*cells))
    theirs = nbformat.convert(nbformat.from_dict(json.loads(format_3(*cells))), 4)
    seen = [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in ours.cells]
    assert seen == [
        (cell.cell_type, "".join(cell.source), cell.metadata.get("tags")) for cell in theirs.cells
    ]
    assert ours.cells[0].execution_count == 3
    assert notes == ["was in notebook format 3, whose outputs are not read"]
    older = b'{"nbformat": 2, "worksheets": [{"cells": [{"cell_type": "html", "source": "a"}]}]}'
    assert read_notebook(older)[0].cells[0].source == "a"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 19800\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", "a web page"),
        (b"\xef\xbb\xbf\n<html>moved</html>", "a web page"),
        (
            b'{\n "cells": [\n<<<<<<< HEAD\n  {}\n=======\n>>>>>>> theirs\n ]\n}',
            "conflict markers, the first in line 3",
        ),
        (b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n", "conflict markers, the first in line 1"),
    ],
)
def test_a_file_that_stands_for_a_notebook_is_told(data: bytes, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        read_notebook(data)
