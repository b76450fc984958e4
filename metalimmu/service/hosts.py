"""Hosts: list, show, inspect, power, release."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu.desired.resolve import resolve_all
from metalimmu.errors import BmcError, BmcUnreachable, IdentityMismatch, UsageError
from metalimmu.lifecycle import State
from metalimmu.log import redacted
from metalimmu.observed.types import Inventory, PowerAction, PowerState, Reason, Unknown
from metalimmu.plan.identity import same_serial
from metalimmu.service.configs import brief
from metalimmu.service.guarding import act
from metalimmu.service.runs import leased, who

if TYPE_CHECKING:
    from metalimmu.bmc.ports import Bmc
    from metalimmu.service.site import OpenSite


def rows(site: OpenSite, selector: str | None = None) -> list[dict[str, Any]]:
    """One row per host of the site, with what the store remembers. `selector` may also ask for image, state, proof."""
    from metalimmu.desired.selector import select

    known = site.store.hosts()
    specs = resolve_all(site.docs, root=site.folder)
    found: list[dict[str, Any]] = []
    for name, spec in specs.items():
        record = known.get(name)
        found.append(
            {
                "name": name,
                "state": str(record.state) if record else "enrolled",
                "proof": str(record.proof) if record else "unproven",
                "health": record.health.word if record and record.health else None,
                "image": record.image if record and record.state is not State.deploying else None,  # being overwritten
                "wanted": spec.image,
                "quarantine": record.quarantine.reason if record and record.quarantine else None,
                "power": record.power if record else None,
                "role": spec.role,
                "pool": spec.pool,
                "bmc": spec.bmc,
                "serial": spec.serial,
                "digest": record.digest if record else None,
                "previous": record.previous_image if record else None,
                "error": record.error.message if record and record.error else None,
                "labels": spec.labels,
            }
        )
    if selector:
        more = {str(r["name"]): {k: str(r[k]) for k in ("image", "state", "proof") if r[k]} for r in found}
        chosen = {spec.name for spec in select(specs.values(), selector, more=more)}
        found = [r for r in found if r["name"] in chosen]
    return found


def show(site: OpenSite, host: str) -> dict[str, Any]:
    """Everything known of a host, evidence included."""
    spec = site.spec(host)
    record = site.store.host(host)
    lease = site.store.lease(host)
    runs = site.store.runs(host=host, limit=5)
    return {
        "name": host,
        "state": str(record.state),
        "proof": str(record.proof),
        "health": msgspec.to_builtins(record.health) if record.health else None,
        "image": None if record.state is State.deploying else record.image,
        "digest": None if record.state is State.deploying else record.digest,
        "wanted": spec.image,
        "held": msgspec.to_builtins(spec.held) if spec.held else None,
        "previous": record.previous_image,
        "quarantine": msgspec.to_builtins(record.quarantine) if record.quarantine else None,
        "error": msgspec.to_builtins(record.error) if record.error else None,
        "power": record.power,
        "bmc": spec.bmc,
        "serial": spec.serial,
        "role": spec.role,
        "pool": spec.pool,
        "labels": spec.labels,
        "protected": spec.protected,
        "lease": f"run {lease.run} of {lease.holder}" if lease and lease.run else None,
        "runs": [{"id": r.id, "verb": r.verb, "status": str(r.status)} for r in runs],
        "config": brief(site, spec),
        "evidence": record.proof_evidence,
    }


def readable(value: Any, key: str = "") -> Any:
    """For people: times as ISO 8601 in UTC instead of seconds since 1970."""
    if isinstance(value, dict):
        return {k: readable(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [readable(v) for v in value]
    if key in _TIMES and isinstance(value, float) and value > 0:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(value))
    return value


_TIMES = frozenset({"at", "since", "system_at"})


def inspect(site: OpenSite, host: str) -> Inventory:
    """Read the BMC now, without writing; kept as an observation."""
    spec = site.spec(host)
    with site.connect(spec, mode="read-only") as bmc:
        found = bmc.inventory()
    if isinstance(found.identity, Unknown) and found.identity.reason is Reason.unreachable:
        raise BmcUnreachable(f"{host}: {found.identity.detail}")
    site.store.observe(host, "inventory", redacted(msgspec.to_builtins(msgspec.structs.replace(found, requests=0))))
    return found


def power_status(site: OpenSite, host: str, *, retry_login: bool = False) -> PowerState:
    """`retry_login`: try credentials that this BMC has refused once more (its account was unlocked meanwhile)."""
    if retry_login:
        from metalimmu.bmc.ledger import forget

        forget(site.store, site.spec(host).bmc)
    with site.connect(site.spec(host), mode="read-only") as bmc:
        state = bmc.power_state()
    site.store.update_host(host, power=str(state), power_at=time.time())
    return state


_ASKED = {
    "on": (PowerAction.on, PowerState.on),
    "off": (PowerAction.force_off, PowerState.off),
    "reset": (PowerAction.force_restart, PowerState.on),
}


def power(
    site: OpenSite,
    host: str,
    verb: str,
    *,
    graceful: bool = False,
    allow_protected: bool = False,
    allow_same_domain: bool = False,
    reason: str | None = None,
) -> PowerState:
    """Ask for `on`, `off` or `reset`, and wait until it is so. Raises GuardRefused, LeaseHeld."""
    spec = site.spec(host)
    options = {"allow_protected": allow_protected, "reason": reason, "allow_same_domain": allow_same_domain}
    action, wanted = _ASKED[verb]
    if graceful and verb == "off":
        action = PowerAction.graceful_shutdown
    if graceful and verb == "reset":
        action = PowerAction.graceful_restart
    asked = act(f"power {verb}", host, options)
    with leased(site, host, asked) as ours, site.connect(spec, before_write=ours) as bmc:
        seen = bmc.identity()
        if spec.serial and seen.serial and not same_serial(spec.serial, seen.serial):
            raise IdentityMismatch(f"the BMC at {spec.bmc} is of machine {seen.serial}, {host} is {spec.serial}")
        now = bmc.power_state()
        if verb == "reset" and now is PowerState.off:
            raise UsageError(f"{host} is off: there is nothing to reset", hint=f"`metalimmu power on {host}`")
        if verb == "reset" or now is not wanted:
            # Guards do not count on it until it has said that it booted, or could have. First: we may die after the act.
            site.store.update_host(host, settles=time.time() + spec.limits["phone_home"])
            bmc.set_power(action)
            site.store.add_event(host, "power", f"{action} asked by {who()}", data={"reason": reason} if reason else {})
            now = _reached(bmc, wanted, action, spec.limits["power"])
        site.store.update_host(host, power=str(now), power_at=time.time())
    return now


def _reached(bmc: Bmc, wanted: PowerState, action: PowerAction, limit: float) -> PowerState:
    deadline = time.monotonic() + limit
    while (now := bmc.power_state()) is not wanted:
        if time.monotonic() > deadline:
            raise BmcError(
                f"{action} was accepted, and power is still {now} after {limit:.0f} s",
                hint="a graceful action needs a system that listens; try without --graceful, and look at the BMC's log",
            )
        time.sleep(0.5)
    return now


def release(site: OpenSite, host: str, reason: str) -> None:
    """End a quarantine, as unproven: only a proof proves."""
    from metalimmu.lifecycle import Proof

    site.spec(host)
    record = site.store.host(host)
    if record.quarantine is None:
        raise UsageError(f"{host} is not in quarantine", hint=f"`metalimmu host show {host}`")
    site.store.update_host(host, quarantine=None, proof=Proof.unproven)
    site.store.add_event(
        host,
        "release",
        f"released from quarantine by {who()}: {reason}",
        data={"was": msgspec.to_builtins(record.quarantine), "reason": reason},
    )
