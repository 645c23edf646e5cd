"""A student's cells as Jupyter would run them: what each puts out, in notebook format."""

from __future__ import annotations

import io
import os
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
    module.ZMQInteractiveShell.clear_instance()


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


def test_a_commands_output_is_shown_and_its_end_is_known(shell: Shell) -> None:
    outputs = shell.run("!echo über && echo wrong >&2; exit 3\nprint(_exit_code)")
    assert printed(outputs) == "über\nwrong\n3\n"
    assert printed(shell.run("name = 'x y'\n!echo {name}\n!echo $name")) == "x y\nx y\n"
    outputs = shell.run("lines = !printf 'a\\nb'\nlines, get_ipython().getoutput('echo c')")
    assert outputs[-1]["data"]["text/plain"] == "(['a', 'b'], ['c'])"
    assert (
        printed(shell.run("get_ipython().system('echo d')\nget_ipython().system_raw('echo e')")) == "d\ne\n"
    )
    assert printed(shell.run("%%bash\necho f")) == "f\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")
def test_commands_need_no_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    def none(*_: object) -> None:
        raise OSError("out of pty devices")

    monkeypatch.setattr(os, "openpty", none)
    monkeypatch.setattr(pty, "fork", none)
    assert printed(shell.run("!echo a\n%system echo b\n%sx echo b\nprint('c')")).split() == ["a", "c"]


NOT_HERE = {
    "Drive": "from google.colab import drive\ndrive.mount('/content/drive')\n%cd /content/drive/MyDrive",
    "another module of Colab's": "import google.colab.files as files\nup = files.upload()\nlist(up)",
    "a package": "import no_such_package as new\nmodel = new.Model()\nmodel.fit()",
    "a GPU": "import torch\nnet = torch.nn.Linear(2, 2).cuda()\nnet(torch.ones(2, device='cuda'))",
    "a file": "data = open('/content/data.bin').read()\ndata.strip()",
    "a host": "import urllib.request\npage = urllib.request.urlopen('http://[::1]:9/')\npage.read()",
    "a command": "import subprocess as s\ns.run(['no-such-command'])\ns.check_output('exit 1', shell=True)",
    "a keyboard": "name = input('Your name: ')\nprint(name)",
    "a command in the background": "!sleep 0 &",
    "Colab's magic": "%tensorflow_version 2.x",
    "an extension": "%load_ext no_such_extension\n%no_such_magic 3",
    "a window": "%matplotlib widget\n%matplotlib qt",
    "packages": "%pip install -q torchinfo\n%conda install x\n%uv pip install y\n!pip install no-such-one",
    "a missing command": "!nvidia-smi-of-nobody",
    "a way out": "quit()",
}  # fmt: skip


@pytest.mark.parametrize("source", NOT_HERE.values(), ids=NOT_HERE)
def test_what_cannot_work_here_costs_only_itself(
    shell: Shell, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    shell.run("kept = 0")
    outputs = shell.run(f"{source}\nkept = 5\nimport colorsys as also_kept")
    assert shell.names["kept"] == 5 and "also_kept" in shell.names
    del shell.names["also_kept"]
    assert (
        printed(outputs) + printed(outputs, "stderr")
        or any("error" in str(one) for one in outputs)
        or ("matplotlib" in source or "quit" in source)
    )


def test_it_is_named_and_the_cell_says_that_it_goes_on(shell: Shell) -> None:
    outputs = shell.run("import no_such_package\nprint('on')")
    assert error(outputs) == ("ModuleNotFoundError", "No module named 'no_such_package'")
    assert module.GOES_ON in printed(outputs, "stderr") and printed(outputs) == "on\n"


@pytest.mark.parametrize(
    "source",
    [
        "1 / 0",
        "raise ValueError('mine')",
        "never_defined",
        "assert False",
        "raise RuntimeError('CUDAless')",
        "int('x')",
    ],
)
def test_a_mistake_ends_its_cell_as_in_jupyter(shell: Shell, source: str) -> None:
    shell.run("kept = 0")
    shell.run(f"{source}\nkept = 5")
    assert shell.names["kept"] == 0


def test_what_a_handler_of_their_own_catches_is_not_told(shell: Shell) -> None:
    outputs = shell.run(
        "try:\n    import google.colab\n    there = True\nexcept ImportError:\n    there = False"
    )
    assert outputs == [] and shell.names["there"] is False


IN_JUPYTER = {
    "a stream's number": "import sys\nassert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)",
    "faulthandler": "import faulthandler\nfaulthandler.enable()\nfaulthandler.disable()",
    "a stream of a subprocess": "import subprocess as s, sys\ns.run('true', stdout=sys.stdout, check=True)",
    "the shell's name": "assert get_ipython().__class__.__name__ == 'ZMQInteractiveShell'",
    "a kernel": "assert get_ipython().kernel is not None\nget_ipython().kernel.do_shutdown(True)",
    "a magic by call": "get_ipython().run_line_magic('matplotlib', 'inline')",
    "autoreload": "%load_ext autoreload\n%autoreload 2\n%autoreload 0",
    "settings": "%config InlineBackend.figure_format = 'retina'\n%env X=1\n%pwd\n%who",
    "a zero byte": "x = 1\0\nassert x == 1",
}  # fmt: skip


@pytest.mark.parametrize("source", IN_JUPYTER.values(), ids=IN_JUPYTER)
def test_what_works_in_jupyter_works(shell: Shell, source: str) -> None:
    assert [one for one in shell.run(source) if one["output_type"] == "error"] == []


def test_an_unknown_magic_is_named(shell: Shell) -> None:
    outputs = shell.run("%no_such_magic\nx = 5")
    assert "not found" in str(outputs) and shell.names["x"] == 5


def test_an_answer_gets_by_with_the_labs_packages_unless_the_notebook_installs_others(shell: Shell) -> None:
    source = "import no_such_package\nreached = 5"
    shell._shell._installs = False  # as in a new notebook
    shell.run("reached = 0")
    shell.run(source, answer=True)
    assert shell.names["reached"] == 0
    for installs in ("!pip3 -q install no-such-package", "%pip install no-such-package"):
        shell._shell._installs = False
        shell.run(f"{installs}\nreached = 0")
        shell.run(source, answer=True)
        assert shell.names["reached"] == 5
    shell._shell._installs = False
    shell.run("from google.colab import drive\nreached = 6", answer=True)
    assert shell.names["reached"] == 6
