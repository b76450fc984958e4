"""Serial consoles of hosts: whose may be opened, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metalimmu.errors import BmcUnsupported, ReadOnlyMode
from metalimmu.service.runs import who

if TYPE_CHECKING:
    from metalimmu.bmc.ipmi_console import IpmiConsole
    from metalimmu.service.site import OpenSite


def attach(site: OpenSite, host: str, *, view: bool, via: str | None = None) -> IpmiConsole:
    """The console of a host, to be closed. What is typed into it is input to a machine, so a host in read-only mode can only
    be looked at (`view`). `via`: the address by which its BMC speaks IPMI, where the host document has another.
    Raises NotFound, ReadOnlyMode, BmcError, SecretError.
    """
    from metalimmu.bmc.connect import Address
    from metalimmu.bmc.ipmi_console import IpmiConsole

    spec = site.spec(host)
    if spec.mode == "read-only" and not view:
        raise ReadOnlyMode(
            f"{host} is in read-only mode, and what is typed into its console is input to a machine",
            hint="--read-only looks without typing; or set `mode: read-write` in site.yaml or in the pool",
        )
    address = via or spec.bmc
    if not address.startswith("ipmi://"):
        raise BmcUnsupported(
            f"{host} has no console here: its BMC is spoken to by {address.partition('://')[0]}, and consoles go over IPMI",
            hint=f"if this BMC speaks IPMI too: `metalimmu console {host} --via ipmi://ADDRESS`, with the same login",
        )
    target = Address(name=host, bmc=address, credentials=spec.credentials, proxy=spec.proxy, mode=spec.mode)
    found = IpmiConsole.open(target, view=view, folder=site.folder, ledger=site.ledger)
    site.store.add_event(host, "console", f"console {'looked at' if view else 'opened'} by {who()}")
    return found
