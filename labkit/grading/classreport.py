"""The instructor's page about a class: how the grades lie, which checks are hard, what had to be mended.

Made from the gradebook, the autograded notebooks and the records of grading; nothing is run. Names and
notes in it are the students' to choose: each comes as one line of plain text, and the page loads nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from markupsafe import Markup
from nbformat import NotebookNode

from labkit.errors import LabError
from labkit.files import write_atomically
from labkit.grading.autograded import read_autograded
from labkit.grading.exports import Grades, read_grades
from labkit.grading.feedback import style, templates
from labkit.grading.likeness import Pair, suspicious_pairs
from labkit.grading.outputs import few, safe_line
from labkit.grading.repair import grade_id_of
from labkit.grading.roster import roster
from labkit.grading.unchanged import Record, Records
from labkit.grading.verdicts import Verdict

BARS = 10  # of the histogram


@dataclass(frozen=True)
class CheckFigures:
    """How a class did in one graded cell.

    mean: share of its points, 0 to 1. full, none: how many got everything, nothing. discrimination: the
    correlation with the rest of the points: near 0 or below, the check tells strong from weak students
    badly; None if everybody got the same.
    """

    notebook: str
    name: str
    possible: float
    graded: int
    mean: float
    full: int
    none: int
    discrimination: float | None


@dataclass(frozen=True)
class SentenceFigures:
    """How a class did in one check of a graded cell: the share that passed, and discrimination as above."""

    notebook: str
    sentence: str
    tried: int
    rate: float
    discrimination: float | None


@dataclass(frozen=True)
class HandedIn:
    """A student's submission as it was graded.

    answers: (notebook, grade_id) -> source. verdicts: by notebook. notes: what was mended or went wrong;
    attempts: what looks like an attempt to fool the grader. seconds: by notebook.
    """

    student: str
    answers: Mapping[tuple[str, str], str] = field(default_factory=dict)
    verdicts: Mapping[str, Sequence[Verdict]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    attempts: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_report(course: Path, assignment: str) -> Path:
    """Write `reports/<assignment>.html` in the course folder; raises LabError if nobody was graded."""
    grades = read_grades(course, assignment)
    if not grades:
        raise LabError(f"nobody's {assignment} has been graded: run `labkit grade {assignment}` first.")
    release = {
        path.stem: nbformat.read(path, 4)
        for path in sorted((course / "release" / assignment).glob("*.ipynb"))
    }
    if not release:
        raise LabError(f"there is no {course / 'release' / assignment}: run `labkit release {assignment}`.")
    records = Records(course, assignment, release)
    class_ = [
        handed_in(course, assignment, one.student, release, records.read(one.student)) for one in grades
    ]
    there = roster(course, assignment)
    known = {one.student for one in grades}
    new = [f"{one} has handed in and is not graded yet." for one in there.students if one not in known]
    html = render(assignment, grades, class_, likeness(class_, release), [*there.lines(), *new])
    path = course / "reports" / f"{assignment}.html"
    write_atomically(path, lambda part: part.write_text(html, encoding="utf-8"))
    return path


def handed_in(course: Path, assignment: str, student: str, names: Iterable[str], record: Record) -> HandedIn:
    """What a student's autograded notebooks and record say."""
    answers: dict[tuple[str, str], str] = {}
    verdicts = {}
    for name in names:
        one = read_autograded(course, assignment, student, name)
        if one is None or name in record.not_graded:
            continue
        verdicts[name] = list(one.verdicts.values())
        for cell in one.notebook.cells:
            if (grade_id := grade_id_of(cell)) is not None and _is_code_answer(cell):
                answers[name, grade_id] = cell.source
    return HandedIn(student, answers, verdicts, record.lines(), record.suspicions(), record.seconds)


def likeness(class_: Sequence[HandedIn], release: Mapping[str, NotebookNode]) -> list[Pair]:
    """Suspiciously alike answers over all notebooks."""
    pairs: list[Pair] = []
    for notebook, known in release.items():
        for cell in known.cells:
            if (name := grade_id_of(cell)) is not None and _is_code_answer(cell):
                answers = {
                    one.student: one.answers[notebook, name]
                    for one in class_
                    if (notebook, name) in one.answers
                }
                pairs += suspicious_pairs(answers, cell.source, f"{notebook}: {name}")
    return sorted(pairs, key=lambda pair: -pair.alike)


def check_figures(grades: Sequence[Grades]) -> list[CheckFigures]:
    """Each graded cell's figures, the hardest first."""
    scores: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    for one in grades:
        for check in one.checks:
            if check.score is not None and check.possible > 0:
                key = (check.notebook, check.name, check.possible)
                scores.setdefault(key, []).append((check.score, one.score - check.score))
    figures = [
        CheckFigures(
            notebook=notebook,
            name=name,
            possible=possible,
            graded=len(pairs),
            mean=statistics.mean(score for score, _ in pairs) / possible,
            full=sum(score >= possible for score, _ in pairs),
            none=sum(score <= 0 for score, _ in pairs),
            discrimination=_correlation(pairs),
        )
        for (notebook, name, possible), pairs in scores.items()
    ]
    return sorted(figures, key=lambda one: (one.mean, one.notebook, one.name))


def sentence_figures(class_: Sequence[HandedIn], grades: Sequence[Grades]) -> list[SentenceFigures]:
    """Each check's pass rate, the hardest first. A check that was not reached counts as not passed."""
    totals = {one.student: one.score for one in grades}
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in class_:
        for name, verdicts in one.verdicts.items():
            for outcome in (outcome for verdict in verdicts for outcome in verdict.checks):
                rest = totals.get(one.student, 0.0) - outcome.earned
                results.setdefault((name, outcome.sentence), []).append((outcome.state == "passed", rest))
    figures = [
        SentenceFigures(
            notebook,
            sentence,
            len(pairs),
            statistics.mean(passed for passed, _ in pairs),
            _correlation(pairs),
        )
        for (notebook, sentence), pairs in results.items()
    ]
    return sorted(figures, key=lambda one: (one.rate, one.notebook, one.sentence))


def slowest(class_: Sequence[HandedIn], most: int = 10) -> list[tuple[str, str, float]]:
    """(student, notebook, seconds), the slowest first."""
    every = [(one.student, name, seconds) for one in class_ for name, seconds in one.seconds.items()]
    return sorted(every, key=lambda entry: (-entry[2], entry[0], entry[1]))[:most]


def histogram(grades: Sequence[Grades]) -> list[tuple[str, int]]:
    """(`70–80 %`, how many students) over the share of the points that are there."""
    counts = [0] * BARS
    for one in grades:
        share = one.score / one.possible if one.possible else 0.0
        counts[min(BARS - 1, max(0, int(share * BARS)))] += 1
    width = 100 // BARS
    return [(f"{i * width}–{(i + 1) * width} %", count) for i, count in enumerate(counts)]


def render(
    assignment: str,
    grades: Sequence[Grades],
    class_: Sequence[HandedIn],
    pairs: Sequence[Pair],
    elsewhere: Sequence[str] = (),
) -> str:
    """The page. elsewhere: what was handed in and is in nobody's grades, a sentence each."""
    environment = templates().overlay(finalize=_safe)
    totals = [one.score for one in grades]
    return environment.get_template("class_report.html.j2").render(
        assignment=assignment,
        grades=grades,
        possible=max(one.possible for one in grades),
        waiting=sum(one.waiting for one in grades),
        mean=statistics.mean(totals),
        median=statistics.median(totals),
        histogram=histogram(grades),
        checks=check_figures(grades),
        sentences=sentence_figures(class_, grades),
        slowest=slowest(class_),
        suspicious=[(one.student, few(one.attempts)) for one in class_ if one.attempts],
        mended=[(one.student, few(one.notes)) for one in class_ if one.notes],
        pairs=pairs,
        elsewhere=elsewhere,
        **style("class_report.css"),
    )


def _safe(value: object) -> object:
    """What the template is about to write."""
    return safe_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    try:
        return statistics.correlation(*zip(*pairs, strict=True))
    except statistics.StatisticsError:  # fewer than two students, or all the same
        return None


def _is_code_answer(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.metadata["nbgrader"].get("solution"))
