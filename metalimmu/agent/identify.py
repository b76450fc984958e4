"""Which machine is this? SMBIOS (DSP0134) through sysfs, and its physical NICs.

Before any write this must be the machine that the deployment is for: BMC addresses get swapped, and then the wrong
server boots our media.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from metalimmu.agent.sysfs import number, text
from metalimmu.errors import IdentityMismatch
from metalimmu.wire.messages import Assignment, Identity, Nic

GLOBAL_VARIABLE = "8be4df61-93ca-11d2-aa0d-00e098032b8c"  # UEFI 2.10, 3.3

# What vendors leave in SMBIOS when nobody wrote a serial number: it identifies nothing.
_RUBBISH = frozenset(
    {
        "", "none", "n/a", "na", "unknown", "empty", "invalid", "oem", "default", "default string", "not specified",
        "not available", "not applicable", "not provided", "to be filled by o.e.m.", "to be filled by o.e.m", "tbd",
        "system serial number", "chassis serial number", "base board serial number", "serial number", "sn", "asset",
        "0123456789", "1234567890", "123456789", "123456",
    }
)  # fmt: skip
_RUBBISH_UUID = frozenset({"03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc"})
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def identity(root: Path) -> Identity:
    dmi = root / "sys/class/dmi/id"
    return Identity(
        serial=text(dmi / "product_serial"),
        uuid=text(dmi / "product_uuid").lower(),
        vendor=text(dmi / "sys_vendor"),
        product=text(dmi / "product_name"),
        nics=tuple(nics(root)),
    )


def nics(root: Path) -> list[Nic]:
    """Those with hardware behind them: no loopback, bridge, bond, VLAN; no USB link to the BMC."""
    found = []
    net = root / "sys/class/net"
    for path in sorted(net.iterdir()) if net.is_dir() else []:
        mac = text(path / "address").lower()
        if not (path / "device").exists() or not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac):
            continue
        driver = path / "device/driver"
        found.append(
            Nic(
                name=path.name,
                mac=mac,
                link=text(path / "carrier") == "1",
                driver=driver.readlink().name if driver.is_symlink() else "",
                speed=max(0, number(path / "speed")),  # -1: no link
            )
        )
    return found


def secure_boot(root: Path) -> bool | None:
    """None: not UEFI, or it does not say. The value follows four bytes of attributes."""
    try:
        value = (root / f"sys/firmware/efi/efivars/SecureBoot-{GLOBAL_VARIABLE}").read_bytes()
    except OSError:
        return None
    return value[4] == 1 if len(value) == 5 else None


def memory(root: Path) -> int:
    """Bytes."""
    found = re.search(r"^MemTotal:\s+([0-9]+) kB", text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def boot_id(root: Path) -> str:
    return text(root / "proc/sys/kernel/random/boot_id")


def known_serial(value: str) -> str:
    """Comparable, or empty when the value identifies nothing."""
    plain = " ".join(value.split()).casefold()
    return "" if plain in _RUBBISH or len(set(plain)) == 1 else plain


def known_uuid(value: str) -> str:
    plain = value.strip().lower()
    useless = not _UUID.match(plain) or plain in _RUBBISH_UUID or len(set(plain) - {"-"}) == 1
    return "" if useless else plain


def other_byte_order(uuid: str) -> str:
    """The first three fields swapped: SMBIOS before 2.6 did not say in which order they are (DSP0134, 7.2.1)."""
    a, b, c, rest = uuid.split("-", 3)
    return "-".join((*(bytes.fromhex(part)[::-1].hex() for part in (a, b, c)), rest))


def confirm(machine: Identity, wanted: Assignment) -> list[str]:
    """What proves that this is the machine, as text. Raises IdentityMismatch with both values.

    Everything that both sides know must agree, and at least one thing must.
    """
    evidence = [*_confirm_serial(machine, wanted), *_confirm_uuid(machine, wanted), *_confirm_nics(machine, wanted)]
    if not evidence:
        raise IdentityMismatch(
            "nothing tells this machine from another: neither serial, UUID nor a NIC is known on both sides "
            f"(SMBIOS serial {machine.serial!r}, UUID {machine.uuid!r}; expected {wanted.serial!r}, {wanted.uuid!r})",
            hint="give the host document the MAC address of one of its NICs",
        )
    return evidence


def _confirm_serial(machine: Identity, wanted: Assignment) -> Iterable[str]:
    here, there = known_serial(machine.serial), known_serial(wanted.serial)
    if here and there and here != there:
        raise IdentityMismatch(
            f"the machine's serial number is {machine.serial!r}, the deployment is for {wanted.serial!r}"
        )
    return [f"serial {machine.serial}"] if here and there else []


def _confirm_uuid(machine: Identity, wanted: Assignment) -> Iterable[str]:
    here, there = known_uuid(machine.uuid), known_uuid(wanted.uuid)
    if here and there and there not in (here, other_byte_order(here)):
        raise IdentityMismatch(
            f"the machine's UUID is {machine.uuid} (or {other_byte_order(here)}, bytes swapped), "
            f"the deployment is for {wanted.uuid}"
        )
    return [f"UUID {machine.uuid}"] if here and there else []


def _confirm_nics(machine: Identity, wanted: Assignment) -> Iterable[str]:
    have = [n.mac for n in machine.nics]
    missing = [mac for mac in wanted.nics if mac.lower().replace("-", ":") not in have]
    if missing:
        raise IdentityMismatch(
            f"the machine lacks NIC {', '.join(missing)}; it has {', '.join(have) or 'none'}",
            hint="correct the host's `nics`; a NIC may also lack its driver in the ramdisk",
        )
    return [f"NIC {mac}" for mac in wanted.nics]
