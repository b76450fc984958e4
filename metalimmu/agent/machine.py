"""What the agent touches of the machine it runs on, in one place, so that tests hand in another one."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from pathlib import Path

from metalimmu.agent import clock

LINUX_REBOOT_CMD_RESTART = 0x01234567  # linux/reboot.h


@dataclass
class Machine:
    """`root` carries /sys, /proc and /dev; another than / means a test: no clock is set and nothing reboots."""

    root: Path = Path("/")
    architecture: str = field(default_factory=lambda: os.uname().machine)

    @property
    def disks_every(self) -> float:
        """Seconds between two looks at the disks: a made-up machine's do not come one after the other."""
        return 1.0 if self.real else 0.01

    @property
    def real(self) -> bool:
        return self.root == Path("/")

    @property
    def efivars(self) -> Path:
        return self.root / "sys/firmware/efi/efivars"

    @property
    def firmware(self) -> str:
        return "uefi" if (self.root / "sys/firmware/efi").is_dir() else "bios"

    def set_clock(self, wanted: float) -> str:
        """What was done, for the log; empty: nothing."""
        return clock.set_clocks(wanted, self.root / "dev/rtc0") if self.real else ""

    def reboot(self) -> None:
        """Quick: all that matters was flushed by the writer already. Returns only in tests, or when it failed."""
        if not self.real:
            return
        os.sync()
        ctypes.CDLL(None, use_errno=True).reboot(LINUX_REBOOT_CMD_RESTART)
        # reboot(2) refuses only without CAP_SYS_BOOT; sysrq is another way to the same end.
        (self.root / "proc/sysrq-trigger").write_text("b")
