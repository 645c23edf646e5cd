"""Stock nbgrader with this lab's settings: run it from here, e.g. `nbgrader autograde compression`.

The settings themselves, with their reasons, are in labkit/grading/settings.py. LABKIT_COURSE names
another course folder than `notebooks/`.
"""

import os
from pathlib import Path

from labkit.grading.settings import configure

here = Path(__file__).resolve().parent
configure(get_config(), Path(os.environ.get("LABKIT_COURSE", here / "notebooks")).resolve())  # noqa: F821
