"""What a host is by its findings. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from metalimmu.observed.types import Reason
from metalimmu.plan.types import DRIFT, Finding, Word

HostState = Literal["match", "waived", "drift", "unknown", "no-profile"]
"""unknown: it could not be read, or a part of it that its profile asks for. What its BMC does not have, or what nobody can
set, makes no host unknown. Drift is said of a host that has some which nobody has waived, whatever else is not known of
it; waived: all its drift is.
"""
_UNREAD = tuple(str(r) for r in Reason if r is not Reason.not_modelled)


def unread(finding: Finding) -> bool:
    """The profile asks for it, the BMC may have it, and it was not read."""
    return finding.word is Word.unknown and finding.reason.startswith(_UNREAD)


def host_state(findings: Collection[Finding], *, broke_off: bool = False, profile: bool = True) -> HostState:
    """Of a host that was read. `broke_off`: its BMC went away in the middle. `profile`: it has one."""
    drift = [f for f in findings if f.word in DRIFT]
    if not all(f.waived for f in drift):
        return "drift"
    if broke_off or any(map(unread, findings)):
        return "unknown"
    if drift:
        return "waived"
    return "match" if findings or profile else "no-profile"
