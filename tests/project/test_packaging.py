"""What is installed, what is imported, what the commands say when something is not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import entry_points, metadata, requires, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

import labkit.cli
from labkit import doctor
from labkit.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "notebooks" / "release" / "compression"
INSTRUCTORS = ("nbgrader", "nbclient", "nbconvert", "sqlalchemy", "jupyterlab", "ipykernel", "notebook")


def python(code: str) -> str:
    """What a fresh Python prints when it runs this."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return ended.stdout.strip()


def test_a_students_install_has_nothing_of_the_instructors() -> None:
    plain = [line for line in requires("labkit") or [] if "extra ==" not in line]
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in plain}
    assert names == {
        "matplotlib", "numpy", "platformdirs", "rich", "safetensors", "torch", "torchvision", "tqdm", "typer",
    }  # fmt: skip


def test_a_students_install_never_asks_for_another_torch() -> None:
    lines = [line for line in requires("labkit") or [] if "extra ==" not in line]
    assert all("<" not in line and "==" not in line for line in lines)


def test_version_and_address_are_said_once() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {version('labkit')}\n" in citation
    (repository,) = [line.partition(", ")[2] for line in metadata("labkit").get_all("Project-URL") or []]
    assert f'repository-code: "{repository}"' in citation


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="labkit")
    assert command.value == "labkit.cli:app"


def test_importing_labkit_imports_neither_torchvision_nor_anything_of_jupyter() -> None:
    heavy = ["torchvision", "matplotlib", "typer", "IPython", *INSTRUCTORS]
    assert python(f"import labkit, sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_the_command_imports_what_it_needs_when_it_runs() -> None:
    heavy = ["torch", "numpy", "matplotlib", *INSTRUCTORS]  # so that `labkit --help` is quick
    loaded = python(f"import labkit.cli, sys; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]"


def test_labkits_functions_are_found_whatever_was_imported_before() -> None:
    code = (
        "import labkit.sparsity, labkit.training, labkit\n"
        "from labkit import sparsity\n"
        "assert labkit.sparsity is sparsity and callable(sparsity)\n"
        "print([name for name in labkit.__all__ if not hasattr(labkit, name) or name not in dir(labkit)])"
    )
    assert python(code) == "[]"


def test_only_grading_imports_the_instructors_tools() -> None:
    pattern = re.compile(
        rf"^\s*(?:from|import) ({'|'.join(INSTRUCTORS)}|jupyter_client|labkit\.grading)\b", re.M
    )
    students = [path for path in (ROOT / "labkit").rglob("*.py") if "grading" not in path.parts]
    found = {path.name: set(pattern.findall(path.read_text(encoding="utf-8"))) for path in students}
    assert {name: names for name, names in found.items() if names} == {"cli.py": {"labkit.grading"}}


def test_without_the_extra_grading_says_how_to_install_it() -> None:
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'nbgrader' else real(name, *a)\n"
        "from labkit.cli import app; app(['grade', 'compression', '--jobs', '2'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 2
    assert ended.stderr.startswith("labkit: `labkit grade` needs the instructor's extra")
    assert len(ended.stderr.splitlines()) == 1


def test_a_users_mistake_is_printed_as_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.download.fetch_cifar10", raising(LabError("no network.\n  Do this.")))
    result = CliRunner().invoke(labkit.cli.app, ["data"])
    assert result.exit_code == 2
    assert result.stderr == "labkit: no network.\n        Do this.\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.download.fetch_cifar10", raising(ZeroDivisionError()))
    assert isinstance(CliRunner().invoke(labkit.cli.app, ["data"]).exception, ZeroDivisionError)


def test_the_wheel_holds_the_weights_and_the_reports_tables(tmp_path: Path) -> None:
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    with zipfile.ZipFile(tmp_path / python(code)) as wheel:
        names = set(wheel.namelist())
    for folder in ("checkpoints", "report"):
        files = [path for path in (ROOT / "data" / folder).iterdir() if path.is_file()]
        assert files
        assert {f"labkit/data/{folder}/{path.name}" for path in files} <= names
    assert {f"labkit/data/notebooks/{path.name}" for path in RELEASE.glob("*.ipynb")} <= names
    assert not [name for name in names if name.startswith(("tests/", "notebooks/"))]


def test_notebooks_are_handed_out_and_a_students_work_stays(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    first = CliRunner().invoke(labkit.cli.app, ["notebooks", str(folder)])
    assert first.output.startswith("9 notebooks written to")
    assert {path.name for path in folder.iterdir()} == {path.name for path in RELEASE.glob("*.ipynb")}
    (folder / "01_percentile_pruning.ipynb").write_text("my work")
    (folder / "02_masked_finetuning.ipynb").unlink()
    again = CliRunner().invoke(labkit.cli.app, ["notebooks", str(folder)])
    assert "1 notebooks written" in again.output and "01_percentile_pruning.ipynb" in again.output
    assert (folder / "01_percentile_pruning.ipynb").read_text() == "my work"
    assert json.loads((folder / "02_masked_finetuning.ipynb").read_text(encoding="utf-8"))["nbformat"] == 4


def test_notebooks_into_a_file_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    result = CliRunner().invoke(labkit.cli.app, ["notebooks", str(tmp_path / "taken")])
    assert result.exit_code == 2 and "name another folder" in result.stderr


def test_what_notebooks_write_with_a_dot_is_there_whatever_was_imported_before() -> None:
    """`labkit.quantization.grid`, say, each asked for in a process that has only imported labkit."""
    dotted = re.compile(r"\blabkit(?:\.[A-Za-z_]\w*)+")
    names: set[str] = set()
    for path in RELEASE.glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                names |= set(dotted.findall("".join(cell["source"])))
    assert len(names) > 20
    code = (
        "import os, torch, numpy, matplotlib.backends.backend_agg, matplotlib.figure, labkit\n"
        f"for name in {sorted(names)!r}:\n"
        "    if os.fork() == 0:\n"
        "        try: eval(name)\n"
        "        except AttributeError as error: print(name, error, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    assert python(code) == ""


def raising(error: Exception) -> Callable[..., None]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_data_says_where_cifar10_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.download.fetch_cifar10", lambda root, repair: Path("somewhere"))
    result = CliRunner().invoke(labkit.cli.app, ["data"])
    assert result.output == "CIFAR-10 is in somewhere\n"


def test_doctor_says_what_to_do_about_a_broken_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> object:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return __import__(name)

    monkeypatch.setattr(doctor, "import_module", importing)
    findings = {finding.what: finding for finding in doctor.examine()}
    assert not findings["torchvision"].well
    assert "reinstall" in findings["torchvision"].advice
    assert findings["torch"].well
    assert CliRunner().invoke(labkit.cli.app, ["doctor"]).exit_code == 0  # the lab works without it


def test_doctor_fails_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "import_module", raising(ImportError("No module named 'torch'")))
    result = CliRunner().invoke(labkit.cli.app, ["doctor"])
    assert result.exit_code == 1
    assert "pip install torch torchvision" in result.output
