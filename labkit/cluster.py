"""The Dask cluster behind `--on tcp://scheduler:8786`: for `labkit reproduce` and `labkit grade`."""

from __future__ import annotations

from typing import Any

from labkit.errors import LabError


def connect(address: str) -> Any:
    """A `dask.distributed.Client`. Raises LabError if dask is missing or no scheduler answers."""
    try:
        from dask.distributed import Client
    except ImportError:
        raise LabError("--on needs dask: pip install 'labkit[cluster]', here and on the workers.") from None
    try:
        return Client(address, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise LabError(
            f"no Dask scheduler answers at {address} ({error}).\n"
            "Start one with `dask scheduler`, and `dask worker ADDRESS --nthreads 1` on each machine."
        ) from None
