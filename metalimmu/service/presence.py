"""Is this the controller that machines find at their address, or was it replaced by one restored from its backup?

An old controller that still lives when its site was restored elsewhere does no harm to what its machines obey: they take
the higher fence. But it would think them silent, and start them again by their BMCs, which know no fences. So a worker
asks at `urls.machines`, before it begins and ever so often, who answers there. An answer from a later restore ends it. No
answer decides nothing: a controller behind a NAT may not reach its own address.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from metalimmu import log
from metalimmu.agent.client import bounded, connection
from metalimmu.boot import tls
from metalimmu.boot.tokens import SiteKey
from metalimmu.errors import LeaseLost, MetalimmuError

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

logger = log.get("presence")

LOOK = 15.0  # seconds
_TIME = 3.0  # seconds for an answer
_LARGEST = 4096


def who(site: OpenSite) -> dict[str, Any]:
    """What this controller says of itself to those that have the site's key."""
    mark = site.store.restored()
    if mark is None:
        return {"floor": 0, "incarnation": "", "hostname": "", "at": 0.0}
    return {"floor": mark.floor, "incarnation": mark.incarnation, "hostname": mark.hostname, "at": mark.at}


def there(site: OpenSite) -> dict[str, Any] | None:
    """What the controller at `urls.machines` says; None: nobody that has the site's key and certificate."""
    url = urlsplit(site.docs.site.urls.machines)
    files = tls.ensure(site.state / "tls", site.docs.site.urls.machines)
    token = SiteKey.at(site.state / "tls" / "site.key").controller
    link = connection(url, files.pin)
    link.timeout = _TIME
    try:
        link.connect()
        link.sock.settimeout(_TIME)
        link.request("GET", f"{url.path.rstrip('/')}/v1/controller", headers={"Authorization": f"Bearer {token}"})
        answer = link.getresponse()
        said = json.loads(bounded(answer, _LARGEST)) if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException, MetalimmuError):
        return None
    finally:
        link.close()
    return said if isinstance(said, dict) and isinstance(said.get("floor"), int) else None


def check(site: OpenSite) -> None:
    """Raises LeaseLost when a controller answers that was restored later than this one."""
    said = there(site)
    if said is None or said["floor"] <= who(site)["floor"]:
        return
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(said.get("at") or 0)))
    raise LeaseLost(
        f"another controller answers at {site.docs.site.urls.machines}: restored on {str(said.get('hostname'))[:80]} at {at}",
        hint=f"that one goes on with the runs of this site: stop this one for good, and move {site.state} away",
    )


class Presence:
    """Asks in a thread; `lost` is called once, with the LeaseLost."""

    def __init__(self, site: OpenSite, stop: threading.Event, lost: Callable[[MetalimmuError], None]) -> None:
        self._site, self._stop, self._lost = site, stop, lost
        self._thread = threading.Thread(target=self._watch, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout=2 * _TIME)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK):
            try:
                check(self._site)
            except LeaseLost as exc:
                logger.warning("%s", exc.message)
                self._lost(exc)
                return
            except MetalimmuError as exc:  # of the store: who works will say so
                logger.debug("%s", exc.message)
