"""Who needs an image: hosts that run it, could go back to it, or are meant to have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metalimmu.errors import NotFound
from metalimmu.store.records import RunStatus

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite


def in_use(site: OpenSite) -> dict[str, list[str]]:
    """Digest -> sentences that say who uses it, for `image rm` to refuse."""
    used: dict[str, list[str]] = {}

    def note(digest: str | None, why: str) -> None:
        if digest:
            used.setdefault(digest, []).append(why)

    for name, record in site.store.hosts().items():
        note(record.digest, f"{name} runs it")
        note(record.previous_digest, f"{name} could go back to it")
    for role_name, role in site.docs.roles.items():
        note(_digest(site, role.image), f"role {role_name} wants it")
    for hold in site.docs.holds.values():
        note(_digest(site, hold.image), f"{hold.host} is held at it")
    for run in site.store.runs(status=(RunStatus.queued, RunStatus.running, RunStatus.interrupted), limit=100_000):
        note(run.plan["image"]["digest"], f"run {run.id} deploys it")
    return used


def _digest(site: OpenSite, ref: str) -> str | None:
    try:
        return site.catalogue.get(ref).digest
    except NotFound:
        return None
