"""Boot order in stable words, boot mode, the override in force, and secure boot."""

from __future__ import annotations

import re
from collections.abc import Iterable

from metalimmu.bmc import redfish_boot, stable
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.reading import Reading
from metalimmu.bmc.unknown import Hindered
from metalimmu.errors import BmcNotPermitted, BmcUnsupported
from metalimmu.observed.types import Reason, Unknown

_GONE = re.compile(r"^Unavailable: ")  # Dell, for a device that it does not see now: the order is the same
_HARDWARE = re.compile(r"(?:PciRoot|Pci|USB|NVMe|Sata|Scsi|Ctrl|Acpi|HD)\([^)]*\)")
_VOLATILE = re.compile(r"(?<=HD\()(\d+),[^)]*|(?<=NVMe\()([^,)]*),[^)]*")


def read(reading: Reading) -> Asking[None]:
    """Fills boot.order, boot.mode and boot.override; each fails alone."""
    system = reading.the_system()
    reading.sources["boot"] = system.uri
    yield from reading.section("boot.override", _override(reading, system))
    yield from reading.section("boot.order", _order(reading, system))
    mode = _mode(reading, system)
    if mode:
        reading.settings["boot.mode"] = mode
    else:
        reading.unknown["boot.mode"] = Unknown(Reason.not_modelled, "it says neither Legacy nor UEFI", system.uri)


def _override(reading: Reading, system: Doc) -> Asking[None]:
    override = redfish_boot.boot_override(system, (yield from reading.service.quirks(reading.tree)))
    reading.settings["boot.override"] = str(override.effective)


def _mode(reading: Reading, system: Doc) -> str:
    """From the BIOS attribute where the make has one, or else the override's mode, which follows it on most."""
    where = reading.places.boot_mode
    if where is not None:
        for name, value in reading.settings.items():
            if name.startswith("bios.") and re.fullmatch(where.attribute, name[5:]) and value in where.values:
                reading.sources["boot.mode"] = reading.sources.get("bios", "")
                return where.values[str(value)]
    mode = system.text("Boot", redfish_boot.MODE)
    return mode if mode in ("UEFI", "Legacy") else ""


def _order(reading: Reading, system: Doc) -> Asking[None]:
    boot = system.part("Boot")
    order = boot.texts("BootOrder")
    if not order:
        raise BmcUnsupported(f"{system.uri} has no BootOrder")
    words = yield from _words(reading, boot)
    # Before the value is set: a setting has a value or is unknown, never both.
    next_order = yield from _next_order(reading, system)
    reading.set("boot.order", tuple(words.get(o, o) for o in order), system.uri)
    if next_order and next_order != order:
        reading.staged["boot.order"] = tuple(words.get(o, o) for o in next_order)


def _next_order(reading: Reading, system: Doc) -> Asking[tuple[str, ...]]:
    """What waits for the next reboot; empty where nothing does, or the object that is linked is not there."""
    waiting = system.link("@Redfish.Settings", "SettingsObject")
    if not waiting or not reading.wants("pending"):
        return ()
    try:
        return (yield from reading.tree.read(waiting)).texts("Boot", "BootOrder")
    except (BmcUnsupported, BmcNotPermitted):
        return ()


def _words(reading: Reading, boot: Doc) -> Asking[dict[str, str]]:
    """By BootOptionReference; empty where the BMC has no boot options: then the references themselves are all there is."""
    uri = boot.link("BootOptions")
    if not uri:
        return {}
    before = len(reading.gaps)
    options = yield from reading.collections.parsed(uri, option, kind="boot_options")
    lost = reading.lost_since(before)
    if lost:
        raise Hindered(lost)
    return named(options)


def option(doc: Doc) -> tuple[str, str, str, bool | None]:
    """(reference, name, device path, enabled)"""
    reference = doc.text("BootOptionReference") or doc.text("Id")
    name = doc.text("DisplayName") or doc.text("Name")
    return reference, name, doc.text("UefiDevicePath"), doc.flag("BootOptionEnabled")


def named(options: Iterable[tuple[str, str, str, bool | None]]) -> dict[str, str]:
    """Words that are the same on a twin of the machine and after a reinstallation: the option's name without MAC addresses
    and serial numbers. Equal names are told apart by the device path's hardware nodes (without disk GUIDs and serials);
    where those are equal too, by `#2`, `#3` in the order of the firmware's numbers. A disabled option says so.
    """
    found = {
        reference: (stable.name(_GONE.sub("", name)) or reference, path, on) for reference, name, path, on in options
    }
    words: dict[str, str] = {}
    for reference in sorted(found):
        name, path, on = found[reference]
        if sum(other == name for other, _, _ in found.values()) > 1:
            name = " at ".join(w for w in (name, _place(path)) if w)
        words[reference] = name if on is not False else f"{name} (disabled)"
    seen: dict[str, int] = {}
    for reference, word in words.items():
        seen[word] = seen.get(word, 0) + 1
        if seen[word] > 1:
            words[reference] = f"{word} #{seen[word]}"
    return words


def _place(path: str) -> str:
    return "/".join(_HARDWARE.findall(_VOLATILE.sub(lambda m: m[1] or m[2], path)))


def secure_boot(reading: Reading) -> Asking[None]:
    """Fills secure_boot.enabled, .mode and .current."""
    system = reading.the_system()
    if not system.link("SecureBoot"):
        raise BmcUnsupported(f"{system.uri} has no SecureBoot")
    doc = yield from reading.tree.read(system.link("SecureBoot"))
    reading.sources["secure_boot"] = doc.uri
    found = {
        "enabled": doc.flag("SecureBootEnable"),
        "mode": doc.text("SecureBootMode") or None,
        "current": doc.text("SecureBootCurrentBoot") or None,
    }
    for name, value in found.items():
        if value is None:
            reading.unknown[f"secure_boot.{name}"] = Unknown(Reason.not_modelled, f"it does not say {name}", doc.uri)
        else:
            reading.settings[f"secure_boot.{name}"] = value
