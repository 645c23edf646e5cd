from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from labkit.cli import app
from labkit.errors import LabError
from labkit.reproduce.page import page, tables_csv, write_page
from labkit.reproduce.tables import Results, difference, read, spread


def record(experiment: str, rows: dict[str, dict[str, float]], **more: Any) -> dict[str, Any]:
    always = {"experiment": experiment, "key": "k", "seed": 1, "profile": {"name": "full"}, "seconds": 60.0}
    environment = {"environment": {"device": "CPU, 1 threads", "torch": "2.0"}}
    return always | environment | {"rows": rows} | more


def figures(accuracy: float, **more: float) -> dict[str, float]:
    plain = {"loss": 0.5, "sparsity": 0.8, "bytes": 100, "ideal_bytes": 50, "float32_bytes": 1000}
    return plain | {"accuracy": accuracy} | more


def write(folder: Path, name: str, data: dict[str, Any], series: str = "report_baseline-report") -> None:
    (folder / series).mkdir(parents=True, exist_ok=True)
    (folder / series / name).write_text(json.dumps(data))


def test_a_row_holds_all_seeds_beside_the_reports_figure() -> None:
    records = [
        record("one-shot", {"one-shot": figures(0.89, last_accuracy=0.88)}, seed=1),
        record("one-shot", {"one-shot": figures(0.91, last_accuracy=0.90)}, seed=2),
    ]
    row = Results("s", tuple(records)).row("one-shot", "one-shot")
    assert row.report == 0.8794
    assert spread(row.accuracy) == "0.9000 ± 0.0141"
    assert spread(row.last) == "0.8900 ± 0.0141"
    assert difference(row) == "+2.06"
    assert row.ratio == [10.0, 10.0] and row.ideal_ratio == [20.0, 20.0]


def test_what_was_not_run_is_a_dash() -> None:
    row = Results("s", ()).row("asymmetric-finetune:3", "3")
    assert (spread(row.accuracy), difference(row), row.report) == ("–", "–", 0.9058)


def test_a_trial_at_quick_is_in_no_table(tmp_path: Path) -> None:
    write(tmp_path, "a.json", record("baseline", {"baseline": figures(0.9)}) | {"profile": {"name": "quick"}})
    assert read(tmp_path) == {}


def test_the_page_shows_the_records_figures(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "docs").mkdir()
    template = (repository / "docs" / "RESULTS.md.j2").read_text()
    (tmp_path / "docs" / "RESULTS.md.j2").write_text(template)
    write(
        tmp_path / "r", "baseline-seed1.json", record("baseline", {"baseline": figures(0.9177, sparsity=0.0)})
    )
    sweep = {str(bits): figures(0.9 - 0.1 / bits) for bits in (6, 5, 4, 3, 2)}
    write(tmp_path / "r", "asymmetric-seed1.json", record("asymmetric", sweep))
    written = write_page(tmp_path / "r", tmp_path / "docs")
    *pictures, tables, text_path = written
    assert tables.read_text().splitlines()[1:3] == [
        "report_baseline,report,baseline,baseline,1,0.9177,,0.0000,100",
        "report_baseline,report,asymmetric,6,1,0.8833,,0.8000,100",
    ]
    text = text_path.read_text()
    assert "| baseline | 0.9151 | 0.9177 | +0.26 | – | 0.5000 | 0.0000 | 100 | 10.0 | 20.0 |" in text
    assert "| 2 | 0.0899 | 0.8500 |" in text
    linked = set(re.findall(r"\]\((results/[^)]*)\)", text))
    assert linked == {str(path.relative_to(tmp_path / "docs")) for path in pictures} != set()
    assert all(alt for alt in re.findall(r"!\[(.*?)\]", text))


def test_the_committed_page_is_what_the_records_give(repository: Path) -> None:
    docs = repository / "docs"
    text = page(repository / "data" / "results", docs)
    assert (docs / "RESULTS.md").read_text() == text, (
        "run `labkit reproduce --page` and commit what it writes"
    )
    for linked in re.findall(r"\]\((results/[^)]*)\)", text):
        assert (docs / linked).exists()
    assert (repository / "data" / "results" / "tables.csv").read_text() == tables_csv(
        repository / "data" / "results"
    )


def test_a_few_trials_without_their_baseline_make_no_picture(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "RESULTS.md.j2").write_text((repository / "docs" / "RESULTS.md.j2").read_text())
    trial = record("one-shot", {"one-shot": figures(0.9)}, history=[], sparsity_by_layer={})
    write(tmp_path / "r", "one-shot-seed1.json", trial)
    tables, text = write_page(tmp_path / "r", tmp_path / "docs")
    assert "| one-shot | 0.8794 | 0.9000 |" in text.read_text() and "![" not in text.read_text()
    assert tables.name == "tables.csv"


def test_without_records_the_command_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="run `labkit reproduce` first"):
        page(tmp_path, tmp_path)
    result = CliRunner().invoke(app, ["reproduce", "--page", "--results", str(tmp_path)])
    assert result.exit_code == 2 and "there are no records" in result.output
