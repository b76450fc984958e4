"""Boot flags of IPMI (28.13, parameter 5) and our words for them. Pure."""

from __future__ import annotations

from typing import Any

from metalimmu.errors import BmcUnsupported
from metalimmu.observed.types import BootEnabled, BootMode, BootOverride, BootTarget, PowerAction

CONTROLS: dict[PowerAction, int] = {  # Chassis Control (28.3)
    PowerAction.force_off: 0,
    PowerAction.on: 1,
    PowerAction.power_cycle: 2,
    PowerAction.force_restart: 3,
    PowerAction.graceful_shutdown: 5,
}
DEVICES: dict[BootTarget, int] = {
    BootTarget.none: 0,
    BootTarget.pxe: 1,
    BootTarget.hdd: 2,
    BootTarget.cd: 5,
    BootTarget.bios_setup: 6,
}
_OTHERS = {3: "SafeHdd", 4: "Diags", 7: "RemoteFloppy", 8: "RemoteCd", 9: "RemoteMedia", 11: "RemoteHdd", 15: "Floppy"}
_NAMES: dict[int, str] = {number: str(target) for target, number in DEVICES.items()} | _OTHERS
_VALID, _PERSISTENT, _EFI = 0x80, 0x40, 0x20


def override(found: dict[str, Any]) -> BootOverride:
    """`found`: valid, persistent, uefi, device. IPMI has no word for "the mode stays as it is": without the flag it is Legacy."""
    target = _NAMES.get(found["device"], f"device {found['device']}")
    enabled = BootEnabled.continuous if found["persistent"] else BootEnabled.once
    if not found["valid"] or target == BootTarget.none:
        enabled = BootEnabled.disabled
    return BootOverride(enabled, target, BootMode.uefi if found["uefi"] else BootMode.legacy)


def flags(target: BootTarget, enabled: BootEnabled, mode: BootMode) -> tuple[int, int]:
    """(first byte, device). Raises BmcUnsupported."""
    if target not in DEVICES:
        raise BmcUnsupported(
            f"IPMI has no boot device {target}",
            hint=f"it has {', '.join(DEVICES)}; use PXE for a boot from the network",
        )
    efi = _EFI if mode is BootMode.uefi else 0
    if enabled is BootEnabled.disabled or target is BootTarget.none:
        return efi, 0
    return _VALID | efi | (_PERSISTENT if enabled is BootEnabled.continuous else 0), DEVICES[target]


def control(action: PowerAction) -> int:
    """Raises BmcUnsupported."""
    if action not in CONTROLS:
        raise BmcUnsupported(
            f"IPMI has no power action {action}",
            hint=f"it has {', '.join(CONTROLS)}; a graceful restart is the system's",
        )
    return CONTROLS[action]
