"""Part of set-up: images and ramdisks that the tests boot, built once and kept until what they are made from changes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "images"))

import image_builds

from metalimmu import paths
from metalimmu.cli.lab import artifacts, ensure_ramdisk
from metalimmu.images import lab_switch
from metalimmu_emulator import switch


def main() -> None:
    begun = time.monotonic()
    for flavour in ("lab", "generic"):
        ensure_ramdisk(artifacts()[1], flavour, None)
    image_builds.main()
    lab_switch.build(switch.FILES, paths.cache() / "lab" / "switch", say=print)
    print(f"test images and ramdisks: {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
