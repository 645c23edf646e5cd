"""Source notebooks as they are committed: no outputs, no execution counts, an id for every cell.

`python -m labkit.grading.hygiene FILE...` strips what a run left behind and exits 1 if it changed a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.grading.sources import check_source

KEPT_METADATA = {"editable", "deletable", "nbgrader", "slideshow", "tags"}


def strip(path: Path) -> bool:
    """Strip a notebook file in place; True if there was something to strip. Raises LabError without ids."""
    text = path.read_bytes().decode("utf-8")
    content: dict[str, Any] = json.loads(text.removeprefix("\ufeff"))
    for cell in content["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key in KEPT_METADATA}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    content["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    clean = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if clean != text:
        path.write_text(clean, encoding="utf-8")
    check_source(path)
    return clean != text


def main(names: list[str]) -> int:
    """Strip every file named; the exit status for a commit hook."""
    changed = 0
    for name in names:
        try:
            if strip(Path(name)):
                changed = 1
                print(f"{name}: stripped; add it again")
        except LabError as error:
            changed = 1
            print(f"labkit: {error}", file=sys.stderr)
    return changed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
