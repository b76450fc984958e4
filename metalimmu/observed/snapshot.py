"""What one scan read of one machine, as flat settings with names that are the same on every make. No I/O.

A setting's name is ``SECTION.REST``; only the first dot separates, the rest may hold any character:

======================================  =====================================================================
``bios.ATTRIBUTE``                      an attribute of the Bios resource, under the BMC's own name
``firmware.KEY``                        version of a component; KEY is `FirmwareItem.key`
``boot.order``                          a list: what the machine tries, first things first, in stable words
``boot.mode``                           UEFI | Legacy
``boot.override``                       None | Pxe | Cd ... as long as it is in force
``secure_boot.enabled|mode``            SecureBootEnable (what the next boot has), SecureBootMode;
                                        ``secure_boot.current`` is SecureBootCurrentBoot, what this boot has
``bmc.ntp.enabled|servers``             and ``bmc.dns.servers``, ``bmc.syslog.enabled|servers``
``bmc.protocol.NAME``                   true | false: which services listen (ssh, ipmi, snmp, https, ...)
``bmc.accounts``                        a list of enabled user names; ``bmc.account.NAME.role``
``bmc.certificate.not_after``           ISO 8601; also .issuer, .subject, .fingerprint
``bmc.lockdown``                        Enabled | Disabled
``bmc.clock``                           seconds that its clock differs from ours (volatile)
``hardware.processors.count|models``    CPUs; other kinds of processor are ``hardware.accelerators.count|models``
``hardware.memory.count|total|sizes``   and ``hardware.disks.count|sizes|models``, ``hardware.nics.count|macs``,
                                        ``hardware.power_supplies.count|watts``; sizes in bytes
``hardware.health``                     the system's Status.HealthRollup, or Health
``cabling.PORT``                        ``SWITCH PORT`` by LLDP, where the BMC reports it
======================================  =====================================================================
"""

from __future__ import annotations

import msgspec

from metalimmu.observed.types import Component, PowerState, SystemIdentity, Unknown

Scalar = str | int | float | bool | None
Value = Scalar | tuple[Scalar, ...]

SECTIONS = ("bios", "firmware", "boot", "secure_boot", "bmc", "hardware", "cabling")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A task or vendor's job that is not finished. `about` is the section that it will change."""

    id: str
    name: str
    state: str  # as the BMC says it: Scheduled, Running, New, ...
    about: str  # bios | firmware | other
    uri: str = ""
    percent: int | None = None


class FirmwareItem(msgspec.Struct, frozen=True, kw_only=True):
    """One running firmware. `key` is stable over updates and reorderings, unlike a BMC's ids (Dell's hold the version,
    HPE's are ordinals): ``bios``, ``bmc``, or kind and device (``nic Mellanox ConnectX-6 in Slot 3``). Several items with
    one key are told apart by nothing that the BMC says; `ambiguous` counts them.
    """

    key: str
    version: str  # the bare version: no date, no prefix
    component: Component
    ambiguous: int = 1
    running: bool = True  # false: rollback, backup, golden or staged copy; not in `settings`


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that one scan read. A setting that is neither in `settings` nor below a name in `unknown` is not there."""

    host: str
    at: float
    identity: SystemIdentity | Unknown
    bmc: dict[str, str] | Unknown  # as Inventory.bmc
    power: PowerState | Unknown
    settings: dict[str, Value]
    unknown: dict[str, Unknown] = {}  # by section or by setting
    staged: dict[str, Value] = {}  # pending values, only where they differ from the current one
    waiting: tuple[str, ...] = ()  # all that the settings object lists, where that is less than everything
    jobs: tuple[Job, ...] | Unknown = ()
    firmware: tuple[FirmwareItem, ...] | Unknown = ()
    sources: dict[str, str] = {}  # URI by setting or by section: `source` looks it up
    registry: str = ""  # the Bios resource's AttributeRegistry
    notes: tuple[str, ...] = ()  # what an operator should know: a clock that is off by years, an answer that lies
    requests: int = 0
    seconds: float = 0.0

    def source(self, setting: str) -> str:
        return self.sources.get(setting) or self.sources.get(setting.partition(".")[0], "")

    def why_unknown(self, setting: str) -> Unknown | None:
        """The reason for a setting that is not in `settings`: its own, or that of the nearest name above it."""
        name = setting
        while name:
            if name in self.unknown:
                return self.unknown[name]
            name = name.rpartition(".")[0]
        return None


def canonical(settings: dict[str, Value]) -> bytes:
    """The same settings, the same bytes: what the store compares by."""
    return msgspec.json.encode(settings, order="sorted")
