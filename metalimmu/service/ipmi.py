"""What a BMC says over IPMI and over nothing else here: its sensors, its event log, its parts; and its light."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from metalimmu.errors import BmcUnsupported
from metalimmu.service.runs import who

if TYPE_CHECKING:
    from metalimmu.bmc.ipmi import IpmiBmc
    from metalimmu.desired.types import Mode
    from metalimmu.service.site import OpenSite

What = Literal["sensors", "events", "frus"]


def read(site: OpenSite, host: str, what: What) -> list[dict[str, Any]]:
    """See IpmiBmc.sensors, events, frus. Raises NotFound, BmcError, SecretError."""
    with _connected(site, host, "read-only") as bmc:
        found: list[dict[str, Any]] = getattr(bmc, what)()
    return found


def light(site: OpenSite, host: str, *, on: bool) -> None:
    """The light by which people find the machine. Raises NotFound, BmcError, SecretError."""
    with _connected(site, host, None) as bmc:
        bmc.set_identify(on)
    site.store.add_event(host, "light", f"light {'on' if on else 'off'}, asked by {who()}")


@contextmanager
def _connected(site: OpenSite, host: str, mode: Mode | None) -> Iterator[IpmiBmc]:
    spec = site.spec(host)
    if not spec.bmc.startswith("ipmi://"):
        raise BmcUnsupported(
            f"{host}: its BMC is spoken to by {spec.bmc.partition('://')[0]}, and this goes over IPMI",
            hint=f"`metalimmu host inspect {host}` reads what Redfish says",
        )
    with site.connect(spec, mode=mode) as bmc:
        yield cast("IpmiBmc", bmc)
