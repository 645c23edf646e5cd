"""Import this where tests make gradebooks: one start of alembic a process, not one a gradebook.

For each new gradebook nbgrader starts a program that imports all of nbgrader to say which version of the
tables is the newest. The first gradebook of a process still asks it.
"""

from __future__ import annotations

import functools

import nbgrader.api

nbgrader.api.get_alembic_version = functools.cache(nbgrader.api.get_alembic_version)
