"""The suite's own rules: which skips are allowed, which tests share a process, and their environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips, suite

CONFTEST = """\
from pathlib import Path
from tests.skips import SkipCheck, read

def pytest_configure(config):
    config.pluginmanager.register(SkipCheck(read(Path("allowed.txt"))))
"""
ONE = """\
import pytest

def test_that_runs():
    pass

@pytest.mark.skipif(True, reason="needs a lion")
def test_that_does_not():
    pass
"""
WHOLE = """\
import pytest

pytest.importorskip("a_package_that_is_nowhere", reason="needs a tiger")
"""


def run(folder: Path, allowed: str, *options: str) -> subprocess.CompletedProcess[str]:
    """pytest, in a folder where a test and a whole module are skipped."""
    files = {"conftest.py": CONFTEST, "test_one.py": ONE, "test_whole.py": WHOLE, "allowed.txt": allowed}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist", *options]
    environment = {**os.environ, "PYTHONPATH": str(suite.ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "with xdist"])
def test_a_skip_that_is_not_on_the_list_fails_the_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    here = f"{sys.platform} | there is none here\n"
    both = f"^needs a lion | {here}# and\n\nneeds a tiger | nowhere {here}"
    assert run(tmp_path, both, *options).returncode == 0
    ended = run(
        tmp_path, f"^needs a lion$ | {here}needs a tiger | elsewhere | it is another system's\n", *options
    )
    assert ended.returncode == 1
    assert "SKIP NOT ALLOWED test_whole.py: needs a tiger" in ended.stdout
    assert "lion" not in ended.stdout.partition("SKIP NOT ALLOWED")[2].partition("\n")[0]
    assert "1 passed" in ended.stdout.splitlines()[-1]
    assert "test_one.py::test_that_does_not: needs a lion" in run(tmp_path, "", *options).stdout


def test_every_allowed_skip_says_why() -> None:
    allowed = skips.read(suite.ROOT / "tests" / "allowed_skips.txt")
    assert allowed and all(len(one.why) > 10 for one in allowed)


def test_a_line_without_a_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("needs a lion\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is wanted, not"):
        skips.read(tmp_path / "list")


def test_a_file_is_a_group_and_a_long_one_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suite.PARTS, "tests/a.py", (r"\[0", r"\[1"))
    groups = [
        suite.group_of(f"tests/{test}") for test in ("a.py::x[01]", "a.py::x[12]", "a.py::y", "b.py::x[01]")
    ]
    assert groups == [r"tests/a.py\[0", r"tests/a.py\[1", "tests/a.py", "tests/b.py"]


def test_every_folder_has_its_place_and_every_part_its_file() -> None:
    folders = {path.parent.name for path in (suite.ROOT / "tests").glob("*/test_*.py")}
    assert folders | {"notebooks", suite.STUDENT} == set(suite.LONGEST_FIRST)
    assert [file for file in suite.PARTS if not (suite.ROOT / file).exists()] == []


def test_one_file_by_hand_runs_in_the_environment_of_all(tmp_path: Path) -> None:
    """As the script does, whatever the shell says."""
    (tmp_path / "seen.py").write_text(
        "import os\n"
        "def pytest_sessionfinish():\n"
        "    import torch\n"
        "    names = ('LABKIT_PROFILE', 'JUPYTER_CONFIG_DIR', 'IPYTHONDIR', 'PYTHONPATH', 'JUPYTER_PATH')\n"
        "    print('\\nSEEN', torch.get_num_threads(), *(os.environ.get(name) for name in names))\n",
        encoding="utf-8",
    )
    shell = {
        "LABKIT_PROFILE": "full",
        "OMP_NUM_THREADS": "7",
        "JUPYTER_PATH": "x",
        "PYTHONPATH": str(tmp_path),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "seen",
        "-q",
        "-s",
        "tests/test_sparsity.py",
        "-k",
        "no_layers",
    ]
    ended = subprocess.run(
        command, cwd=suite.ROOT, env={**os.environ, **shell}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (seen,) = [line.split()[1:] for line in ended.stdout.splitlines() if line.startswith("SEEN")]
    own = suite.ROOT / ".venv" / "own"
    assert seen == ["1", "quick", str(own / "config"), str(own / "ipython"), "None", "None"]
