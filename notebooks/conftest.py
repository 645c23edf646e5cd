"""The source notebooks are tests, too: nbval runs them, in the environment of all other tests."""

import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import nbval.kernel  # type: ignore[import-untyped]
import pytest
from jupyter_client.manager import KernelManager

from tests import suite
from tests.suite import pytest_collection_modifyitems, pytest_xdist_make_scheduler
from tests.warm_kernels import WarmKernels

__all__ = ["pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]

suite.set_environment()

# Half of `quick`. All of it, with what Colab installs, is for tests/colab/test_versions.py.
HALF = {"epochs": 2, "ramp_epochs": 1, "train_size": 300, "scan_size": 100}


def pytest_itemcollected(item: pytest.Item) -> None:
    suite.pytest_itemcollected(item)
    item.output_timeout = 600  # type: ignore[attr-defined]  # nbval's 5 seconds are not enough everywhere


def pytest_configure(config: pytest.Config) -> None:
    """One warm process for all notebooks, whichever process of pytest runs them."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="labkit-kernels-")
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(WarmKernels(Path(folder.name), sizes=HALF).close)  # called before the other
        os.environ["LABKIT_TEST_KERNELS"] = folder.name
    os.environ["JUPYTER_PATH"] = os.environ["LABKIT_TEST_KERNELS"]
    nbval.kernel.KernelManager = _WithoutPorts


class _WithoutPorts(KernelManager):
    """Of two kernels that start at the same time, both can be given the same ports."""

    def __init__(self, **options: Any) -> None:
        if os.name == "posix":
            options |= {"transport": "ipc", "ip": f"{os.environ['JUPYTER_PATH']}/{uuid.uuid4().hex}"}
        super().__init__(**options)
