"""Shared by all tests."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/rack.py and the like
sys.path.insert(0, str(Path(__file__).parent / "service"))  # drive.py

from metalimmu import log
from metalimmu.bmc import ledger_file

# A shell starts its background jobs with Ctrl-C ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's state folder, which remembers refused logins, is another one for each test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{next(_NUMBERS)}"))
    ledger_file.of_user.cache_clear()


@pytest.fixture(autouse=True)
def _own_secrets() -> Iterator[None]:
    """What one test calls a secret is none for the next: a password of one may be a word that another looks for."""
    before = set(log._SECRETS)
    yield
    log._SECRETS.intersection_update(before)
