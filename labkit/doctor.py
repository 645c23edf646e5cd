"""`labkit doctor`: is everything here that the lab needs, and if not, what to do."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from labkit.errors import LabError

OLDEST = (3, 10)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `needed`: the lab cannot do without it. `advice`: empty if all is well."""

    what: str
    found: str
    well: bool = True
    advice: str = ""
    needed: bool = False


def examine() -> list[Finding]:
    """Look at everything in turn; a part that is broken does not hide the others."""
    return [_python(), _torch(), _torchvision(), _gpu(), _cifar10(), _nbgrader()]


def _python() -> Finding:
    advice = "" if sys.version_info >= OLDEST else "the lab needs Python 3.10 or newer"
    return Finding("Python", platform.python_version(), not advice, advice, needed=True)


def _torch() -> Finding:
    advice = "pip install torch torchvision"
    return _works("torch", lambda: import_module("torch").ones(2).sum().item(), advice, needed=True)


def _torchvision() -> Finding:
    # A CPU build of torch beside a torchvision for CUDA breaks at import; the lab itself then still works.
    advice = "only `labkit.torchvision_cifar10` needs it; pip install --force-reinstall torch torchvision"
    return _works("torchvision", lambda: import_module("torchvision"), advice)


def _gpu() -> Finding:
    try:
        torch = import_module("torch")
        if torch.cuda.is_available():
            return Finding("GPU", torch.cuda.get_device_name())
    except Exception:  # torch itself is broken, and its own line says so
        return Finding("GPU", "unknown", well=False)
    return Finding(
        "GPU", "none", advice="the quick profile runs on the CPU; Colab lends a GPU for the full one"
    )


def _cifar10() -> Finding:
    from labkit.download import find_cifar10

    try:
        folder = find_cifar10()
    except LabError as error:
        return Finding("CIFAR-10", str(error).splitlines()[0], well=False, advice="labkit data --repair")
    if folder is None:
        return Finding(
            "CIFAR-10", "not on this machine", advice="`labkit data` gets it; quick works without it"
        )
    return Finding("CIFAR-10", str(folder))


def _nbgrader() -> Finding:
    if find_spec("nbgrader") is None:
        return Finding("nbgrader", "not installed", advice="instructors: pip install 'labkit[grade]'")
    return Finding("nbgrader", version("nbgrader"))


def _works(package: str, attempt: Callable[[], object], advice: str, needed: bool = False) -> Finding:
    try:
        attempt()
    except Exception as error:  # whatever it is that is broken, the user is told
        return Finding(package, f"{type(error).__name__}: {error}", well=False, advice=advice, needed=needed)
    return Finding(package, version(package), needed=needed)
