"""The instructor's commands: `labkit new`, `release`, `grade`, and the demo behind `make demo`."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.errors import LabError

if TYPE_CHECKING:
    from rich.console import Console

    from labkit.grading.marks import Result


PATTERNS = '+*?[]{}<>|:"\\/%#'  # what nbgrader, an address or a file system reads as something else


def _assignment(name: str) -> str:
    """An assignment's name, if it can be a folder's and nbgrader's. Raises LabError."""
    refused = sorted(letter for letter in set(name) if letter in PATTERNS or not letter.isprintable())
    if refused or not name or name != name.strip(" ."):
        why = f" because of {' '.join(map(repr, refused))}" if refused else ""
        raise LabError(
            f"{name!r} cannot be the name of an assignment{why}.\n"
            "Use letters, digits, -, _, and dots or spaces inside it, for the folder of source/ too."
        )
    return name


Assignment = Annotated[str, typer.Argument(help="The assignment: a folder of source/.", callback=_assignment)]
Course = Annotated[
    Path | None,
    typer.Option(
        "--course", help="The folder that holds source/.", show_default="LABKIT_COURSE, or notebooks/"
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="How many at a time.", show_default="one a core")]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ADDRESS",
        help="Grade on the Dask cluster whose scheduler this is.",
        show_default="here",
    ),
]
CORES = os.cpu_count() or 1


def add_commands(app: typer.Typer) -> None:
    """Add the instructor's commands to `labkit`. What they need is imported when they run."""
    app.command()(_at_home(new))
    app.command()(_at_home(release))
    app.command("collect")(_at_home(collect_command))
    app.command()(_at_home(grade))
    app.command()(_at_home(regrade))
    app.command()(_at_home(report))
    app.command(hidden=True)(_at_home(demo))


def _at_home(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a home for a while where its user has none, as in some containers: Jupyter needs one."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        if os.path.isabs(os.path.expanduser("~")):
            return command(*args, **options)
        with tempfile.TemporaryDirectory(prefix="labkit-home-") as home:
            os.environ["HOME"] = home
            return command(*args, **options)

    return run


def new(
    name: Annotated[
        str, typer.Argument(help="The function that students will write, such as soft_threshold.")
    ],
    title: Annotated[
        str | None, typer.Option("--title", help="The heading.", show_default="made from the name")
    ] = None,
    assignment: Annotated[
        str,
        typer.Option("--assignment", help="The folder of source/ that it goes to.", callback=_assignment),
    ] = "compression",
    course: Course = None,
) -> None:
    """Write a source notebook with one of each kind of cell, ready to be released, for you to edit."""
    from labkit.grading.new import new_notebook
    from labkit.grading.tables import shown

    typer.echo(shown(new_notebook(_course(course), assignment, name, title)))
    typer.echo(
        "It is a small lesson that works: put yours in its place, cell by cell, and keep the cells' ids."
    )
    typer.echo(f"Then: labkit release {assignment} --score")


def release(
    assignment: Assignment = "compression",
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit 1 if the release is not what the source generates."
        ),
    ] = False,
    score: Annotated[
        bool, typer.Option("--score", help="Also run the reference solution and print its points.")
    ] = False,
    course: Course = None,
    jobs: Jobs = CORES,
) -> None:
    """Make the students' notebooks from the source: solutions and hidden tests out, Colab cells in."""
    from rich.console import Console

    from labkit.grading import reference, release, sources, tables

    if score:
        _expect_docstrings()
    course = _course(course)
    console = Console(highlight=False)
    if check:
        found = release.differences(course, assignment)
        for line in found:
            tables.print_line(console, line)
        if found:
            tables.print_line(
                console,
                f"{len(found)} files differ: run `labkit release {assignment}` and commit what it writes",
            )
            raise typer.Exit(1)
        where = tables.shown(course / "release" / assignment)
        tables.print_line(console, f"{where} is what the source generates")
    else:
        written = release.release(course, assignment)
        where = tables.shown(course / "release" / assignment)
        tables.print_line(console, f"{len(written)} notebooks written to {where}")
        for name in sources.left_aside(course, assignment):
            tables.print_line(console, f"{name} was left aside: give it a name of its own to release it")
    if score:
        sources.source_notebooks(course, assignment)
        runs = reference.run_notebooks(course / "source" / assignment, jobs)
        console.print(tables.runs_table(runs))
        if any(run.trouble or run.points < run.possible for run in runs):
            raise LabError("the reference solution does not reach every point")


def collect_command(
    download: Annotated[Path, typer.Argument(help="A learning platform's zip, or a folder.")],
    assignment: Assignment = "compression",
    course: Course = None,
) -> None:
    """Sort what a learning platform lets you download into submitted/<student>/<assignment>.

    Known are Canvas, Moodle, Gradescope, Blackboard, Brightspace, ILIAS, OLAT and Google Classroom; anything
    else is read as one folder, or one archive, for each student.
    """
    from rich.console import Console

    from labkit.grading.collect import collect
    from labkit.grading.outputs import few
    from labkit.grading.tables import print_line, shown

    console = Console(highlight=False)
    course = _course(course)
    found = collect(download, course, assignment)
    for line in few(found.left_out, most=200):  # of the whole class
        print_line(console, f"left out: {line}")
    for word in ("new", "replaced", "unchanged"):
        console.print(f"{len(getattr(found, word)):5} {word}")
    where = shown(course / "submitted")
    print_line(console, f"read as {found.platform}; sorted into {where}/<student>/{assignment}")
    if found.hint:
        print_line(console, found.hint)


def grade(
    assignment: Assignment = "compression",
    jobs: Jobs = CORES,
    course: Course = None,
    student: Annotated[str | None, typer.Option("--student", help="Grade this student only.")] = None,
    notebook: Annotated[str | None, typer.Option("--notebook", help="Grade this notebook only.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Grade unchanged submissions again, too.")] = False,
    on: On = None,
) -> None:
    """Grade what was handed in: submitted/<student>/<assignment>/*.ipynb. Grades and feedback pages."""
    from rich.console import Console

    course = _course(course)
    console = Console(highlight=False)
    results = _grade(
        console, course, assignment, cores=jobs, student=student, notebook=notebook, force=force, cluster=on
    )
    from labkit.grading.tables import print_class

    print_class(console, course, assignment, results)


def regrade(
    assignment: Assignment = "compression", jobs: Jobs = CORES, course: Course = None, on: On = None
) -> None:
    """After a test was mended: grade again what it concerns, and list whose points have moved."""
    from rich.console import Console

    console = Console(highlight=False)
    results = _grade(console, _course(course), assignment, cores=jobs, cluster=on)
    from labkit.grading.tables import print_moved

    print_moved(console, results)


def _grade(
    console: Console, course: Path, assignment: str, cluster: str | None, **options: Any
) -> list[Result]:
    from contextlib import ExitStack

    if sys.platform == "win32":
        raise LabError("grading needs Linux or macOS: on Windows run it in WSL (wsl --install).")
    _expect_docstrings()
    from labkit.grading.engine import Engine
    from labkit.grading.scratch import sweep

    sweep()
    with ExitStack() as stack:
        stack.callback(sweep)  # once more at the end: a run that was killed just now may have been dying
        # started first: it warms up while this process imports nbgrader and reads the course
        engine = stack.enter_context(Engine([course])) if cluster is None else None
        from rich.progress import Progress

        from labkit.grading import lighter  # noqa: F401  (before nbformat)
        from labkit.grading.grade import Options, grade_class, submissions
        from labkit.grading.tables import print_line

        progress = stack.enter_context(Progress(console=console, transient=True))
        total = 1 if options.get("student") else len(submissions(course, assignment))
        bar = progress.add_task("grading", total=total)
        return grade_class(
            course,
            assignment,
            Options(cluster=cluster, **options),
            done=lambda name: progress.advance(bar),
            say=lambda line: print_line(progress.console, line),
            engine=engine,
        )


def _expect_docstrings() -> None:
    if sys.flags.optimize >= 2:
        raise LabError(
            "tests need docstrings, the sentences of checks, which this Python drops: run it without -OO, "
            "PYTHONOPTIMIZE unset."
        )


def report(assignment: Assignment = "compression", course: Course = None) -> None:
    """Write a page about the class: distribution, hard checks, mended submissions, answers alike."""
    from labkit.grading.classreport import write_report
    from labkit.grading.database import check_reachable, explained
    from labkit.grading.tables import shown

    course = _course(course)
    check_reachable(course)
    with explained(course):
        typer.echo(f"class report  {shown(write_report(course, assignment))}")


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where everything goes.")] = Path("demo"),
    course: Course = None,
    jobs: Jobs = CORES,
) -> None:
    """The whole way from source notebooks to a graded class of four invented students."""
    from labkit.grading.demo import demo

    _expect_docstrings()
    demo(_course(course), folder.resolve(), jobs=jobs)


def _course(named: Path | None) -> Path:
    from labkit.paths import default_course

    course = named.resolve() if named is not None else default_course()
    if not (course / "source").is_dir():
        raise LabError(f"{course} holds no source/: name the course folder, --course FOLDER")
    return course
