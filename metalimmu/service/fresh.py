"""Documents that change while a process runs: a guard that was tightened a minute ago holds now."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from metalimmu import log
from metalimmu.desired.load import load
from metalimmu.errors import SiteError

if TYPE_CHECKING:
    from metalimmu.desired.types import Site, SiteDocs
    from metalimmu.service.site import OpenSite

logger = log.get("site")

LOOK = 5.0  # seconds between looks

Fingerprint = tuple[tuple[str, int, int], ...]


class Fresh:
    """Call it as often as you like. Changed documents are taken over; wrong ones are said, and the old ones stay."""

    def __init__(self, site: OpenSite, *, every: float = LOOK) -> None:
        self._site = site
        self._every = every
        self._lock = threading.Lock()
        self._seen = fingerprint(site)
        self._looked = time.monotonic()

    def __call__(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked < self._every:
                return
            found = fingerprint(self._site)
            self._looked = time.monotonic()
            if found == self._seen:
                return
            self._seen = found
            try:
                self._take(load(self._site.folder))
            except SiteError as exc:
                logger.warning(
                    "the documents have changed and are wrong; the old ones stay: %s", "; ".join(exc.problems)
                )

    def _take(self, docs: SiteDocs) -> None:
        """Not where folders and addresses have moved: a process that is under way lives in the old ones."""
        if _ground(docs.site) != _ground(self._site.docs.site):
            logger.warning(
                "name, urls, listen, state, images or ramdisks of the site have changed: start again for that"
            )
            return
        self._site.docs = docs
        logger.info("the documents have changed, and are read again")


def _ground(site: Site) -> tuple[object, ...]:
    return site.name, site.urls, site.listen, site.state, site.images, site.ramdisks


def fingerprint(site: OpenSite) -> Fingerprint:
    """What a change of the documents changes."""
    folders = ("hosts", "roles", "pools", "profiles", "templates")
    files: list[Path] = [p for f in folders for p in (site.folder / f).rglob("*")]
    files += [site.folder / f for f in ("site.yaml", "images.lock", "holds.yaml", "waivers.yaml")]
    found = []
    for path in sorted(files):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(found)
