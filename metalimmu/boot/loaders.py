"""The boot loaders that we hand out: Debian's own, as packages bring them, and one GRUB made of Debian's modules."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from metalimmu.boot import grub_image
from metalimmu.desired.netboot import Netboot
from metalimmu.errors import ToolError

FILES: dict[str, tuple[str, str]] = {
    "snponly.efi": ("/usr/lib/ipxe/snponly.efi", "ipxe"),
    "ipxe.efi": ("/usr/lib/ipxe/ipxe.efi", "ipxe"),
    "undionly.kpxe": ("/usr/lib/ipxe/undionly.kpxe", "ipxe"),
}
"""Name as machines ask for it -> file, Debian package."""

SIGNED: dict[str, tuple[str, str]] = {
    "bootx64.efi": ("/usr/lib/shim/shimx64.efi.signed", "shim-signed"),
    "grubx64.efi": ("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grub-efi-amd64-signed"),
}
"""The same by TFTP alone: Debian's signed GRUB could not go on by HTTP."""

HTTP = "http.efi"  # see grub_image

Kind = Literal["ipxe", "ipxe-drivers", "shim"]


def ipxe(settings: Netboot) -> str:
    """The iPXE that UEFI starts."""
    return "ipxe.efi" if settings.loader == "ipxe-drivers" else "snponly.efi"


def http_loader(settings: Netboot) -> str:
    """What UEFI HTTP boot starts. iPXE loads ten times as fast, and asks DHCP what to run: that must be ours. GRUB knows."""
    wanted = settings.http_loader
    if wanted == "auto":
        wanted = "grub" if settings.mode == "off" else "ipxe"
    return HTTP if wanted == "grub" else ipxe(settings)


def http_path(settings: Netboot) -> str:
    """Where it is fetched, below `urls.boot`."""
    return f"/boot/efi/{http_loader(settings)}"


class Loaders:
    def __init__(self, url: str, files: Mapping[str, tuple[str, str]] = FILES) -> None:
        """`url`: where machines reach us in the clear."""
        self._url = url
        self._files = dict(files)
        self._made: bytes | None = None
        self._making = threading.Lock()

    def http(self) -> bytes:
        """Our own GRUB (see grub_image), which UEFI HTTP boot starts where iPXE would ask another's DHCP. Made once. Raises ToolError."""
        with self._making:
            if self._made is None:
                self._made = grub_image.build(self._url)
            return self._made

    def file(self, name: str) -> Path | None:
        """By HTTP. None: there is no such loader, or its package is not installed."""
        found = self._files.get(name.lower())
        path = Path(found[0]) if found else None
        return path if path is not None and path.is_file() else None

    def need(self, kind: Kind) -> dict[str, Path]:
        """All that TFTP serves. Raises ToolError, naming the package."""
        return {name: _there(*where) for name, where in (SIGNED if kind == "shim" else self._files).items()}


def _there(path: str, package: str) -> Path:
    if not Path(path).is_file():
        raise ToolError(f"{path} is not there: machines cannot boot the network", hint=f"apt-get install {package}")
    return Path(path)
