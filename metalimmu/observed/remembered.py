"""What scans have learnt of a make of machine: where its BMC keeps what, and whether its `$expand` is right. No I/O."""

from __future__ import annotations

import msgspec


class MakeKey(msgspec.Struct, frozen=True, order=True):
    """One make: what was learnt on one machine holds for all that say the same three things of themselves."""

    vendor: str  # the system's Manufacturer, or the service's Vendor
    model: str
    firmware: str  # the BMC's FirmwareVersion


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """`paths` by a word for what is there (`system`, `firmware`, `accounts`, ...); an empty one differs from machine to
    machine and is looked for each time.

    `expand` says for a kind of collection whether the answer to `$expand` was equal to plain reads; a kind that is not
    in it was never compared. `root` has what the service root says of the make, so that it need not be asked.
    """

    paths: dict[str, str] = {}
    expand: dict[str, bool] = {}
    root: dict[str, str] = {}
