"""Waivers: findings that are accepted as they are, until a date and with a reason. The document waivers.yaml is a list of them."""

from __future__ import annotations

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
Setting = Annotated[
    str,
    Meta(
        pattern=r"^(bios|firmware|boot|secure_boot|bmc|hardware|cabling|neutral)\..+",
        description="a setting's name: bios.ATTRIBUTE, firmware.COMPONENT, bmc.ntp.servers, ...",
        examples=["bios.ProcCStates"],
    ),
]


class Waiver(Document, frozen=True, kw_only=True):
    """Holds for one setting of these hosts while its value stays the accepted one, to the end of the day `until` in UTC."""

    hosts: list[Name]
    setting: Setting
    actual: str  # the value that is accepted, as findings print it; empty: that it is missing
    until: Day
    reason: str
    by: str = ""  # who accepted it
    since: str = ""  # when, quoted
