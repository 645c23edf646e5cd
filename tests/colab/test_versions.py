"""All nine notebooks among Colab's published versions, with the wheel installed and nothing else changed.

Builds an environment of several GB, so it runs only where it is asked for: LABKIT_TEST_COLAB_VERSIONS=1. With
LABKIT_TEST_COLAB_ENV the environment is kept in that folder, and used again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

from tests.colab.lookalike import ROOT
from tests.colab.test_colab import answered

VERSIONS = Path(__file__).parent / "versions.txt"
NAMES = sorted(path.stem for path in (ROOT / "notebooks" / "release" / "compression").glob("*.ipynb"))
RUN = """\
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, kernel_name="python3", timeout=None, resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, sys.argv[1])
"""
pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("LABKIT_TEST_COLAB_VERSIONS"),
        reason="builds an environment of several GB: set LABKIT_TEST_COLAB_VERSIONS=1",
    ),
    pytest.mark.timeout(3600),
]


def run(*command: str | Path, **options: object) -> str:
    """A program's standard output. AssertionError with all that it said if it fails."""
    words = [str(word) for word in command]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert ended.returncode == 0, f"{words}\n{ended.stdout[-3000:]}\n{ended.stderr[-6000:]}"
    return str(ended.stdout)


def colabs_python() -> str:
    """LABKIT_TEST_COLAB_PYTHON, or the Python 3.13 that is found."""
    given = os.environ.get("LABKIT_TEST_COLAB_PYTHON") or shutil.which("python3.13")
    if given is None and sys.version_info[:2] == (3, 13):
        given = sys.executable
    assert given, "Colab has Python 3.13: install it, or name one by LABKIT_TEST_COLAB_PYTHON"
    return given


def installed(python: Path) -> set[str]:
    return set(run(python, "-m", "pip", "list", "--format=freeze").splitlines())


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program of an environment with Colab's versions and this checkout's wheel."""
    kept = os.environ.get("LABKIT_TEST_COLAB_ENV")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("versions") / "env"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        run(colabs_python(), "-m", "venv", folder)
        run(python, "-m", "pip", "install", "-q", "-r", VERSIONS)
        (folder / "complete").touch()
    run(python, "-m", "pip", "uninstall", "-q", "-y", "labkit")
    dist = tmp_path_factory.mktemp("dist")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(dist)!r}))"
    name = run(sys.executable, "-c", build, cwd=ROOT).split()[-1]
    before = installed(python)
    run(python, "-m", "pip", "install", "-q", dist / name)
    (new,) = installed(python) ^ before  # as Colab's own environment must stay
    assert new.startswith("labkit==")
    yield python
    if not kept:
        shutil.rmtree(folder)


def test_it_is_what_colab_has(python: Path) -> None:
    wanted = [line for line in VERSIONS.read_text().splitlines() if "==" in line]
    assert {line.lower().replace("_", "-") for line in wanted} <= {
        line.lower().replace("_", "-") for line in installed(python)
    }
    assert run(python, "-c", "import sys; print(sys.version_info[:2])").strip() == "(3, 13)"


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_runs_at_quick(python: Path, name: str, tmp_path: Path) -> None:
    for earlier in NAMES[: NAMES.index(name) + 1]:
        (tmp_path / f"{earlier}.ipynb").write_text(json.dumps(answered(earlier)), encoding="utf-8")
    own = {"HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython"), "LABKIT_PROFILE": "quick"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    environment |= own | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    where = run(python, "-c", "import labkit; print(labkit.__file__)", cwd=tmp_path, env=environment)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    run(python, "-c", RUN, f"{name}.ipynb", cwd=tmp_path, env=environment)
    cells = json.loads((tmp_path / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert "✗" not in json.dumps(outputs, ensure_ascii=False)
