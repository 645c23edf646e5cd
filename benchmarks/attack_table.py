"""Every case of `tests/attacks` and what it gets: here, and with stock nbgrader.

    python benchmarks/attack_table.py                          # labkit's engine only: four minutes
    python benchmarks/attack_table.py --nbgrader --only fork   # nbgrader's column too, of some cases
    python benchmarks/attack_table.py --nbgrader-of docs/ATTACKS.md    # that column as it stands in a table

Writes a Markdown table. nbgrader runs a case in its own process with nothing around it, so here it runs in
bubblewrap as nobody: own processes, no network, little memory and disk, and a time limit for the notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz import OUT, sentence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from labkit.grading import levels  # noqa: E402
from labkit.grading.attempts import attempts_in  # noqa: E402
from labkit.grading.bubblewrap import bubblewrap, readable_paths  # noqa: E402
from labkit.grading.engine import Engine  # noqa: E402
from labkit.grading.sandbox import Limits  # noqa: E402
from labkit.grading.verdicts import Graded  # noqa: E402
from tests.attacks import cheats, failures, honest, inside  # noqa: E402
from tests.attacks.case import COURSE, Case  # noqa: E402
from tests.attacks.inside import Inside  # noqa: E402
from tests.border.fuzzing.run import Bounds  # noqa: E402

ASSIGNMENT = "compression"
GROUPS: dict[str, Sequence[Case | Inside]] = {
    "honest": honest.CASES,
    "failures": failures.CASES,
    "cheats": [*cheats.CASES, *cheats.PAYLOADS],
    "who has read the grader": inside.CASES,
}
MEMORY, A_BYTE = Bounds.memory >> 20, Bounds.memory_a_byte
LIMITS = Limits(cell_seconds=15.0, memory=2**30)
SECONDS, BYTES, DISK, PROCESSES = 90, 6 * 2**30, 2**28, 256  # for nbgrader's notebook
FUZZED = f"""\
Whatever reads what a student's code may have written is fuzzed: the channel, plain values, calls, the \
answer of the tests' process, what is said of a process's end, and the notebook parser with the repair \
behind it. `benchmarks/fuzz.py` sends honest messages and notebooks, changed by chance: bits, lengths, \
shapes, dtypes, depth, huge numbers, keys that come twice, halves of surrogate pairs, values of one hash. \
A reader may take a frame or refuse it with its own error. Another exception, a crash, more than a second, \
more memory than {MEMORY} MiB and {A_BYTE} bytes for each byte of the frame, another setting or shape than \
a test has lent: each is a fault. {sentence(json.loads(OUT.read_text()))} `python benchmarks/fuzz.py` \
repeats it; `tests/border/test_fuzz.py` is a short run, beside readers that are broken on purpose and must \
be found."""
TEXT = """\
# Attacks, damage and honest oddities

Made by `benchmarks/attack_table.py`; the cases are real notebooks, built from the released ones, in \
`tests/attacks`, where each has the verdict that it must get.

*here*: points, what else than passed or failed there was, and *told* where the instructor hears of it. \
Isolation: {level}. *nbgrader*: the points of stock `nbgrader autograde` on the same file, each in a sandbox \
of its own, for it has none{origin}; *no end* where it had not ended within {SECONDS} seconds, *no score* \
where none was written. A cheat stands on an answer that is half right, worth 5 points here, or on a wrong \
one: more than that would be gained. Points do not say what was read on the way: here neither tests nor \
other people's work can be reached.

Memory is tried apart from notebooks as well: `tests/attacks/test_memory.py` takes it in every way that we \
know. What no process shows (files without a place that are closed or in flight, what is left of a shared \
mapping, System V's objects, pages that only a pipe holds) is refused; the same code without the filter \
gets the memory, and the watch does not see it. What can be taken (pages of many processes, of orphans, \
behind an ended first thread; page tables, mappings, unread messages) is seen. \
`tests/attacks/test_cgroups.py` does the same in a control group; it needs a system that lets it make one.

Single system calls are tried in `tests/attacks/test_system_calls.py`: network sockets, io_uring, \
userfaultfd, bpf, keys, ptrace, the memory of processes, mounts, namespaces and more. Each is tried three \
times: without any sandbox, with the system-call filter alone, and in a student's cell. The last two must \
be refused. If the first does not work either, for lack of rights or in this kernel, the test is reported \
as skipped, for then a refusal shows nothing. `tests/border/calls` says for every call number of x86-64 \
and aarch64 what the filter answers, and a test reads the same from the filter's program.

What is the instructor's (files, sockets, processes) is tried with `tests/attacks/reaches.py`, without any \
sandbox, where all of it works, and at every level: what a cell gets at there must be among what the head \
of the run says is open. `benchmarks/attack_levels.py` prints the same as a table of levels. Folders that \
would stop a class and headings that take formgrader's score field are tried in `tests/grader`.

{FUZZED}

""".replace("{FUZZED}", FUZZED).replace("{SECONDS}", str(SECONDS))
# runs in bubblewrap: takes a course of one student and one notebook, says the notebook's score
INSIDE = f"""\
import os, resource, shutil, subprocess, sys
course, program = "/tmp/course", [sys.executable, "-m", "nbgrader"]
shutil.copytree(sys.argv[1], course)
resource.setrlimit(resource.RLIMIT_AS, ({BYTES}, {BYTES}))
resource.setrlimit(resource.RLIMIT_NPROC, ({PROCESSES}, {PROCESSES}))
os.environ.update(LABKIT_COURSE=course, HOME="/tmp")
program += ["autograde", "{ASSIGNMENT}"]
done = subprocess.run(program, cwd=sys.argv[2], capture_output=True, text=True, timeout={SECONDS})
print(done.stderr[-1000:], file=sys.stderr)
from nbgrader.api import Gradebook
with Gradebook("sqlite:///" + course + "/gradebook.db") as book:
    submission = book.find_submission("{ASSIGNMENT}", "student")
    print(*[one.score for one in submission.notebooks if one.name == sys.argv[3]])
"""


def cases(only: str) -> Iterator[tuple[str, Case | Inside]]:
    for group, members in GROUPS.items():
        yield from ((group, case) for case in members if only in case.name)


def labkit(engine: Engine, case: Case | Inside, folder: Path) -> str:
    """Points, what else than `passed` or `failed` there was, and whether the instructor hears of it."""
    if isinstance(case, Case):
        case.hand_in(folder)
        job, sources = case.job(folder)
    else:
        job, sources = case.job(folder)
    graded: Graded = engine.grade(job)
    kinds = {verdict.kind for verdict in graded.verdicts} - {"passed", "partial", "failed"}
    told = ["told"] if graded.attempts or attempts_in(sources) else []
    points = f"{graded.points:g} of {sum(verdict.possible for verdict in graded.verdicts):g}"
    return ", ".join([points, *sorted(kinds), *told])


def prepared(folder: Path) -> Path:
    """A course whose release and gradebook nbgrader has made."""
    shutil.copytree(COURSE / "source", folder / "source")
    environment = {**os.environ, "LABKIT_COURSE": str(folder)}
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", ASSIGNMENT, "--force"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


def nbgrader(course: Path, case: Case | Inside, folder: Path, handed_in: Path) -> str:
    """The points that stock nbgrader gives, or that there was no end."""
    shutil.copytree(course, folder)
    shutil.copytree(handed_in, folder / "submitted" / "student" / ASSIGNMENT)
    config = folder / "config"
    config.mkdir()
    shutil.copy(ROOT / "nbgrader_config.py", config)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    name = case.notebook if isinstance(case, Inside) else inside.PRUNING
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    command += [sys.executable, "-c", INSIDE, str(folder), str(config), name]
    wrapped = bubblewrap(command, [*readable_paths([]), folder])
    place = wrapped.index("--perms")
    wrapped[place:place] = ["--setenv", "PYTHONPATH", str(ROOT)]
    if "--size" in wrapped:  # of /tmp, the first one
        wrapped[wrapped.index("--size") + 1] = str(DISK)
    try:
        done = subprocess.run(wrapped, capture_output=True, text=True, timeout=SECONDS + 60, check=False)
    except subprocess.TimeoutExpired:
        return "no end"
    if done.returncode:
        return "no end" if "TimeoutExpired" in done.stderr else "no score"
    return f"{float(done.stdout.split()[-1]):g}" if done.stdout.split() else "no score"


def column_of(table: Path) -> dict[str, str]:
    """Case -> what a table that was written earlier says of nbgrader."""
    rows = [line.strip("| \n").split(" | ") for line in table.read_text(encoding="utf-8").splitlines()]
    return {row[1]: row[3] for row in rows if len(row) == 4}


def write(path: Path, rows: Sequence[Sequence[str]], level: str, origin: str = "") -> None:
    """The table so far: an hour is long enough to be interrupted."""
    head = ["group", "case", "here", "nbgrader"][: len(rows[0])]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    path.write_text(TEXT.format(level=level, origin=origin) + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nbgrader", action="store_true", help="also with stock nbgrader: an hour")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "ATTACKS.md")
    parser.add_argument("--nbgrader-of", type=Path, help="take nbgrader's column from this table")
    arguments = parser.parse_args()
    known = column_of(arguments.nbgrader_of) if arguments.nbgrader_of else None
    if arguments.nbgrader and not levels.level().bubblewrap:
        parser.error("--nbgrader needs bubblewrap: without it these cases would harm this machine")
    rows: list[list[str]] = []
    with TemporaryDirectory() as scratch, Engine([COURSE], LIMITS) as engine:
        course = prepared(Path(scratch) / "course") if arguments.nbgrader else None
        for number, (group, case) in enumerate(cases(arguments.only)):
            handed_in = Path(scratch) / f"case{number}"
            row = [group, case.name.replace("|", "\\|"), labkit(engine, case, handed_in)]
            if course is not None:
                row.append(nbgrader(course, case, Path(scratch) / f"nbgrader{number}", handed_in))
            elif known is not None:
                row.append(known.get(row[1], "not run"))
            rows.append(row)
            print(json.dumps(row), flush=True)
            write(arguments.out, rows, engine.level.sentence, ", in an earlier run" if known else "")


if __name__ == "__main__":
    main()
