"""The site's documents, as far as a backup is concerned: git keeps them, a backup keeps what commands have written into
them since the last commit, whose signatures count (without it no approved plan can be applied), and a digest of the rest.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from metalimmu.desired import signers

KEPT = (
    "images.lock",
    "holds.yaml",
    "waivers.yaml",
    signers.FILE,
)  # copied into a backup; all but the last are written by commands
_FOLDERS = ("hosts", "roles", "pools", "profiles", "templates", "hooks")


def digests(site: Path) -> dict[str, str]:
    """File, relative to the site -> SHA-256 of its content."""
    files = [p for p in site.iterdir() if p.is_file() and (p.suffix in (".yaml", ".lock") or p.name in KEPT)]
    files += [p for folder in _FOLDERS for p in (site / folder).rglob("*") if p.is_file()]
    return {str(p.relative_to(site)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def differing(site: Path, then: dict[str, str]) -> list[str]:
    """`changed roles/web.yaml`, `new …`, `gone …`."""
    now = digests(site)
    words = [f"gone {name}" for name in then if name not in now]
    words += [f"new {name}" for name in now if name not in then]
    words += [f"changed {name}" for name, digest in now.items() if name in then and then[name] != digest]
    return sorted(words, key=lambda w: w.partition(" ")[2])
