"""One known file from a list of mirrors: resumed after a break, checked by md5, never half there.

The bytes go to NAME.part beside the target; a kill leaves it there, and the next try goes on from its
end. It becomes NAME only when its md5 is right. Nothing here knows which data set the file belongs to.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from labkit.errors import LabError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TIMEOUT = 15.0  # seconds without a byte before a mirror counts as silent
SLOW = 100_000  # bytes/s: a mirror below this over WINDOW seconds is left for the next
WINDOW = 20.0
TRIES = 4  # times that one mirror is asked to go on after it broke off


@dataclass(frozen=True)
class Wanted:
    """The file that every mirror should hold."""

    name: str
    size: int
    md5: str

    def part(self, home: Path) -> Path:
        """Where its bytes collect while it is on its way to the folder `home`."""
        return home / f"{self.name}.part"


class MirrorError(Exception):
    """What is said of a mirror that should not be asked again."""


class SlowMirrorError(MirrorError):
    """A mirror that delivers, but slowly: worth going back to if no other does better."""


def fetch_file(wanted: Wanted, home: Path, mirrors: Sequence[str]) -> dict[str, str] | None:
    """Bring `wanted` into the folder `home`. Returns None or, if no mirror gave it, what each one said.

    Mirrors are tried in order, each going on where the last one stopped. Slow ones come back in a
    second round without a minimum speed: it may be this machine's own connection that is slow.
    """
    part, waiting = wanted.part(home), list(mirrors)
    said: dict[str, str] = {}
    for minimum_speed in (SLOW, 0):
        slow = []
        for url in waiting:
            try:
                _from_mirror(url, wanted, part, minimum_speed)
            except (MirrorError, OSError, HTTPException, ValueError) as error:
                said[url] = _plain(error)
                print(f"labkit: {_host(url)}: {said[url]}")
                slow += [url] if isinstance(error, SlowMirrorError) else []
                continue
            with writing(home):
                os.replace(part, home / wanted.name)
                _source(part).unlink(missing_ok=True)
            return None
        waiting = slow
    return said


def _from_mirror(url: str, wanted: Wanted, part: Path, minimum_speed: int) -> None:
    """Complete the .part from this mirror, or raise. A mirror that breaks off is asked to go on."""
    for attempt in range(TRIES):
        before = _size(part)
        last = attempt == TRIES - 1
        try:
            if before < wanted.size:
                _continue(url, wanted, part, minimum_speed)
        except (OSError, HTTPException):
            if last or _size(part) <= before:
                raise
        after = _size(part)
        if after >= wanted.size:
            found = file_md5(part)
            if found == wanted.md5:
                return
            part.unlink()
            # What was there before may be the wrong half, so only a file that is all theirs is their fault.
            if not before:
                raise MirrorError(f"gave another file: md5 {found}, should be {wanted.md5}")
        elif last or after <= before:
            break
    raise MirrorError(f"broke off at {_size(part):,} of {wanted.size:,} bytes")


def _continue(url: str, wanted: Wanted, part: Path, minimum_speed: int) -> None:
    """Append to the .part what the mirror sends, until it stops; start over where it has no ranges."""
    with urlopen(_request(url, part), timeout=TIMEOUT) as response:  # noqa: S310, _request checks the scheme
        start = _size(part) if getattr(response, "status", None) == 206 else 0
        length = response.headers.get("Content-Length")
        content_range = response.headers.get("Content-Range", "")
        if start and content_range != f"bytes {start}-{wanted.size - 1}/{wanted.size}":
            raise MirrorError(f"sent another range than asked for ({content_range or 'not named'})")
        if length is None or start + int(length) != wanted.size:
            raise MirrorError(f"offers another file: {length or 'unknown'} bytes, should be {wanted.size:,}")
        with writing(part.parent):
            _source(part).write_text(f"{url}\n{_version(response.headers)}\n", encoding="utf-8")
            file = part.open("ab" if start else "wb")
        bar = tqdm(
            desc=f"{wanted.name} from {_host(url)}",
            initial=start,
            total=wanted.size,
            unit="B",
            unit_scale=True,
            file=sys.stdout,
            disable=bool(os.environ.get("LABKIT_GRADING")),
        )
        with file, bar:
            _copy(response, file, bar, minimum_speed)


def _copy(response: Any, file: BinaryIO, bar: Any, minimum_speed: int) -> None:
    """Copy until the mirror stops. Raises SlowMirrorError if it is below `minimum_speed` over a window."""
    since, in_window = time.monotonic(), 0
    while block := response.read1(1 << 18):
        with writing(Path(file.name).parent):
            file.write(block)
            file.flush()
        bar.update(len(block))
        in_window += len(block)
        seconds = time.monotonic() - since
        if seconds >= WINDOW:
            if in_window < minimum_speed * seconds:
                raise SlowMirrorError(f"too slow: {in_window / seconds / 1000:.0f} kB/s")
            since, in_window = time.monotonic(), 0


def _request(url: str, part: Path) -> Request:
    """A request for the bytes that the .part lacks, or for all if it is empty."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise MirrorError("is no http://, https:// or file:// URL")
    request = Request(url, headers={"User-Agent": "labkit", "Accept-Encoding": "identity"})  # noqa: S310
    if start := _size(part):
        request.add_header("Range", f"bytes={start}-")
        note = _source(part).read_text(encoding="utf-8") if _source(part).exists() else ""
        url_before, _, version = note.strip().partition("\n")
        if version and url_before == url:
            # "Go on, if your file is still the one that the first half came from; else send it whole."
            request.add_header("If-Range", version)
    return request


def _version(headers: Any) -> str:
    """What tells this version of the server's file from another: a strong ETag, else its date, else ''."""
    etag: str = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _source(part: Path) -> Path:
    """A note beside the .part: the URL that its end came from, and the version of the file there."""
    return part.with_name(f"{part.name}.source")


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def file_md5(path: Path) -> str:
    digest = md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _plain(error: Exception) -> str:
    """An error of the network in the user's words."""
    if isinstance(error, HTTPError):
        return f"answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer for {TIMEOUT:.0f} s"
    if isinstance(reason, OSError):
        return f"cannot be reached ({reason.strerror or reason})"
    return str(reason) or type(reason).__name__


@contextmanager
def writing(home: Path) -> Iterator[None]:
    """Turn what the disk refuses (full, read-only, no such folder) into a sentence that helps."""
    try:
        yield
    except OSError as error:
        raise LabError(
            f"cannot write to {home}: {error.strerror or error}. Set LABKIT_DATA to a folder that you can "
            "write to, with room for 400 MB, or work with Shapes-10 (LABKIT_PROFILE=quick)."
        ) from None


@contextmanager
def only_one_process(lock: Path) -> Iterator[None]:
    """Hold this lock file; if another process holds it, wait. However that one ends, its lock ends too."""
    with lock.open("ab") as file:
        told = False
        while not _try_to_lock(file):
            if not told:
                print(f"labkit: another process is filling {lock.parent}: waiting for it")
            told = True
            time.sleep(0.2)
        yield


def _try_to_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network drives have no locks. Then we do without: every file is checked before it is used.
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
