"""Images of kind `nos`: an installer for switches, kept and served byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from metalimmu.errors import ImageError, UsageError
from metalimmu.images.add import Progress, store
from metalimmu.images.catalogue import Catalogue, Image, split
from metalimmu.wire.manifest import Manifest, Nos

_BLOCK = 1 << 20
_HEAD = 64 * 1024  # bytes in which an updater says that it is one
_UPDATER = (
    b"ONIE-UPDATER-COOKIE"  # ONIE's exec_installer: an updater in install mode is refused and asked for again, for ever
)


def add_nos(
    catalogue: Catalogue,
    file: Path,
    ref: str,
    *,
    nos: str,
    platforms: Sequence[str],
    version: str = "",
    min_ram: int = 0,
    build_id: str = "",
    architecture: str = "x86_64",
    progress: Progress | None = None,
) -> Image:
    """Add an ONIE installer (or SONiC image) as `ref` (NAME@VERSION). The same content again is a no-op.

    `nos` is the name of an adapter; `platforms` are globs over ONIE platform names; `version` is what the NOS says of
    itself, by default that of `ref`; `min_ram` in bytes, by default three times the installer.
    Raises ImageExists, ImageError, UsageError.
    """
    _, of_ref = split(ref)
    if not platforms:
        raise UsageError(
            f"{ref}: no platform is named", hint="--platform 'x86_64-accton_as7726_32x-r*', as often as needed"
        )
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
            digest = hashlib.sha256(head)
            while block := stream.read(_BLOCK):
                digest.update(block)
            if not head:
                raise ImageError(f"{file} is empty", hint="fetch the file again")
            if _UPDATER in head:
                raise ImageError(
                    f"{file} updates ONIE itself, it installs no NOS", hint="add the installer of the NOS instead"
                )
            stream.seek(0)
            with catalogue.locked():
                chunks, size = store(stream, catalogue.chunks, progress=progress)
                manifest = Manifest(
                    kind="nos",
                    architecture=architecture,
                    size=size,
                    chunks=chunks,
                    firmware=(),
                    efi_loader="",
                    build_id=build_id,
                    nos=Nos(nos, version or of_ref, digest.hexdigest(), tuple(platforms), min_ram or 3 * size),
                )
                return catalogue.publish(ref, manifest, {"source": {"file": file.name, "format": "onie-installer"}}, {})
    except OSError as exc:
        raise ImageError(f"{file} cannot be read: {exc.strerror or exc}") from exc
