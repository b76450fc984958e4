"""What is said to a receiver: the body of a webhook, and what the other channels are rendered from."""

from __future__ import annotations

from typing import Literal

import msgspec

News = Literal["drift", "fixed", "unknown", "test"]

MOST_HOSTS = 1000  # named in one notice: the number of all is said beside them


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One cause in a notice. Texts of `actual` and `detail` come from BMCs: each channel escapes them."""

    cause: str  # the same over all notices about it
    kind: Literal["drift", "unknown"]
    severity: str
    setting: str = ""  # neutral.KEY where several makes have names of their own for it
    settings: tuple[str, ...] = ()  # these names
    expected: str = ""
    actual: str = ""
    reason: str = ""
    detail: str = ""
    owner: str = ""
    since: float  # when the first host was seen to have it; of unknown: when it was read last
    by: tuple[str, ...] = ()  # accounts and events, where logs of BMCs name them
    told: float = 0.0  # when it was first told: of another episode of the same cause it is another
    revision: int
    hosts: tuple[str, ...] = ()  # that have it now, or of `fixed`: had it last; sorted, at most MOST_HOSTS
    hosts_total: int = 0
    new_hosts_total: int = 0
    how: Literal["", "fixed", "waived", "read-again", "changed"] = (
        ""  # of `fixed`; changed: another cause took its place
    )


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    version: Literal[1] = 1
    id: str  # the same for each delivery of this notice
    site: str
    kind: News
    at: float  # when it was decided
    causes: tuple[Told, ...] = ()
