"""`labkit submit`: one zip to hand in, and a receipt of what is in it.

In it are the lab's notebooks as they were saved, the records of runs, and `receipt.json`. No notebook is
run for it: which public checks passed is what they came to when the student last ran them, in this very
session, or else by the outputs that the notebook shows. The same files make the same zip, but for the time.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from labkit import colab
from labkit.errors import LabError
from labkit.files import write_atomically
from labkit.notebooks import GRADED, RECEIPT, Notebook, identify
from labkit.paths import runs_folder
from labkit.session import Session, this_session
from labkit.troubles import odd_files, size, troubles

ZIP_NAME = "submission.zip"
LARGE_ZIP, LARGE_RECORD = 50 * 2**20, 2**20


@dataclass
class Submission:
    """What goes into the zip, by name, and what the student should know before handing it in."""

    files: dict[str, bytes] = field(default_factory=dict)
    receipt: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def zipped(self) -> bytes:
        """The files and the receipt, packed."""
        receipt = json.dumps(self.receipt, indent=1, ensure_ascii=False) + "\n"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in {**self.files, RECEIPT: receipt.encode()}.items():
                entry = zipfile.ZipInfo(name)  # dated 1980, whenever it is made
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system, entry.external_attr = 3, 0o644 << 16  # on whatever system
                archive.writestr(entry, data)
        return buffer.getvalue()

    def __str__(self) -> str:
        """The receipt as a short table."""
        lines = [f"{'':28} {'size':>8}  answered  public checks"]
        for name, about in self.receipt["notebooks"].items():
            answers = list(about["answers"].values())
            written = f"{answers.count('written')} of {len(answers)}" if answers else "-"
            checks = "; ".join(f"{title} {_in_short(came)}" for title, came in about["checks"].items())
            lines.append(f"{name:28} {size(self.files[f'{name}.ipynb'])}  {written:8}  {checks or '-'}")
        others = (name for name in self.files if not name.endswith(".ipynb"))
        return "\n".join([*lines, *(f"{name:28} {size(self.files[name])}" for name in others)])


def submit(folder: str | Path | None = None, out: str | Path | None = None) -> None:
    """Pack the lab's notebooks of `folder` (default: the current one) into `out`, by default submission.zip.

    Prints what to fix before handing in, and a table of what is in the zip. In Colab the open notebook is
    taken as it is on the screen, and the zip goes to the browser. Raises LabError if there is no notebook.
    """
    where = Path.cwd() if folder is None else Path(folder)
    if not where.is_dir():
        what = "is a file" if where.is_file() else "is not there"
        raise LabError(f"{where} {what}: name the folder that holds your notebooks, labkit submit FOLDER")
    target = where / ZIP_NAME if out is None else Path(out)
    if target.suffix.lower() != ".zip":
        raise LabError(f"{target} is not the name of a zip: let it end in .zip.")
    if target.is_dir():
        raise LabError(f"{target} is a folder: name a file, labkit submit --out FILE")
    try:
        made = pack(where, in_colab=folder is None and colab.here())
    except OSError as error:
        raise LabError(
            f"{error.filename} cannot be read ({error.strerror}): make it readable and submit again."
        ) from None
    data = made.zipped()
    if len(data) > LARGE_ZIP:
        largest = max(made.files, key=lambda name: len(made.files[name]))
        made.warnings.append(
            f"the zip has {size(data).strip()}, more than many platforms take: "
            f"clear outputs of {largest} that nobody needs, save it and submit again."
        )
    warnings = [f"! {warning}" for warning in made.warnings] or ["Nothing is missing."]
    print("\n".join([*warnings, "", f"{made}", ""]))
    try:
        write_atomically(target, lambda part: part.write_bytes(data))
    except OSError as error:
        raise LabError(
            f"{target} cannot be written ({error.strerror}): name another place, labkit submit --out FILE"
        ) from None
    here, shown = Path.cwd(), target.resolve()
    shown = shown.relative_to(here) if shown.is_relative_to(here) else shown
    print(f"{shown}: {size(data).strip()}. Hand in this one file.")
    if colab.here() and not colab.download(target):
        print("Download it from the list of files on the left.")


def pack(folder: Path, in_colab: bool = False) -> Submission:
    """Read what is to be handed in, and find what is wrong with it; writes nothing."""
    made = Submission()
    notebooks = _notebooks(folder, in_colab, made.warnings)
    session = this_session(notebooks.values())
    made.warnings += session.warnings
    for name, notebook in notebooks.items():
        made.files[f"{name}.ipynb"] = notebook.data
        made.warnings += troubles(notebook, name in session.unsaved)
    of_the_lab = any(name in notebooks for name in GRADED)  # or of an instructor's own assignment
    missing = [name for name in GRADED if name not in notebooks] if of_the_lab else []
    made.warnings += odd_files(folder, missing)
    if missing:
        how = "mount the Drive that they are saved in" if in_colab else "put them beside the others"
        made.warnings.append(
            f"not here: {', '.join(missing)}; if you have done them, {how} and submit again."
        )
    about = {name: _about(notebook, session) for name, notebook in notebooks.items()}
    for name, one in about.items():
        for title, came in one["checks"].items():
            if not isinstance(came, str) and "failed" in came["outcomes"].values():
                made.warnings.append(f"{name}: {title} passed {_in_short(came)} public checks.")
    made.files |= _records(folder / runs_folder())
    made.receipt = {
        "time": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S UTC}",
        "versions": {
            "python": platform.python_version(),
            "labkit": _version("labkit"),
            "torch": _version("torch"),
        },
        "notebooks": about,
        "missing": missing,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in made.files.items()
        },
    }
    return made


def _notebooks(folder: Path, in_colab: bool, warnings: list[str]) -> dict[str, Notebook]:
    """One file for each notebook, in order: the open one, else that of the right name, else the first.

    Of two with the right name, in Colab's folder and in Drive, it is the one that was saved last.
    """
    chosen: dict[str, tuple[Path | None, Notebook]] = {}  # with where it lies, None: on the screen
    if in_colab:
        if (now := colab.open_notebook()) is None:
            warnings.append(
                "the open notebook is not among Colab's files: run labkit.submit() in a cell of it, "
                "or download it (File, Download) and upload it to the list on the left before you submit."
            )
        elif (opened := identify(*now)) is not None:
            chosen[opened.name] = None, opened
    for path, one in _files(dict.fromkeys((folder, *(colab.FOLDERS if in_colab else ())))):
        where, first = chosen.setdefault(one.name, (path, one))
        meant = f"{one.name} and stays out: if it is the one that you mean,"
        if one.file != first.file:
            rename = f"rename it to {one.name}.ipynb and {first.file} to something else."
            warnings.append(f"{one.file} is another copy of {meant} {rename}")
        elif where is not None and one.data != first.data:
            warnings.append(f"{path} is an older copy of {meant} delete {where}.")
    if not chosen:
        raise LabError(
            f"there is no notebook of the lab in {folder.resolve()}: "
            "go to the folder that holds them, or name it: labkit submit FOLDER"
        )
    return {name: one for name, (_, one) in sorted(chosen.items())}


def _files(folders: Iterable[Path]) -> list[tuple[Path, Notebook]]:
    """The lab's notebooks in these folders: those of the right name first, of these the newest first."""
    paths = (path for folder in folders for path in sorted(folder.glob("*.ipynb")))
    found = [
        (path, one)
        for path in paths
        if path.is_file() and not path.name.startswith(".")
        if (one := identify(path.name, path.read_bytes())) is not None
    ]

    def order(entry: tuple[Path, Notebook]) -> tuple[bool, float]:
        path, one = entry
        named = one.file == f"{one.name}.ipynb"
        return not named, -path.stat().st_mtime if named else 0.0

    return sorted(found, key=order)


# ---- the receipt


def _about(notebook: Notebook, session: Session) -> dict[str, Any]:
    checks: dict[str, Any] = {}
    for title, saved in notebook.checks.items():
        now = session.checks.get((notebook.name, title))
        came, seen = (saved, "in the saved outputs") if now is None else (now, "in this session")
        checks[title] = "not run" if came is None else {"seen": seen, "outcomes": came}
    answers = {answer.name: answer.state for answer in notebook.answers}
    return {"file": notebook.file, "answers": answers, "checks": checks}


def _in_short(came: Any) -> str:
    if isinstance(came, str):
        return came
    states = list(came["outcomes"].values())
    return f"{states.count('passed')} of {len(states)}"


# ---- the rest


def _records(folder: Path) -> dict[str, bytes]:
    """The records of runs, small JSON files: neither weights nor anything else that lies beside them."""
    files = {}
    for path in sorted(folder.rglob("*.json")):
        where = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in where.parts)
        if not hidden and path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGE_RECORD:
            data = path.read_bytes()
            if _is_record(data):
                files[f"runs/{where.as_posix()}"] = data
    return files


def _is_record(data: bytes) -> bool:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"label", "history"} <= content.keys()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
