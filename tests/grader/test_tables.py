"""What the grading commands print, when students choose the names and the notes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from labkit.cli import app
from labkit.grading import collect
from labkit.grading.marks import Marks, Result
from labkit.grading.reference import Run
from labkit.grading.tables import print_class, print_line, print_moved, runs_table
from tests.roundtrip.tiny_course import write_course


def printed(*results: Result, width: int = 100) -> str:
    """What a terminal gets, as the bytes that it can take."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="utf-8")
    console = Console(file=file, highlight=False, width=width)
    print_class(console, Path("/[/srv]/course"), "lab[1]", list(results))
    print_moved(console, list(results))
    file.flush()
    return raw.getvalue().decode("utf-8")


def result(
    notes: list[str], attempts: list[str], student: str = "mallory", before: float | None = None
) -> Result:
    return Result(student, {"01_a": Marks(1.0, 2.0, 0.0)}, notes, attempts, before)


def test_what_looks_like_markup_is_printed_as_it_is() -> None:
    text = printed(
        result(
            ["was handed in as a[/b].ipynb"],
            ["starts another program: cat [/x] [red]y[/red] :smile:"],
            "m[/i]",
            2.0,
        )
    )
    assert "m[/i]: was handed in as a[/b].ipynb" in text
    assert "m[/i]: starts another program: cat [/x] [red]y[/red] :smile:" in text
    assert "/[/srv]/course/feedback/<student>/lab[1]/*.html" in text
    assert "lab[1]: 1 submissions" in text


@pytest.mark.parametrize(
    "evil", ["\x1b]0;pwned\x07\x1b[2J\x1b[H", "\x9b2J", "/etc/\ud800", "\rada: 10", "\nada: fooled"]
)
def test_nothing_reaches_the_terminal_that_it_obeys_or_cannot_show(evil: str) -> None:
    text = printed(result([f"cell {evil} fine"], [f"names {evil} here"], f"mal{evil}lory", 2.0))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not [line for line in text.splitlines() if line.startswith("ada")]
    assert "fine" in text and "here" in text


def test_a_student_cannot_fill_the_screen() -> None:
    text = printed(result([f"note {n}" for n in range(10**4)], ["y" * 65_000] * 10**4))
    assert len(text) < 20_000
    assert text.count("and 9,980 more") == 2
    assert "mallory: note 0\n" in text and "mallory: note 9999\n" in text  # such as: not graded


def test_a_run_of_the_reference_prints_its_trouble() -> None:
    run = Run.__new__(Run)
    for name, value in {
        "name": "01_a",
        "seconds": 1.0,
        "points": 0.0,
        "possible": 1.0,
        "trouble": "KeyError: x[/0]",
    }.items():
        object.__setattr__(run, name, value)
    file = io.StringIO()
    Console(file=file, width=100).print(runs_table([run]))
    assert "KeyError: x[/0]" in file.getvalue()


def test_a_line_keeps_what_honest_names_have() -> None:
    file = io.StringIO()
    print_line(Console(file=file, width=100), "Zoë 陈: was handed in as 01_a (1) [final].ipynb")
    assert file.getvalue() == "Zoë 陈: was handed in as 01_a (1) [final].ipynb\n"


def test_collect_lists_odd_names_and_does_not_stop_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_course(tmp_path)
    odd = [f"a[/b]\x1b[2J{n}.ipynb: nobody's \ud800" for n in range(300)]
    found = collect.Collected("Canvas", new=["ada"], left_out=odd)
    monkeypatch.setattr(collect, "collect", lambda *given: found)
    result = CliRunner().invoke(app, ["collect", str(tmp_path), "compression", "--course", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "left out: a[/b][2J0.ipynb: nobody's ?\n" in result.output
    assert "\x1b" not in result.output
    assert "and 100 more" in result.output
    assert "1 new" in result.output
