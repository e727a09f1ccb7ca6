"""Shared fixtures."""

from pathlib import Path

import pytest

from tests.support.catalog_files import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Return an empty shop."""
    return Shop(tmp_path)
