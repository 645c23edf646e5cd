"""A student's cells as Jupyter would run them: what each puts out, in notebook format."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("IPython")
if sys.platform == "win32":
    pytest.skip("grading needs Linux or macOS", allow_module_level=True)

from labkit.grading import shell as module
from labkit.grading.shell import MOST_OUTPUTS, MOST_TEXT, Shell

Outputs = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """One for all: IPython's shell is a singleton."""
    before = sys.displayhook, sys.excepthook
    yield Shell()
    sys.displayhook, sys.excepthook = before
    module._Shell.clear_instance()


def printed(outputs: Outputs, name: str = "stdout") -> str:
    return "".join(one["text"] for one in outputs if one.get("name") == name)


def error(outputs: Outputs) -> tuple[str, str]:
    """Of the first error; IPython may add one of its own while it shows that."""
    one, *_ = [one for one in outputs if one["output_type"] == "error"]
    return one["ename"], one["evalue"]


def test_prints_and_warnings_are_streams(shell: Shell) -> None:
    outputs = shell.run("import sys\nprint('a')\nprint('b')\nprint('c', file=sys.stderr)\nprint('d')")
    assert outputs == [
        {"output_type": "stream", "name": "stdout", "text": "a\nb\n"},
        {"output_type": "stream", "name": "stderr", "text": "c\n"},
        {"output_type": "stream", "name": "stdout", "text": "d\n"},
    ]
    assert not isinstance(sys.stdout, module._Stream)


def test_the_last_expression_is_shown_and_a_semicolon_hides_it(shell: Shell) -> None:
    (shown,) = shell.run("x = 20\nx + 1")
    assert (shown["output_type"], shown["data"]) == ("execute_result", {"text/plain": "21"})
    assert shell.run("x + 1;") == []
    assert shell.run("x = 3") == []


def test_names_are_kept_from_cell_to_cell(shell: Shell) -> None:
    shell.run("def double(x):\n    return 2 * x")
    shell.run("y = double(4)")
    assert shell.names["y"] == 8 and shell.names["double"](1) == 2


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("1 / 0", "ZeroDivisionError", "division by zero"),
        ("raise KeyError('k')", "KeyError", "'k'"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("undefined", "NameError", "name 'undefined' is not defined"),
    ],
)
def test_an_error_is_an_output_and_ends_only_its_cell(
    shell: Shell, source: str, kind: str, message: str
) -> None:
    outputs = shell.run(f"print('before')\n{source}\nprint('after')")
    assert printed(outputs) == "before\n"
    assert error(outputs) == (kind, message)
    assert printed(shell.run("print('next')")) == "next\n"


def test_a_cell_that_is_no_python_is_a_syntax_error(shell: Shell) -> None:
    kind, _ = error(shell.run("def f(:\n    pass"))
    assert kind == "SyntaxError"
    assert shell.run("") == []


def test_an_error_that_cannot_be_shown_is_an_error_all_the_same(shell: Shell) -> None:
    source = "class E(Exception):\n    def __str__(self):\n        raise ValueError('again')\nraise E"
    assert error(shell.run(source)) == ("E", "")


@pytest.mark.slow
def test_an_error_is_bounded(shell: Shell) -> None:
    outputs = shell.run("def f(n):\n    return f(n - 1) if n else {}['x' * 10_000]\nf(60)")
    (one,) = outputs
    assert len(one["evalue"]) <= 2000
    assert len(one["traceback"]) <= 50 and all(len(line) <= 5000 for line in one["traceback"])


def test_text_and_outputs_are_bounded(shell: Shell) -> None:
    outputs = shell.run("for _ in range(100):\n    print('x' * 10_000)")
    assert len(printed(outputs)) == MOST_TEXT
    outputs = shell.run("for n in range(2000):\n    display(n)")
    assert len(outputs) == MOST_OUTPUTS


def test_pictures_tables_and_what_is_cleared(shell: Shell) -> None:
    (shown,) = shell.run("from IPython.display import HTML, clear_output\ndisplay(HTML('<b>x</b>'))")
    assert shown["output_type"] == "display_data" and shown["data"]["text/html"] == "<b>x</b>"
    outputs = shell.run("print('old')\nclear_output()\nprint('new')")
    assert printed(outputs) == "new\n"
    outputs = shell.run(
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1))\nplt.plot([1, 2])\nplt.show()"
    )
    assert any("image/png" in one.get("data", {}) for one in outputs)


@pytest.mark.parametrize(
    "source", ["%matplotlib inline", "%time x = 1", "%%capture\nprint(1)", "!true", "x = 1 # %x"]
)
def test_magics_work(shell: Shell, source: str) -> None:
    assert [one for one in shell.run(source) if one["output_type"] == "error"] == []


def test_an_unknown_magic_fails_by_itself(shell: Shell) -> None:
    outputs = shell.run("%no_such_magic\nx = 5")
    assert "not found" in str(outputs)
    assert printed(shell.run("print('next')")) == "next\n"
