"""Shared by all tests."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests/rack.py and the like
sys.path.insert(0, str(Path(__file__).parent / "service"))  # drive.py

# A shell starts its background jobs with Ctrl-C ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
