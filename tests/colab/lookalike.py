"""A process that looks like Colab, for tests: no Colab can be reached from where they run.

Inside bubblewrap there are /content, a stand-in for `google.colab` that the kernel has imported before the
first cell, an environment of its own with torch and without labkit, no checkout and no network. What the
bootstrap cell installs from GitHub comes from a local repository with the release's tag, in its place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import __version__
from labkit.grading.nbgrader_steps import public_home

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ("labkit", "data/checkpoints", "data/report", "data/results/tables.csv")
INSTALLED += ("notebooks/release/compression", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")  # type: ignore[assignment]
HERE = Path("/colab")  # inside: all that is the lookalike's own

MESSAGE = """\
import json, os

def blocking_request(name, timeout_sec):
    assert name == "get_ipynb", name
    return {"ipynb": json.load(open(os.environ["ON_THE_SCREEN"]))}
"""
FILES = """\
import shutil

def download(path):
    shutil.copy(path, "/content/downloaded")
"""
RUN = """\
import os, sys
sys.modules["rfc3987_syntax"] = None  # this one is no part of Colab: see labkit.grading.lighter
import nbformat
from nbclient import NotebookClient

path = os.environ["ON_THE_SCREEN"]
notebook = nbformat.read(path, 4)
place = {"metadata": {"path": "/content"}}
NotebookClient(notebook, kernel_name="python3", timeout=300, resources=place).execute()
nbformat.write(notebook, path)
"""


@dataclass(frozen=True)
class Colab:
    """A runtime: what is in its /content lies in `folder`/content, and so on."""

    folder: Path

    @property
    def content(self) -> Path:
        return self.folder / "content"

    @property
    def drive(self) -> Path:
        """The student's Drive; it is mounted if this folder is there."""
        return self.content / "drive" / "MyDrive"

    def run(self, notebook: dict[str, Any]) -> dict[str, Any]:
        """Run a notebook's cells, whatever they raise is raised; gives it with its outputs."""
        screen = self.folder / "colab" / "screen.ipynb"
        screen.write_text(json.dumps(notebook), encoding="utf-8")
        ended = self.python(RUN)
        if ended.returncode:
            raise AssertionError(ended.stdout[-3000:] + ended.stderr[-6000:])
        done: dict[str, Any] = json.loads(screen.read_text(encoding="utf-8"))
        return done

    def python(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the runtime, as `python` in Colab's shell would."""
        variables = {
            "HOME": "/colab/home", "IPYTHONDIR": "/colab/ipython", "PATH": "/colab/env/bin:/usr/bin:/bin",
            "ON_THE_SCREEN": "/colab/screen.ipynb", "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            # nothing is downloaded: labkit from the repository here, all that it needs is there already
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "url.file:///colab/repository.insteadOf", "GIT_CONFIG_VALUE_0": public_home(),
            "GIT_CONFIG_KEY_1": "safe.directory", "GIT_CONFIG_VALUE_1": "*",
            "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore", "OMP_NUM_THREADS": "1", **environment,
        }  # fmt: skip
        settings = [word for name, value in variables.items() for word in ("--setenv", name, value)]
        return subprocess.run(
            ["bwrap", *self._places(), "--clearenv", *settings, "--chdir", "/content",
             "--unshare-net", "--unshare-pid", "--die-with-parent", "/colab/env/bin/python", "-c", code],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def _places(self) -> list[str]:
        """The real root but for the checkout and what a runtime has of its own."""
        words: list[str] = []
        for path in sorted(Path("/").iterdir()):
            if path.is_symlink():
                words += ["--symlink", os.readlink(path), f"{path}"]
            elif path.name not in ("content", "colab", "tmp", "proc", "dev", "sys"):
                words += ["--ro-bind", f"{path}", f"{path}"]
        words += ["--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev", "--tmpfs", f"{ROOT}"]
        for place in dict.fromkeys((sys.base_prefix, sys.prefix)):  # which may lie in what was just hidden
            words += ["--ro-bind", place, place]
        return [
            *words,
            "--bind",
            f"{self.content}",
            "/content",
            "--bind",
            f"{self.folder / 'colab'}",
            f"{HERE}",
        ]


def start(folder: Path) -> Colab:
    """A new runtime in an empty folder."""
    colab = Colab(folder)
    own = folder / "colab"
    colab.content.mkdir()
    (colab.content / "downloaded").mkdir()
    (own / "home").mkdir(parents=True)
    package = own / "stand-in" / "google" / "colab"
    package.mkdir(parents=True)
    for name, text in {"__init__": "", "_message": MESSAGE, "files": FILES}.items():
        (package / f"{name}.py").write_text(text)
    startup = own / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text("import google.colab\n")
    _repository(own / "repository")
    _environment(colab)
    return colab


def _environment(colab: Colab) -> None:
    """An environment with the packages of this one, but labkit."""
    own = colab.folder / "colab"
    subprocess.run([sys.executable, "-m", "venv", f"{own / 'env'}"], check=True)
    packages = own / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "labkit" not in path.name and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    (site,) = own.glob("env/lib/python*/site-packages")
    for old in site.glob("setuptools*"):  # pip looks here first, and torch asks for a newer one
        shutil.rmtree(old)
    (site / "colab.pth").write_text(f"{HERE / 'packages'}\n{HERE / 'stand-in'}\n")


def _repository(folder: Path) -> None:
    """What the project's home on GitHub would give, tagged as released."""
    for name in INSTALLED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    _make_smaller(folder / "labkit" / "profiles.py")
    name = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]  # type: ignore[assignment]
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        [*name, "commit", "-qm", "release"],
        ["tag", f"v{__version__}"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)


def _make_smaller(profiles: Path) -> None:
    """Experiments of a few pictures: what they come to is for nbval's tests to see."""
    text = profiles.read_text(encoding="utf-8")
    for size, smaller in (
        (
            "epochs=4, ramp_epochs=2, lr=0.01, batch_size=64",
            "epochs=2, ramp_epochs=1, lr=0.01, batch_size=16",
        ),
        ("train_size=600, test_size=500, scan_size=200", "train_size=32, test_size=20, scan_size=10"),
    ):
        assert size in text
        text = text.replace(size, smaller)
    profiles.write_text(text, encoding="utf-8")
