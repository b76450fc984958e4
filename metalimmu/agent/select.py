"""Which disk is what in this deployment: written, its mirror, erased, kept. Pure, and decided before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metalimmu.agent.disks import choose, describe_line, mismatch
from metalimmu.errors import DiskKept, DiskSelectionError, DiskUnsuitable
from metalimmu.wire.messages import Assignment, Disk, Erase, RootDisk

KEPT = "to be kept"


@dataclass(frozen=True)
class Roles:
    """`all` are the machine's disks; a kept one can be chosen for nothing."""

    all: tuple[Disk, ...]
    root: Disk
    mirror: Disk | None = None
    kept: tuple[Disk, ...] = ()
    erase: tuple[tuple[Erase, tuple[Disk, ...]], ...] = ()

    @property
    def written(self) -> tuple[Disk, ...]:
        return (self.root, *((self.mirror,) if self.mirror else ()))


def select(disks: Sequence[Disk], assignment: Assignment) -> Roles:
    """Raises DiskSelectionError, DiskKept, DiskUnsuitable."""
    kept = _kept(disks, assignment.keep)
    names = {d.path for d in kept}
    seen = tuple(replace(d, unusable=KEPT) if d.path in names else d for d in disks)
    root, mirror = _roots(seen, assignment)
    if mirror and mirror.logical_sector != root.logical_sector:
        raise DiskUnsuitable(
            f"{root.path} has sectors of {root.logical_sector} bytes, its mirror {mirror.path} of "
            f"{mirror.logical_sector}: they cannot be one RAID 1"
        )
    roles = Roles(seen, root, mirror, kept)
    erase = tuple((rule, _erased(rule, roles)) for rule in assignment.erase)
    return replace(roles, erase=erase)


def _kept(disks: Sequence[Disk], keep: Sequence[RootDisk]) -> tuple[Disk, ...]:
    """A disk that is to be kept and is not there may be one that we took for another: nothing is written then."""
    found: dict[str, Disk] = {}
    for hints in keep:
        fit = [d for d in disks if not mismatch(d, hints)]
        if not _given(hints) or not fit:
            seen = "; ".join(describe_line(d) for d in disks) or "no disk at all"
            raise DiskSelectionError(
                f"keep ({_given(hints) or 'no hints'}): no disk fits. Seen: {seen}",
                hint="a disk that must not be written cannot be told from the others: mend the hints or the machine",
            )
        found.update({d.path: d for d in fit})
    return tuple(found.values())


def _roots(disks: Sequence[Disk], a: Assignment) -> tuple[Disk, Disk | None]:
    if not a.mirrored:
        return choose(disks, a.root_disk), None
    if a.mirror is not None:
        root = choose(disks, a.root_disk)
        rest = [replace(d, unusable="the root disk itself") if d.path == root.path else d for d in disks]
        return root, choose(rest, a.mirror)
    fit = [d for d in disks if not d.unusable and not mismatch(d, a.root_disk)]
    if len(fit) != 2:
        seen = "; ".join(f"{describe_line(d)}: {d.unusable or mismatch(d, a.root_disk) or 'fits'}" for d in disks)
        raise DiskSelectionError(
            f"a mirror needs two disks that fit root_disk ({_given(a.root_disk) or 'no hints'}), {len(fit)} do. Seen: {seen}",
            hint="make the hints fit exactly two, or name the second one: `mirror:` of the host",
        )
    return fit[0], fit[1]


def _erased(rule: Erase, roles: Roles) -> tuple[Disk, ...]:
    if rule.disk is None:
        if rule.when == "after":
            raise DiskUnsuitable("the root disk cannot be erased after the image was written to it")
        return roles.written
    if not _given(rule.disk):
        raise DiskSelectionError("erase: a rule without hints would take whatever disk there is")
    fit = [d for d in roles.all if not mismatch(d, rule.disk)]
    kept = [d for d in fit if d.unusable == KEPT]
    if kept:
        raise DiskKept(f"erase ({_given(rule.disk)}) names {describe_line(kept[0])}, which is to be kept")
    one = choose(roles.all, rule.disk)
    if one in roles.written:
        raise DiskUnsuitable(
            f"erase ({_given(rule.disk)}) fits the root disk {one.path}: write `disk: root` to mean it"
        )
    return (one,)


def _given(hints: RootDisk) -> str:
    return ", ".join(f"{k}={v}" for k, v in vars(hints).items() if v is not None)
