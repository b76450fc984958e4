"""What all imports of hosts have in common. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, NamedTuple

from metalimmu.desired.known_hosts import host_name
from metalimmu.desired.makes import make_of
from metalimmu.desired.merge import Candidate

Fields = dict[str, Any]
LONGEST = 100
_LABEL = re.compile(r"[^A-Za-z0-9._/-]+")


class Imported(NamedTuple):
    """Hosts for review, and what was left out: one line each, with its reason."""

    candidates: list[Candidate]
    left_out: list[str]


def bmc_url(address: str, scheme: str = "redfish+https") -> str:
    """`10.0.0.7/24` or a name as the BMC of a host; empty for what is neither, or has a login in it. A URL stays what
    it is.
    """
    text = address.strip()
    if "@" in text:  # a login does not belong into a document that many read
        return ""
    known = {"https://": "redfish+https://", "http://": "redfish+http://"}
    for prefix, ours in known.items():
        if text.startswith(prefix):
            return (ours + text.removeprefix(prefix)).rstrip("/")
    if text.startswith(("redfish+https://", "redfish+http://", "redfish-raw+https://", "ipmi://")):
        return text.rstrip("/")
    host = text.partition("/")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return f"{scheme}://{host}" if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,250}[A-Za-z0-9])?", host) else ""
    return f"{scheme}://[{found}]" if found.version == 6 else f"{scheme}://{found}"


def label(text: str) -> str:
    """A label's key or value as `-l key=value` can name it."""
    return _LABEL.sub("-", text.strip()).strip("-")[:LONGEST]


def short(value: Any) -> str:
    """Text of another system: one line, bounded; empty for what is no text or number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()[:LONGEST]


def vendor(text: str) -> str:
    """`Dell Inc.` as `dell`, `Quanta Computer Inc` as `quanta`: one word, which a site's credential rules can match."""
    words = text.lower().split()
    return make_of(text) or (words[0].strip(".,") if words else "")


def clean(fields: Fields) -> Fields:
    """Without what says nothing."""
    kept = {k: clean(v) if isinstance(v, dict) else v for k, v in fields.items()}
    return {k: v for k, v in kept.items() if v not in ("", None, {}, [])}


def named(*wishes: str) -> str:
    return host_name(*wishes)
