"""What students' cells say and draw, made safe to show: plain text and pictures, not too much of either.

A notebook's outputs are the student's to write, and the instructor opens them in a browser that is logged
in to the grading server. HTML, JavaScript, SVG and widgets could act there in the instructor's name, so
of each output only its text and its PNG or JPEG pictures stay.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Output = dict[str, Any]

MOST_TEXT = 100_000  # characters of one cell, all of its outputs together
MOST_OUTPUTS = 200  # of one cell; prints to the same stream count as one
MOST_PICTURE = 8 * 2**20  # base64 characters of one cell's pictures, about 6 MB of pixels
MOST_LINES = 100  # of a traceback
# of all cells of a notebook together: an honest one stays far below, a loop in a few lines does not
NOTEBOOK_TEXT, NOTEBOOK_OUTPUTS, NOTEBOOK_PICTURES = 2_000_000, 4000, 16 * 2**20
MOST_LINE, MOST_NOTES = 500, 20  # characters of what is told of a student in a line; lines about a student
# each kind of picture, and how its files begin
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
STREAMS = ("stdout", "stderr")
CUT = f"\n[cut here: there was more than {MOST_TEXT:,} characters of output]\n"
TOO_MANY = f"\n[cut here: there were more than {MOST_OUTPUTS} outputs]\n"
CUT_ALL = "\n[cut here: the cells of this notebook have too much output together]\n"
NO_PICTURE = "[a picture was left out: it is damaged, or too large by itself or with the others]"
NO_TEXT = "[an output that is neither text nor a picture was left out]"

# Everything below a blank that is no white space; backspace and escape, for progress bars and colours, stay.
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[@-Z\\^_])|\x1b")
_BREAKS = re.compile("[\t\n\r\u2028\u2029]")
# left alone, what stands behind an escape could vanish, or a name be shown from right to left
_MOVES = re.compile("[\x1b\b\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_DIAGRAM = re.compile(r"[`~](?=[^\S\n]*mermaid)", re.I)  # nbconvert gives it to a script, not escaped
# The name holds only what every reader of Markdown leaves as it is; the text nothing that could end it early.
_IMAGE = re.compile(r"!\[(?P<text>[\w .,:;()+=#%@/-]*)\]\(attachment:(?P<name>[A-Za-z0-9_.%+~@,=:-]+)\)")
# A pasted picture's end, also with a title, as it is before its text has been made fit for _IMAGE.
_PASTED = re.compile(
    r"\]\([ \t]{0,9}(?P<angle><)?attachment:(?P<name>[A-Za-z0-9_.%+~@,=:-]{1,300})(?(angle)>)"
    r"""(?:[ \t]{1,9}(?:"[^"\n]{0,300}"|'[^'\n]{0,300}'|\([^()\n]{0,300}\)))?[ \t]{0,9}\)"""
)
MOST_ALT = 300  # characters of a picture's text; editors put the file's name there, of at most 255 bytes
# MathJax takes these as leave to link somewhere or to restyle the page around the formula
_LATEX_ACTS = re.compile(
    r"\\(?:href|url|require|style|class|cssId|html|unicode|includegraphics|def|csname|mmlToken)", re.I
)
# what stands behind a link's or a definition's text, unless it leads to the web, a file or a part of the page
_LINK = re.compile(r"\](?=[(:]\s*(?!(?:https?://|mailto:|attachment:)|\#?[\w./-]*(?:[\s)]|$)))", re.I)
# A heading's text becomes the id of a part of the page. The marks, of which nbconvert asks for no blank
# behind, may stand in quotes and lists; a line of - or = makes a heading of the line above it.
_HEADING = re.compile("^((?:[^\\w#\n]|[0-9]{1,9}[.)])*#{1,6}(?!#)[ \t]*)(?![ \t\n\u200b])(?=.)", re.M)
_UNDERLINED = re.compile("^(?P<above>.*[^ \t\n\u200b])(?P<rest>[ \t]*\n[> \t]*[=-]+[ \t]*$)", re.M)
# no text: the end of a block of code, a line across the page, an empty point of a list
_NO_TEXT = re.compile(
    r"(?:[ \t]*>)* {0,3}(?:(?:`{3,}|~{3,})[^`]*|[-=]+|[*+-]|(?:[-*_][ \t]*){3,}|#{1,6}|>)?[ \t]*"
)


class Budget:
    """How much of a notebook's outputs may still be shown, all of its cells together."""

    def __init__(self) -> None:
        self.text, self.outputs, self.picture = NOTEBOOK_TEXT, NOTEBOOK_OUTPUTS, NOTEBOOK_PICTURES

    def spend(self, text: int = 0, outputs: int = 0, picture: int = 0) -> None:
        self.text -= text
        self.outputs -= outputs
        self.picture -= picture


def safe_outputs(outputs: object, notebook: Budget | None = None) -> list[Output]:
    """A cell's outputs in notebook format, whatever came in as such: nothing in them acts when shown.

    notebook: what its cells share; it becomes smaller by what is kept here.
    """
    budget = _CellBudget(notebook)
    kept: list[Output] = []
    texts: list[list[str]] = []
    for given in outputs if isinstance(outputs, (list, tuple)) else ():
        made = _output(given, budget)
        if made is None:
            continue
        if kept and "name" in made and made["name"] == kept[-1].get("name"):  # only streams have one
            texts[-1].append(made["text"])
            continue
        if budget.outputs <= 0:
            budget.said = TOO_MANY if len(kept) == MOST_OUTPUTS else CUT_ALL
            break
        budget.spend(outputs=1)
        kept.append(made)
        texts.append([made.get("text", "")])
    for output, parts in zip(kept, texts, strict=True):
        if "name" in output:
            output["text"] = "".join(parts)  # once: a letter at a time would copy it all each time
    return [*kept, stream(budget.said)] if budget.said else kept


def safe_attachments(attachments: object) -> dict[str, dict[str, str]]:
    """The pictures that were pasted into a text cell; nothing else that lies there."""
    budget = _CellBudget()
    kept = {}
    for name, bundle in attachments.items() if isinstance(attachments, Mapping) else ():
        if isinstance(name, str) and isinstance(bundle, Mapping):
            pictures = {mime: picture(mime, bundle.get(mime), budget) for mime in PICTURES}
            if found := {mime: data for mime, data in pictures.items() if data}:
                kept[safe_text(name)] = found
    return kept


def stream(text: str, name: str = "stdout") -> Output:
    return {"output_type": "stream", "name": name, "text": text}


def safe_text(value: object) -> str:
    """Text as notebooks hold it, a string or a list of them, that any encoder and any terminal can take."""
    if isinstance(value, (list, tuple)):
        value = "".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str):
        return ""
    # half of a surrogate pair cannot be written as UTF-8
    return _CONTROL.sub("", value.encode("utf-8", "replace").decode("utf-8"))


def safe_line(value: object, most: int = MOST_LINE) -> str:
    """Text as one line of a terminal or a table: it cannot move the cursor, pose as more lines or go on."""
    text = safe_text(value[: 100 * most] if isinstance(value, str) else str(value))
    text = _MOVES.sub("", _BREAKS.sub(" ", text))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def few(lines: Sequence[str], most: int = MOST_NOTES) -> list[str]:
    """What is told of a student, each line safe to show. Of very many the middle is left out and counted."""
    if len(lines) <= most:
        return [safe_line(line) for line in lines]
    half = most // 2  # whether a notebook was graded at all stands at the end
    ends = [safe_line(line) for line in (*lines[:half], *lines[-half:])]
    return [*ends[:half], f"... and {len(lines) - 2 * half:,} more ...", *ends[half:]]


def safe_markdown(text: str, attached: Collection[str] = ()) -> str:
    """Markdown in which nothing acts: a blank without width after its first character makes it text.

    That is for HTML tags, links to anything but the web, diagrams, and formulas that link or load.
    nbgrader's formgrader would otherwise take a script in an answer for a part of its own page. A picture
    is fetched as soon as the page is opened, be it `/hub/logout`: those that are not `attached` to the cell
    become links, by the same blank. Pictures by reference are none of them, wherever the reference leads.
    A heading gets the blank, too: it must not take the id by which formgrader finds a question's points.
    """
    text = _plain_heads(_plain_alts(safe_text(text), attached))
    for acts in (_TAG, _LATEX_ACTS, _LINK, _DIAGRAM):
        text = acts.sub(lambda match: f"{match[0][0]}\u200b{match[0][1:]}", text)
    parts, end = [], 0
    for match in _IMAGE.finditer(text):
        if match["name"] in attached:  # nbconvert refuses the whole notebook for one that is not
            parts += [text[end : match.start()].replace("![", "!\u200b["), match[0]]
            end = match.end()
    return "".join([*parts, text[end:].replace("![", "!\u200b[")])


def _plain_heads(text: str) -> str:
    """Put the blank without width into every heading, so that its id is nobody else's."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # as nbconvert reads it
    text = _HEADING.sub("\\1\u200b", text)

    def marked(match: re.Match[str]) -> str:
        if _NO_TEXT.fullmatch(match["above"]):
            return match[0]
        return f"{match['above']}\u200b{match['rest']}"

    return _UNDERLINED.sub(marked, text)


def _plain_alts(text: str, attached: Collection[str]) -> str:
    """Bring every pasted picture into the form that _IMAGE takes: `![its text](attachment:its name)`.

    Editors put the file's name there as it is, such as `Ada's plot [1].png`. Whatever this makes of a text,
    `safe_markdown` looks at it afterwards as if the student had written it so.
    """
    parts, end = [], 0
    for match in _PASTED.finditer(text):
        # from the end, where pictures are rare: each `![` might begin one, and there may be a million
        start = text.rfind("![", max(end, match.start() - MOST_ALT - 2), match.start())
        if start < 0 or match["name"] not in attached:
            continue
        alt = text[start + 2 : match.start()]
        if not _is_alt(alt):
            continue
        if _IMAGE.fullmatch(text, start, match.end()) is None:
            alt = re.sub(r"[^\w .,-]", " ", alt)
        parts += [text[end:start], f"![{alt}](attachment:{match['name']})"]
        end = match.end()
    return "".join([*parts, text[end:]])


def _is_alt(text: str) -> bool:
    """Whether that is a picture's text and no more: not `x](there) and [a link`, nor `x] and [a link`."""
    if "\n" in text or "](" in text:
        return False
    depth, lowest = 0, 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        lowest = min(lowest, depth)
    return lowest == 0 or "[" not in text


def plain_text(text: str) -> str:
    """Text as a terminal shows it in the end: without colours, a progress bar in its last state only."""
    lines = _ANSI.sub("", safe_text(text)).replace("\r\n", "\n").split("\n")
    return "\n".join(_last_state(line).replace("\b", "") for line in lines)


def picture(mime: str, data: object, budget: _CellBudget) -> str | None:
    """The base64 of a picture that is one by its first bytes, in one line; None if it is not."""
    text = "".join(data) if isinstance(data, list) and all(isinstance(part, str) for part in data) else data
    if not isinstance(text, str) or len(text) > budget.picture:
        return None
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not content.startswith(PICTURES[mime]):
        return None
    budget.spend(picture=len(text))
    return base64.b64encode(content).decode("ascii")


class _CellBudget(Budget):
    """How much of a cell's outputs may still be shown; what it spends, its notebook has spent, too."""

    def __init__(self, notebook: Budget | None = None) -> None:
        self._notebook = notebook or Budget()
        self.text = min(MOST_TEXT, self._notebook.text)
        self.outputs = min(MOST_OUTPUTS, self._notebook.outputs)
        self.picture = min(MOST_PICTURE, self._notebook.picture)
        self._cut = CUT if self.text == MOST_TEXT else CUT_ALL
        self.said = ""

    def spend(self, text: int = 0, outputs: int = 0, picture: int = 0) -> None:
        super().spend(text, outputs, picture)
        self._notebook.spend(text, outputs, picture)

    def take(self, value: object) -> str:
        text = safe_text(_first_part(value, self.text + 1))
        if len(text) > self.text:
            self.said, text = self._cut, text[: self.text]
        self.spend(text=len(text))
        return text


def _first_part(value: object, most: int) -> object:
    """No more of a text than is needed to see that it is too long."""
    if isinstance(value, str):
        return value[:most]
    if not isinstance(value, (list, tuple)):
        return value
    parts: list[str] = []
    for part in value:
        if isinstance(part, str) and most > 0:
            parts.append(part[:most])
            most -= len(parts[-1])
    return parts


def _output(given: object, budget: _CellBudget) -> Output | None:
    kind = given.get("output_type") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(kind, str):
        return None
    if kind == "stream":
        text = budget.take(given.get("text"))
        return stream(text, "stderr" if given.get("name") == "stderr" else "stdout") if text else None
    if kind == "error":
        lines = given.get("traceback")
        return {
            "output_type": "error",
            "ename": budget.take(given.get("ename"))[:200],
            "evalue": budget.take(given.get("evalue")),
            "traceback": [budget.take(line) for line in _middle_out(lines)],
        }
    if kind == "execute_result":
        count = given.get("execution_count")
        number = count if isinstance(count, int) and not isinstance(count, bool) else None
        return {
            "output_type": kind,
            "data": _data(given, budget),
            "metadata": {},
            "execution_count": number if number is None or 0 <= number < 2**31 else None,
        }
    if kind == "display_data":
        return {"output_type": kind, "data": _data(given, budget), "metadata": {}}
    return None


def _data(given: Mapping[Any, Any], budget: _CellBudget) -> dict[str, str]:
    """The forms of one output that are text or a picture; a sentence in place of what is left out."""
    bundle = given.get("data")
    if not isinstance(bundle, Mapping):
        return {"text/plain": NO_TEXT}
    data = {}
    for mime in PICTURES:
        if mime in bundle:
            content = picture(mime, bundle[mime], budget)
            data.update({mime: content} if content else {"text/plain": NO_PICTURE})
    if "text/latex" in bundle:
        latex = budget.take(bundle["text/latex"])
        data.update({} if _LATEX_ACTS.search(latex) else {"text/latex": latex})
    if "text/plain" in bundle and "text/plain" not in data:
        data["text/plain"] = budget.take(bundle["text/plain"])
    return data or {"text/plain": NO_TEXT}


def _middle_out(lines: object) -> list[Any]:
    """A traceback's beginning and end: what a deep recursion repeats lies between."""
    given = list(lines) if isinstance(lines, (list, tuple)) else [lines]
    if len(given) <= MOST_LINES:
        return given
    half = MOST_LINES // 2
    return [*given[:half], f"[{len(given) - MOST_LINES} lines left out]", *given[-half:]]


def _last_state(line: str) -> str:
    """What stays of a line that was written over again and again."""
    states: Iterable[str] = (state for state in reversed(line.split("\r")) if state.strip())
    return next(iter(states), "")
