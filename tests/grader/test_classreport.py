from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from labkit.cli import app
from labkit.grading.classreport import (
    HandedIn,
    check_figures,
    histogram,
    likeness,
    render,
    sentence_figures,
    slowest,
)
from labkit.grading.exports import Check, Grades
from labkit.grading.likeness import pieces, suspicious_pairs
from labkit.grading.verdicts import Verdict
from labkit.outcomes import Outcome
from tests.conftest import REPOSITORY
from tests.lab.harness import answers
from tests.roundtrip.tiny_course import write_course

RELEASE = REPOSITORY / "notebooks" / "release" / "compression"
STUB = 'def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):\n    """One epoch."""\n'
# the class's answers to one question, as different as students write them
CLASS = {f"student {n}": answer.source for n, answer in enumerate(answers("finetune_after_prune"))}


def renamed(source: str) -> str:
    """As somebody hands in another's work: other names, other comments, other blank lines."""
    for old, new in (("net", "model"), ("optimizer", "opt"), ("trainloader", "data"), ("loss", "cost")):
        source = re.sub(rf"(?<![.\w]){old}\b", new, source)
    return "# my own solution\n" + source.replace("\n    ", "\n\n    ", 2)


def test_a_copy_with_other_names_is_found_and_honest_answers_are_not() -> None:
    original = next(name for name in CLASS if len(pieces(CLASS[name])) > 60)
    pairs = suspicious_pairs(CLASS | {"a copy": renamed(CLASS[original])}, STUB, "finetune_after_prune")
    assert {"a copy", original} == {pairs[0].first, pairs[0].second}
    assert pairs[0].alike == pytest.approx(1.0)
    assert len(suspicious_pairs(CLASS, STUB, "x")) <= len(CLASS) * (len(CLASS) - 1) / 2 / 500


def test_three_who_copied_are_found_too() -> None:
    original = CLASS["student 0"]
    pairs = suspicious_pairs(CLASS | {"b": renamed(original), "c": original + "\n"}, STUB, "f")
    assert {(pair.first, pair.second) for pair in pairs[:3]} == {
        ("b", "c"), ("b", "student 0"), ("c", "student 0"),
    }  # fmt: skip


def test_what_everybody_writes_is_not_suspicious() -> None:
    common = "def f(layer, q):\n    w = layer.weight.data\n    layer.weight.data = w * (abs(w) >= g(w, q))\n"
    assert suspicious_pairs({f"s{n}": common for n in range(30)}, "", "f") == []


def test_the_released_stub_and_broken_code_are_nobodys_work() -> None:
    assert suspicious_pairs({"a": STUB, "b": STUB}, STUB, "f") == []
    assert suspicious_pairs({"a": "def (:", "b": "def (:", "c": "(" * 9999}, STUB, "f") == []


def test_a_long_sum_neither_ends_the_report_nor_hides_a_copy() -> None:
    original = CLASS["student 0"]
    tail = "\ny = " + "+".join(["1"] * 1500) + "\nz = a" + ".b" * 1500
    pairs = suspicious_pairs(CLASS | {"a copy": renamed(original) + tail, "b": original + tail}, STUB, "f")
    assert {pairs[0].first, pairs[0].second} == {"a copy", "b"}


@pytest.mark.parametrize(
    "source",
    ["y = " + "-" * 200_000 + "1", "y = " + "-" * 90_000 + "1", "y = 0x" + "f" * 9000, "\x00", "(" * 90_000],
)
def test_code_that_python_gives_up_on_is_nobodys_work(source: str) -> None:
    assert pieces(source) == set()


def grades(student: str, *scores: float | None) -> Grades:
    return Grades(
        student,
        tuple(Check("01", f"test_{n}", score, 10.0, score is None, "") for n, score in enumerate(scores)),
    )


def test_checks_come_hardest_first_with_their_discrimination() -> None:
    figures = check_figures([grades("a", 10, 0, 2), grades("b", 5, 0, 1), grades("c", 0, 0, None)])
    assert [one.name for one in figures] == ["test_1", "test_2", "test_0"]
    nothing, partly, first = figures
    assert (nothing.mean, nothing.none, nothing.full, nothing.discrimination) == (0.0, 3, 0, None)
    assert (partly.graded, partly.mean) == (2, pytest.approx(0.15))  # type: ignore[comparison-overlap]
    assert first.discrimination == pytest.approx(1.0)  # who has more of it has more of the rest
    assert (first.full, first.none) == (1, 1)


def test_the_histogram_counts_everybody_once() -> None:
    bars = histogram([grades("a", 10, 10), grades("b", 0, 0), grades("c", None, 5), grades("d", 5, 5)])
    assert dict(bars) == {f"{10 * n}–{10 * n + 10} %": 0 for n in range(10)} | {
        "90–100 %": 1, "0–10 %": 1, "20–30 %": 1, "50–60 %": 1,
    }  # fmt: skip


def test_the_page_names_everything_and_escapes_what_students_wrote() -> None:
    class_ = [
        HandedIn(
            "<b>eve</b>",
            notes=["01: was handed in as <script>.ipynb"],
            attempts=["01: reads <script>"],
        )
    ]
    html = render("lab", [grades("<b>eve</b>", 1, None)], class_, [])
    assert "<script>" not in html and "<b>eve" not in html
    assert "was handed in as &lt;script&gt;.ipynb" in html
    assert "10 points of all students together still wait" in html
    assert "reads &lt;script&gt;" in html


def test_the_page_can_be_written_whatever_a_note_holds() -> None:
    notes = ["01: names /etc/\ud800 \x1b[2J\x00", "y" * 65_000]
    student = HandedIn("eve\udcf6", notes=notes, attempts=[f"01: note {n}" for n in range(1000)])
    html = render("lab", [grades("eve\udcf6", 1.0)], [student], [])
    html.encode("utf-8")
    assert "names /etc/? [2J" in html and "\x1b" not in html and "\x00" not in html
    assert len(html) < 10_000
    assert "and 980 more" in html and "note 999" in html


def test_the_page_loads_nothing_and_its_policy_allows_its_own_style_only() -> None:
    html = render("lab", [grades("ada", 1.0)], [HandedIn("ada")], [])
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'") and f"style-src 'sha256-{digest}'" in policy
    assert " style=" not in html  # the policy would switch it off
    assert '<rect width="100.0%"' in html


def test_answers_are_compared_across_the_class() -> None:
    (known,) = [nbformat.read(path, 4) for path in RELEASE.glob("02*.ipynb")]
    source = max(CLASS.values(), key=len)
    key = "02_masked_finetuning", "finetune_after_prune"
    texts = {"ada": source, "ben": renamed(source), "cleo": min(CLASS.values(), key=len)}
    class_ = [HandedIn(student, {key: text}) for student, text in texts.items()]
    (pair,) = likeness(class_, {"02_masked_finetuning": known})
    assert (pair.first, pair.second) == ("ada", "ben")
    assert pair.answer == "02_masked_finetuning: finetune_after_prune"


def test_each_checks_pass_rate_and_the_slowest() -> None:
    def one(student: str, *states: str, seconds: float = 0.0) -> HandedIn:
        checks = tuple(Outcome(f"check {n}", state, 1.0) for n, state in enumerate(states))
        verdicts = {"01": [Verdict("test_0", "partial", 1.0, 2.0, checks=checks)]}
        return HandedIn(student, verdicts=verdicts, seconds={"01": seconds})

    class_ = [
        one("a", "passed", "failed", seconds=1),
        one("b", "passed", "skipped", seconds=3),
        one("c", "failed", "failed"),
    ]
    totals = [grades("a", 10, 10), grades("b", 10, 5), grades("c", 0, 1)]
    never, first = sentence_figures(class_, totals)
    assert (never.sentence, never.rate, never.tried, never.discrimination) == ("check 1", 0.0, 3, None)
    assert first.rate == pytest.approx(2 / 3) and first.discrimination is not None
    assert first.discrimination > 0.8
    assert [entry[0] for entry in slowest(class_)] == ["b", "a", "c"]


@pytest.mark.slow
def test_the_command_says_what_comes_first(tmp_path: Path) -> None:
    write_course(tmp_path)
    result = CliRunner().invoke(app, ["report", "compression", "--course", str(tmp_path)])
    assert result.exit_code == 2
    assert "run `labkit grade compression` first" in result.output
