"""Bring new run-time config to systems that run. A machine is never reached into: it is told in the answer to its report
that there is a newer config, fetches it with its own key, applies it, and reports the digest over its files.

Of several hosts the first goes alone; the next ones follow when it has reported, in batches, and none after a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu.errors import MetalimmuError, NotFound, UsageError
from metalimmu.plan.config import FileChange
from metalimmu.plan.guards import BY_OTHERS, Refusal
from metalimmu.plan.push import Push, patience
from metalimmu.plan.push import serial as next_serial
from metalimmu.plan.types import Finding, Word
from metalimmu.service.configs import Configs
from metalimmu.service.guarding import PUSH, Guards, act
from metalimmu.service.rollouts import waves_of
from metalimmu.service.runs import leased, who

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import DeploymentRecord

LOOK = 0.5  # seconds


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What a push would do to one host, or why there is none."""

    host: str
    finding: Finding
    changes: tuple[FileChange, ...] = ()
    refused: str = ""
    hint: str = ""
    nothing: bool = False  # it has this config, and says so

    @property
    def goes(self) -> bool:
        return not self.refused and not self.nothing


def propose(site: OpenSite, hosts: Sequence[str], *, options: Mapping[str, Any] | None = None) -> list[Proposal]:
    """Compare, and ask the guards. Writes nothing. Raises NotFound."""
    configs, guards = Configs(site), Guards(site)
    world = guards.world().idle()
    found = []
    for host in hosts:
        spec = site.spec(host)
        finding, changes = configs.compare(spec)
        one = Proposal(host=host, finding=finding, changes=tuple(changes))
        d = configs.deployment(host)
        said = guards.refusals(act(PUSH, host, options or {}, costs=False), world)
        if d is None:
            one = _no(one, f"no deployment of {host} is recorded", f"`metalimmu reimage {host}`")
        elif why := _unfit(spec, d):
            one = _no(one, why, f"`metalimmu reimage {host}` brings it")
        elif finding.word is Word.unknown:
            one = _no(one, finding.reason, f"`metalimmu config render {host} --with-secrets` shows what is wrong")
        elif finding.word is Word.match and d.config_digest[: len(finding.expected)] == finding.expected:
            one = msgspec.structs.replace(one, nothing=True)
        elif said:
            one = _no(one, "; ".join(r.text for r in said), said[0].hint)
        found.append(one)
    return found


def _no(one: Proposal, why: str, hint: str) -> Proposal:
    return msgspec.structs.replace(one, refused=why, hint=hint)


def _unfit(spec: HostSpec, d: DeploymentRecord) -> str:
    """Why this host gets its config by a reimage and not otherwise."""
    if spec.role is None or spec.image is None:
        return f"{spec.name} has no role: no config is wanted of it"
    if d.assignment.image.partition("@")[0] != spec.image.partition("@")[0]:
        return f"{spec.name} runs {d.assignment.image}, its role wants {spec.image}: the config is made for that"
    if not spec.limits["report_again"]:
        return f"limits.report_again is 0: the system of {spec.name} never asks again"
    if not d.host_key:
        return (
            f"the system of {spec.name} has no unit that fetches configs, or has not reported yet: "
            "images that metalimmu builds by the recipe debian have one"
        )
    return ""


def push(site: OpenSite, host: str, *, options: Mapping[str, Any] | None = None) -> Push:
    """Record that the host shall have the config of the documents as they are now. Raises GuardRefused, LeaseHeld,
    TemplateError, SecretError, NotFound, UsageError.
    """
    configs = Configs(site)
    spec = site.spec(host)
    d = configs.deployment(host)
    if d is None:
        raise NotFound(f"no deployment of {host} is recorded", hint=f"`metalimmu reimage {host}`")
    if why := _unfit(spec, d):
        raise UsageError(why, hint=f"`metalimmu reimage {host}` brings it")
    given = dict(options or {})
    with leased(site, host, act(PUSH, host, given, costs=False)):
        rendered = configs.rendered(spec, d.id)
        now = time.time()

        def change(before: DeploymentRecord) -> dict[str, Any]:
            made = Push(
                serial=next_serial(now, before.push),
                digest=rendered.digest,
                config=rendered.kept,
                key=configs.key.id,
                spec=msgspec.to_builtins(spec),
                before=before.config,
                before_digest=before.config_digest,
                before_key=before.config_key,
                before_at=before.config_at,
                by=who(),
                reason=str(given.get("reason") or ""),
                at=now,
                until=now + patience(spec.limits),
                options=given,
            )
            return {"push": made}

        made = site.store.update_deployment(d.id, change).push
    if made is None:
        raise NotFound(f"the deployment of {host} is gone")
    text = f"push of config {made.digest[:12]} asked by {who()}" + (f": {made.reason}" if made.reason else "")
    site.store.add_event(host, "config", text, run=d.run, data={"digest": made.digest, "serial": made.serial})
    return made


def withdraw(site: OpenSite, host: str) -> Push:
    """End a push that the machine has not fetched. Raises UsageError: there is none, or it has."""
    site.spec(host)
    d = Configs(site).deployment(host)
    if d is None or d.push is None or not d.push.open:
        raise UsageError(f"no push waits for {host}", hint=f"`metalimmu config show {host}`")

    def change(now: DeploymentRecord) -> dict[str, Any]:
        if now.push is None or now.push.state != "waiting":
            return {}
        return {"push": now.push.ended("withdrawn", time.time(), f"by {who()}")}

    after = site.store.update_deployment(d.id, change).push
    if after is None or after.state != "withdrawn":
        raise UsageError(f"{host} has fetched it already: push what it shall have instead")
    site.store.add_event(host, "config", f"push of config {after.digest[:12]} withdrawn by {who()}", run=d.run)
    return after


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    state: str  # applied | failed | withdrawn | waiting | fetched: the last two when its time has passed
    why: str = ""

    @property
    def good(self) -> bool:
        return self.state == "applied"


def roll(
    site: OpenSite,
    hosts: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    batch: str | int | None = None,
    listening: Callable[[], object],
) -> Iterator[Ended]:
    """Push to these hosts, in waves as those of a rollout, and wait for each. `listening` is called while waiting: the
    boot service must be there.

    Begins none after `guards.max_failures`: the hosts that are left are untouched.
    """
    failures = 0

    def going_on() -> bool:
        return failures < site.docs.site.guards.max_failures

    for _, wave in groupby(waves_of(site, hosts, batch=batch), key=itemgetter(1)):
        for ended in _together(site, [host for host, _ in wave], options or {}, listening, going_on):
            failures += not ended.good
            yield ended


def _together(
    site: OpenSite,
    hosts: Sequence[str],
    options: Mapping[str, Any],
    listening: Callable[[], object],
    going_on: Callable[[], bool],
) -> Iterator[Ended]:
    """As many at once as guards let change: the next one begins when another has ended. Hosts whose push could not be
    recorded have failed: a guard may have closed since the question.
    """
    guards, left = Guards(site), list(hosts)
    pending: dict[str, tuple[str, int, float]] = {}
    while pending or (left and going_on()):
        world = guards.world()  # before it is seen what has ended: none begins beside one whose end is not known here
        listening()
        for host, (deployment, serial, deadline) in list(pending.items()):
            now = site.store.deployment(deployment).push
            if now is None or now.serial != serial:
                yield Ended(host=host, state="withdrawn", why="a newer push has taken its place")
            elif not now.open or time.monotonic() > deadline:
                late = (
                    f"within {patience(site.spec(host).limits):.0f} s it has not reported; the push stays open"
                    if now.open
                    else ""
                )
                yield Ended(host=host, state=now.state, why=now.why or late)
            else:
                continue
            del pending[host]
        for host in list(left):
            if not going_on():
                break
            if pending and _must_wait(guards.refusals(act(PUSH, host, options, costs=False), world)):
                continue
            left.remove(host)
            try:
                made = push(site, host, options=options)
            except MetalimmuError as exc:
                yield Ended(host=host, state="failed", why=exc.message)
                continue
            d = Configs(site).deployment(host)
            pending[host] = (d.id if d else "", made.serial, time.monotonic() + patience(site.spec(host).limits))
            world = world.started(host, made.digest)
        if pending:
            time.sleep(LOOK)


def _must_wait(said: Sequence[Refusal]) -> bool:
    """Is it refused because of hosts that change now, and for nothing else?"""
    return bool(said) and all(r.guard in BY_OTHERS for r in said)
