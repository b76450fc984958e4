"""The job that every side of the scan benchmarks does: read 250 BIOS attributes and 22 firmware versions, and say what differs.

A side returns, for each BMC, what it read and which of it differs from what is wanted (that of BMC 0); both must be equal
on all sides.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from benchmarks import scan_server as server

ATTRIBUTES = server.attributes(0)
FIRMWARE = server.firmware(0)


class Read(NamedTuple):
    attributes: dict[str, Any]
    firmware: dict[str, str]  # version by name
    differing: list[str]


def compared(attributes: dict[str, Any], firmware: dict[str, str]) -> Read:
    """The comparison of a hand-written script."""
    differing = [name for name, value in ATTRIBUTES.items() if attributes.get(name) != value]
    differing += [name for name, version in FIRMWARE.items() if firmware.get(name) != version]
    return Read(attributes, firmware, differing)


def answer(read: Read) -> str:
    """The same for the same: printed, and compared between sides."""
    text = json.dumps([read.attributes, read.firmware, sorted(read.differing)], sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {' '.join(sorted(read.differing))}"


def right(number: int) -> str:
    return answer(compared(server.attributes(number), server.firmware(number)))
