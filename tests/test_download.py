"""CIFAR-10's download against a real server on this machine, with a small stand-in for the archive."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit import download, transfer
from labkit.download import FILES, FOLDER, fetch_cifar10, find_cifar10, status
from labkit.errors import LabError
from labkit.transfer import Wanted


@dataclass
class StandIn:
    """Seven small files, the archive that holds them, and their md5s."""

    files: dict[str, bytes]
    tar: bytes

    @property
    def constants(self) -> tuple[dict[str, str], Wanted]:
        md5s = {name: hashlib.md5(content).hexdigest() for name, content in self.files.items()}
        return md5s, Wanted("cifar-10-python.tar.gz", len(self.tar), hashlib.md5(self.tar).hexdigest())

    def write(self, home: Path) -> Path:
        """Put the unpacked folder into `home`."""
        folder = home / FOLDER
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    dice = np.random.default_rng(0)
    files = {"batches.meta": b"names"}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        files[name] = dice.bytes(60_000)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return StandIn(files, packed.getvalue())


@pytest.fixture
def cifar(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """labkit looks for the stand-in, on a machine that has nothing yet: its own folder is tmp_path/own."""
    files, archive = stand_in.constants
    monkeypatch.setattr(download, "FILES", files)
    monkeypatch.setattr(download, "ARCHIVE", archive)
    monkeypatch.setattr(download, "_own_folders", lambda: [tmp_path / "own"])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for name in ("LABKIT_DATA", "LABKIT_MIRROR", "LABKIT_GRADING"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return stand_in


@dataclass
class Mirror:
    """A server and how it behaves."""

    body: bytes
    etag: str = '"1"'
    ranges: bool = True
    honours_if_range: bool = True
    cuts_after: int | None = None  # closes the connection after so many bytes of each answer
    resets: Path | None = None  # ... and not politely, once this .part holds what was sent
    pauses_after: int | None = None  # sends so many bytes of each answer, then waits for `goes_on`
    goes_on: threading.Event = field(default_factory=threading.Event)
    status: int = 200
    asked: list[str | None] = field(default_factory=list)  # the Range of each request
    sent: list[int] = field(default_factory=list)  # the bytes of each answer
    url: str = ""


@pytest.fixture
def serve() -> Iterator[Any]:
    """serve(body, **behaviour) -> a Mirror that listens on 127.0.0.1."""
    servers: list[tuple[Mirror, http.server.ThreadingHTTPServer]] = []

    def start(body: bytes, **behaviour: Any) -> Mirror:
        mirror = Mirror(body, **behaviour)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self, mirror)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append((mirror, server))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        mirror.url = f"http://127.0.0.1:{server.server_address[1]}/cifar-10-python.tar.gz"
        return mirror

    yield start
    for mirror, server in servers:
        mirror.goes_on.set()
        server.shutdown()
        server.server_close()


def answer(request: http.server.BaseHTTPRequestHandler, mirror: Mirror) -> None:
    asked = request.headers.get("Range")
    mirror.asked.append(asked)
    mirror.sent.append(0)
    this = len(mirror.sent) - 1
    if mirror.status != 200:
        request.send_error(mirror.status)
        return
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and mirror.ranges else 0
    if mirror.honours_if_range and request.headers.get("If-Range", mirror.etag) != mirror.etag:
        start = 0
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{len(mirror.body) - 1}/{len(mirror.body)}")
    request.send_header("Content-Length", str(len(mirror.body) - start))
    request.send_header("ETag", mirror.etag)
    request.end_headers()
    rest = mirror.body[start:][: mirror.cuts_after]
    pause = mirror.pauses_after
    try:
        for piece in [rest] if pause is None else [rest[:pause], rest[pause:]]:
            request.wfile.write(piece)
            mirror.sent[this] += len(piece)
            if pause is not None:
                mirror.goes_on.wait()
    except OSError:
        pass  # the other side has gone
    if mirror.resets and len(rest) < len(mirror.body) - start:
        arrived = mirror.resets  # else the reset would take away what is still on its way
        wait_for(lambda: arrived.exists() and arrived.stat().st_size == start + len(rest))
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
    request.close_connection = True


class Paced:
    """An answer that is read in blocks of 10,000 bytes, each of which takes its time by a clock of ours."""

    def __init__(self, response: Any, clock: Clock) -> None:
        self.response, self.clock = response, clock

    def read1(self, most: int) -> bytes:
        block: bytes = self.response.read(10_000)
        self.clock.now += len(block) / self.clock.speed_of(self.response.url)
        return block

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)

    def __enter__(self) -> Paced:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()


class Clock:
    """The time that downloads take, without anybody waiting for it: 10 MB/s, or what is said of a mirror."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.speeds: dict[str, float] = {}
        real = transfer.urlopen
        monkeypatch.setattr(transfer, "urlopen", lambda *a, **options: Paced(real(*a, **options), self))
        monkeypatch.setattr(transfer, "time", types.SimpleNamespace(monotonic=lambda: self.now))

    def speed_of(self, url: str) -> float:
        return self.speeds.get(url, 1e7)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def part(home: Path) -> Path:
    return home / "cifar-10-python.tar.gz.part"


def assert_complete(folder: Path, cifar: StandIn) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == cifar.files


# --- downloading -----------------------------------------------------------------------------------


def test_a_download_brings_the_seven_files_with_a_bar(
    cifar: StandIn, serve: Any, tmp_path: Path, capsys: Any
) -> None:
    mirror = serve(cifar.tar)
    folder = fetch_cifar10(mirrors=[mirror.url])
    assert folder == tmp_path / "own" / FOLDER
    assert_complete(folder, cifar)
    assert not part(tmp_path / "own").exists()
    seen = capsys.readouterr()
    assert "cifar-10-python.tar.gz from 127.0.0.1" in seen.out and "100%" in seen.out
    assert seen.err == ""  # red in a notebook


def test_a_second_call_asks_no_server(cifar: StandIn, serve: Any) -> None:
    mirror = serve(cifar.tar)
    fetch_cifar10(mirrors=[mirror.url])
    fetch_cifar10(mirrors=[mirror.url])
    assert mirror.asked == [None]


def run_fetch(cifar: StandIn, home: Path, *mirrors: str) -> subprocess.Popen[str]:
    """fetch_cifar10(root=home) in a process of its own."""
    files, archive = cifar.constants
    script = (
        "import json, sys; from labkit import download, transfer;"
        "files, archive, home, mirrors = json.loads(sys.argv[1]);"
        "download.FILES, download.ARCHIVE = files, transfer.Wanted(*archive);"
        "transfer.WINDOW = transfer.TIMEOUT = 600;"  # slow is meant here
        "print('folder', download.fetch_cifar10(home, mirrors=mirrors))"
    )
    arguments = json.dumps([files, [archive.name, archive.size, archive.md5], str(home), mirrors])
    command = [sys.executable, "-W", "error", "-c", script, arguments]
    place = Path(download.__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def wait_for(true: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill -9")
@pytest.mark.slow
def test_after_kill_9_only_the_rest_is_fetched(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    have = 50_000
    mirror = serve(cifar.tar, pauses_after=have)
    process = run_fetch(cifar, tmp_path / "own", mirror.url)
    wait_for(lambda: part(tmp_path / "own").exists() and part(tmp_path / "own").stat().st_size == have)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert part(tmp_path / "own").read_bytes() == cifar.tar[:have]
    assert find_cifar10() is None
    assert any("a half download" in line for line in status())

    mirror.goes_on.set()
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == [None, f"bytes={have}-"]
    assert mirror.sent[1] == len(cifar.tar) - have


def test_a_cut_connection_is_taken_up_again_at_the_same_mirror(cifar: StandIn, serve: Any) -> None:
    mirror = serve(cifar.tar, cuts_after=len(cifar.tar) // 2 + 1)
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == [None, f"bytes={len(cifar.tar) // 2 + 1}-"]


def test_a_reset_connection_is_taken_up_again_at_the_same_mirror(
    cifar: StandIn, serve: Any, tmp_path: Path
) -> None:
    mirror = serve(cifar.tar, cuts_after=len(cifar.tar) // 2 + 1, resets=part(tmp_path / "own"))
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert len(mirror.asked) == 2


def test_the_next_mirror_goes_on_where_the_last_one_broke_off(cifar: StandIn, serve: Any) -> None:
    broken, good = serve(cifar.tar, cuts_after=100_000, ranges=False), serve(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=[broken.url, good.url]), cifar)
    assert good.asked == ["bytes=100000-"]


def test_without_ranges_the_download_starts_over(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    mirror = serve(cifar.tar, ranges=False)
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(b"x" * 1000)
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == ["bytes=1000-"]


def test_a_half_file_is_not_glued_to_another_version(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    """The server's copy changed meanwhile: If-Range makes it send the new one whole, at the first asking."""
    old = serve(b"x" * len(cifar.tar), etag='"old"', cuts_after=50_000)
    with pytest.raises(LabError):
        fetch_cifar10(mirrors=[old.url])
    assert part(tmp_path / "own").stat().st_size > 0
    old.body, old.etag, old.cuts_after, old.asked = cifar.tar, '"new"', None, []
    assert_complete(fetch_cifar10(mirrors=[old.url]), cifar)
    assert len(old.asked) == 1 and old.asked[0] is not None


@pytest.mark.parametrize("whole", [False, True], ids=["half", "whole"])
def test_a_wrong_part_is_thrown_away_and_fetched_again(
    cifar: StandIn, serve: Any, tmp_path: Path, whole: bool
) -> None:
    """A first part of another file, from a server that cannot tell: the md5 does, and it starts over."""
    mirror = serve(cifar.tar, honours_if_range=False)
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(b"x" * (len(cifar.tar) if whole else 1000))
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == ([None] if whole else ["bytes=1000-", None])


def test_a_complete_part_needs_no_server(cifar: StandIn, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=["http://127.0.0.1:9/"]), cifar)


def test_a_mirror_with_another_file_is_named_and_left(cifar: StandIn, serve: Any, capsys: Any) -> None:
    page = serve(b"<html>Please log in to this Wi-Fi</html>")
    same_size = serve(b"x" * len(cifar.tar))
    good = serve(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=[page.url, same_size.url, good.url]), cifar)
    said = capsys.readouterr().out
    assert f"offers another file: 40 bytes, should be {len(cifar.tar):,}" in said
    wrong, right = hashlib.md5(same_size.body).hexdigest(), cifar.constants[1].md5
    assert f"gave another file: md5 {wrong}, should be {right}" in said
    assert len(same_size.asked) == 1


def test_a_login_page_does_not_cost_the_half_file(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    part(tmp_path / "own").write_bytes(cifar.tar[:1000])
    page = serve(b"<html>Please log in to this Wi-Fi</html>", ranges=False)
    with pytest.raises(LabError, match="the next try goes on from there"):
        fetch_cifar10(mirrors=[page.url])
    assert part(tmp_path / "own").read_bytes() == cifar.tar[:1000]


def test_a_slow_mirror_is_left_for_the_next(cifar: StandIn, serve: Any, clock: Clock, capsys: Any) -> None:
    slow, fast = serve(cifar.tar), serve(cifar.tar)
    clock.speeds[slow.url] = 5_000  # of which 20 s are waited for
    assert_complete(fetch_cifar10(mirrors=[slow.url, fast.url]), cifar)
    assert slow.asked == [None] and fast.asked == ["bytes=100000-"]  # what the slow one gave is kept
    assert "too slow: 5 kB/s" in capsys.readouterr().out


def test_a_slow_connection_still_gets_there(cifar: StandIn, serve: Any, clock: Clock) -> None:
    """When every mirror is slow it is the connection: the first slow one is asked again and let finish."""
    first, second = serve(cifar.tar), serve(cifar.tar)
    clock.speeds = {first.url: 5_000, second.url: 2_500}
    assert_complete(fetch_cifar10(mirrors=[first.url, second.url]), cifar)
    assert first.asked == [None, "bytes=150000-"] and second.asked == ["bytes=100000-"]


def test_a_silent_mirror_is_left(
    cifar: StandIn, serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    silent, good = serve(cifar.tar, pauses_after=10_000), serve(cifar.tar)
    real = transfer.urlopen

    def patient_with_the_good_one(request: Any, timeout: float) -> Any:
        return real(request, timeout=60 if request.full_url == good.url else timeout)

    monkeypatch.setattr(transfer, "urlopen", patient_with_the_good_one)
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    assert_complete(fetch_cifar10(mirrors=[silent.url, good.url]), cifar)
    assert sum(silent.sent) < len(cifar.tar) / 2 < sum(good.sent)
    assert "no answer for" in capsys.readouterr().out


def test_labkit_mirror_comes_first_and_may_be_a_file(
    cifar: StandIn, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usb stick").mkdir()
    copy = tmp_path / "usb stick" / "copy.tar.gz"
    copy.write_bytes(cifar.tar)
    monkeypatch.setenv("LABKIT_MIRROR", copy.as_uri())
    mirror = serve(cifar.tar)
    assert_complete(fetch_cifar10(mirrors=[mirror.url]), cifar)
    assert mirror.asked == []


def test_no_network_is_one_sentence_with_three_ways_out(cifar: StandIn, serve: Any) -> None:
    gone = serve(cifar.tar, status=404)
    mirrors = [
        "http://127.0.0.1:9/x",
        gone.url,
        "https://no-such-host.invalid/x",
        "ftp://example.org/x",
        "file:///no/such/file",
    ]
    with pytest.raises(LabError) as caught:
        fetch_cifar10(mirrors=mirrors)
    text = str(caught.value)
    assert text.startswith("CIFAR-10 is not on this machine and no mirror gave it:")
    for wanted in ("cannot be reached (", "answered 404", "is no http", "LABKIT_MIRROR", "LABKIT_DATA"):
        assert wanted in text
    for url in mirrors:
        assert f"\n  {url}: " in text
    assert "LABKIT_PROFILE=quick" in text and "urlopen" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_mirror_at_all_is_no_network(cifar: StandIn) -> None:
    with pytest.raises(LabError, match="no mirror gave it"):
        fetch_cifar10(mirrors=[])


@pytest.mark.slow
def test_two_processes_at_once_download_once(cifar: StandIn, serve: Any, tmp_path: Path) -> None:
    mirror = serve(cifar.tar, pauses_after=10_000)
    first = run_fetch(cifar, tmp_path / "own", mirror.url)
    wait_for(lambda: mirror.asked)
    second = run_fetch(cifar, tmp_path / "own", mirror.url)
    assert second.stdout is not None
    assert "another process is filling" in second.stdout.readline()
    mirror.goes_on.set()
    outputs = [process.communicate(timeout=300) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert mirror.asked == [None]
    assert_complete(tmp_path / "own" / FOLDER, cifar)


# --- finding ---------------------------------------------------------------------------------------


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
    monkeypatch.setattr(download.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    assert download._own_folders() == [tmp_path / "labkit"]
    (tmp_path / "pyproject.toml").touch()
    assert download._own_folders() == [tmp_path / "data", tmp_path / "labkit"]


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
