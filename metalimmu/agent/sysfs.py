"""Reading small files of /sys and /proc."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """The content without blanks around it; empty when there is none. Firmware puts any bytes there."""
    try:
        return path.read_bytes()[:4096].decode("utf-8", "replace").replace("\0", "").strip()
    except OSError:  # also EIO and EINVAL: attributes that a driver lists and cannot read
        return ""


def number(path: Path) -> int:
    """0 when it is not there or no number."""
    value = text(path)
    return int(value) if value.lstrip("-").isdigit() else 0
