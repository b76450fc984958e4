"""Shared by all tests."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/rack.py and the like
sys.path.insert(0, str(Path(__file__).parent / "service"))  # drive.py

from metalimmu import log

# A shell starts its background jobs with Ctrl-C ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_secrets() -> Iterator[None]:
    """What one test calls a secret is none for the next: a password of one may be a word that another looks for."""
    before = set(log._SECRETS)
    yield
    log._SECRETS.intersection_update(before)
