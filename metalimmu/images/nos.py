"""Images of kind `nos`: an installer for switches, kept and served byte for byte."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
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

# SONiC's installer is a script, this line, and a tar that is not compressed (onie-mk-demo.sh of sonic-buildimage).
_MARK = b"\nexit_marker\n"
_SCRIPT = 1 << 20  # bytes in which the line comes
_TABLE = (
    "installer/platforms_asic"  # a platform that is not in it makes install.sh ask on the console, and wait for ever
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
    warn: Callable[[str], None] = lambda _: None,
) -> Image:
    """Add an ONIE installer (or SONiC image) as `ref` (NAME@VERSION). The same content again is a no-op.

    `nos` is the name of an adapter; `platforms` are globs over ONIE platform names; `version` is what the NOS says of
    itself, by default that of `ref`; `min_ram` in bytes, by default three times the installer.
    Of a SONiC its own table of platforms is read, and the globs only choose from it; `warn` hears where it has none.
    Raises ImageExists, ImageError, UsageError.
    """
    _, of_ref = split(ref)
    if nos == "sonic":
        platforms = _chosen(file, platforms, warn)
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


def _chosen(file: Path, globs: Sequence[str], warn: Callable[[str], None]) -> Sequence[str]:
    """Those of the installer's own platforms that the globs name; without globs all. Raises ImageError, UsageError."""
    table = platform_table(file)
    if table is None:
        warn(
            f"{file.name} has no table of platforms that can be read: --platform is believed; a wrong one hangs in ONIE"
        )
        return globs
    for glob in globs:
        if not any(fnmatchcase(p, glob) for p in table):
            raise UsageError(
                f"{file} supports no platform {glob}",
                hint=f"its table has {len(table)}: {', '.join(table[:8])}{', …' if table[8:] else ''}",
            )
    return tuple(p for p in table if not globs or any(fnmatchcase(p, g) for g in globs))


def platform_table(file: Path) -> tuple[str, ...] | None:
    """ONIE platforms that a SONiC installer says it supports; None where it does not say. Raises ImageError."""
    try:
        with file.open("rb") as stream:
            at = stream.read(_SCRIPT).find(_MARK)
            if at < 0:
                return None
            stream.seek(at + len(_MARK))
            with tarfile.open(fileobj=stream, mode="r:") as tar:  # seeks over what it does not read
                found = next((m for m in tar if m.name.removeprefix("./") == _TABLE), None)
                body = tar.extractfile(found) if found is not None and found.size <= _SCRIPT else None
                text = body.read().decode("ascii", "replace") if body else ""
    except tarfile.TarError:
        return None
    except OSError as exc:
        raise ImageError(f"{file} cannot be read: {exc.strerror or exc}") from exc
    return tuple(p for p in text.split() if re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", p)) or None
