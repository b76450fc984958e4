"""Many BMCs at once: few wait in memory, none is lost, and wrong passwords come to an end."""

from __future__ import annotations

import threading
import time

import pytest

from metalimmu.errors import BmcError, BmcLoginNotTried, BmcLoginRefused, BmcUnreachable, ScanStopped
from metalimmu.service.brownfield.many import Logins, each


def test_every_item_has_its_result_or_its_error() -> None:
    def act(n: int) -> int:
        if n % 3 == 0:
            raise BmcUnreachable(f"{n} is away")
        if n % 7 == 0:
            raise ZeroDivisionError("a mistake")
        return n * 2

    found = dict(each(range(1, 50), act, workers=4))
    assert set(found) == set(range(1, 50))
    assert found[1] == 2
    assert isinstance(found[3], BmcUnreachable)
    assert isinstance(found[7], BmcError)
    assert "ZeroDivisionError" in found[7].message


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def items() -> object:
        nonlocal taken
        for n in range(10_000):
            taken += 1
            yield n

    results = each(items(), lambda n: n, workers=2)  # type: ignore[arg-type]
    next(results)
    assert taken <= 10
    results.close()  # type: ignore[attr-defined]


def test_what_was_never_sent_is_no_refusal() -> None:
    """BMCs that refused this password in an earlier run, or that nobody has a password for, stop nobody else's scan."""
    logins = Logins(3)

    def act(n: int) -> int:
        with logins.one():
            if n < 5:
                raise BmcLoginNotTried("refused before")
            return n

    found = dict(each(range(8), act, workers=1))
    assert logins.refused == 0
    assert [found[n] for n in (5, 6, 7)] == [5, 6, 7]


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_at_most_so_many_refusals_however_many_at_once(workers: int) -> None:
    tried = 0
    lock = threading.Lock()
    logins = Logins(3)

    def act(n: int) -> int:
        nonlocal tried
        with logins.one():
            with lock:
                tried += 1
            time.sleep(0.005)
            raise BmcLoginRefused("no")

    found = list(each(range(60), act, workers=workers))
    assert tried == 3
    assert logins.stopped
    assert sum(isinstance(r, ScanStopped) for _, r in found) == 57


def test_good_logins_are_not_held_up() -> None:
    logins = Logins(3)

    def act(n: int) -> int:
        with logins.one():
            if n in (5, 50):
                raise BmcLoginRefused("no")
            if n == 7:
                raise BmcUnreachable("away")  # is no refusal
            return n

    found = dict(each(range(100), act, workers=8))
    assert logins.refused == 2
    assert not logins.stopped
    assert sum(isinstance(r, int) for r in found.values()) == 97
