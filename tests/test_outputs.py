"""What students' code leaves as output, and what of it may be shown."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.grading import outputs as module
from labkit.grading.outputs import MOST_OUTPUTS, MOST_TEXT, plain_text, safe_attachments, safe_outputs

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"pixels").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff" + b"pixels").decode()


def display(**data: object) -> dict[str, Any]:
    return {
        "output_type": "display_data",
        "data": {key.replace("_", "/", 1): value for key, value in data.items()},
        "metadata": {},
    }


def valid(outputs: list[dict[str, Any]]) -> bool:
    """Whether a notebook with these outputs is one, and can be written."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", id="a")])
    nb.cells[0].outputs = nbformat.from_dict(outputs)
    nbformat.validate(nb)
    nbformat.writes(nb).encode("utf-8")
    return True


def test_honest_outputs_stay_as_they_are() -> None:
    given = [
        {"output_type": "stream", "name": "stdout", "text": "epoch 1\n"},
        {"output_type": "stream", "name": "stderr", "text": "a warning\n"},
        {
            "output_type": "execute_result",
            "data": {"text/plain": "7.0"},
            "metadata": {},
            "execution_count": 3,
        },
        display(image_png=PNG, text_plain="<Figure size 640x480>"),
        {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["line 1", "line 2"]},
    ]
    assert safe_outputs(given) == given
    assert valid(safe_outputs(given))


@pytest.mark.parametrize(
    "mime",
    ["text/html", "image/svg+xml", "application/javascript", "text/markdown", "application/vnd.widget"],
)
def test_what_could_act_in_a_browser_is_left_out(mime: str) -> None:
    (kept,) = safe_outputs(
        [{"output_type": "display_data", "data": {mime: "<script>", "text/plain": "Box()"}}]
    )
    assert kept["data"] == {"text/plain": "Box()"}
    (kept,) = safe_outputs([{"output_type": "display_data", "data": {mime: "<script>"}}])
    assert kept["data"] == {"text/plain": module.NO_TEXT}


def test_a_picture_is_one_by_its_bytes() -> None:
    assert safe_outputs([display(image_jpeg=JPEG)])[0]["data"] == {"image/jpeg": JPEG}
    assert safe_outputs([display(image_png=[PNG[:8] + "\n", PNG[8:] + "\n"])])[0]["data"] == {
        "image/png": PNG
    }
    svg = base64.b64encode(b"<svg onload='alert(1)'/>").decode()
    for content in (svg, JPEG, '" onerror="alert(1)', PNG + '">', "not base64!", 7, None, [PNG, 7], "é"):
        (kept,) = safe_outputs([display(image_png=content, text_plain="fig")])
        assert kept["data"] == {"text/plain": module.NO_PICTURE}


def test_pictures_of_a_cell_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PICTURE", len(PNG) + 3)
    first, second = safe_outputs([display(image_png=PNG)] * 2)
    assert first["data"] == {"image/png": PNG}
    assert second["data"] == {"text/plain": module.NO_PICTURE}


def test_metadata_go() -> None:
    given = display(image_png=PNG) | {"metadata": {"image/png": {"width": '1" onload="x'}}, "transient": {}}
    assert safe_outputs([given]) == [display(image_png=PNG)]


def test_text_is_cut_and_says_so() -> None:
    half = "x" * (MOST_TEXT // 2 + 1)
    kept = safe_outputs([{"output_type": "stream", "name": "stdout", "text": half}, display(text_plain=half)])
    assert [one["output_type"] for one in kept] == ["stream", "display_data", "stream"]
    assert len(kept[0]["text"]) + len(kept[1]["data"]["text/plain"]) == MOST_TEXT
    assert "more than 100,000 characters" in kept[2]["text"]
    exactly = [{"output_type": "stream", "name": "stdout", "text": ["y" * (MOST_TEXT // 2)] * 2}]
    assert safe_outputs(exactly)[0]["text"] == "y" * MOST_TEXT
    assert len(safe_outputs(exactly)) == 1


def test_a_picture_after_too_much_text_is_still_shown() -> None:
    kept = safe_outputs(
        [{"output_type": "stream", "name": "stdout", "text": "x" * 10**6}, display(image_png=PNG)]
    )
    assert kept[1]["data"] == {"image/png": PNG}


def test_a_million_small_outputs_are_no_burden() -> None:
    letters = [{"output_type": "stream", "name": "stdout", "text": "x"}] * 300_000
    start = time.process_time()
    assert len(safe_outputs(letters)) == 2
    many = safe_outputs([display(text_plain="x")] * 300_000)
    assert len(many) == MOST_OUTPUTS + 1
    assert "more than 200 outputs" in many[-1]["text"]
    assert time.process_time() - start < 5


def test_a_deep_recursion_keeps_both_ends_of_its_traceback() -> None:
    lines = [f"line {n}" for n in range(5000)]
    (kept,) = safe_outputs([{"output_type": "error", "ename": "E", "evalue": "", "traceback": lines}])
    assert (kept["traceback"][0], kept["traceback"][-1]) == ("line 0", "line 4999")
    assert len(kept["traceback"]) == 101


NEST: Any = "x"
for _ in range(500):
    NEST = [NEST]
GARBAGE = [
    None, 7, "text", [], {}, NEST, {"output_type": NEST}, {"output_type": "stream"}, {"output_type": "pyout"},
    {"output_type": "stream", "name": "<b>", "text": "a"}, {"output_type": "stream", "text": {"a": 1}},
    {"output_type": "stream", "text": ["a", 7, None, NEST]}, {"output_type": "error"},
    {"output_type": "error", "ename": 1, "evalue": NEST, "traceback": "one"},
    {"output_type": "error", "ename": "E" * 10**6, "evalue": "\ud800", "traceback": [7, NEST, "\x00"]},
    {"output_type": "execute_result", "data": NEST, "execution_count": "7"},
    {"output_type": "execute_result", "data": {"text/plain": 7}, "execution_count": True},
    {"output_type": "execute_result", "data": {7: 7, "text/latex": "\\frac12"}, "execution_count": 10**30},
    {"output_type": "display_data", "data": {"text/latex": "\\href{javascript:alert(1)}{x}"}},
    {"output_type": "display_data", "data": {"text/plain": "\udfff\x00\x9b"}, "metadata": NEST},
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_becomes_a_notebooks_outputs(garbage: object) -> None:
    assert valid(safe_outputs([garbage]))
    assert valid(safe_outputs(garbage))
    text = json.dumps(safe_outputs([garbage]))
    assert "href" not in text and "<b>" not in text


def test_text_reads_as_on_a_terminal() -> None:
    bar = "\r  0%|    |\r 50%|##  |\r100%|####|\n"
    assert plain_text(bar) == "100%|####|\n"
    assert plain_text("\x1b[0;31mValueError\x1b[0m: no\r\n") == "ValueError: no\n"
    assert plain_text("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ and \x1b]0;title") == "link and "
    assert plain_text("done\r") == "done"
    assert plain_text("\x1b" * 50_000 + "[") == "["


def test_only_pictures_can_be_attached() -> None:
    given = {
        "a.png": {"image/png": PNG},
        "b.svg": {"image/svg+xml": "<svg/>"},
        "c": 7,
        8: {},
        "d": {"image/png": "x"},
    }
    assert safe_attachments(given) == {"a.png": {"image/png": PNG}}
    assert safe_attachments(None) == safe_attachments([1]) == {}


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<javascript:alert(1)>",
        "[x](javascript:alert(1))",
        "[x]( JaVaScript:alert(1))",
        "[x](java&#115;cript:alert(1))",
        "[x](< javascript:alert(1)>)",
        "[x](\\javascript:alert(1))",
        "![x](data:text/html;base64,AAAA)",
        "[x][1]\n\n[1]: javascript:alert(1)",
        "[x][1]\n\n[1]:\n  javascript:alert(1)",
        "$\\href{javascript:alert(1)}{x}$",
        "$\\csname href\\endcsname{javascript:alert(1)}{x}$",
    ],
)
def test_nothing_in_markdown_acts(text: str) -> None:
    markdown_mistune = pytest.importorskip("nbconvert.filters.markdown_mistune")
    page = markdown_mistune.markdown2html_mistune(module.safe_markdown(text))
    for acts in ("<script", 'href="', 'src="', "\\href", "\\csname"):
        assert acts not in page


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://example.org/x?y=z) and [b](#part) and ![c](attachment:d.png) ![d](figures/e.png 'f')",
        "[a]: https://example.org\n[the report](../report.pdf), see [1], [2]: so (a) is 3 < 4, but a[0]: 1",
        "$w \\ge \\frac{s}{2}$ [of weights] (all)",
    ],
)
def test_ordinary_markdown_stays(text: str) -> None:
    assert module.safe_markdown(text) == text
