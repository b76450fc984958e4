"""Recorded machines for tests of profiles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))

from subjects import recordings

from metalimmu.service.profile_machines import Machine, from_recording

FOUND = {path.stem: path for path in recordings()}
AT = 1722000000.0  # July 2024: certificates of the recordings are looked at on that day


@cache
def _machine(name: str) -> Machine:
    return from_recording(FOUND[name], now=AT)


@pytest.fixture
def recording() -> Callable[[str], Path]:
    def path(name: str) -> Path:
        if not FOUND:
            pytest.skip("METALIMMU_RECORDINGS is not set: recordings of real machines are not read")
        return FOUND[name]

    return path


@pytest.fixture
def machine(recording: Callable[[str], Path]) -> Callable[[str], Machine]:
    def read(name: str) -> Machine:
        recording(name)
        return _machine(name)

    return read
