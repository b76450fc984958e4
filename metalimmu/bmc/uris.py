"""URIs of a Redfish tree. They are not strings to compare: HPE links `/redfish/v1/systems/1/bios/` where its tree has
`Systems/1/Bios`, and trailing slashes come and go.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from metalimmu.errors import BmcBroken

_SLASHES = re.compile(r"/{2,}")
_ORIGIN = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*")


def local(uri: str) -> str:
    """Path and query as they were sent, without host and fragment. Raises BmcBroken for what is no URI.

    BMCs behind NAT or a tunnel link to their own idea of their address, and a hostile one must not make us send
    credentials elsewhere: what a link names is asked for on the address that we were told.
    """
    if uri[:1] == "/" and uri[1:2] != "/" and "#" not in uri and uri.isprintable() and len(uri) <= 4096:
        return uri
    if not uri.isprintable() or len(uri) > 4096:
        raise BmcBroken(f"the BMC links {uri[:100]!r}, which is no URI")
    return "/" + _ORIGIN.sub("", uri).partition("#")[0].lstrip("/")


def path(uri: str) -> str:
    """Without host, fragment, doubled or trailing slashes: for records and comparison."""
    if uri[:1] == "/" and uri[-1:] != "/" and "//" not in uri and "#" not in uri and "?" not in uri:
        return uri  # nearly all are so, and a scan asks this a hundred times for each machine
    found, query, rest = _ORIGIN.sub("", uri).partition("#")[0].partition("?")
    clean = _SLASHES.sub("/", f"/{found}").rstrip("/") or "/"
    return clean + query + rest


def key(uri: str) -> str:
    """Equal for URIs of one resource."""
    return path(uri).casefold()


def same(one: str, other: str) -> bool:
    return key(one) == key(other)


def last(uri: str) -> str:
    """The id that a resource's URI ends with."""
    return path(uri).rpartition("/")[2]


def origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port (RFC 6454); None for what is no URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", port
