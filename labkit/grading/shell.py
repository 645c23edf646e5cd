"""Runs a student's cells as Jupyter would, in this process, and collects what they put out.

An IPython shell, for magics, `display` and pictures, without its history and its files.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Any as AnyTrait
from traitlets.config import Config

MOST_TEXT = 200_000  # characters of a cell's outputs; the rest is dropped
MOST_OUTPUTS = 500


class Shell:
    """One notebook's namespace, and the cells that were run in it."""

    def __init__(self) -> None:
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        self._shell = _Shell.instance(config=config)
        self._shell.enable_matplotlib("inline")  # type: ignore[no-untyped-call]
        self._shell.events.trigger("pre_execute")

    @property
    def names(self) -> dict[str, Any]:
        """What the cells have defined."""
        names: dict[str, Any] = self._shell.user_ns
        return names

    def run(self, source: str) -> list[dict[str, Any]]:
        """Run a cell; its outputs in notebook format, an error among them. Never raises an Exception."""
        outputs = _Outputs()
        self._shell.outputs = outputs
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Stream("stdout", outputs), _Stream("stderr", outputs)
        try:
            self._shell.run_cell(source, store_history=True)  # type: ignore[no-untyped-call]
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

    def __init__(self, name: str, outputs: _Outputs) -> None:
        self.name = name
        self._outputs = outputs

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


class _Shell(InteractiveShell):
    outputs = AnyTrait()
    display_pub_class = _Display
    displayhook_class = _Result

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        self.outputs.add(_error(etype, evalue, stb))

    def init_io(self) -> None:
        pass

    def enable_gui(self, gui: Any = None) -> None:
        pass


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
