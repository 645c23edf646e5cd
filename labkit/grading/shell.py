"""Runs a student's cells as Jupyter would, in this process, and collects what they put out.

An IPython shell, for magics, `display` and pictures, without its history and its files. What works in Jupyter
and cannot work here (a network, a GPU, a mounted Drive, a package that is not installed) is named, and costs
the statement that needs it and what that would have defined, not the rest of its cell.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError, UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Any as AnyTrait
from traitlets.config import Config

from labkit.check.exceptions import NO_GPU
from labkit.definitions import stored_names
from labkit.errors import LabError

MOST_TEXT = 200_000  # characters of a cell's outputs; the rest is dropped
MOST_OUTPUTS = 500
# a file, a host, a device or a module that is not here; a magic of an extension's or of Colab's; a keyboard
NOT_HERE = (
    OSError, ImportError, subprocess.SubprocessError, LabError,
    UsageError, EOFError, StdinNotImplementedError,
)  # fmt: skip
GOES_ON = "labkit: this does not work where notebooks are graded; the cell goes on with its next statement.\n"
NOT_INSTALLED = "labkit: nothing is installed where notebooks are graded; the lab's own packages are there."
INSTALLERS = ("pip", "conda", "mamba", "micromamba", "uv")
INSTALLS = re.compile(rf"\b({'|'.join(INSTALLERS)})\d?\b.* install\b|\bapt(-get)? install\b")


class Shell:
    """One notebook's namespace, and the cells that were run in it."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: where the cells run."""
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        self._shell = ZMQInteractiveShell.instance(config=config)
        if folder is not None:
            self._shell.starting_dir = str(folder)
        self._shell.db = {}  # where %cd and %store make a note: by themselves, in a file
        self._shell.enable_matplotlib()
        self._shell.events.trigger("pre_execute")

    @property
    def names(self) -> dict[str, Any]:
        """What the cells have defined."""
        names: dict[str, Any] = self._shell.user_ns
        return names

    def run(self, source: str, answer: bool = False) -> list[dict[str, Any]]:
        """Run a cell; its outputs in notebook format, an error among them. Never raises an Exception.

        answer: whether this is the cell of an answer, which has to get by with the lab's packages.
        """
        outputs = _Outputs()
        self._shell.outputs, self._shell.answers = outputs, answer
        importlib.invalidate_caches()  # the cell before may have written a module
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Stream("stdout", 1, outputs), _Stream("stderr", 2, outputs)
        try:
            self._shell.run_cell(source.replace("\0", ""), store_history=True)  # type: ignore[no-untyped-call]
        except BaseException as error:
            outputs.add(_error(type(error), error, []))
        finally:
            sys.stdout, sys.stderr = before
        return outputs.items


class _Outputs:
    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._left = MOST_TEXT

    def text(self, name: str, text: str) -> None:
        text = text[: self._left]
        self._left -= len(text)
        if not text:
            return
        last = self.items[-1] if self.items else {}
        if last.get("output_type") == "stream" and last.get("name") == name:
            last["text"] += text
        else:
            self.add({"output_type": "stream", "name": name, "text": text})

    def add(self, output: dict[str, Any]) -> None:
        if len(self.items) < MOST_OUTPUTS:
            self.items.append(output)


class _Stream(io.TextIOBase):
    encoding = "utf-8"

    def __init__(self, name: str, descriptor: int, outputs: _Outputs) -> None:
        self.name = name
        self._descriptor, self._outputs = descriptor, outputs

    def fileno(self) -> int:
        """Jupyter's streams have one, for `faulthandler` and subprocesses; here it leads nowhere."""
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._outputs.text(self.name, str(text))
        return len(text)


class _Display(DisplayPublisher):
    shell: Any

    def publish(self, data: Any, metadata: Any = None, **options: Any) -> None:  # type: ignore[override]
        output = {"output_type": "display_data", "data": dict(data), "metadata": dict(metadata or {})}
        self.shell.outputs.add(output)

    def clear_output(self, wait: bool = False) -> None:
        self.shell.outputs.items.clear()


class _Result(DisplayHook):
    shell: Any

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self.shell.outputs.add(
            {
                "output_type": "execute_result",
                "execution_count": self.shell.execution_count,
                "data": dict(format_dict),
                "metadata": dict(md_dict or {}),
            }
        )

    def finish_displayhook(self) -> None:
        pass


class _Kernel:
    """That there is one tells code that it runs in a notebook. It has nothing to restart."""

    def do_shutdown(self, restart: bool = False) -> None:
        pass


class ZMQInteractiveShell(InteractiveShell):
    """Called as Jupyter's, by whose name code finds out where it runs."""

    outputs = AnyTrait()
    answers = AnyTrait(False)
    kernel = AnyTrait(_Kernel())
    display_pub_class = _Display
    displayhook_class = _Result

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._lost: set[str] = set()
        self._installs = False  # whether the notebook brings packages of its own
        for name in INSTALLERS:
            self.register_magic_function(self._not_installed, "line", name)  # type: ignore[arg-type]

    async def run_code(self, code_obj: CodeType, result: Any = None, *, async_: bool = False) -> bool:
        """Run a statement of a cell. True, which ends the cell, unless what failed cannot work here."""
        failed = await super().run_code(code_obj, result, async_=async_)  # type: ignore[no-untyped-call]
        error = getattr(result, "error_in_exec", None)
        if not failed or not self._cannot_work(error):
            return bool(failed)
        self._lost |= stored_names(code_obj)
        result.error_in_exec = None
        print(GOES_ON, end="", file=sys.stderr)
        return False

    def _cannot_work(self, error: object) -> bool:
        """Whether this comes of where the cell runs, or of a statement that was lost to that."""
        if isinstance(error, NameError):
            return error.name in self._lost
        if isinstance(error, ImportError) and self.answers:
            return self._installs or str(error.name).startswith("google")  # Colab's own
        return isinstance(error, NOT_HERE) or (
            isinstance(error, Exception) and re.search(NO_GPU, str(error)) is not None
        )

    def system(self, cmd: str) -> None:
        """Run a command of the student's; there are no terminals here, through which IPython would do so."""
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")  # as in Jupyter
        command = self.var_expand(cmd, depth=1)  # type: ignore[no-untyped-call]
        self._installs |= INSTALLS.search(command) is not None
        with subprocess.Popen(  # noqa: S602 (that is what `!` means)
            command, shell=True, env=_environment(), errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(line)
        self.user_ns["_exit_code"] = process.returncode

    system_piped = system_raw = system

    def _not_installed(self, line: str) -> None:
        self._installs = True
        print(NOT_INSTALLED)

    def enable_matplotlib(self, gui: Any = None) -> Any:
        """Inline, whatever is asked for: nobody looks at a window."""
        return super().enable_matplotlib("inline")  # type: ignore[no-untyped-call]

    def ask_exit(self) -> None:
        """For `exit` and `quit`: the other cells are graded all the same."""

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        self.outputs.add(_error(etype, evalue, stb))

    def init_io(self) -> None:
        pass

    def enable_gui(self, gui: Any = None) -> None:
        pass


def _environment() -> dict[str, str]:
    """Of a command: this Python first, as in Jupyter, and no wait for a network."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _error(kind: Any, value: Any, lines: Any) -> dict[str, Any]:
    try:
        said = str(value)
    except Exception:
        said = ""
    return {
        "output_type": "error",
        "ename": str(getattr(kind, "__name__", kind)),
        "evalue": said[:2000],
        "traceback": [str(line)[:5000] for line in lines][:50],
    }
