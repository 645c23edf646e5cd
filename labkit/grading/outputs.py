"""What students' cells say and draw, made safe to show: plain text and pictures, not too much of either.

A notebook's outputs are the student's to write, and the instructor opens them in a browser that is logged
in to the grading server. HTML, JavaScript, SVG and widgets could act there in the instructor's name, so
of each output only its text and its PNG or JPEG pictures stay.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

Output = dict[str, Any]

MOST_TEXT = 100_000  # characters of one cell, all of its outputs together
MOST_OUTPUTS = 200  # of one cell; prints to the same stream count as one
MOST_PICTURE = 8 * 2**20  # base64 characters of one cell's pictures, about 6 MB of pixels
MOST_LINES = 100  # of a traceback
# each kind of picture, and how its files begin
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
STREAMS = ("stdout", "stderr")
CUT = f"\n[cut here: there was more than {MOST_TEXT:,} characters of output]\n"
TOO_MANY = f"\n[cut here: there were more than {MOST_OUTPUTS} outputs]\n"
NO_PICTURE = "[a picture that is damaged or too large was left out]"
NO_TEXT = "[an output that is neither text nor a picture was left out]"

# Everything below a blank that is no white space; backspace and escape, for progress bars and colours, stay.
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[@-Z\\^_])|\x1b")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# MathJax takes these as leave to link somewhere or to restyle the page around the formula
_LATEX_ACTS = re.compile(
    r"\\(?:href|url|require|style|class|cssId|html|unicode|includegraphics|def|csname|mmlToken)", re.I
)
# what stands behind a link's or a definition's text, unless it leads to the web, a file or a part of the page
_LINK = re.compile(r"\](?=[(:]\s*(?!(?:https?://|mailto:|attachment:)|\#?[\w./-]*(?:[\s)]|$)))", re.I)


def safe_outputs(outputs: object) -> list[Output]:
    """A cell's outputs in notebook format, whatever came in as such: nothing in them acts when shown."""
    budget = _Budget()
    kept: list[Output] = []
    texts: list[list[str]] = []
    for given in outputs if isinstance(outputs, (list, tuple)) else ():
        made = _output(given, budget)
        if made is None:
            continue
        if kept and "name" in made and made["name"] == kept[-1].get("name"):  # only streams have one
            texts[-1].append(made["text"])
            continue
        if len(kept) == MOST_OUTPUTS:
            budget.said = TOO_MANY
            break
        kept.append(made)
        texts.append([made.get("text", "")])
    for output, parts in zip(kept, texts, strict=True):
        if "name" in output:
            output["text"] = "".join(parts)  # once: a letter at a time would copy it all each time
    return [*kept, stream(budget.said)] if budget.said else kept


def safe_attachments(attachments: object) -> dict[str, dict[str, str]]:
    """The pictures that were pasted into a text cell; nothing else that lies there."""
    budget = _Budget()
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


def safe_markdown(text: str) -> str:
    """Markdown in which nothing acts: a blank without width after its first character makes it text.

    That is for HTML tags, links to anything but the web, and formulas that link or load. nbgrader's
    formgrader would otherwise take a script in an answer for a part of its own page.
    """
    for acts in (_TAG, _LATEX_ACTS, _LINK):
        text = acts.sub(lambda match: f"{match[0][0]}\u200b{match[0][1:]}", safe_text(text))
    return text


def plain_text(text: str) -> str:
    """Text as a terminal shows it in the end: without colours, a progress bar in its last state only."""
    lines = _ANSI.sub("", safe_text(text)).replace("\r\n", "\n").split("\n")
    return "\n".join(_last_state(line).replace("\b", "") for line in lines)


def picture(mime: str, data: object, budget: _Budget) -> str | None:
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
    budget.picture -= len(text)
    return base64.b64encode(content).decode("ascii")


class _Budget:
    """How much of a cell's text and pictures may still be shown."""

    def __init__(self) -> None:
        self.text, self.picture, self.said = MOST_TEXT, MOST_PICTURE, ""

    def take(self, value: object) -> str:
        text = safe_text(_first_part(value, self.text + 1))
        if len(text) > self.text:
            self.said, text = CUT, text[: self.text]
        self.text -= len(text)
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


def _output(given: object, budget: _Budget) -> Output | None:
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


def _data(given: Mapping[Any, Any], budget: _Budget) -> dict[str, str]:
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
