"""What a BMC says, parsed once at the driver's edge. Enum values are DMTF's (DSP0268)."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why a value is not known."""

    not_permitted = "not permitted"  # 403
    timeout = "timeout"
    off = "off"  # the host must be on for this
    not_modelled = "not modelled"  # the BMC or the driver has no such thing
    broken = "broken"  # the answer cannot be read: truncated, null, of the wrong type
    unreachable = "unreachable"
    not_read = "not read"  # this reading did not ask for it


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """A value we do not have, and why. Never a guess, never false."""

    reason: Reason
    detail: str = ""
    source: str = ""  # URI


class PowerState(StrEnum):
    on = "On"
    off = "Off"
    powering_on = "PoweringOn"
    powering_off = "PoweringOff"
    unknown = "Unknown"


class PowerAction(StrEnum):
    """ResetType of ComputerSystem.Reset."""

    on = "On"
    force_off = "ForceOff"
    graceful_shutdown = "GracefulShutdown"
    graceful_restart = "GracefulRestart"
    force_restart = "ForceRestart"
    power_cycle = "PowerCycle"


class BootTarget(StrEnum):
    none = "None"
    cd = "Cd"
    pxe = "Pxe"
    hdd = "Hdd"
    uefi_http = "UefiHttp"
    bios_setup = "BiosSetup"


class BootEnabled(StrEnum):
    disabled = "Disabled"
    once = "Once"
    continuous = "Continuous"


class BootMode(StrEnum):
    uefi = "UEFI"
    legacy = "Legacy"


class BootOverride(msgspec.Struct, frozen=True):
    """Boot.BootSourceOverride*. A target while Disabled is stale (Supermicro) and means nothing: compare `effective`."""

    enabled: BootEnabled
    target: str  # a BootTarget where we know it; BMCs have more
    mode: BootMode | None = None  # absent or null on some makes
    once_allowed: bool = True
    continuous_allowed: bool = True
    targets: tuple[str, ...] = ()  # that the BMC names; empty: it does not say
    takes_uri: bool = False  # Boot.HttpBootUri is there
    uri: str = ""  # and says this

    @property
    def effective(self) -> str:
        return BootTarget.none if self.enabled is BootEnabled.disabled else self.target


class MediaSlot(msgspec.Struct, frozen=True):
    """One VirtualMedia resource."""

    id: str
    uri: str
    media_types: tuple[str, ...]  # CD, DVD, USBStick, Floppy
    inserted: bool | None  # None: the BMC does not say
    image: str | None
    by_action: bool  # InsertMedia exists; otherwise PATCH
    can_eject: bool  # EjectMedia exists; otherwise PATCH Image null

    @property
    def takes_cd(self) -> bool:
        return bool({"CD", "DVD"} & set(self.media_types))


class Component(msgspec.Struct, frozen=True):
    """One processor, memory module, disk, NIC, power supply or firmware item."""

    id: str
    name: str
    uri: str = ""
    model: str = ""
    manufacturer: str = ""
    serial: str = ""
    version: str = ""
    size: int | None = None  # bytes
    detail: dict[str, str] = {}


class SystemIdentity(msgspec.Struct, frozen=True):
    system_id: str
    uri: str
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    sku: str = ""
    uuid: str = ""
    bios_version: str = ""
    hostname: str = ""
    asset_tag: str = ""
    nics: tuple[str, ...] | Unknown = ()  # MACs, lower case


class Inventory(msgspec.Struct, frozen=True):
    """All that a driver could read. What it could not read is Unknown with the reason; nothing raises."""

    driver: str
    identity: SystemIdentity | Unknown
    power: PowerState | Unknown
    boot: BootOverride | Unknown
    media: tuple[MediaSlot, ...] | Unknown
    processors: tuple[Component, ...] | Unknown
    memory: tuple[Component, ...] | Unknown
    disks: tuple[Component, ...] | Unknown
    nics: tuple[Component, ...] | Unknown
    firmware: tuple[Component, ...] | Unknown
    bios: dict[str, str | int | float | bool | None] | Unknown
    power_supplies: tuple[Component, ...] | Unknown
    bmc: dict[str, str] | Unknown  # model, firmware version, Redfish version
    systems: tuple[str, ...] = ()  # ids of all systems behind this BMC
    gaps: tuple[Unknown, ...] = ()  # single members that could not be read
    requests: int = 0


class WriteRequest(msgspec.Struct, frozen=True):
    """One request that changes something on a BMC: what a plan lists and what a run sends are compared by this."""

    method: str
    path: str  # normalised: no trailing slash
    body: dict[str, object] = {}
