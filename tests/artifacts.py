"""Part of set-up: images and ramdisks that the tests boot, built once and kept until what they are made from changes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "images"))

import image_builds

from metalimmu.cli.lab import artifacts, ensure_ramdisk


def main() -> None:
    begun = time.monotonic()
    for flavour in ("lab", "generic"):
        ensure_ramdisk(artifacts()[1], flavour, None)
    image_builds.main()
    print(f"test images and ramdisks: {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
