"""The two data sets as tensors, against the files themselves and against torchvision."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labkit import datasets, download
from labkit.datasets import ImageSet, cifar10, shapes10, torchvision_cifar10
from labkit.errors import LabError

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in with 4 pictures a batch, in the official format. Returns the folder that holds it."""
    folder = tmp_path / download.FOLDER
    folder.mkdir()
    md5s = {}
    for index, name in enumerate(download.FILES):
        pixels = np.full((4, 3072), index, np.uint8)
        pixels[:, 1024:2048] += 100  # green
        pixels[:, 1] = 255  # red, row 0, column 1
        (folder / name).write_bytes(python2_pickle(pixels, [index, 1, 2, 9]))
        md5s[name] = download.file_md5(folder / name)
    monkeypatch.setattr(download, "FILES", md5s)
    return tmp_path


def python2_pickle(data: np.ndarray[Any, Any], labels: list[int]) -> bytes:
    """A batch as Python 2 wrote the official ones: the opcodes that Python 3's pickle cannot write."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    array += number(data.shape[0]) + number(data.shape[1]) + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    array += b"(K\x03U\x01|NNN" + number(-1) * 2 + b"K\x00tb\x89"
    array += b"T" + data.size.to_bytes(4, "little") + data.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def test_pictures_and_labels_come_in_the_files_order(small: Path) -> None:
    train, test = cifar10(root=small), cifar10(train=False, root=small)
    assert (len(train), len(test)) == (20, 4)
    assert train.images.dtype == torch.uint8 and train.images.shape == (20, 3, 32, 32)
    assert train.images.is_contiguous()
    assert train.labels.dtype == torch.int64
    assert train.labels.tolist() == [n for batch in range(1, 6) for n in (batch, 1, 2, 9)]
    assert test.labels.tolist() == [6, 1, 2, 9]
    picture = train.images[4]  # the first of data_batch_2
    assert picture[:, 5, 5].tolist() == [2, 102, 2]  # red, green, blue
    assert (picture == 255).nonzero().tolist() == [[0, 0, 1]]  # channel, row, column


def test_a_data_set_says_what_it_is(small: Path) -> None:
    data = cifar10(root=small)
    assert data.name == "cifar10"
    assert " ".join(data.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert data.mean == (0.4914, 0.4822, 0.4465) and data.std == (0.2023, 0.1994, 0.2010)


def test_a_second_call_returns_the_same_object(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cifar10(root=small)
    monkeypatch.setenv("LABKIT_DATA", str(small / download.FOLDER))
    assert cifar10() is first and cifar10(True, str(small)) is first
    assert cifar10(train=False) is not first


def test_a_damaged_batch_is_never_unpickled(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(small / "trap"),))

    (small / download.FOLDER / "data_batch_3").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(LabError, match="data_batch_3 has md5"):
        cifar10(root=small)
    # Also when it changes between being found and being read.
    monkeypatch.setattr(datasets, "fetch_cifar10", lambda root: small / download.FOLDER)
    with pytest.raises(LabError, match="data_batch_3 has md5"):
        cifar10(root=small)
    assert not (small / "trap").exists()


def test_the_unpickler_refuses_other_names(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "read_verified", lambda folder, name: pickle.dumps(os.mkdir, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir does not belong in a CIFAR-10 file"):
        cifar10(root=small)


def test_subset_by_slice_shares_memory_and_by_index_copies(small: Path) -> None:
    data = cifar10(root=small)
    assert data.subset(slice(4, 8)).images.data_ptr() == data.images[4:].data_ptr()
    picked = data.subset(torch.tensor([8, 0]))
    assert picked.labels.tolist() == [3, 1] and picked.classes == data.classes
    picked.images.zero_()
    assert data.images[8].any()


def test_split_parts_every_picture_into_one_of_two(small: Path) -> None:
    data = cifar10(root=small)
    numbered = ImageSet(data.name, data.images, torch.arange(20), data.classes, data.mean, data.std)
    rest, held_out = numbered.split(5, seed=1)
    assert (len(rest), len(held_out)) == (15, 5)
    assert sorted(rest.labels.tolist() + held_out.labels.tolist()) == list(range(20))
    assert torch.equal(numbered.split(5, seed=1)[1].labels, held_out.labels)
    assert not torch.equal(numbered.split(5, seed=2)[1].labels, held_out.labels)
    for impossible in (0, 20, -1):
        with pytest.raises(ValueError, match="cannot hold out"):
            numbered.split(impossible)


def test_shapes10_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import labkit.shapes

    monkeypatch.setattr(labkit.shapes, "draw", lambda *arguments: arguments)
    assert shapes10() == (True, None, 0)  # type: ignore[comparison-overlap]
    assert shapes10(False, size=7, seed=3) == (False, 7, 3)  # type: ignore[comparison-overlap]


# --- the real data ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_cifar10_is_the_official_data(cifar_root: Path) -> None:
    train, test = cifar10(root=cifar_root), cifar10(train=False, root=cifar_root)
    assert train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5_000] * 10
    assert test.labels.bincount().tolist() == [1_000] * 10
    # By channel, over the training set: the numbers that everybody normalises with.
    mean = train.images.sum(dim=(0, 2, 3)) / (255 * 50_000 * 32 * 32)
    assert mean.tolist() == pytest.approx(train.mean, abs=5e-5)


@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
@pytest.mark.slow
def test_torchvisions_object_holds_the_same_pictures(cifar_root: Path, train: bool) -> None:
    pytest.importorskip("torchvision")
    theirs = torchvision_cifar10(train, cifar_root, transform=np.asarray)
    ours = cifar10(train, cifar_root)
    assert type(theirs).__name__ == "CIFAR10" and len(theirs) == len(ours)
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), ours.images.numpy())
    assert theirs.targets == ours.labels.tolist()
    assert tuple(theirs.classes) == ours.classes
    picture, label = theirs[123]
    assert np.array_equal(picture, ours.images[123].permute(1, 2, 0)) and label == ours.labels[123]


@pytest.mark.slow
def test_torchvision_reads_a_folder_of_another_name(cifar_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    (tmp_path / "batches").mkdir()
    for name in download.FILES:
        (tmp_path / "batches" / name).symlink_to(cifar_root / download.FOLDER / name)
    assert len(torchvision_cifar10(train=False, root=tmp_path / "batches")) == 10_000


# --- torchvision is optional -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "torchvision::nms"),
        ("raise ImportError('no such library')", "ImportError"),
    ],
    ids=["of another torch", "missing"],
)
def test_a_broken_torchvision_is_explained(
    small: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    package = small / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(small / "site")
    with pytest.raises(LabError) as caught:
        torchvision_cifar10(root=small)
    for wanted in (why, "pip install torch torchvision", "labkit.cifar10"):
        assert wanted in str(caught.value)
    assert caught.value.__suppress_context__
    assert len(cifar10(root=small)) == 20  # which does not need it


@pytest.mark.slow
def test_importing_the_data_sets_imports_no_torchvision() -> None:
    script = (
        "import sys, labkit.datasets; assert not {'torchvision', 'matplotlib', 'typer'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, env=environment)
