"""From a host document's BMC address to the URL that is spoken to; the same text names the BMC in ledger and budget."""

from __future__ import annotations

from urllib.parse import urlsplit

from metalimmu.errors import UsageError


def base_url(address: str) -> str:
    """`redfish+https://10.0.0.1:8443/` -> `https://10.0.0.1:8443`. Raises UsageError."""
    try:
        parts = urlsplit(address.removeprefix("redfish+").removeprefix("redfish-raw+"))
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise UsageError(f"{address!r} is no address of a BMC: {exc}") from exc
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{address!r} is no address of a BMC", hint="write redfish+https://ADDRESS[:PORT]")
    if parts.username or parts.password:
        raise UsageError(
            f"the address of {host} carries a login", hint="set `credentials:` instead; documents are read by many"
        )
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "")
