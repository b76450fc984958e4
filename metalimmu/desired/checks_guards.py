"""What no single field of a pool's and the site's guards can say: a guard that no plan could ever pass is a mistake."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from metalimmu.desired import times
from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.problems import Path, Problem, nearest, quoted
from metalimmu.desired.types import Pool, Site
from metalimmu.desired.units import share

_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def guard_problems(docs: Collected) -> Iterator[Problem]:
    sizes = None if docs.unread_hosts else Counter(h.value.pool for h in docs.hosts if h.value.pool)
    for name, pool in docs.pools.items():
        yield from _pool(pool, None if sizes is None else sizes[name])
    if docs.site is not None:
        yield from _site(docs.site)


def _pool(placed: Placed[Pool], size: int | None) -> Iterator[Problem]:
    pool = placed.value
    least, most = pool.min_active, pool.max_unavailable
    if least is not None and least < 0:
        yield placed.problem(("min_active",), "a whole number of at least 0", f"a number {least}", "write 0")
    elif least is not None and size and least > size:
        got = f"{least} where the pool has {size}"
        yield placed.problem(("min_active",), "at most the number of its hosts", got, f"write {size - 1}, or less")
    yield from _amount(placed, ("max_unavailable",), most)
    if size and isinstance(most, str) and _amount_ok(most) and share(most, size) == 0 and most != "0%":
        got = f"{most} of {size} hosts, which is none"
        yield placed.problem(("max_unavailable",), "an amount of at least one host", got, "write 1")
    yield from _amount(placed, ("batch",), pool.batch, least=1)
    for i, window in enumerate(pool.windows):
        if times.zone(window.timezone) is None:
            write = nearest(window.timezone, times.zones(), none="install the Debian package tzdata, or write UTC")
            path: Path = ("windows", i, "timezone")
            yield placed.problem(path, "an IANA time zone", quoted(window.timezone), write)
    yield from _domains(placed, ("failure_domain",), pool.failure_domain or [])


def _site(placed: Placed[Site]) -> Iterator[Problem]:
    guards = placed.value.guards
    for name in ("max_hosts", "max_failures"):
        if (value := getattr(guards, name)) < 0:
            yield placed.problem(("guards", name), "a whole number of at least 0", f"a number {value}", "write 1")
    yield from _amount(placed, ("guards", "batch"), guards.batch, least=1)
    yield from _domains(placed, ("guards", "failure_domain"), guards.failure_domain)


def _amount_ok(value: str) -> bool:
    return bool(re.fullmatch(r"(100|[0-9]{1,2})%", value))


def _amount(
    placed: Placed[Pool] | Placed[Site], path: Path, value: str | int | None, *, least: int = 0
) -> Iterator[Problem]:
    """A number of hosts, or a percentage."""
    if isinstance(value, str) and (not _amount_ok(value) or (least and int(value[:-1]) < least)):
        yield placed.problem(path, "a number of hosts or a percentage", quoted(value), "write 5%")
    if isinstance(value, int) and value < least:
        yield placed.problem(path, f"a whole number of at least {least}", f"a number {value}", f"write {max(least, 1)}")


def _domains(placed: Placed[Pool] | Placed[Site], path: Path, keys: list[str]) -> Iterator[Problem]:
    for i, key in enumerate(keys):
        if not _DOMAIN.fullmatch(key):
            yield placed.problem((*path, i), "rack, leaves or a label's key", quoted(key), "write rack")
