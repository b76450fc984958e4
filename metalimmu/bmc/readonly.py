"""What may leave towards a BMC: GET, HEAD, and the session's own POST and DELETE. One function, asked before every request."""

from __future__ import annotations

import re

from metalimmu.bmc import uris
from metalimmu.bmc.answers import clean
from metalimmu.errors import BmcReadOnly

READS = frozenset({"GET", "HEAD"})

_PART = r"(?!\.{1,2}(?:/|$)|actions(?:/|$))[^/?#%\\]+"
_SESSIONS = re.compile(rf"/redfish/(?:{_PART}/)*sessions(?:/members)?")
_SESSION = re.compile(rf"/redfish/(?:{_PART}/)*sessions/{_PART}")


def check(method: str, path: str) -> None:
    """Raises BmcReadOnly. `path` is what stands in the request line.

    A session is made and ended in a collection named Sessions (DSP0266, session management: every make has
    /redfish/v1/SessionService/Sessions, iLO 4 also /redfish/v1/Sessions): a service root that names a reset action
    as the place of its sessions does not get our POST, and a session that is said to be a system is not deleted.
    """
    if method in READS:
        return
    allowed = {"POST": _SESSIONS, "DELETE": _SESSION}.get(method)
    if allowed is not None and allowed.fullmatch(uris.key(path)):
        return
    raise BmcReadOnly(
        f"{method} {clean(path, 200)} was not sent: a scan only reads",
        hint="the BMC's service root names a strange place for its sessions; look at it with `metalimmu host inspect`",
    )
