from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

SITE = 'name: ams1\nurls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}\n'

MakeSite = Callable[[Mapping[str, str]], Path]


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"site.yaml": SITE, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if text.startswith("#!"):
            path.chmod(0o755)
    return folder


@pytest.fixture
def make_site(tmp_path: Path) -> MakeSite:
    """Write a site from file names and texts; site.yaml is there unless given."""
    return lambda files: write(tmp_path / "site", files)
