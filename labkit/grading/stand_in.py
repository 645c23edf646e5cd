"""Where references stand in, seen from the checker: a process for each earlier notebook that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from labkit.grading.channel import ChannelError, TimedOut
from labkit.grading.student import Student

MOST_STARTS = 5  # of such processes for one notebook: a student's code may break each that it is lent


class StandIns:
    """References that set-up cells took from earlier notebooks, lent to one student's process.

    start: a new process, held as a student's. texts: the definitions of the earlier notebooks.
    """

    def __init__(self, start: Callable[[], Student], texts: Mapping[str, str]) -> None:
        self._start, self._texts = start, texts
        self._lent: set[tuple[str, str]] = set()
        self._running: dict[str, Student] = {}
        self._starts = 0

    def lend(self, notebook: str, name: str) -> None:
        """From now on this function may be asked for."""
        self._lent.add((notebook, name))

    def ask(
        self, notebook: str, path: str, question: dict[str, Any], buffers: list[Any], deadline: float
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """Have `path` run there, `prune` or `STE.apply`: what it gave and changed, or why it did not.

        Raises LookupError for what is not lent, TimedOut after the deadline.
        """
        name, *attributes = path.split(".")
        if (notebook, name) not in self._lent or attributes not in ([], ["apply"]):
            raise LookupError(path)  # other attributes lead into what the function is made of
        try:
            process = self._process(notebook, deadline)
            process.control.send(question | {"path": path}, buffers, deadline)
            answer, received = process.control.receive(deadline)
        except ChannelError as error:
            self._stop(notebook)
            if isinstance(error, TimedOut):
                raise
            return {
                "raised": f"{name}, the reference that stands in for yours, could not go on with this"
            }, []
        return {key: answer[key] for key in ("raised", "result", "changes") if key in answer}, received

    def stop(self) -> None:
        """End all of them."""
        for notebook in list(self._running):
            self._stop(notebook)

    def _process(self, notebook: str, deadline: float) -> Student:
        if notebook not in self._running:
            if self._starts == MOST_STARTS:
                raise ChannelError("too many have ended")
            self._starts += 1
            process = self._running[notebook] = self._start()
            text = self._texts[notebook].encode()
            process.control.send({"op": "lend", "notebook": notebook}, [text], deadline)
            process.control.receive(deadline)
        return self._running[notebook]

    def _stop(self, notebook: str) -> None:
        process = self._running.pop(notebook, None)
        if process is not None:
            process.stop()
