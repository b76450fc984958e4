"""What a lab's switches need before they start: a disk with ONIE, and the images lab-nos@1 and lab-nos@2."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from metalimmu.images.catalogue import Catalogue

NAME = "lab-nos"


def ensure(images: Path, mirror: str | None) -> Path:
    """Make what is missing or out of date; the path of the disk. Raises ToolError, ImageError."""
    from metalimmu import paths
    from metalimmu.images import lab_switch
    from metalimmu.images.catalogue import Catalogue
    from metalimmu.images.nos import add_nos
    from metalimmu_emulator import switch

    def say(text: str) -> None:
        click.echo(text, err=True)

    parts = lab_switch.build(switch.FILES, paths.cache() / "lab" / "switch", mirror=mirror, say=say)
    catalogue = Catalogue(images)
    for version in lab_switch.VERSIONS:
        file = parts.installer(version)
        if _other(catalogue, f"{NAME}@{version}", file):
            # This is the lab's own cache and nobody's catalogue: what was built from other sources is forgotten.
            shutil.rmtree(images / "catalogue" / NAME / version)
        add_nos(catalogue, file, f"{NAME}@{version}", nos="lab", version=version, platforms=[lab_switch.PLATFORMS])
    return parts.disk


def _other(catalogue: Catalogue, ref: str, file: Path) -> bool:
    from metalimmu.errors import NotFound

    try:
        found = catalogue.get(ref).manifest.nos
    except NotFound:
        return False
    with file.open("rb") as stream:
        return found is None or found.sha256 != hashlib.file_digest(stream, "sha256").hexdigest()
