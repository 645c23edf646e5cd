"""What this session has run, beside what the saved notebooks show of it.

A notebook that was not saved since it was run shows old answers and old errors: `labkit submit` says so,
instead of what no longer holds.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from labkit.notebooks import Checks, Notebook


@dataclass
class Session:
    """checks: (notebook, title of a check) -> its outcome in this process, if it was on what the file holds.

    unsaved: notebooks that were run since they were saved. warnings: a sentence for each thing to save.
    """

    checks: dict[tuple[str, str], Checks] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


def this_session(notebooks: Collection[Notebook]) -> Session:
    """What was run in this very process, if it is a notebook's."""
    session = Session()
    stale = _stale(notebooks, _inputs())
    engine = sys.modules.get("labkit.check.engine")  # which imports torch: if it is not there, nothing ran
    for title, shown in (engine.shown if engine is not None else {}).items():
        asking = [one for one in notebooks if title in one.checks and shown.sources]
        owners = [one for one in asking if all(map(one.holds, shown.sources))]
        came = {outcome.sentence: outcome.state for outcome in shown.report.outcomes}
        for one in owners:
            session.checks[one.name, title] = came
            if one.stopped() and one.checks[title] != came:  # the errors may be older than this
                stale.add(one.name)
        if asking and not owners:
            session.unsaved.update(one.name for one in asking)
            session.warnings.append(
                f"{title} is not saved as it was last checked: save the notebook (Ctrl+S), "
                "run the check again and submit again."
            )
    session.warnings += [
        f"{name} is not saved as it was last run: save it (Ctrl+S) and submit again."
        for name in sorted(stale - session.unsaved)
    ]
    session.unsaved |= stale
    return session


def _inputs() -> list[str]:
    """The cells that were run in this session, by the numbers that Jupyter shows; none outside of Jupyter."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return list(getattr(getattr(shell, "history_manager", None), "input_hist_raw", []))


def _stale(notebooks: Collection[Notebook], inputs: Sequence[str]) -> set[str]:
    """The notebook of this session, if its file does not show the cell that was run last."""
    ran = {n: cell.strip() for n, cell in enumerate(inputs[:-1]) if cell.strip() and "submit" not in cell}
    held = {one.name: sum(map(one.holds, set(ran.values()))) for one in notebooks}
    found = max(notebooks, key=lambda one: held[one.name], default=None)
    if found is None or not held[found.name] or found.ran_as(max(ran)) == ran[max(ran)]:
        return set()
    return {found.name}
