"""Make a saved plan, write it, read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu import __version__, structs
from metalimmu.desired.edit import replace
from metalimmu.desired.problems import visible
from metalimmu.errors import GuardRefused, NotApproved, PlanError
from metalimmu.plan.saved import Author, Content, Left, Options, Saved, SavedGuards, decode, encode
from metalimmu.service.looking import KIND
from metalimmu.service.planning import Planner
from metalimmu.service.rollouts import propose
from metalimmu.service.runs import who
from metalimmu.service.saved_plans.approvals import Signers, add
from metalimmu.service.saved_plans.ssh import fingerprint, public_key

if TYPE_CHECKING:
    from metalimmu.desired.types import SiteDocs
    from metalimmu.service.rollouts import Proposal
    from metalimmu.service.site import OpenSite

EXPIRES = 24 * 3600.0
MAX_BYTES = 512 << 20


def make(
    site: OpenSite,
    hosts: Sequence[str],
    *,
    verb: str = "reimage",
    image: str | None = None,
    force: bool = False,
    options: Mapping[str, Any] | None = None,
    skip_refused: bool = False,
    from_memory: bool = False,
    expires: float = EXPIRES,
    key: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Content:
    """Plan every host, without a write. `options` are those of a rollout. `key`: the author's.

    Raises GuardRefused when hosts are refused and `skip_refused` is not said, or when nothing is to do; NotApproved when the
    author's signature would not count.
    """
    author = _author(site, key)
    memories = site.store.plans.memories(KIND) if from_memory else None
    found = propose(
        site,
        hosts,
        verb=verb,
        image=image,
        force=force,
        batch=(options or {}).get("batch"),
        options={**(options or {}), "approved_by": EVERYBODY},
        planner=Planner(site, memories=memories),
        progress=progress,
    )
    refused = tuple(Left(host=p.host, reason=p.refused, hint=_hint(p)) for p in found if p.refused)
    if refused and not skip_refused:
        raise GuardRefused(
            f"{len(refused)} of {len(found)} hosts are refused: " + "; ".join(r.reason for r in refused[:5]),
            hint="mend that, or leave them out with --skip-refused",
        )
    going = tuple(msgspec.structs.replace(p.planned, wave=p.wave) for p in found if p.goes and p.planned is not None)
    if not going:
        text = refused[0].reason if refused else next((p.plan.why for p in found if p.plan), "no host was asked for")
        raise GuardRefused(f"there is nothing to do: {text}", hint="no plan was written")
    now = time.time()
    return Content(
        site=site.docs.site.name,
        verb=verb,
        created=now,
        expires=now + expires,
        author=author,
        program=__version__,
        options=structs.convert(
            {"max_failures": site.docs.site.guards.max_failures, "force": force, **(options or {})}, Options
        ),
        guards=guards_of(site.docs, {h.pool for h in going}),
        hosts=going,
        refused=refused,
        done=tuple(p.host for p in found if p.nothing and not p.refused),
    )


EVERYBODY = ("…",) * 10  # whether a plan is approved is asked when it is applied


def guards_of(docs: SiteDocs, pools: Iterable[str]) -> SavedGuards:
    """What the documents say of the guards of these pools."""
    fields = ("mode", "min_active", "max_unavailable", "batch", "soak", "windows", "failure_domain", "approvals")
    site = {"mode": docs.site.mode, **msgspec.to_builtins(docs.site.guards)}
    found = {name: msgspec.to_builtins(docs.pools[name]) for name in sorted(pools) if name in docs.pools}
    return SavedGuards(site=site, pools={n: {f: p[f] for f in fields if f in p} for n, p in found.items()})


def approvals_wanted(docs: SiteDocs, pools: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """(people beside the author, pools that want them)."""
    wanted = {name: docs.pools[name].approvals for name in sorted(pools) if name in docs.pools}
    most = max(wanted.values(), default=0)
    return most, tuple(n for n, count in wanted.items() if count and count == most)


def write(site: OpenSite, content: Content, file: Path, *, key: Path | None = None) -> Saved:
    """All of it or nothing; with `key`, signed by its author. Raises OSError, ToolError."""
    digest, data = encode(content)
    replace(file, data.decode())
    if key is not None:
        add(file, digest, key, Signers(site.folder))
    return Saved(content=content, digest=digest)


def load(file: Path) -> Saved:
    """Raises PlanError: it is not there, not whole, changed, of another format."""
    try:
        if not file.is_file():
            raise PlanError(f"there is no plan {file}", hint="`metalimmu plan … --out FILE` makes one")
        if (size := file.stat().st_size) > MAX_BYTES:
            raise PlanError(
                f"{file} has {size >> 20} MiB; a plan has at most {MAX_BYTES >> 20}", hint="plan fewer hosts at once"
            )
        data = file.read_bytes()
    except OSError as exc:
        raise PlanError(f"{file} cannot be read: {exc.strerror}", hint="check its permissions") from exc
    try:
        return decode(data)
    except PlanError as exc:
        raise PlanError(f"{visible(str(file), 200)}: {exc.message}", hint=exc.hint) from exc


def _author(site: OpenSite, key: Path | None) -> Author:
    if key is None:
        return Author(name=who())
    public = public_key(key)
    signers = Signers(site.folder)
    person = signers.person(public)
    if person is None:
        raise NotApproved(
            f"{signers.file} does not have the key {fingerprint(public)}: its signature would not count",
            hint="add a line with your name and what is in the .pub file, or leave --key out",
        )
    return Author(name=person, key=fingerprint(public))


def _hint(proposal: Proposal) -> str:
    return proposal.hint or (proposal.refusals[0].hint if proposal.refusals else "")
