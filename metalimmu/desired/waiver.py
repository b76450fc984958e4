"""Waivers: findings that are accepted as they are, until a date and with a reason. The document waivers.yaml is a list of them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta

from metalimmu.desired.base import Document, Name

Day = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
        description="a day as YYYY-MM-DD, quoted",
        examples=["2027-03-31"],
    ),
]
Moment = Annotated[
    str,
    Meta(
        pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?Z)?)?$",
        description="a time in UTC as YYYY-MM-DDThh:mm:ssZ, quoted; a day means its end, empty any time",
        examples=["2027-01-31T12:00:00Z"],
    ),
]
Setting = Annotated[
    str,
    Meta(
        pattern=r"^(bios|firmware|boot|secure_boot|bmc|hardware|cabling|neutral)\..+",
        description="a setting's name: bios.ATTRIBUTE, firmware.COMPONENT, bmc.ntp.servers, ...",
        examples=["bios.ProcCStates"],
    ),
]


class Waiver(Document, frozen=True, kw_only=True):
    """Holds for one setting of these hosts to the end of the day `until` (UTC), or to the first change of its value after
    `since`, whichever comes first; it does not come back, whatever the value is later.
    """

    hosts: list[Name]
    setting: Setting
    actual: str  # the value that is accepted, as findings print it; empty: that it is missing
    until: Day
    reason: str
    by: str = ""  # who accepted it
    since: Moment = ""  # when


def accepted_at(waiver: Waiver) -> float | None:
    """Seconds since 1970: a value that was first seen later is another one. None: `since` is no time that exists."""
    if not waiver.since:
        return math.inf
    try:
        moment = datetime.fromisoformat(waiver.since)
    except ValueError:
        return None
    whole_day = timedelta() if "T" in waiver.since else timedelta(days=1)
    return (moment.replace(tzinfo=UTC) + whole_day).timestamp()
