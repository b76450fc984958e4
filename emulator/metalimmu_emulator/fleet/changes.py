"""What happens to a machine, whoever does it: power, firmware, defaults. Used by actions, and behind the BMC's back."""

from __future__ import annotations

from typing import Any

from metalimmu_emulator.fleet import bios, tasks
from metalimmu_emulator.fleet.persona import Persona

STOPS = frozenset({"ForceOff", "GracefulShutdown", "Off"})


def registry(persona: Persona) -> dict[str, dict[str, Any]]:
    """Attribute name -> its entry in the BMC's own registry; empty where there is none."""
    where = persona.template.places.registry
    page = persona.page(where) if where else None
    if page is None or page.document is None:
        return {}
    entries = (page.document.get("RegistryEntries") or {}).get("Attributes") or []
    return {str(e.get("AttributeName")): e for e in entries if isinstance(e, dict)}


def action_info(persona: Persona, entry: dict[str, Any], parameter: str) -> list[str]:
    """Allowable values behind `@Redfish.ActionInfo`."""
    found = persona.document(str(entry.get("@Redfish.ActionInfo") or "/")) or {}
    for one in found.get("Parameters") or []:
        if one.get("Name") == parameter:
            return list(one.get("AllowableValues") or [])
    return []


def power(persona: Persona, kind: str, system: str = "") -> None:
    """A ComputerSystem.Reset. `On` of a machine that is on is nothing."""
    where = system or persona.template.places.system
    was = persona.power
    persona.power = "Off" if kind in STOPS else "On"
    if (persona.document(where) or {}).get("PowerState") != persona.power:
        persona.edit(where, {"PowerState": persona.power})
    if kind in STOPS or (kind in ("On", "ForceOn") and was == "On"):
        return
    tasks.at_reset(persona)
    boot = (persona.document(where) or {}).get("Boot") or {}
    if boot.get("BootSourceOverrideEnabled") == "Once":
        persona.edit(where, {"Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"}})


def items(persona: Persona, component: str) -> list[str]:
    """Inventory ids of a component (bios, bmc, nic, ...), or the id itself. KeyError when there is none."""
    found = persona.template.firmware.get(component)
    if found:
        return list(found)
    if persona.page(f"{persona.template.places.firmware}/{component}") is not None:
        return [component]
    known = ", ".join(persona.template.firmware) or "none"
    raise KeyError(
        f"{persona.template.make} has no firmware {component!r}; it has {known}, and the ids of its inventory"
    )


def set_firmware(persona: Persona, component: str, version: str) -> None:
    """The running version, wherever this make shows it; Dell's ids change with it, and the old one is Previous."""
    places = persona.template.places
    for ident in items(persona, component):
        document = persona.document(f"{places.firmware}/{ident}")
        if document is None:
            continue
        old = str(document.get("Version") or "")
        if ident.startswith("Installed-"):
            _new_dell_item(persona, ident, document, version)
        else:
            persona.put(f"{places.firmware}/{ident}", document | {"Version": _styled(old, version)})
    where, name = {"bios": (places.system, "BiosVersion"), "bmc": (places.manager, "FirmwareVersion")}.get(
        component, ("", "")
    )
    shown = (persona.document(where) or {}).get(name) if where else None
    if shown:  # a GB200's system does not say
        persona.edit(where, {name: _styled(str(shown), version)})
    if component == "bmc":
        persona.sessions.clear()


def _styled(old: str, version: str) -> str:
    """`U46 v2.34 (03/11/2025)`, `BIOS Date: 08/04/2023 Ver 1.4`, `iLO 5 v3.11`: only the version in it is another."""
    for before in (" Ver ", " v"):
        head, found, tail = old.rpartition(before)
        if found:
            _, blank, date = tail.partition(" ")
            return f"{head}{before}{version}{blank}{date}"
    return version


def _new_dell_item(persona: Persona, ident: str, document: dict[str, Any], version: str) -> None:
    where = persona.template.places.firmware
    head, _, device = ident.partition("__")
    number = head.split("-")[1]
    current = persona.document(where) or {}
    for member in list(current.get("Members") or []):
        last = str(member.get("@odata.id")).rpartition("/")[2]
        if last.startswith((f"Previous-{number}-", f"Installed-{number}-", f"Current-{number}-")) and last.endswith(
            f"__{device}"
        ):
            persona.drop_member(where, f"{where}/{last}")
    old = str(document.get("Version"))
    for state, found in (("Previous", old), ("Installed", version)):
        new = f"{state}-{number}-{found}__{device}"
        persona.add_member(where, document | {"@odata.id": f"{where}/{new}", "Id": new, "Version": found})


def update_bios(persona: Persona, version: str) -> None:
    """A BIOS update has run: the version, and on Supermicro names and registry."""
    set_firmware(persona, "bios", version)
    if persona.template.traits.renames_bios:
        bios.rename(persona)


def cmos_clear(persona: Persona, *, logged: bool = True) -> None:
    """A jumper, or a battery: factory BIOS settings, the clock at its beginning, the override gone."""
    bios.defaults(persona)
    if logged:
        persona.log("clear", "CMOS was cleared: BIOS settings are at factory defaults.")


def factory_reset(persona: Persona, *, user: str = "") -> None:
    """The BMC back to factory: its settings, accounts and sessions; the host's BIOS settings stay."""
    template = persona.template
    kept = {
        k.lower()
        for k in (template.places.bios, template.places.settings, template.places.system, template.places.registry)
    }
    persona.overlay = {k: v for k, v in persona.overlay.items() if k in kept or "/firmwareinventory" in k}
    own = persona.passwords[persona.identity.username]
    persona.passwords = {**template.passwords, persona.identity.username: own}
    persona.sessions.clear()
    persona.tasks.clear()
    persona.clock_offset = 0.0
    persona.log("reset", "The BMC was reset to factory defaults.", user)
