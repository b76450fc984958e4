"""Shared by all tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests/rack.py and the like
sys.path.insert(0, str(Path(__file__).parent / "service"))  # drive.py
