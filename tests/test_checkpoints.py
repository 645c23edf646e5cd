from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
from pathlib import Path

import pytest
import torch

import labkit
from labkit import checkpoints
from labkit.checkpoints import (
    LabError,
    load,
    load_into,
    read_weights,
    save,
    sha256,
    weights_sha256,
)
from labkit.files import expect_writable, write_atomically
from labkit.models import resnet20


def test_saved_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, other = resnet20(), resnet20()
    path = tmp_path / "weights.safetensors"
    digest = save(net, path, recipe="none at all")
    assert digest == sha256(path)
    assert checkpoints.notes(path) == {"recipe": "none at all"}
    assert weights_sha256(other) != weights_sha256(net)
    load_into(other, path)
    assert weights_sha256(other) == weights_sha256(net)


@pytest.mark.parametrize("name", sorted(checkpoints.shipped()))
def test_shipped_weights_are_what_was_published(name: str) -> None:
    entry = checkpoints.shipped()[name]
    assert sha256(entry.path) == entry.sha256
    assert entry.path.stat().st_size < 1_200_000
    assert load(name)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.slow
def test_shapes10_weights_score_what_their_card_says() -> None:
    entry = checkpoints.shipped()["resnet20-shapes10"]
    net = load("resnet20-shapes10")
    result = labkit.evaluate(net, labkit.shapes10(train=False))
    assert result.accuracy == pytest.approx(entry.test_accuracy, abs=0.001)
    assert 0.85 <= result.accuracy <= 0.97


def test_load_passes_the_quantizer_on() -> None:
    net = load("resnet20-shapes10", bits=4, quantizer=lambda w, bits, symmetric: w * 0)
    assert {layer.bits for _, layer in labkit.quantized_layers(net)} == {4}


def test_a_changed_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save(resnet20(), folder / "w.safetensors")
    entry = {
        "file": "w.safetensors",
        "sha256": "0" * 64,
        "dataset": "x",
        "test_accuracy": 0.5,
        "test_loss": 1.0,
        "recipe": "",
    }
    (folder / "checkpoints.json").write_text(json.dumps({"resnet20-shapes10": entry}))
    monkeypatch.setattr(checkpoints, "shipped_data", lambda: tmp_path)
    with pytest.raises(LabError, match="sha256 differs"):
        load("resnet20-shapes10")


def test_baseline_of_ones_own_replaces_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = resnet20()
    torch.save(net.state_dict(), tmp_path / "mine.pt")
    monkeypatch.setenv("LABKIT_BASELINE", str(tmp_path / "mine.pt"))
    assert weights_sha256(load("resnet20-cifar10")) == weights_sha256(net)


def test_unknown_names_say_which_there_are() -> None:
    with pytest.raises(LabError, match="resnet20-shapes10"):
        load("resnet50")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo > pwned",)  # in any shell, Windows' too


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Evil()}, "evil.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(LabError):
            read_weights(name)
    assert not Path("pwned").exists()


def test_files_that_are_no_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("half.safetensors", "empty.pt", "list.pt", "missing.pt"):
        with pytest.raises(LabError, match=name.split(".")[0]):
            read_weights(tmp_path / name)


def test_the_name_of_a_file_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = resnet20()
    for name in ("mine.pt", "mine", "mine.safetensors"):
        save(net, tmp_path / name)
        assert weights_sha256(load(str(tmp_path / name))) == weights_sha256(net)
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    assert weights_sha256(load(str(tmp_path / "theirs.pth"))) == weights_sha256(net)
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    assert read_weights("~/mine").keys() == net.state_dict().keys()


def test_whatever_is_damaged_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    path.write_text("some words in a file of that name.")
    with pytest.raises(LabError, match="damaged"):
        read_weights(path)
    whole = io.BytesIO()
    torch.save(torch.nn.Linear(3, 3).state_dict(), whole)
    changes = random.Random(0)
    for _ in range(100):
        data = bytearray(whole.getvalue())
        for _ in range(3):
            data[changes.randrange(len(data))] ^= 1 << changes.randrange(8)
        path.write_bytes(data)
        with contextlib.suppress(LabError):  # or it can be read: the change was in the numbers
            read_weights(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save(torch.nn.Linear(2, 2), tmp_path / "w.safetensors")
    with pytest.raises(LabError, match="not of this network"):
        load_into(resnet20(), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 1094\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "a web page"),
        (b"\xef\xbb\xbf<HTML><body>moved</body></HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
        (b"", "an empty file"),
    ],
)
def test_a_file_that_stands_for_weights_is_told(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(LabError, match=rf"w\.pt is {sentence}.*git lfs pull"):
        load(tmp_path / "w.pt")
    with pytest.raises(LabError, match=sentence):
        labkit.load_compressed(tmp_path / "w.pt", resnet20())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_what_a_wrapper_puts_before_each_name_does_not_matter(tmp_path: Path, prefix: str) -> None:
    net = resnet20()
    wrapped = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    assert weights_sha256(load(tmp_path / "wrapped.pt")) == weights_sha256(net)
    torch.save(net.state_dict(), tmp_path / "plain.pt")
    parallel = torch.nn.DataParallel(resnet20())
    load_into(parallel, tmp_path / "plain.pt")
    assert weights_sha256(parallel.module) == weights_sha256(net)


def test_what_does_not_fit_is_one_short_sentence(tmp_path: Path) -> None:
    net = resnet20()
    state = net.state_dict()
    state["final_fc.linear.weight"] = torch.zeros(100, 64)
    del state["final_fc.linear.bias"]
    state["extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(LabError) as caught:
        load(tmp_path / "w.pt")
    for part in ("final_fc.linear.bias", "extra", "(100, 64) in the file, (10, 64) in the network"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    torch.save({"net": state, "epoch": 3}, tmp_path / "run.pt")
    with pytest.raises(LabError, match="It holds net, epoch"):
        load(tmp_path / "run.pt")
    with pytest.raises(LabError, match="is a folder"):
        load(str(tmp_path))


def test_a_baseline_that_is_not_there_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_BASELINE", str(tmp_path / "nosuch.pt"))
    with pytest.raises(LabError, match=r"LABKIT_BASELINE names .*nosuch\.pt"):
        load("resnet20-cifar10")


def test_a_path_in_a_home_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user has no entry
    with pytest.raises(LabError, match="no home folder"):
        read_weights("~/mine.pt")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="modes of files as POSIX has them")
def test_who_may_read_a_file_is_the_umasks_to_say_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        write_atomically(path, lambda part: part.write_text("new"))
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o664)
        write_atomically(path, lambda part: part.write_text("newer"))
        assert path.stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    expect_writable(tmp_path / "new" / "file")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(LabError, match="is a folder"):
        expect_writable(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot be written"):
        expect_writable(tmp_path / "file" / "weights")
