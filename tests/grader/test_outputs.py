"""What students' code leaves as output, and what of it may be shown."""

from __future__ import annotations

import base64
import json
import re
import time
from random import Random
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbgrader")

from labkit.grading import outputs as module
from labkit.grading.outputs import (
    MOST_OUTPUTS,
    MOST_TEXT,
    Budget,
    few,
    plain_text,
    safe_attachments,
    safe_line,
    safe_outputs,
)

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


def test_pictures_of_a_notebook_are_limited_together() -> None:
    big = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(5 * 10**6)).decode()
    budget = Budget()
    cells = [safe_outputs([display(image_png=big)], budget) for _ in range(20)]
    assert cells[0][0]["data"] == {"image/png": big}
    assert cells[-1][0]["data"] == {"text/plain": module.NO_PICTURE}
    assert len(json.dumps(cells)) < 17 * 2**20
    # a small one still fits, and there is no end to honest ones
    assert safe_outputs([display(image_png=PNG)], budget) == [display(image_png=PNG)]
    honest = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60_000)).decode()
    budget = Budget()
    assert all(
        safe_outputs([display(image_png=honest)] * 2, budget)[1]["data"]["image/png"] for _ in range(50)
    )


def test_text_and_outputs_of_a_notebook_are_limited_together_and_it_says_so() -> None:
    budget = Budget()
    flood = [{"output_type": "stream", "name": "stdout", "text": "x" * MOST_TEXT}]
    cells = [safe_outputs(flood, budget) for _ in range(100)]
    assert cells[0] == flood and cells[19] == flood
    assert cells[20][0]["text"] == cells[99][0]["text"] == module.CUT_ALL
    budget = Budget()
    cells = [
        safe_outputs([{**display(text_html="<b>"), "data": {}}] * MOST_OUTPUTS, budget) for _ in range(30)
    ]
    assert len(cells[0]) == len(cells[19]) == MOST_OUTPUTS
    assert cells[20] == cells[29] == [{"output_type": "stream", "name": "stdout", "text": module.CUT_ALL}]


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


def test_many_small_outputs_are_no_burden(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = [{"output_type": "stream", "name": "stdout", "text": "x"}] * (MOST_TEXT + 1000)
    assert len(safe_outputs(letters)) == 2
    looked_at = []
    one = module._output

    def watched(given: object, budget: Any) -> Any:
        looked_at.append(given)
        return one(given, budget)

    monkeypatch.setattr(module, "_output", watched)
    many = safe_outputs([display(text_plain="x")] * (MOST_OUTPUTS + 1000))
    assert len(many) == MOST_OUTPUTS + 1
    assert "more than 200 outputs" in many[-1]["text"]
    assert len(looked_at) == MOST_OUTPUTS + 1


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


def page_of(text: str) -> str:
    """As nbgrader's formgrader shows it, with one picture attached."""
    filters = pytest.importorskip("nbconvert.filters.markdown_mistune")
    renderer = filters.IPythonRenderer(escape=False, attachments={"d.png": {"image/png": PNG}})
    return filters.MarkdownWithMath(renderer=renderer).render(text)


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
        "![x](/hub/logout)",
        "![x](../../hub/logout)",
        "![x](https://example.org/read.png)",
        "![x](//example.org/read.png)",
        "!![x](/hub/logout)",
        "![x\\](attachment:d.png) y](/hub/logout)",
        "![x [y](attachment:d.png) z](/hub/logout)",
        "![x `](attachment:d.png)` y](/hub/logout)",
        "![x](attachment:d.png 'a' b)\n\n[x]: /hub/logout",
        "![x][y]\n\n[y]: /hub/logout",
        "![y][]\n\n[y]: https://example.org/read.png",
        "![y]\n\n[y]: /hub/logout",
        "![d.png][y] ![e](attachment:d.png)![x](/hub/logout)\n\n[y]: /hub/logout",
        "<img src=/hub/logout>",
        "<IMG\tsrc='https://example.org/read.png'>",
        "<\x00img src=/hub/logout>",
        "![x](javascript:x)\n\n[x]: /hub/logout",
        "![x&](attachment:d.png '&') ![x&](/hub/logout)",
        "![x](/hub/logout '](attachment:d.png)')",
        '![x\'](attachment:d.png "](/hub/logout)")![y](/hub/logout)',
        "![x& ![y&](attachment:d.png)](/hub/logout)",
        "![[x] ![y](attachment:d.png)](/hub/logout)\n\n[x]: /hub/logout",
        "[![x&](attachment:d.png 'a')](javascript:alert(1))",
        "<![x>](attachment:d.png)script>alert(1)</![x>](attachment:d.png)script>",
        "![<script>alert(1)</script>](attachment:d.png '<script>alert(1)</script>')",
        "![$\\href{javascript:alert(1)}{x}$](attachment:d.png)",
        "$\\![&](attachment:d.png)href{javascript:alert(1)}{x}$",
        "![x`](attachment:d.png)` ![y](/hub/logout) `",
        '![x\u202f" onerror=alert(1) src="/hub/logout](attachment:d.png)',
        "![x&](</hub/logout>) ![y&](<attachment:d.png>)",
    ],
)
def test_nothing_in_markdown_acts(text: str) -> None:
    markdown_mistune = pytest.importorskip("nbconvert.filters.markdown_mistune")
    page = page_of(module.safe_markdown(text, {"d.png"}))
    for acts in ("<script", 'href="java', 'href="data', 'src="', "\\href", "\\csname"):
        assert acts not in page.replace(f'src="data:image/png;base64,{PNG}"', "")
    assert markdown_mistune.markdown2html_mistune(module.safe_markdown(text)).count("<img") == 0


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://example.org/x?y=z) and [b](#part) and ![c](attachment:d.png) and [d](figures/e.png 'f')",
        "[a]: https://example.org\n[the report](../report.pdf), see [1], [2]: so (a) is 3 < 4, but a[0]: 1",
        "$w \\ge \\frac{s}{2}$ [of weights] (all)",
    ],
)
def test_ordinary_markdown_stays(text: str) -> None:
    assert module.safe_markdown(text, {"d.png"}) == text


HEADINGS = [
    "# q_why", "#q_why", "###### q_why ##", "   # q_why", "#\tq_why", "text\n# q_why\ntext", "> # q_why",
    ">#q_why", "- # q_why", "1. # q_why", "12) > * # q_why", "- - # q_why", "- a\n\n  - b\n\n    # q_why",
    "term\n: # q_why", "text\r# q_why", "text\r\n#q_why", "# q\\_why", "# q&#95;why", "# *q*_why",
    "# **q**_why", "# `q_why`", "# [q_why](https://example.org)", "# ![](attachment:d.png)q_why",
    "# ~~q_why~~", "#\u00a0q_why",
    "q_why\n===", "q_why\n=", "q_why\n-", "q_why\n---", "q_why  \n---", "> q_why\n> ===", "- q_why\n  ---",
    "1. a\n\n   q_why\n   ==", "**q_why**\n---", "`q_why`\n---", "```q_why```\n---", "q_why\r---",
    "q_why\\\n===", "text\n\n~~~\n~~~\nq_why\n===", "***\nq_why\n===", "[q_why][a]\n===\n\n[a]: https://a.org",
    "<!-- -->\n# q_why", "$$a$$\n# q_why", "| a |\n|---|\n| b |\n# q_why", "# q_why\n===",
    "q_why\n\t---\n===",
        "q_why\n=-=", "#  q_why\t#", "[a]: https://a.org\n# q_why", "* * *\n# q_why", "+ #q_why\n  ---",
    "![](attachment:d.png)\n    ```\nq_why\n    ```\n===", "  q_why  \n  ---  ", "\u200b# q_why",
]  # fmt: skip
BLANK = "%E2%80%8B"  # the one without width, in an address


def ids_of(text: str) -> list[str]:
    """Of the parts of a page; an empty heading's is empty."""
    return [one for one in re.findall(r'\bid="([^"]*)"', page_of(text)) if one]


@pytest.mark.parametrize("text", HEADINGS)
def test_no_heading_takes_the_id_of_a_score_field(text: str) -> None:
    """formgrader looks for `#q_why`, `#q_why-comment` and the like, and takes the first that it finds."""
    made = module.safe_markdown(text, {"d.png"})
    assert all(BLANK in one for one in ids_of(made))
    shown = re.sub("<[^>]*>|&#8203;|\u200b", "", page_of(made))
    assert "q_why" in shown
    plain = text.replace("<", "(")  # of which no comment vanishes
    assert len(ids_of(made)) == len(ids_of(plain))


def test_no_heading_of_many_takes_an_id_as_it_is() -> None:
    parts = (
        "q_why", "q", "#", "# ", "## ", "=", "---", "-", "- ", "> ", "1. ", "\n", "\n", "\n\n", " ",
        "    ", "\t", "`",
        "```", "~~~", "*", "**", "***", "|", ": ", "$$", "\\", "[a]", "[a]: b", "![](attachment:d.png)",
        "<", "\r",
    )  # fmt: skip
    random, headings = Random(0), 0
    for _ in range(1500):
        text = "".join(random.choice(parts) for _ in range(random.randint(2, 14)))
        ids = ids_of(module.safe_markdown(text, {"d.png"}))
        assert all(BLANK in one for one in ids if "q" in one), repr(text)
        headings += len(ids)
    assert headings > 100


@pytest.mark.parametrize("text", [one for one in HEADINGS if "\r" not in one and "\t-" not in one])
def test_what_was_made_safe_stays(text: str) -> None:
    made = module.safe_markdown(text, {"d.png"})
    assert module.safe_markdown(made, {"d.png"}) == made
    assert made.replace("\u200b", "") == text.replace("\u200b", "")


@pytest.mark.parametrize(
    "text",
    [
        "```\ncode\n```\n---\nmore",
        "~~~python\nx\n~~~\n***\nmore",
        "a\n\n---\n\nb",
        "---\n---\na",
        "- \n---\na",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "a | b\n---|---\n1 | 2",
        "C# and F#, issue #7",
        "[a](#part), #",
        "####### a",
        "***\n---",
        "#\n---",
        ">\n> ---",
    ],
)
def test_what_is_no_heading_stays(text: str) -> None:
    assert module.safe_markdown(text) == text


def test_very_long_lines_of_headings_marks_take_no_time() -> None:
    began = time.process_time()
    for part in ("#", "# ", "> ", "1. ", "-", "= ", "-\n", "#\n", "a \n-", " ", "1", "a\n", "`", "- "):
        module.safe_markdown(part * (400_000 // len(part)))
    assert time.process_time() - began < 20  # hours where marks cost their square


def test_a_picture_from_elsewhere_becomes_a_link() -> None:
    page = page_of(module.safe_markdown("![my net](https://example.org/net.png)"))
    assert '<a href="https://example.org/net.png">my net</a>' in page
    page = page_of(module.safe_markdown("![my net][1]\n\n[1]: https://example.org/net.png"))
    assert '<a href="https://example.org/net.png">my net</a>' in page


@pytest.mark.parametrize(
    "picture",
    [
        "![Screenshot 2026-11-20 at 3.14.15\u202fPM.png](attachment:d.png)",
        "![Ada's plot.png](attachment:d.png)",
        "![a & b.png](attachment:d.png)",
        "![Foto [1].png](attachment:d.png)",
        "![Foto [1.png](attachment:d.png)",
        "![Foto 1].png](attachment:d.png)",
        "![wow![1].png](attachment:d.png)",
        '![80 % → "90 %"?](attachment:d.png)',
        "![**$w$** `x` <b>](attachment:d.png)",
        "![](attachment:d.png)",
        "![a](<attachment:d.png>)",
        "![a]( attachment:d.png )",
        '![a](attachment:d.png "Ada\'s title")',
        "![a](attachment:d.png 'a title')",
        f"![{'名' * 80 + '&.png'}](attachment:d.png)",
    ],
)
def test_a_pasted_picture_is_shown_whatever_its_file_was_called(picture: str) -> None:
    text = module.safe_markdown(f"see {picture} and ![c&](attachment:d.png), done", {"d.png"})
    page = page_of(text)
    assert page.count("<img") == page.count(f'src="data:image/png;base64,{PNG}"') == 2
    assert page.startswith("<p>see ") and page.rstrip().endswith(", done</p>")
    assert module.safe_markdown(text, {"d.png"}) == text


def test_a_pasted_pictures_page_of_feedback_shows_it() -> None:
    from labkit.grading.feedback import _attached

    attachments = safe_attachments({"d.png": {"image/png": PNG}})
    source = module.safe_markdown("![Ada's plot [1].png](attachment:d.png 'a')", attachments)
    cell = nbformat.v4.new_markdown_cell(source, attachments=attachments)
    assert [shown.picture for shown in _attached(cell)] == [f"data:image/png;base64,{PNG}"]
    assert "src=" in page_of(source)


@pytest.mark.parametrize(
    "text",
    [
        "![x](https://example.org/y) and a [link](attachment:d.png)",
        "![x] and a [link](attachment:d.png)",
        "![x][1] and a [link](attachment:d.png)",
        "![x\n](attachment:d.png)",
        "![a](<attachment:d.png)",
        "![a&](attachment:gone.png)",
    ],
)
def test_what_is_no_attached_picture_does_not_become_one(text: str) -> None:
    assert "<img" not in page_of(module.safe_markdown(text, {"d.png"}))


@pytest.mark.parametrize("name", ["gone.png", "über.png", "a b.png", "a%20b.png"])
def test_a_picture_that_is_not_there_does_not_keep_the_notebook_from_being_opened(name: str) -> None:
    text = module.safe_markdown(
        f"so: ![x](attachment:{name}) and ![y](attachment:d.png)", {"d.png", "über.png"}
    )
    assert page_of(text).count("<img") == 1


@pytest.mark.parametrize("fence", ["```", "~~~~", "   ``` \t", "```\xa0", "> ```"])
def test_a_diagram_is_shown_as_its_text(fence: str) -> None:
    text = f"{fence}mermaid\ngraph TD; A[\"&lt;img src='/hub/logout'&gt;\"]\n{fence.rstrip()}\n"
    assert 'class="mermaid"' not in page_of(module.safe_markdown(text))


@pytest.mark.slow
def test_long_markdown_takes_no_long_time() -> None:
    start = time.process_time()
    for piece in (
        "![",
        "![a](attachment:",
        "![a](attachment:" + "b" * 1000,
        "`",
        "` ",
        "](",
        "!",
        "<",
        "[a]:\n",
        "![a](",
        "![a](attachment:d.png",
        "![a](attachment:d.png '",
        '![a](attachment:d.png "(',
        "![&](attachment:d.png)",
        "](attachment:d.png)",
        "![" + "[" * 400 + "](attachment:d.png)",
    ):
        module.safe_markdown(piece * (10**6 // len(piece)), {"d.png"})
    for text in (
        "![" + "[" * 10**6,
        "![" + "&" * 10**6 + "](attachment:d.png)",
        "![a](attachment:d.png '" + "x" * 10**6,
    ):
        module.safe_markdown(text, {"d.png"})
    assert time.process_time() - start < 120  # two; hours where it grows as the square


def test_a_line_is_one_and_moves_nothing() -> None:
    assert safe_line("!cat \x1b]0;pwned\x07\x1b[2J\x9b1A all\r\nfine\x00\b") == "!cat ]0;pwned[2J1A all  fine"
    assert safe_line("x = /etc/\ud800 and l\udcf6sung") == "x = /etc/? and l?sung"
    assert safe_line("exe.\u202egpj") == "exe.gpj"
    assert safe_line("Zoë [/b] 陈: naïve") == "Zoë [/b] 陈: naïve"
    assert len(safe_line("x" * 10**7)) == module.MOST_LINE
    assert safe_line("x" * 10**7).endswith("...")


def test_of_many_lines_both_ends_are_told() -> None:
    assert few(["a"] * module.MOST_NOTES) == ["a"] * module.MOST_NOTES
    lines = few([f"note {n}" for n in range(5000)])
    assert (lines[0], lines[10], lines[-1]) == ("note 0", "... and 4,980 more ...", "note 4999")
    assert len(lines) == module.MOST_NOTES + 1
    assert few([]) == []
