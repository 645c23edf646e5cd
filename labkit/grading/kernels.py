"""The environment that a notebook's kernel gets, the same on every machine.

Nothing of a user's own Jupyter takes part: no start-up file, no kernel called python3 that is another
Python, no settings; and nothing is left there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.grading.scratch import scratch_folder


@contextmanager
def kernel_environment(threads: int = 1, grading: Path | None = None) -> Iterator[dict[str, str]]:
    """Environment variables for one kernel, valid inside the `with` block.

    threads: how many threads torch may use.
    grading: None for an ordinary run at the `quick` profile; when grading, the folder of source
        notebooks from which `labkit.from_notebook` takes an earlier function if the student's fails.
    """
    with scratch_folder("kernel") as private:
        env = {
            **os.environ,
            "LABKIT_PROFILE": "quick",
            # pictures go into the notebook, whatever this shell has set
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            # nobody's start-up files run, and no history is shared
            "IPYTHONDIR": str(private),
        }
        for library in ("OMP", "MKL", "OPENBLAS"):
            env[f"{library}_NUM_THREADS"] = str(threads)
        if grading is not None:
            env["LABKIT_GRADING"] = "1"
            env["CUDA_VISIBLE_DEVICES"] = ""  # the same arithmetic on every machine
            env["LABKIT_REFERENCE"] = str(grading)
        yield env


@contextmanager
def private_jupyter() -> Iterator[None]:
    """Inside the `with` block, this process's Jupyter keeps to a folder of its own."""
    with scratch_folder("jupyter") as private:
        before = dict(os.environ)
        for kind in ("CONFIG", "DATA", "RUNTIME"):
            os.environ[f"JUPYTER_{kind}_DIR"] = os.path.join(private, kind.lower())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
