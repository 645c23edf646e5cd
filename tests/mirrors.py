"""Mirrors on this machine, slow, broken or wrong, of a small stand-in for CIFAR-10, a clock to wait by."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
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
from labkit.download import FOLDER
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
