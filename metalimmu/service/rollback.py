"""Keep a host at another image than its role says, in the site's own documents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from metalimmu.desired.edit import remove_hold
from metalimmu.desired.edit import write_hold as write
from metalimmu.desired.types import Hold
from metalimmu.errors import UsageError
from metalimmu.service.runs import who

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite


def end_hold(site: OpenSite, host: str) -> str:
    """Remove the host from holds.yaml; its role says the image again. Raises UsageError."""
    site.spec(host)
    held = remove_hold(site.folder, host)
    if held is None:
        raise UsageError(f"{host} is not held", hint="holds.yaml has those that are")
    site.store.add_event(host, "hold", f"no longer held at {held.image}: asked by {who()}")
    return f"{host} is no longer held at {held.image} (commit holds.yaml)"


def write_hold(site: OpenSite, host: str, image: str, reason: str) -> str:
    """Add to holds.yaml; returns the sentence to show. The site is a git repository: committing is the operator's."""
    hold = Hold(host=host, image=image, reason=reason, since=time.strftime("%Y-%m-%d", time.gmtime()), by=who())
    write(site.folder, hold)
    site.store.add_event(host, "hold", f"held at {image} by {who()}: {reason}")
    return f"{host} at {image} in {site.folder / 'holds.yaml'} (commit it)"
