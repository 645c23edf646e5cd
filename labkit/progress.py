"""What you see while a run trains: a bar with images/s and time left, and one line for each epoch.

In a notebook also a picture of loss and accuracy, which grows with the run and stays as its curve.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from labkit.streams import accept_any_text

LEAST_SECONDS = 2.0  # from one drawing to the next
MOST_SHARE = 0.03  # of a run's time goes into drawing: a slow machine draws less often


class EpochProgress:
    """A bar over all epochs of a run; `with` closes it, also after an error.

    Silent while a notebook is being graded (LABKIT_GRADING): nobody watches.
    """

    def __init__(self, label: str, pictures: int, history: Sequence[dict[str, Any]], epochs: int) -> None:
        """history: the run's own list, which grows; what is in it now was done before."""
        accept_any_text()  # the line of an epoch has a letter that is not ASCII
        self.epochs = epochs
        self.curve = LiveCurve(label, history, epochs)
        self.curve.show()
        self.bar = tqdm(
            total=pictures * epochs,
            initial=pictures * len(history),
            desc=label,
            unit=" images",
            unit_scale=True,
            mininterval=1.0,
            leave=False,
            file=sys.stdout,
            disable=bool(os.environ.get("LABKIT_GRADING")),
        )

    def __enter__(self) -> EpochProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        self.curve.show()  # also after an error: what was done

    def advance(self, pictures: int) -> None:
        self.bar.update(pictures)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Bring the picture up to date; print the epoch's line below it and above the bar."""
        if not self.bar.disable:
            self.bar.clear()  # what stands above a new picture can no longer be wiped
            self.curve.grow()
            tqdm.write(describe(record, self.epochs), file=sys.stdout)


class LiveCurve:
    """Loss and accuracy of a run so far: one picture in the notebook, replaced as epochs are added.

    Draws nothing where nobody looks: outside a notebook, while grading, for a run of a single epoch.
    A picture that cannot be drawn costs a line of text, never the training.
    """

    def __init__(self, label: str, history: Sequence[dict[str, Any]], epochs: int) -> None:
        self.label = label
        self.history = history
        self.wanted = epochs > 1 and not os.environ.get("LABKIT_GRADING") and in_notebook()
        self.handle: Any = None
        self.drawn = 0  # epochs that the picture shows
        self.rests_until = -math.inf

    def grow(self) -> None:
        """Draw the epochs that are new, unless the last drawing was a moment ago."""
        if time.monotonic() >= self.rests_until:
            self.show()

    def show(self) -> None:
        """Draw the epochs that are new, if any."""
        if not self.wanted or len(self.history) == self.drawn:
            return
        try:
            self._draw()
        except Exception as problem:
            self.wanted = False
            print(f"{self.label}: no picture of this run ({type(problem).__name__}: {problem})")

    def _draw(self) -> None:
        # here, so that the command line and the grader never load them
        from IPython.display import DisplayHandle

        from labkit.plots import training_curve

        started = time.monotonic()
        epochs = len(self.history)
        # rendered by us: IPython would print the traceback of a picture that fails
        data, metadata = training_curve({self.label: self.history})._repr_mimebundle_()
        if self.handle is None:
            self.handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self.handle.display(data, metadata=metadata, raw=True)
        else:
            self.handle.update(data, metadata=metadata, raw=True)
        self.drawn = epochs
        now = time.monotonic()
        self.rests_until = now + max(LEAST_SECONDS, (now - started) / MOST_SHARE)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel: Jupyter's, Colab's, VS Code's."""
    ipython = sys.modules.get("IPython")  # a kernel has it; nobody else has to load it to be asked
    shell = getattr(ipython, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def describe(record: dict[str, Any], epochs: int) -> str:
    """One epoch in one line: `epoch  3/20 · train 0.4117 0.8561 · test 0.4434 0.8510 · 1210 images/s`."""
    parts = [f"epoch {record['epoch'] + 1:2d}/{epochs}"]
    for name in ("train", "validation", "test"):
        if f"{name}_loss" in record:
            parts.append(
                f"{name} loss {record[f'{name}_loss']:.4f} accuracy {record[f'{name}_accuracy']:.4f}"
            )
    parts.append(f"{record['images_per_second']:.0f} images/s")
    return " · ".join(parts)
