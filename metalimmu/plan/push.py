"""A config on its way to a system that runs: what it is, and the life that it has. Pure.

::

    waiting -> fetched -> applied        the machine reports the digest over its files, which is the push's
       |          |-----> failed         it could not apply it, has its old config again, and says why
       |----------------> withdrawn      by a person, or because a newer push takes its place

`applied` may become `failed`: a machine that could not hear our answer after the change has gone back by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from metalimmu.wire.messages import RunTimeConfig

CONFIRM = 180.0  # seconds in which a machine must reach us after the change, before it goes back by itself


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds since 1970."""

    serial: int  # milliseconds since 1970 and always larger than the one before: a machine takes nothing that is older
    digest: str  # over the files that the machine gets
    config: RunTimeConfig  # as it is kept: without secrets
    key: str  # SiteKey.id of the hashes in it
    spec: dict[str, Any]  # the HostSpec that it is rendered from when the machine asks
    before: RunTimeConfig | None = None  # what it replaces
    before_digest: str = ""
    before_key: str = ""
    before_at: float | None = None
    state: str = "waiting"
    why: str = ""  # of failed; of waiting: what holds it up
    by: str = ""
    reason: str = ""
    at: float = 0.0
    fetched: float | None = None
    done: float | None = None
    until: float = 0.0  # so long an open one is counted as a change under way
    options: dict[str, Any] = {}  # what guards were told: allow_protected, reason

    @property
    def open(self) -> bool:
        return self.state in ("waiting", "fetched")

    def ended(self, state: str, now: float, why: str = "") -> Push:
        return msgspec.structs.replace(self, state=state, why=why, done=now)


def patience(limits: Mapping[str, float]) -> float:
    """Seconds until a machine that is well has reported what became of a push. `limits`: the host's."""
    return limits.get("report_again", 0.0) * 1.25 + _fetched(limits)


def _fetched(limits: Mapping[str, float]) -> float:
    return limits.get("apply", 0.0) + CONFIRM


def fetched(push: Push, now: float) -> dict[str, Any]:
    """Fields of the push, now that the machine has it. One that was asked for long ago counts again."""
    until = max(push.until, now + _fetched(push.spec.get("limits", {})))
    return {"state": "fetched", "fetched": now, "why": "", "until": until}


def applied(push: Push, now: float) -> dict[str, Any]:
    """Fields of the deployment's record, now that the machine has it."""
    return {
        "push": push.ended("applied", now),
        "config": push.config,
        "config_digest": push.digest,
        "config_key": push.key,
        "config_at": now,
    }


def failed(push: Push, now: float, why: str) -> dict[str, Any]:
    """Fields of the deployment's record. A push that was thought to be applied is taken back."""
    fields: dict[str, Any] = {"push": push.ended("failed", now, why)}
    if push.state == "applied":
        fields |= {
            "config": push.before,
            "config_digest": push.before_digest,
            "config_key": push.before_key,
            "config_at": push.before_at,
        }
    return fields


def serial(now: float, last: Push | None) -> int:
    """Of the next push; larger than the last one's whatever the clock says."""
    return max(int(now * 1000), last.serial + 1 if last else 0)
