"""The same readers over the blocking connector: one host, with the same rules."""

from __future__ import annotations

from typing import TypeVar

from metalimmu.bmc.ask import Asking, drive
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.redfish_service import fetch

T = TypeVar("T")


def run(connector: Connector, reader: Asking[T], *, patience: float | None = None) -> T:
    """What `reader` returns. `patience` is that of each request, as in Connector.get."""
    return drive(reader, lambda ask: fetch(connector, ask, patience=patience))
