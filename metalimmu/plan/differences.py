"""What has changed between a saved plan and one that was made just now, setting by setting. Pure.

What matters is what a run does: the requests to the BMC, the image and what the disk carries, which machine it is, how the
disk is chosen, the rendered run-time config, hooks and checks, limits, guards. Not what is only told: estimates, warnings,
the names that a BMC gives its host, its firmware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from metalimmu.desired.problems import visible
from metalimmu.observed.types import Unknown, WriteRequest
from metalimmu.plan.saved import HostPlan, SavedGuards
from metalimmu.plan.types import Plan

POWER = "steps.power.requests"
_IDENTITY = ("system_id", "uri", "manufacturer", "model", "serial", "sku", "uuid", "nics")
_MACHINE = ("image", "carries", "quarantine", "identity", "slot", "method", "steps")
_SHOWN = 160  # characters of a value
_ABSENT: Any = object()


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. Empty `planned` or `now`: it is not there."""

    host: str  # or "site", "pool NAME"
    setting: str
    planned: str
    now: str

    def __str__(self) -> str:
        return f"{self.host}: {self.setting}: planned {self.planned or 'nothing'}, now {self.now or 'nothing'}"


def unplanned(host: str, message: str) -> Difference:
    """It could be planned then, and cannot now."""
    return Difference(host=host, setting="look", planned="a plan", now=visible(message, _SHOWN * 2))


def host_differences(saved: HostPlan, now: HostPlan, *, documents: bool = True) -> tuple[Difference, ...]:
    """`documents=False`: only what the machine and its BMC say, for a host whose turn has come in a rollout that goes on."""
    if now.plan.nothing:
        text = "nothing is to do: " + now.plan.why
        return (Difference(host=saved.host, setting="image", planned=saved.plan.why, now=visible(text, _SHOWN)),)
    before, after = _matters(saved), _matters(now)
    if not documents:
        before, after = ({k: v for k, v in m.items() if k in _MACHINE} for m in (before, after))
    return tuple(
        Difference(host=saved.host, setting=path, planned=_text(a), now=_text(b))
        for path, a, b in _walk(before, after, "")
    )


def of_power(difference: Difference) -> bool:
    """Only how the machine is started: it was on, and is off now, or the other way."""
    return difference.setting == POWER


def guard_differences(saved: SavedGuards, now: SavedGuards) -> tuple[Difference, ...]:
    found: list[Difference] = []
    names = sorted({*saved.pools, *now.pools})
    pools = ((f"pool {name}", saved.pools.get(name, {}), now.pools.get(name, {})) for name in names)
    for name, before, after in (("site", saved.site, now.site), *pools):
        found += (
            Difference(host=visible(name), setting=f"guards.{path}", planned=_text(a), now=_text(b))
            for path, a, b in _walk(before, after, "")
        )
    return tuple(found)


def with_power(saved: Plan, now: Plan) -> Plan:
    """The saved plan, with the first request as the machine's power asks for it now."""
    fresh = {s.name: s for s in now.steps}
    steps = tuple(
        msgspec.structs.replace(s, requests=fresh["power"].requests) if s.name == "power" and "power" in fresh else s
        for s in saved.steps
    )
    return msgspec.structs.replace(saved, steps=steps)


def _matters(host: HostPlan) -> dict[str, Any]:
    plan = host.plan
    spec = msgspec.to_builtins(plan.spec)
    if spec["digest"] in (None, plan.image.digest):
        del spec["digest"]  # that somebody has used the image meanwhile, and pinned it, changes nothing
    identity = msgspec.structs.asdict(plan.identity)
    return {
        "image": {"ref": plan.image.ref, "digest": plan.image.digest, "revoked": plan.image.revoked},
        "carries": {"image": plan.previous, "digest": plan.previous_digest, "state": host.state},
        "quarantine": host.quarantine,
        "identity": {k: _known(identity[k]) for k in _IDENTITY},
        "method": plan.method,
        "slot": plan.slot and {"id": plan.slot.id, "uri": plan.slot.uri},
        "document": spec,
        "config": host.config,
        "steps": {
            s.name: {
                "limit": s.limit,
                "stall": s.stall,
                "boots": s.boots,
                "requests": [_request(r) for r in s.requests],
                "if_needed": [_request(r) for r in s.if_needed],
                "calls": list(s.calls),
            }
            for s in plan.steps
        },
    }


def _known(value: Any) -> Any:
    return f"unknown: {value.reason}" if isinstance(value, Unknown) else msgspec.to_builtins(value)


def _request(request: WriteRequest) -> str:
    body = msgspec.json.encode(request.body, order="sorted").decode() if request.body else ""
    return f"{request.method} {request.path} {body}".rstrip()


def _walk(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """(setting, before, after) of every leaf that differs; _ABSENT where one side has none."""
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in (*before, *(k for k in after if k not in before)):
            name = f"{path}.{key}" if path else str(key)
            yield from _walk(before.get(key, _ABSENT), after.get(key, _ABSENT), visible(name, _SHOWN))
    else:
        yield path, before, after


def _text(value: Any) -> str:
    if value is _ABSENT or value is None or value == "":
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        text = "; ".join(_text(v) or "nothing" for v in value) or "nothing"
    elif isinstance(value, str):
        text = value
    else:
        text = msgspec.json.encode(value, order="sorted").decode()
    if len(text) <= _SHOWN:
        return visible(text, _SHOWN)
    return f"{visible(text[: _SHOWN // 2])} … ({len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"
