"""The firmware inventory: which component is which, which of them run, and their bare versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from metalimmu.bmc import redfish_parts, uris
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.firmware_rules import agree, rules, sort, version
from metalimmu.bmc.reading import Item, Reading
from metalimmu.bmc.tree import ROOT
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcError, BmcUnsupported
from metalimmu.observed.snapshot import FirmwareItem
from metalimmu.observed.types import Component, Reason

GUESS = f"{ROOT}UpdateService/FirmwareInventory"


def read(reading: Reading) -> Asking[None]:
    """Fills firmware.*; where there is no inventory, bios and bmc from what the system and the manager say."""
    before = len(reading.gaps)
    reading.items = ()
    try:
        reading.items = yield from reading.collection(
            "firmware", GUESS, lambda: _find(reading), lambda doc: item(doc, reading.vendor)
        )
    except BmcError as exc:
        reading.unknown["firmware"] = unknown(exc, GUESS)
    lost = reading.lost_since(before)
    if lost and reading.items:
        reading.unknown["firmware"] = lost
    tell(reading)


def _find(reading: Reading) -> Asking[str]:
    service = (yield from reading.tree.read(ROOT)).link("UpdateService")
    if not service:
        raise BmcUnsupported("the service has no UpdateService")
    uri = (yield from reading.tree.read(service)).link("FirmwareInventory")
    if not uri:
        raise BmcUnsupported(f"{service} has no FirmwareInventory")
    return uri


def item(doc: Doc, vendor: str) -> Item:
    component = redfish_parts.firmware(doc)
    context = doc.text("Oem", "Hpe", "DeviceContext")
    sorted_as = sort(vendor, component.id, component.name, doc.text("Description"), context)
    component.detail["device"] = sorted_as.device
    return Item(component, sorted_as)


def tell(reading: Reading) -> None:
    """From the items that were read, and what system and manager say of themselves; again when more is known of those."""
    for name in [n for n in reading.settings if n.startswith("firmware.")]:
        del reading.settings[name]
    told = _told(reading)
    found = sort_out(reading.items, {key: raw for key, raw, _ in told}, _active_bmc(reading))
    for key, raw, where in told:
        mine = next((i for i in found if i.key == key and i.running), None)
        if mine is None:
            found += (_stand_in(key, raw, where),) if _stands_in(reading) else ()
        elif not agree(mine.component.version, raw):
            reading.note(f"{key}: the firmware inventory says {mine.version}, {where} says {version(raw).bare}")
    reading.firmware = found if found or "firmware" not in reading.unknown else reading.unknown["firmware"]
    for name, versions, source in _settings(found):
        reading.set(f"firmware.{name}", versions[0] if len(versions) == 1 else versions, source)


def _told(reading: Reading) -> list[tuple[str, str, str]]:
    """(key, raw version, URI): what the system and the manager say of themselves."""
    found = []
    for key, doc, field in (("bios", reading.system, "BiosVersion"), ("bmc", reading.manager, "FirmwareVersion")):
        raw = doc.text(field) if isinstance(doc, Doc) else ""
        if isinstance(doc, Doc) and version(raw).bare:
            found.append((key, raw, doc.uri))
    return found


def _active_bmc(reading: Reading) -> str:
    manager = reading.manager
    return manager.link("Links", "ActiveSoftwareImage") if isinstance(manager, Doc) else ""


def _stands_in(reading: Reading) -> bool:
    """An inventory that could not be read now will say it in its own words again: Lenovo's system has no version at all."""
    why = reading.unknown.get("firmware")
    return why is None or (why.reason is Reason.not_modelled and not reading.items)


def _stand_in(key: str, raw: str, uri: str) -> FirmwareItem:
    component = Component(id=key, name=key.upper(), uri=uri, version=raw)
    return FirmwareItem(key=key, version=version(raw).bare, component=component)


def _settings(items: Iterable[FirmwareItem]) -> list[tuple[str, tuple[str, ...], str]]:
    """(key, distinct versions, URI) of what runs."""
    found: dict[str, list[FirmwareItem]] = {}
    for i in items:
        if i.running:
            found.setdefault(i.key, []).append(i)
    return [(k, tuple(sorted({i.version for i in same})), same[0].component.uri) for k, same in found.items()]


def sort_out(items: Sequence[Item], told: Mapping[str, str], active_bmc: str = "") -> tuple[FirmwareItem, ...]:
    """Pure. `told` are the raw versions that system and manager give, by key; `active_bmc` the URI of the BMC's own item."""
    running = [_runs(i) for i in items]
    devices = {i.sort.device for i, runs in zip(items, running, strict=True) if runs and not i.sort.spare}
    running = [runs and not (i.sort.spare and i.sort.device in devices) for i, runs in zip(items, running, strict=True)]
    bios = _chosen(items, [r and i.sort.bios for i, r in zip(items, running, strict=True)], told.get("bios", ""))
    bmc = _chosen(items, [r and i.sort.bmc for i, r in zip(items, running, strict=True)], told.get("bmc", ""))
    if active_bmc:
        here = (n for n, i in enumerate(items) if running[n] and uris.same(i.component.uri, active_bmc))
        bmc = next(here, bmc)
    keys = [
        "bios" if n == bios else "bmc" if n == bmc else i.sort.key if runs else _idle_key(i)
        for n, (i, runs) in enumerate(zip(items, running, strict=True))
    ]
    counts = Counter(key for key, runs in zip(keys, running, strict=True) if runs)
    return tuple(
        FirmwareItem(
            key=key,
            version=version(i.component.version).bare,
            component=i.component,
            ambiguous=counts[key] or 1,
            running=runs,
        )
        for i, key, runs in zip(items, keys, running, strict=True)
    )


def _runs(i: Item) -> bool:
    there = version(i.component.version).bare and i.component.detail.get("state") not in rules().idle_states
    return bool(there) and not i.sort.idle


def _chosen(items: Sequence[Item], fitting: Sequence[bool], raw: str) -> int:
    """The index of the item that fits and agrees, or else of the first that fits; -1 for none."""
    found = [n for n, fits in enumerate(fitting) if fits]
    return next((n for n in found if raw and agree(items[n].component.version, raw)), next(iter(found), -1))


def _idle_key(i: Item) -> str:
    return "bios" if i.sort.bios else "bmc" if i.sort.bmc else i.sort.key
