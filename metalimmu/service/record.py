"""Record a host's BMC (see `bmc.record`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metalimmu.bmc import credentials
from metalimmu.bmc.record import Progress, Recorded
from metalimmu.bmc.record import record as _record
from metalimmu.errors import BmcUnsupported

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite


def record(
    site: OpenSite, host: str, folder: Path, *, most: int, entries: int, seconds: float, progress: Progress | None
) -> Recorded:
    """Raises NotFound, BmcUnsupported for a BMC without Redfish, BmcError, UsageError."""
    from metalimmu.bmc.redfish import RedfishBmc

    spec = site.spec(host)
    login = credentials.read(spec.credentials, folder=site.folder) if spec.credentials else None
    own = {"name": login.username} if login else {}
    with site.connect(spec, mode="read-only") as bmc:
        if not isinstance(bmc, RedfishBmc):
            raise BmcUnsupported(f"{host}: {spec.bmc} has no Redfish to record", hint="only Redfish can be recorded")
        return _record(
            bmc.connector.get, folder, own=own, most=most, entries=entries, seconds=seconds, progress=progress
        )
