"""One entry of a BMC's audit, lifecycle or event log, as far as it can say who changed a machine. No I/O."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class LogKind(StrEnum):
    bios_change = "bios-change"
    firmware_update = "firmware-update"
    reset_to_default = "reset-to-default"
    cmos_clear = "cmos-clear"
    login = "login"
    config_change = "config-change"
    other = "other"


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is in our time: the BMC's own clock corrected by the difference that was measured when the log was read."""

    at: float
    message: str
    message_id: str = ""
    account: str = ""  # who did it, where the entry names somebody
    kind: LogKind = LogKind.other
    uri: str = ""
