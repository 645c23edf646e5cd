"""The documentation: its commands run, its links lead somewhere, and the site builds without a warning."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import groupby
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("nbgrader")

from labkit.cli import app
from labkit.grading import engine
from labkit.grading.engine import Engine
from tests import alembic_once  # noqa: F401
from tests.roundtrip import submissions
from tests.roundtrip.tiny_course import write_course

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "RESULTS.md")
TEXTS = [*PAGES, *sorted(ROOT.glob("*.md")), ROOT / "benchmarks" / "README.md"]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def commands(page: str) -> Iterator[list[str]]:
    """What a page tells to run: the words of each `labkit` command in its blocks, without comments."""
    for block in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        for line in block.splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["labkit"]:
                yield words[1:]


@pytest.fixture(scope="module")
def one_engine() -> Iterator[None]:
    """The engine that the first command starts grades for the others, too: a start imports torch twice."""
    started: list[Engine] = []
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def first(hidden: Sequence[Path]) -> AbstractContextManager[Engine]:
            if not started:
                started.append(stack.enter_context(Engine(hidden)))
            return nullcontext(started[0])

        patch.setattr(engine, "Engine", first)
        yield


@pytest.mark.usefixtures("one_engine")
def test_from_a_clone_to_grades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages' commands in their order, on the tiny course, with what two students hand in."""
    course = write_course(tmp_path / "course")
    monkeypatch.setenv("LABKIT_COURSE", str(course))
    monkeypatch.chdir(tmp_path)
    ran = []
    for words in [*commands("instructors.md"), *commands("adapting.md")]:
        if words[0] == "collect":
            hand_in(course, tmp_path / words[1])
        labkit(*words)
        ran.append(words[0])
    assert ran == ["doctor", "release", "collect", "grade", "report", "regrade", "release", "new"]
    for made in (
        "gradebook.db",
        "feedback/ada",
        "exports/compression/grades.csv",
        "autograded/ada",
        "reports",
    ):
        assert (course / made).exists(), made  # what the page says came of it


def hand_in(course: Path, download: Path) -> None:
    """Two students' notebooks as a platform's zip: a folder for each."""
    for student in ("ada", "ben"):
        submissions.hand_in(course, student, submissions.unchanged)
    folder = course / "submitted"
    for place in folder.glob("*/compression"):
        for path in place.iterdir():
            path.rename(place.parent / path.name)
        place.rmdir()
    shutil.make_archive(str(download.with_suffix("")), "zip", folder)
    shutil.rmtree(folder)


@pytest.mark.usefixtures("one_engine")
def test_a_student_is_taken_out_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = write_course(tmp_path / "notebooks")
    monkeypatch.setenv("LABKIT_COURSE", str(course))
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    labkit("release", "compression")
    for student in ("ada", "ben"):
        submissions.hand_in(course, student, submissions.unchanged)
    labkit("grade", "compression")
    (block,) = BLOCK.findall((ROOT / "docs" / "privacy.md").read_text(encoding="utf-8"))
    for ours, lines in groupby(block.splitlines(), key=lambda line: line.startswith("labkit ")):
        if ours:
            for line in lines:
                labkit(*line.partition("#")[0].split()[1:])
        else:
            bash("\n".join(lines))
    left = [path for path in course.rglob("*") if "ada" in path.name]
    assert not left
    table = (course / "exports" / "compression" / "grades.csv").read_text(encoding="utf-8-sig")
    assert "ada" not in table and "ben" in table
    # as a word: the gradebook's own ids are random hexadecimal digits
    assert not re.search(rb"(?<![0-9a-f])ada(?![0-9a-f])", (course / "gradebook.db").read_bytes())


def labkit(*words: str) -> None:
    ended = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ended.exit_code == 0, f"labkit {' '.join(words)}: {ended.output}"


def bash(script: str) -> None:
    """Run it with the programs of this environment, whether or not they are on the path."""
    for name, words in {"nbgrader": "-m nbgrader", "python": ""}.items():
        script = re.sub(rf"^{name} ", f"{sys.executable} {words} ", script, flags=re.M)
    ended = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not re.match(r"https?://|mailto:", link):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_command_and_option_that_is_named_exists() -> None:
    known = typer.main.get_command(app).commands
    named = 0
    for page in TEXTS:
        text = page.read_text(encoding="utf-8")
        code = [*BLOCK.findall(text), *re.findall(r"`([^`\n]+)`", text)]
        for line in (line.partition("#")[0] for block in code for line in block.splitlines()):
            for found in re.finditer(r"\blabkit ([a-z]+)((?: [^&|;]+)?)", line):
                command = known.get(found[1])
                assert command is not None, f"{page.name}: {found[0]}"
                options = {name for one in command.params for name in one.opts}
                assert set(re.findall(r"(?<!\S)--[a-z-]+", found[2])) <= options, f"{page.name}: {found[0]}"
                named += 1
    assert named > 40


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the extra docs is not installed")
    for name in ("docs", "labkit", "zensical.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)

    def build() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    ended = build()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    site = tmp_path / "build" / "site"
    assert {page.stem for page in site.glob("*.html")} >= {page.stem for page in PAGES}
    for page in site.glob("*.html"):  # nothing is fetched from elsewhere: it can be read offline
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"""<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="https?:""", text), (
            page
        )
    assert "prunable_layers" in (site / "reference.html").read_text(encoding="utf-8")
    index = tmp_path / "docs" / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + "\n[nowhere](nowhere.md)\n", encoding="utf-8")
    assert build().returncode != 0, "a broken link is an error"
