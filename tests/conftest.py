"""What tests share: their environment, small data sets, and material that is not part of the project."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import skips, suite
from tests.suite import pytest_collection_modifyitems, pytest_itemcollected, pytest_xdist_make_scheduler

suite.set_environment()  # before torch is imported, so nothing here imports it

if TYPE_CHECKING:
    from labkit.datasets import ImageSet

__all__ = ["pytest_collection_modifyitems", "pytest_itemcollected", "pytest_xdist_make_scheduler"]
REPOSITORY = suite.ROOT
SOURCE = REPOSITORY / "notebooks" / "source" / "compression"


def pytest_configure(config: pytest.Config) -> None:
    given = os.environ.get("LABKIT_ALLOWED_SKIPS")
    if given:
        config.pluginmanager.register(skips.SkipCheck(skips.read(Path(given))))


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def source_notebooks() -> Path:
    return SOURCE


@pytest.fixture(scope="session")
def cifar_root() -> Path:
    """The folder LABKIT_TEST_CIFAR, with the official CIFAR-10 files in it."""
    given = os.environ.get("LABKIT_TEST_CIFAR")
    if not given:
        pytest.skip("needs CIFAR-10: set LABKIT_TEST_CIFAR to a folder with cifar-10-batches-py")
    return Path(given)


@pytest.fixture(scope="session")
def report_baseline() -> Path:
    """The file LABKIT_TEST_BASELINE: the report's own baseline weights, which are not part of the project."""
    given = os.environ.get("LABKIT_TEST_BASELINE")
    if not given:
        pytest.skip("needs the report's baseline weights: set LABKIT_TEST_BASELINE to the file")
    return Path(given)


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[Any]:
    """A grading engine for all tests of this process that do not ask how one starts or what it hides."""
    from labkit.grading.engine import Engine

    with Engine([REPOSITORY / "notebooks"]) as engine:
        yield engine


@pytest.fixture(scope="module")
def graded_by_the_shared_engine(shared_engine: Any) -> Iterator[None]:
    """Whoever starts an engine in this module gets the shared one: two imports of torch less each time."""
    with pytest.MonkeyPatch.context() as patch:
        hand_out(shared_engine, patch)
        yield


def hand_out(engine: Any, patch: pytest.MonkeyPatch) -> None:
    """Whoever starts an engine from now on gets this one."""
    for module in ("labkit.grading.engine", "labkit.grading.grade"):
        patch.setattr(f"{module}.Engine", lambda *_, **__: contextlib.nullcontext(engine))


def random_pictures(count: int, seed: int = 0) -> ImageSet:
    """Pictures whose label can be learned: class k is a little brighter than class k - 1."""
    import torch

    from labkit.datasets import ImageSet

    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    noise = torch.randint(0, 60, (count, 3, 32, 32), generator=generator)
    images = (noise + 19 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet("noise", images, labels, tuple("0123456789"), (0.45, 0.45, 0.45), (0.22, 0.22, 0.22))


@pytest.fixture
def small_set() -> ImageSet:
    return random_pictures(96)
