"""The source notebooks are tests, too: nbval runs them, in the environment of all other tests."""

from tests.suite import (
    pytest_collection_modifyitems,
    pytest_itemcollected,
    pytest_xdist_make_scheduler,
    set_environment,
)

__all__ = ["pytest_collection_modifyitems", "pytest_itemcollected", "pytest_xdist_make_scheduler"]

set_environment()
