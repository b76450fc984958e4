"""What an installer is told, decided from its deployment and what it says: pure.

An installer has no agent of ours in it. It asks for its answers at an address that only its media know, and says at the
same address who it is, before it touches a disk, and that it is done, before it restarts. `Told` is what it hears: 200 goes
on, 409 never does, 503 asks again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metalimmu.boot.ports import Deployment
from metalimmu.boot.rules import clean
from metalimmu.plan.identity import same_serial, same_uuid
from metalimmu.wire.messages import Failure

ATTEMPTS = 3  # an installer that begins more often is in a loop
ANEW = 60.0  # seconds: closer requests for the same answers are of one and the same boot; some ask twice
_NAMES = 64  # different things that one installer may ask for


@dataclass(frozen=True)
class Told:
    status: int
    words: str = ""
    changes: dict[str, Any] = field(default_factory=dict)


def asked(d: Deployment, name: str, now: float, *, main: bool) -> Told:
    """May it have this file? `main`: the one by which an installer begins."""
    if gone := _gone(d):
        return gone
    last = d.fetched.get(name)
    changes: dict[str, Any] = {"last_seen": now, "fetched": _noted(d, name, now)}
    if main and (last is None or now - last > ANEW):
        changes |= {"fetches": d.fetches + 1, "progressed": now}
        if d.fetches >= ATTEMPTS:
            why = f"the installer has begun {d.fetches} times and never finished"
            hint = "look at the machine's console: does it fail and restart?"
            return Told(409, why, changes | _failed(d, why, hint))
    return Told(200, changes=changes)


def begins(d: Deployment, serial: str, uuid: str, now: float) -> Told:
    """Before it touches a disk: is it the machine that we mean?"""
    if gone := _gone(d):
        return gone
    wanted = d.assignment
    why = ""
    if wanted.serial and not same_serial(wanted.serial, serial):
        why = f"its serial is {serial or 'not said'}, expected {wanted.serial}"
    elif wanted.uuid and uuid and not same_uuid(wanted.uuid, uuid):
        why = f"its UUID is {uuid}, expected {wanted.uuid} (in either byte order)"
    if why:
        text = clean(f"another machine runs the installer of {d.host}: {why}")
        evidence = {"serial": clean(serial), "uuid": clean(uuid), "expected_serial": wanted.serial}
        kept = Failure("IdentityMismatch", text, "", evidence)
        return Told(409, text, {"refusal": kept, "refused_at": now})
    noted = _noted(d, "begin", now)
    return Told(200, "go", {"last_seen": now, "progressed": now, "fetched": noted, "refusal": None, "refused_at": None})


def finishes(d: Deployment, now: float) -> Told:
    """All is installed. It may restart when we have taken its media away and cleared the override."""
    if d.ended is not None:
        return Told(404)
    if d.stop:
        return Told(409, clean(d.stop))
    changes: dict[str, Any] = {"last_seen": now}
    if d.finished is None:
        changes |= {"finished": now, "progressed": now}
    if not d.go:
        return Told(503, "wait", changes)
    return Told(200, "go", changes | ({} if d.went else {"went": now}))


def fails(d: Deployment, why: str, now: float) -> Told:
    if gone := _gone(d):
        return gone
    text = f"the installer says: {clean(why) or 'it failed'}"
    return Told(200, "heard", {"last_seen": now, **_failed(d, text, "look at the machine's console")})


def says(d: Deployment, what: str, now: float) -> Told:
    """A word on how far it is."""
    if gone := _gone(d):
        return gone
    return Told(200, "heard", {"last_seen": now, "progressed": now, "fetched": _noted(d, f"at {what}", now)})


def _gone(d: Deployment) -> Told | None:
    """404 for what is over. What has finished needs its answers no more: they may have secrets."""
    if d.ended is not None or d.finished is not None:
        return Told(404)
    return Told(409, clean(d.stop)) if d.stop else None


def _failed(d: Deployment, why: str, hint: str) -> dict[str, Any]:
    return {} if d.failure else {"failure": Failure("StepFailed", why, hint)}


def _noted(d: Deployment, name: str, now: float) -> dict[str, float]:
    if name not in d.fetched and len(d.fetched) >= _NAMES:
        return d.fetched
    return d.fetched | {name: now}
