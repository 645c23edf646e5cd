"""The source notebooks are tests, too: nbval runs them, in the environment of all other tests."""

from __future__ import annotations

import pytest

from tests import suite

suite.set_environment()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    suite.arrange(items, shuffled=config.pluginmanager.has_plugin("randomly"))
