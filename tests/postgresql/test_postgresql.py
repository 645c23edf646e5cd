"""The gradebook in PostgreSQL: a real server, started here, with a password, on a port of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbgrader")
pytest.importorskip("psycopg", reason="needs a driver: pip install 'labkit[postgres]'")

import psycopg
from nbgrader import dbutil
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from typer.testing import CliRunner

from labkit.cli import app
from labkit.errors import LabError
from labkit.grading.database import check_reachable
from labkit.grading.engine import Engine
from labkit.grading.exports import read_grades
from labkit.grading.grade import Options, grade_class
from labkit.grading.release import release
from labkit.grading.settings import course_directory, course_settings
from tests import graded_course as made
from tests.graded_course import ASSIGNMENT, FIRST, SECOND, Course

PASSWORD = "s%cret@:/"  # what has to be written otherwise in a URL
QUOTED = "s%25cret%40%3A%2F"
PORTS = 5  # how many to try
COPIES = count()  # numbers for databases


def program(name: str) -> str | None:
    """The path of a program of PostgreSQL; Debian keeps them out of PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, reversed(versions))]))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server without a database name at its end."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("needs PostgreSQL's server programs (apt-get install postgresql)")
    # it refuses to run as root
    user = next(name for name in ("postgres", "nobody") if _exists(name)) if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="labkit-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if user is not None:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)

    def run(*command: str) -> bool:
        ended = subprocess.run(command, cwd=folder, user=user, check=False, stdout=subprocess.DEVNULL)
        return ended.returncode == 0

    data, log = str(folder / "data"), folder / "log"
    try:
        assert run(
            initdb, "-D", data, "--no-sync", "-A", "scram-sha-256",
            "-U", "grader", "--pwfile", str(folder / "password"),
        )  # fmt: skip
        for _ in range(PORTS):  # another process may take the one that was free a moment ago
            port = free_port()
            options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
            if run(pg_ctl, "-D", data, "-l", str(log), "-w", "-t", "300", "-o", options, "start"):
                break
        else:
            pytest.fail(f"PostgreSQL does not start:\n{log.read_text()}")
        try:
            yield f"postgresql://grader:{QUOTED}@127.0.0.1:{port}"
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


def new_database(server: str, name: str, template: str = "template0") -> str:
    """URL of a new database, a copy of `template`."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"{server}/{name}"


def grade(course: Course, engine: Engine, **options: Any) -> dict[str, tuple[float, float]]:
    """student -> (points by code, points that wait for a human)."""
    results = grade_class(course.root, ASSIGNMENT, Options(2, **options), engine=engine)
    assert [result.notes for result in results] == [[], [f"missing {SECOND}"]]
    return {result.student: (result.got, result.outstanding) for result in results}


@pytest.fixture(scope="module")
def graded(server: str, shared_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """Two students, graded in the database `graded`.

    ada has everything right, bob one function wrong and one notebook missing.
    """
    root = tmp_path_factory.mktemp("graded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_GRADEBOOK", new_database(server, "graded"))
        course = made.make(root)
        for student, names in (("ada", (FIRST, SECOND)), ("bob", (FIRST,))):
            folder = root / "submitted" / student / ASSIGNMENT
            folder.mkdir(parents=True)
            for name in names:
                nb = course.answered(name)
                made.named(nb, "why").source = "Because of this."
                if student == "bob":
                    made.named(nb, "double").source = "def double(x):\n    return abs(2 * x)"
                nbformat.write(nb, folder / f"{name}.ipynb")
        assert grade(course, shared_engine) == {"ada": (20.0, 6.0), "bob": (6.5, 3.0)}
    return course


@pytest.fixture
def course(graded: Course, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    """That class for one test: a copy of its folder and of its database."""
    url = new_database(server, f"copy_{next(COPIES)}", template="graded")
    monkeypatch.setenv("LABKIT_GRADEBOOK", url)
    return Course(shutil.copytree(graded.root, tmp_path / "course"), graded.released)


def why(book: Gradebook, student: str) -> Any:
    """The grade of the question in words."""
    return book.find_grade("why", FIRST, ASSIGNMENT, student)


def test_a_class_is_graded_and_what_a_human_gave_stays(course: Course, shared_engine: Engine) -> None:
    assert not list(course.root.glob("*.db"))
    where = course_directory(course.root, ASSIGNMENT)
    assert where.db_url.startswith("postgresql+psycopg://")
    with Gradebook(where.db_url, where.course_id) as book:
        why(book, "ada").manual_score = 2.5
        why(book, "ada").needs_manual_grade = False
        why(book, "ada").extra_credit = 1.0
        book.find_comment("why", FIRST, ASSIGNMENT, "ada").manual_comment = "well said, ü"
        book.db.commit()
    assert grade(course, shared_engine, force=True) == {"ada": (20.0, 3.0), "bob": (6.5, 3.0)}
    with Gradebook(where.db_url, where.course_id) as book:
        assert (why(book, "ada").manual_score, why(book, "ada").extra_credit) == (2.5, 1.0)
        assert book.find_comment("why", FIRST, ASSIGNMENT, "ada").comment == "well said, ü"
        assert book.find_submission(ASSIGNMENT, "ada").score == 23.5
        assert book.find_submission(ASSIGNMENT, "bob").score == 6.5


def test_tables_and_the_class_report_are_read_from_it(course: Course, shared_engine: Engine) -> None:
    assert {one.student: one.score for one in read_grades(course.root, ASSIGNMENT)} == {"ada": 20, "bob": 6.5}
    table = course.root / "exports" / ASSIGNMENT / "grades.csv"
    first = table.read_bytes()
    assert b"bob,6.5,0,6.5,26,3" in first
    grade(course, shared_engine, force=True)
    assert table.read_bytes() == first
    release(course.root, ASSIGNMENT)
    done = CliRunner().invoke(app, ["report", "--course", str(course.root)])
    assert done.exit_code == 0, done.output
    assert "bob" in (course.root / "reports" / f"{ASSIGNMENT}.html").read_text(encoding="utf-8")


def test_nbgraders_own_programs_work_with_it(course: Course) -> None:
    where = course_directory(course.root, ASSIGNMENT)
    api = NbGraderAPI(coursedir=where, config=course_settings(course.root))
    (assignment,) = api.get_assignments()  # what formgrader shows
    assert (assignment["num_submissions"], assignment["max_score"]) == (2, 26)
    assert {one["student"]: one["score"] for one in api.get_submissions(ASSIGNMENT)} == {
        "ada": 20,
        "bob": 6.5,
    }
    assert {one["name"]: one["average_score"] for one in api.get_notebooks(ASSIGNMENT)} == {
        FIRST: 8.25,
        SECOND: 5.0,
        "03_more": 0.0,
    }
    assert {one["score"] for one in api.get_notebook_submissions(ASSIGNMENT, FIRST)} == {10, 6.5}
    assert {one["id"] for one in api.get_students()} == {"ada", "bob"}
    with Gradebook(where.db_url, where.course_id) as book:
        assert book.average_assignment_score(ASSIGNMENT) == 13.25
        book.remove_student("bob")
    assert [one.student for one in read_grades(course.root, ASSIGNMENT)] == ["ada"]


def test_a_new_database_is_at_nbgraders_newest_version(course: Course) -> None:
    url = course_directory(course.root, ASSIGNMENT).db_url
    dbutil.upgrade(url.replace("%", "%%"))  # alembic's file of settings has a meaning for % of its own


def test_a_server_that_does_not_answer_is_a_sentence(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens there
        monkeypatch.setenv("LABKIT_GRADEBOOK", f"postgresql://a:hidden@127.0.0.1:{free.getsockname()[1]}/b")
        with pytest.raises(LabError, match=r"does not answer: .*[Cc]onnection") as raised:
            check_reachable(tmp_path)
    assert "hidden" not in str(raised.value)
    monkeypatch.setenv("LABKIT_GRADEBOOK", f"{server}/nowhere")
    with pytest.raises(LabError, match="nowhere"):
        check_reachable(tmp_path)
    monkeypatch.setenv("LABKIT_GRADEBOOK", f"{server}/postgres")
    check_reachable(tmp_path)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("gradebook.db", "LABKIT_GRADEBOOK is no database URL"),
        ("postgresql+nothing://u:hidden@host/name", "no driver for postgresql.nothing"),
        ("nothing://u:hidden@host/name", "no driver for nothing"),
    ],
)
def test_a_mistake_in_the_url_is_a_sentence(
    url: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_GRADEBOOK", url)
    with pytest.raises(LabError, match=sentence) as raised:
        course_settings(tmp_path)
    assert "hidden" not in str(raised.value)


def test_without_the_variable_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_GRADEBOOK", raising=False)
    assert course_directory(tmp_path, ASSIGNMENT).db_url == f"sqlite:///{tmp_path}/gradebook.db?timeout=60"
