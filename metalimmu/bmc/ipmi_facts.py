"""What was read over IPMI, in our own words: identity, inventory, firmware. Pure; what IPMI cannot say is Unknown."""

from __future__ import annotations

from typing import Any

from metalimmu.bmc.answers import clean
from metalimmu.bmc.unknown import BmcTimeout, unknown
from metalimmu.errors import BmcBroken, BmcError, BmcUnreachable, BmcUnsupported
from metalimmu.observed.types import Component, Inventory, PowerState, Reason, SystemIdentity, Unknown
from metalimmu.plan.identity import PLACEHOLDERS

DRIVER = "ipmi"
Found = dict[str, Any]
"""The worker's parts by name, each its data or an Unknown; `boot` is a BootOverride."""

# IANA private enterprise numbers, as Get Device ID gives them.
MAKERS = {
    2: "IBM",
    11: "HP",
    42: "Sun",
    343: "Intel",
    674: "Dell Inc.",
    5771: "Cisco",
    6653: "Tyan",
    7154: "IPMI Forum",
    7244: "Quanta",
    10368: "Fujitsu",
    10876: "Supermicro",
    15370: "GIGABYTE",
    19046: "Lenovo",
    20301: "IBM",
    20974: "AMI",
    37945: "Inspur",
    40092: "Wiwynn",
    40981: "Facebook",
    42817: "Huawei",
    47196: "HPE",
    47488: "Supermicro",
    49769: "ASRockRack",
    51974: "OpenBMC",
}

ERRORS: dict[Reason, type[BmcError]] = {
    Reason.timeout: BmcTimeout,
    Reason.not_modelled: BmcUnsupported,
    Reason.unreachable: BmcUnreachable,
}


def identity(found: Found, base: str) -> SystemIdentity:
    """Raises BmcError when the device itself could not be read."""
    device, fru = found["device"], _fru0(found.get("fru"))
    if isinstance(device, Unknown):
        raise ERRORS.get(device.reason, BmcBroken)(f"{base}: {device.detail}")
    guid = found.get("guid")
    return SystemIdentity(
        system_id="ipmi",
        uri=base,
        manufacturer=_first(fru, "Manufacturer", "Board manufacturer") or MAKERS.get(device["manufacturer"], ""),
        model=_first(fru, "Product name", "Model", "Board product name"),
        serial=_first(fru, "Serial Number", "Chassis serial number"),
        sku=_first(fru, "Model", "Chassis part number"),
        uuid=guid if isinstance(guid, str) else "",
        bios_version=_bios(found),
        asset_tag=_first(fru, "Asset Number"),
        nics=_not_modelled("the network cards of the host"),
    )


def inventory(found: Found, base: str) -> Inventory:
    try:
        who: SystemIdentity | Unknown = identity(found, base)
    except BmcError as exc:
        why = found["device"]
        who = why if isinstance(why, Unknown) else unknown(exc, base)
    power = found["power"]
    device = found["device"]
    return Inventory(
        driver=DRIVER,
        identity=who,
        power=power if isinstance(power, Unknown) else PowerState.on if power["on"] else PowerState.off,
        boot=found["boot"],
        media=_not_modelled("virtual media"),
        processors=_not_modelled("processors"),
        memory=_not_modelled("memory modules"),
        disks=_not_modelled("disks"),
        nics=_not_modelled("the network cards of the host"),
        firmware=device if isinstance(device, Unknown) else firmware(found, base),
        bios=_not_modelled("BIOS settings"),
        power_supplies=power_supplies(found),
        bmc=device if isinstance(device, Unknown) else bmc(device),
        systems=("ipmi",),
        gaps=tuple(v for v in found.values() if isinstance(v, Unknown)) + fru_gaps(found, base),
    )


def bmc(device: dict[str, Any]) -> dict[str, str]:
    facts = {
        "firmware": clean(str(device["firmware"]), 40),
        "ipmi": clean(str(device["ipmi"]), 10),
        "vendor": MAKERS.get(device["manufacturer"], f"IANA {device['manufacturer']}"),
        "product": str(device["product"]),
    }
    return {k: v for k, v in facts.items() if v}


def firmware(found: Found, base: str) -> tuple[Component, ...]:
    items = [Component(id="bmc", name="BMC", uri=base, version=bmc(found["device"])["firmware"])]
    if _bios(found):
        items.append(Component(id="bios", name="BIOS", uri=base, version=_bios(found)))
    return tuple(items)


def power_supplies(found: Found) -> tuple[Component, ...] | Unknown:
    """Those that have a FRU; IPMI has no list of bays."""
    frus = found["fru"]
    if isinstance(frus, Unknown):
        return frus
    supplies = [f for f in frus if f.get("info") and _is_supply(f)]
    if not supplies:
        return _not_modelled("power supplies without a FRU of their own")
    return tuple(
        Component(
            id=clean(f["name"], 60),
            name=clean(f["name"], 60),
            model=_first(f["info"], "Board product name", "Product name", "Board model"),
            manufacturer=_first(f["info"], "Board manufacturer", "Manufacturer"),
            serial=_first(f["info"], "Board serial number", "Serial Number"),
        )
        for f in supplies
    )


def _is_supply(fru: dict[str, Any]) -> bool:
    name = fru["name"].lower()
    return name.startswith(("ps", "power supply", "pwr")) or "psu" in name


def fru_gaps(found: Found, base: str) -> tuple[Unknown, ...]:
    frus = found["fru"]
    if isinstance(frus, Unknown):
        return ()
    return tuple(
        Unknown(Reason.broken, f"FRU {f['name']}: {clean(str(f['error']), 120)}", base) for f in frus if f.get("error")
    )


def _fru0(frus: Any) -> dict[str, Any]:
    info = frus[0].get("info", {}) if isinstance(frus, list) and frus else {}
    return info if isinstance(info, dict) else {}


def _first(info: dict[str, Any], *names: str) -> str:
    texts = (clean(str(info.get(name, "")), 100) for name in names)
    return next((t for t in texts if t and t.lower() not in PLACEHOLDERS), "")


def _bios(found: Found) -> str:
    text = found.get("bios")
    return clean(text, 60) if isinstance(text, str) else ""


def _not_modelled(what: str) -> Unknown:
    return Unknown(Reason.not_modelled, f"IPMI does not say: {what}")
