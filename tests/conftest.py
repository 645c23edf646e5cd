"""What tests share: small data sets, and the material beside the repository where it exists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from labkit.datasets import ImageSet

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
SOURCE = REPOSITORY / "notebooks" / "source" / "compression"


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def source_notebooks() -> Path:
    return SOURCE


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the official CIFAR-10 files: LABKIT_TEST_CIFAR, or restored from ../shared."""
    given = os.environ.get("LABKIT_TEST_CIFAR")
    if given:
        return Path(given)
    restore = SHARED / "cifar10" / "restore"
    if not restore.exists():
        pytest.skip("needs CIFAR-10: set LABKIT_TEST_CIFAR to a folder with cifar-10-batches-py")
    root = tmp_path_factory.mktemp("cifar10")
    done = subprocess.run([sys.executable, str(restore), str(root)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"CIFAR-10 could not be restored: {done.stderr.strip().splitlines()[-1]}")
    return root


@pytest.fixture(scope="session")
def report_baseline() -> Path:
    """The report's own baseline weights, which are not part of the project."""
    path = SHARED / "reference" / "report_baseline.pt"
    if not path.exists():
        pytest.skip("needs the report's baseline weights, which lie beside the repository, not in it")
    return path


def random_pictures(count: int, seed: int = 0) -> ImageSet:
    """Pictures whose label can be learned: class k is a little brighter than class k - 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    noise = torch.randint(0, 60, (count, 3, 32, 32), generator=generator)
    images = (noise + 19 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet("noise", images, labels, tuple("0123456789"), (0.45, 0.45, 0.45), (0.22, 0.22, 0.22))


@pytest.fixture
def small_set() -> ImageSet:
    return random_pictures(96)
