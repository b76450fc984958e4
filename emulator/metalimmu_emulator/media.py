"""Virtual media, served lazily: QEMU reads the URL itself, block by block, while the guest reads (qemu-block-extra).

Nothing is copied at insert, as with a real BMC; so what the controller counts is what the machine really read.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from metalimmu.errors import LabError
from metalimmu_emulator.qmp import QmpClient, QmpError

PROBE_SECONDS = 10.0
READ_SECONDS = 30  # QEMU's limit for one range; its default of 5 is short for a busy controller
READAHEAD = (
    128 << 10
)  # bytes; QEMU's default of 256 KiB. With 1 MiB a boot through GRUB fetched 1.7 times the ISO, with this 1.03 times


class MediaRefused(LabError):
    """`status` is the HTTP status that the BMC answers with."""

    default_hint = "check the URL and that the BMC can reach it"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Media:
    url: str
    verify: bool = False  # check the server's certificate; off by default, as on most BMCs
    attach: bool = True  # False: accepted, and never shown to the machine (a fault)


def probe(media: Media) -> None:
    """A HEAD, as QEMU does it. Raises MediaRefused: 400 when the URL is wrong, 502 when its server is."""
    if urllib.parse.urlsplit(media.url).scheme not in ("http", "https"):
        raise MediaRefused(f"{media.url}: only http and https can be read", status=400)
    context = ssl.create_default_context()
    if not media.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(media.url, method="HEAD")  # noqa: S310  # the scheme is checked above
    try:
        with opener.open(request, timeout=PROBE_SECONDS) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as exc:
        with exc:
            status = 502 if exc.code >= 500 else 400
        raise MediaRefused(f"{media.url}: its server answers {exc.code}", status=status) from exc
    except (OSError, ValueError) as exc:
        raise MediaRefused(f"{media.url}: cannot be read: {exc}", status=502) from exc
    if headers.get("Accept-Ranges", "").lower() != "bytes" or not headers.get("Content-Length"):
        raise MediaRefused(f"{media.url}: its server does not offer byte ranges", status=400)


def attach(client: QmpClient, media: Media, node: str) -> None:
    """Put the medium into drive cd0 as block node `node`. Raises MediaRefused; the drive is then as before."""
    scheme = urllib.parse.urlsplit(media.url).scheme
    source: dict[str, Any] = {"driver": scheme, "url": media.url, "timeout": READ_SECONDS, "readahead": READAHEAD}
    if scheme == "https":
        source["sslverify"] = media.verify
    try:
        client.execute("blockdev-add", READ_SECONDS + 5, driver="raw", node_name=node, read_only=True, file=source)
    except QmpError as exc:
        raise MediaRefused(f"{media.url}: {exc.message}", status=502) from exc
    client.execute("blockdev-open-tray", id="cd0", force=True)
    client.execute("blockdev-insert-medium", id="cd0", node_name=node)
    client.execute("blockdev-close-tray", id="cd0")


def detach(client: QmpClient, node: str) -> None:
    """Take it out, also when the guest has locked the drive: a BMC does not ask."""
    client.execute("blockdev-open-tray", id="cd0", force=True)
    client.execute("blockdev-remove-medium", id="cd0")
    client.execute("blockdev-close-tray", id="cd0")
    client.execute("blockdev-del", node_name=node)
