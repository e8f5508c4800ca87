"""A pytest plugin for `make mutants`: tests that start no gateway run first, because one failure is enough."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the order otherwise."""
    items.sort(key=lambda item: "live_gateway" in getattr(item, "fixturenames", ()))
