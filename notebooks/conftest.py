"""The source notebooks are tests, too: nbval runs them, in the environment of all other tests."""

import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import nbval.kernel  # type: ignore[import-untyped]
import pytest
from jupyter_client.manager import KernelManager

from tests.suite import (
    pytest_collection_modifyitems,
    pytest_itemcollected,
    pytest_xdist_make_scheduler,
    set_environment,
)
from tests.warm_kernels import WarmKernels

__all__ = ["pytest_collection_modifyitems", "pytest_itemcollected", "pytest_xdist_make_scheduler"]

set_environment()


def pytest_configure(config: pytest.Config) -> None:
    """One warm process for all notebooks, whichever process of pytest runs them."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="labkit-kernels-")
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(WarmKernels(Path(folder.name)).close)  # called before the other
        os.environ["LABKIT_TEST_KERNELS"] = folder.name
    os.environ["JUPYTER_PATH"] = os.environ["LABKIT_TEST_KERNELS"]
    nbval.kernel.KernelManager = _WithoutPorts


class _WithoutPorts(KernelManager):
    """Of two kernels that start at the same time, both can be given the same ports."""

    def __init__(self, **options: Any) -> None:
        if os.name == "posix":
            options |= {"transport": "ipc", "ip": f"{os.environ['JUPYTER_PATH']}/{uuid.uuid4().hex}"}
        super().__init__(**options)
