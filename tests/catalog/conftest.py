"""What unit tests share."""

from pathlib import Path

import pytest

from tests.support.catalog_files import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """An empty one."""
    return Shop(tmp_path)
