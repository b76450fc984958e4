"""What roles and hosts say of disks, together: a disk cannot be kept and written, and a rule must say which disk it means."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.problems import Path, Problem
from metalimmu.desired.types import EraseRule, Host, Role, RootDiskHints

_ONE = ("serial", "wwn", "by_path")  # each names a single disk
_NAMED = "hints that tell the disk from others"
_WRITE = 'write {serial: "..."}'


def disk_problems(docs: Collected) -> Iterator[Problem]:
    for role in docs.roles.values():
        yield from _hints(role)
    for host in docs.hosts:
        yield from _hints(host)
        yield from _host(host, docs.roles.get(host.value.role or ""))


def _hints(placed: Placed[Role] | Placed[Host]) -> Iterator[Problem]:
    for i, hints in enumerate(placed.value.keep):
        if _empty(hints):
            yield placed.problem(("keep", i), _NAMED, "none", _WRITE)
    for i, rule in enumerate(placed.value.erase):
        if isinstance(rule.disk, RootDiskHints) and _empty(rule.disk):
            yield placed.problem(("erase", i, "disk"), f"root, or {_NAMED}", "none", _WRITE)
        if rule.disk == "root" and rule.when == "after":
            write = "write when: before"
            yield placed.problem(("erase", i, "when"), "before, for the root disk", "after", write)
    if isinstance(placed.value.mirror, RootDiskHints) and _empty(placed.value.mirror):
        yield placed.problem(("mirror",), _NAMED, "none", _WRITE)


def _host(placed: Placed[Host], role: Placed[Role] | None) -> Iterator[Problem]:
    """Where the role cannot be read, nothing is known of what both say together."""
    host = placed.value
    if placed.partial or role is None or role.partial:
        return
    if host.mirror and role.value.mirror is False:
        yield placed.problem(("mirror",), "a role with a mirror", "a role without", "write mirror: true in the role")
    keep = [*role.value.keep, *host.keep]
    rules: list[EraseRule] = host.erase or role.value.erase
    written: list[tuple[Path, RootDiskHints | None]] = [
        (("root_disk",), host.root_disk),
        (("mirror",), host.mirror),
        *(
            (("erase", i, "disk"), rule.disk)
            for i, rule in enumerate(rules)
            if isinstance(rule.disk, RootDiskHints) and host.erase
        ),
    ]
    for path, hints in written:
        if hints and any(_same(hints, kept) for kept in keep):
            yield placed.problem(
                path, "another disk than those of keep", "one to be kept", "take it out of one of both"
            )


def _empty(hints: RootDiskHints) -> bool:
    return hints == RootDiskHints()


def _same(a: RootDiskHints, b: RootDiskHints) -> bool:
    """Do both name one disk, as far as documents tell? The agent looks again, at the disks themselves."""
    one, other = msgspec.structs.asdict(a), msgspec.structs.asdict(b)
    return a == b or any(one[f] and other[f] and str(one[f]).lower() == str(other[f]).lower() for f in _ONE)
