"""What a lab needs on this machine, and one line about what is missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from metalimmu.errors import ToolError
from metalimmu_emulator.machine import CODE

# Debian's and Ubuntu's package -> a program or file that proves it is there
PACKAGES = {"qemu-system-x86": "qemu-system-x86_64", "util-linux": "setpriv"}


def check(firmware: str) -> None:
    """Raises ToolError that names every Debian package and Python extra that is missing."""
    missing = [package for package, program in PACKAGES.items() if shutil.which(program) is None]
    if firmware in CODE and not Path(CODE[firmware]).is_file():
        missing.append("ovmf")
    if missing:
        raise ToolError(
            f"a lab needs Debian packages that are not installed: {', '.join(missing)}",
            hint=f"apt-get install --no-install-recommends {' '.join(missing)}",
        )
    if any(importlib.util.find_spec(module) is None for module in ("sushy_tools", "bcrypt")):
        raise ToolError("a lab needs the Python package sushy-tools", hint="pip install 'metalimmu[lab]'")
