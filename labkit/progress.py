"""What you see while a run trains: a bar with images/s and time left, and one line for each epoch."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm


class EpochProgress:
    """A bar over all epochs of a run; `with` closes it, also after an error.

    Silent while a notebook is being graded (LABKIT_GRADING): nobody watches.
    """

    def __init__(self, label: str, pictures: int, epochs_done: int, epochs: int) -> None:
        self.epochs = epochs
        self.bar = tqdm(
            total=pictures * epochs,
            initial=pictures * epochs_done,
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

    def advance(self, pictures: int) -> None:
        self.bar.update(pictures)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Print the epoch's line above the bar."""
        if not self.bar.disable:
            tqdm.write(describe(record, self.epochs), file=sys.stdout)


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
