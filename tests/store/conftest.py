from __future__ import annotations

import pytest

from metalimmu.store.sqlite import SqliteStore


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock():
    return Clock()


IMPLEMENTATIONS = {"sqlite": lambda folder, clock: SqliteStore(folder / "state" / "store.sqlite", clock=clock)}


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request, tmp_path, clock):
    made = IMPLEMENTATIONS[request.param](tmp_path, clock)
    yield made
    made.close()
