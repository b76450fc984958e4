"""Set system and hardware clock: TLS of the new system, its logs and its certificates need the right year."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

RTC_SET_TIME = 0x4024700A  # linux/rtc.h: _IOW('p', 0x0a, struct rtc_time), nine ints
TOLERANCE = 2.0  # seconds


def rtc_time(seconds: float) -> bytes:
    """A `struct rtc_time` in UTC, as all that boots Linux servers expects; the last three fields are not used."""
    t = time.gmtime(seconds)
    return struct.pack("=9i", t.tm_sec, t.tm_min, t.tm_hour, t.tm_mday, t.tm_mon - 1, t.tm_year - 1900, 0, 0, 0)


def set_clocks(wanted: float, rtc: Path) -> str:
    """Set both to `wanted` (seconds since 1970) when the system clock is off by more than two seconds."""
    off = time.time() - wanted
    if wanted <= 0 or abs(off) <= TOLERANCE:
        return ""
    done = f"clock was {off:+.0f} s off; set"
    try:
        time.clock_settime(time.CLOCK_REALTIME, wanted)
    except OSError as exc:
        return f"clock is {off:+.0f} s off and cannot be set: {exc.strerror}"
    try:
        fd = os.open(rtc, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, RTC_SET_TIME, rtc_time(wanted))
        finally:
            os.close(fd)
    except OSError as exc:  # virtual machines without an RTC; the new system asks NTP
        return f"{done}, but not the hardware clock: {exc.strerror}"
    return f"{done}, hardware clock too"
