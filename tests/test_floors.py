"""The floors of the house are a contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_import_linter() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_every_folder_has_a_floor_and_a_sentence() -> None:
    floors = (ROOT / ".importlinter").read_text()
    for init in sorted((ROOT / "metalimmu").glob("*/__init__.py")):
        assert f"metalimmu.{init.parent.name}" in floors, init
        assert init.read_text().startswith('"""'), init


def test_help_imports_nothing_slow() -> None:
    code = "import sys, metalimmu.main; print(*sorted({'dbos','aiohttp','sushy','rich','jinja2','msgspec','yaml','sqlite3','requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
