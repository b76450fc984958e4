"""URIs of a Redfish tree. They are not strings to compare: HPE links `/redfish/v1/systems/1/bios/` where its tree has
`Systems/1/Bios`, and trailing slashes come and go.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SLASHES = re.compile(r"/{2,}")


def path(uri: str) -> str:
    """Path and query without host, doubled or trailing slashes. For records and requests that change something."""
    parts = urlsplit(uri if "://" in uri[:12] else f"http://bmc/{uri.lstrip('/')}")
    clean = _SLASHES.sub("/", f"/{parts.path}").rstrip("/") or "/"
    return f"{clean}?{parts.query}" if parts.query else clean


def key(uri: str) -> str:
    """Equal for URIs of one resource."""
    return path(uri.partition("#")[0]).casefold()


def same(one: str, other: str) -> bool:
    return key(one) == key(other)


def last(uri: str) -> str:
    """The id that a resource's URI ends with."""
    return path(uri).rpartition("/")[2]
