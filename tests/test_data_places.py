"""Where CIFAR-10 is looked for, and what is done about a damaged copy or a disk that takes nothing."""

# ruff: noqa: F811 (a test names a fixture that is imported)
from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from labkit import download, paths
from labkit.download import FILES, FOLDER, fetch_cifar10, find_cifar10, status
from labkit.errors import LabError
from labkit.transfer import Wanted
from tests.mirrors import StandIn, assert_complete, cifar, serve, stand_in  # noqa: F401 (fixtures)


def test_a_place_may_hold_the_folder_or_be_the_folder(cifar: StandIn, tmp_path: Path) -> None:
    folder = cifar.write(tmp_path / "theirs")
    assert find_cifar10(tmp_path / "theirs") == folder
    assert find_cifar10(folder) == folder
    renamed = folder.rename(tmp_path / "theirs" / "batches")
    assert find_cifar10(renamed) == renamed


def test_root_then_labkit_data_then_here_then_labkits_own_then_home(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "env"))
    homes = ["home/data", "own", "here/data", "env", "root"]
    for home in homes:  # from the last choice to the first: each new one wins
        folder = cifar.write(tmp_path / home)
        assert find_cifar10(tmp_path / "root") == folder
    assert find_cifar10() == tmp_path / "env" / FOLDER


def test_an_archive_is_unpacked_without_a_server(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "env"))
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "cifar-10-python.tar.gz").write_bytes(cifar.tar)
    assert find_cifar10() is None
    assert any("not unpacked yet" in line for line in status())
    folder = fetch_cifar10(mirrors=[])
    assert folder == tmp_path / "env" / FOLDER
    assert_complete(folder, cifar)


def test_a_torchvision_folder_is_used_where_it_is(cifar: StandIn, tmp_path: Path) -> None:
    folder = cifar.write(tmp_path / "home" / "data")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o555)
    assert fetch_cifar10(mirrors=[]) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert not (tmp_path / "own").exists()


def test_downloads_go_to_root_then_labkit_data(
    cifar: StandIn, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = serve(cifar.tar)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "deep" / "env"))
    assert fetch_cifar10(mirrors=[mirror.url]) == tmp_path / "deep" / "env" / FOLDER
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "nothing"))
    assert fetch_cifar10(tmp_path / "root", mirrors=[mirror.url]) == tmp_path / "root" / FOLDER


def test_labkits_own_folders_are_data_of_a_checkout_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "__file__", str(tmp_path / "labkit" / "download.py"))
    monkeypatch.setattr(paths.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    assert download._own_folders() == [tmp_path / "labkit"]
    (tmp_path / "pyproject.toml").touch()
    assert download._own_folders() == [tmp_path / "data", tmp_path / "labkit"]


def test_to_name_the_archive_is_to_name_its_folder(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").mkdir()
    archive = tmp_path / "env" / "cifar-10-python.tar.gz"
    archive.write_bytes(cifar.tar)
    monkeypatch.setenv("LABKIT_DATA", str(archive))
    assert fetch_cifar10(mirrors=[]) == tmp_path / "env" / FOLDER
    assert find_cifar10(archive) == tmp_path / "env" / FOLDER


@pytest.mark.parametrize("named", ["root", "LABKIT_DATA"])
def test_another_file_is_not_taken_for_a_folder(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "notes.txt").touch()
    if named == "LABKIT_DATA":
        monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "notes.txt"))
    with pytest.raises(LabError, match=rf"{named} names the file .*notes\.txt: name the folder"):
        fetch_cifar10(tmp_path / "notes.txt" if named == "root" else None, mirrors=[])


def test_a_named_folder_that_is_not_there_is_told_once(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cifar.write(tmp_path / "home" / "data")
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "typo"))
    for _ in range(2):
        assert find_cifar10() == tmp_path / "home" / "data" / FOLDER
    assert capsys.readouterr().err.count("typo, which does not exist") == 1
    assert any(line.endswith("typo: does not exist") for line in status())


@pytest.mark.parametrize("raises", [True, False], ids=["it raises", "it leaves the ~"])
def test_without_a_home_data_goes_among_the_temporary_files(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    def no_home(name: str) -> Path:
        if raises:
            raise RuntimeError("could not determine the home directory")
        return Path("~/.cache") / name

    monkeypatch.setattr(paths.platformdirs, "user_cache_path", no_home)
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(download.os.path, "expanduser", lambda path: path)
    assert paths.user_cache() == tmp_path / "labkit"
    assert all("~" not in str(place.home) for place in download.places())


# --- damage ----------------------------------------------------------------------------------------


def damage(folder: Path, name: str = "data_batch_3") -> str:
    """Make the file half. Returns its md5 now."""
    content = (folder / name).read_bytes()[:1000]
    (folder / name).write_bytes(content)
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("how", ["root", "LABKIT_DATA"])
def test_a_damaged_copy_of_the_users_is_named_and_not_touched(
    cifar: StandIn, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder = cifar.write(tmp_path / "theirs")
    cifar.write(tmp_path / "own")  # a good one elsewhere is no excuse to pass over theirs in silence
    wrong, right = damage(folder), cifar.constants[0]["data_batch_3"]
    root = tmp_path / "theirs" if how == "root" else None
    if not root:
        monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "theirs"))
    mirror = serve(cifar.tar)
    for call in (find_cifar10, fetch_cifar10):
        with pytest.raises(LabError) as caught:
            call(root)
        assert f"data_batch_3 has md5 {wrong}, should be {right}" in str(caught.value)
        for wanted in (str(folder), "labkit data --repair", "LABKIT_DATA", "LABKIT_PROFILE=quick"):
            assert wanted in str(caught.value)
    assert (folder / "data_batch_3").stat().st_size == 1000 and mirror.asked == []
    assert any("damaged: data_batch_3" in line for line in status(root))

    assert fetch_cifar10(root, repair=True, mirrors=[mirror.url]) == folder
    assert_complete(folder, cifar)


def test_labkits_own_copy_is_mended_from_its_archive(cifar: StandIn, tmp_path: Path, capsys: Any) -> None:
    folder = cifar.write(tmp_path / "own")
    (tmp_path / "own" / "cifar-10-python.tar.gz").write_bytes(cifar.tar)
    wrong = damage(folder)
    (folder / "test_batch").unlink()
    untouched = (folder / "data_batch_1").stat().st_mtime_ns
    assert find_cifar10() is None
    assert fetch_cifar10(mirrors=[]) == folder
    assert_complete(folder, cifar)
    assert (folder / "data_batch_1").stat().st_mtime_ns == untouched
    said = capsys.readouterr().out
    assert wrong in said and cifar.constants[0]["data_batch_3"] in said and "test_batch is missing" in said


def test_labkits_own_bad_archive_is_downloaded_again(
    cifar: StandIn, serve: Any, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "own").mkdir()
    archive = tmp_path / "own" / "cifar-10-python.tar.gz"
    archive.write_bytes(cifar.tar[:5000])
    mirror = serve(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert archive.read_bytes() == cifar.tar
    said = capsys.readouterr().out
    assert hashlib.md5(cifar.tar[:5000]).hexdigest() in said and cifar.constants[1].md5 in said


def test_a_damaged_copy_of_somebody_elses_is_passed_over(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    folder = cifar.write(tmp_path / "home" / "data")
    damage(folder)
    mirror = serve(cifar.tar)
    assert fetch_cifar10(repair=True, mirrors=[mirror.url]) == tmp_path / "own" / FOLDER
    assert (folder / "data_batch_3").stat().st_size == 1000


def test_a_file_that_is_damaged_later_is_noticed(cifar: StandIn, tmp_path: Path) -> None:
    folder = cifar.write(tmp_path / "own")
    assert find_cifar10() == folder
    damage(folder)
    assert find_cifar10() is None


def test_a_folder_that_cannot_be_written_is_said(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"cannot write to .*LABKIT_DATA") as caught:
        fetch_cifar10(tmp_path / "file" / "below", mirrors=[serve(cifar.tar).url])
    assert caught.value.__suppress_context__  # no traceback of the disk's own error


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_is_said_and_tries_no_further_mirror(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    import resource

    mirrors = [serve(cifar.tar), serve(cifar.tar)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(LabError, match=r"cannot write to .*File too large"):
            fetch_cifar10(mirrors=[mirror.url for mirror in mirrors])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert mirrors[1].asked == []


def test_the_archive_cannot_write_elsewhere(
    cifar: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the seven files are taken out of an archive, by name; its paths are never followed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ["../outside", f"{FOLDER}/../../outside", *(f"{FOLDER}/{name}" for name in cifar.files)]:
            member = tarfile.TarInfo(name)
            content = cifar.files.get(Path(name).name, b"outside")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    tar_bytes = packed.getvalue()
    archive = Wanted("cifar-10-python.tar.gz", len(tar_bytes), hashlib.md5(tar_bytes).hexdigest())
    monkeypatch.setattr(download, "ARCHIVE", archive)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / archive.name).write_bytes(tar_bytes)
    assert_complete(fetch_cifar10(mirrors=[]), cifar)
    assert not list(tmp_path.rglob("outside"))


def test_the_official_table_is_torchvisions() -> None:
    cifar = pytest.importorskip("torchvision.datasets").CIFAR10
    official = dict(cifar.train_list + cifar.test_list)
    official[cifar.meta["filename"]] = cifar.meta["md5"]
    assert official == FILES
    assert (download.ARCHIVE.name, download.ARCHIVE.md5) == (cifar.filename, cifar.tgz_md5)
