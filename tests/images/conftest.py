from __future__ import annotations

from pathlib import Path

import pytest

from metalimmu.images.catalogue import Catalogue


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """An image store of its own for each test."""
    return Catalogue(tmp_path / "store")
