"""Faults of one BMC. What they do is done where they bite: at the handshake, before, in, or instead of an answer."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from metalimmu.errors import UsageError

# name -> what it does; the parameters that it takes beside path, method, times, after
NAMES: dict[str, tuple[str, ...]] = {
    "slow": ("delay",),
    "silent": (),
    "reset": (),
    "refuse": (),
    "tls": ("kind",),
    "expire": (),
    "login": ("status",),
    "sessions": (),
    "busy": ("status", "retry_after"),
    "truncated": (),
    "drip": ("every",),
    "null-members": (),
    "dead-links": (),
    "clock": ("seconds",),
    "etag": (),
    "expand": (),
    "lying-current": (),
    "lying-write": (),
    "not-permitted": (),
}


class Fault(msgspec.Struct):
    """`path` and `method` are regular expressions; `after` requests pass first; `times` None is for ever."""

    name: str
    path: str = ""
    method: str = ""
    times: int | None = None
    after: int = 0
    delay: float = 1.0
    kind: str = "garbage"  # of tls: garbage | other | close
    status: int = 0
    retry_after: float | None = None
    seconds: float = 0.0
    every: float = 0.05
    seen: int = 0

    @classmethod
    def of(cls, name: str, parameters: dict[str, Any]) -> Fault:
        """Raises UsageError."""
        if name not in NAMES:
            raise UsageError(f"there is no fault {name!r}", hint=f"faults are {', '.join(NAMES)}")
        allowed = {"path", "method", "times", "after", *NAMES[name]}
        if wrong := sorted(set(parameters) - allowed):
            raise UsageError(
                f"the fault {name} has no parameter {', '.join(wrong)}", hint=f"it has {', '.join(sorted(allowed))}"
            )
        try:
            found = msgspec.convert({"name": name, **parameters}, cls)
            re.compile(found.path)
            re.compile(found.method)
        except (msgspec.ValidationError, re.error) as exc:
            raise UsageError(f"the fault {name} with {parameters}: {exc}") from exc
        return found

    def bites(self, method: str, path: str) -> bool:
        """For this request? Counts it."""
        if self.path and not re.search(self.path, path):
            return False
        if self.method and not re.fullmatch(self.method, method):
            return False
        self.seen += 1
        if self.seen <= self.after:
            return False
        return self.times is None or self.seen <= self.after + self.times
