"""Virtual media, served lazily: the BMC reads the URL block by block while the machine reads its CD.

Nothing is copied at insert, as with a real BMC; so what the controller counts is what the machine really read.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from metalimmu_emulator.nbd import Export
from metalimmu_emulator.qmp import QmpClient, QmpError
from metalimmu_emulator.remote import RemoteFile

SOCKET = "media.sock"  # in the server's folder


@dataclass(frozen=True)
class Media:
    url: str
    verify: bool = False  # check the server's certificate; off by default, as on most BMCs
    attach: bool = True  # False: accepted, and never shown to the machine (a fault)


class Disc:
    """One medium, from insert to eject, whether the machine is on or off. Raises MediaRefused."""

    def __init__(self, media: Media, folder: Path) -> None:
        self.media = media
        self._file = RemoteFile(media.url, verify=media.verify)
        self._export = Export(folder / SOCKET, self._file.size, self._file.read) if media.attach else None

    def attach(self, client: QmpClient, node: str) -> None:
        """Put it into drive cd0 of a machine as block node `node`. Raises QmpError."""
        if self._export is None:
            return
        server = {"type": "unix", "path": SOCKET}  # relative: QEMU runs in the server's folder
        source = {"driver": "nbd", "server": server, "export": ""}
        client.execute("blockdev-add", driver="raw", node_name=node, read_only=True, file=source)
        client.execute("blockdev-open-tray", id="cd0", force=True)
        client.execute("blockdev-insert-medium", id="cd0", node_name=node)
        client.execute("blockdev-close-tray", id="cd0")

    def detach(self, client: QmpClient, node: str) -> None:
        """Take it out, also when the guest has locked the drive: a BMC does not ask."""
        if self._export is None:
            return
        self._file.close()  # a read that waits for its server is over
        client.execute("blockdev-open-tray", id="cd0", force=True)
        client.execute("blockdev-remove-medium", id="cd0")
        client.execute("blockdev-close-tray", id="cd0")
        with contextlib.suppress(QmpError):  # the node goes with its process in any case
            client.execute("blockdev-del", node_name=node)

    def close(self) -> None:
        self._file.close()
        if self._export:
            self._export.close()
