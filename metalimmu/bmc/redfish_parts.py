"""Single resources of an inventory into Components. Each takes what a BMC sent and never raises for odd values."""

from __future__ import annotations

from metalimmu.bmc import uris
from metalimmu.bmc.document import Doc
from metalimmu.bmc.redfish_service import mac
from metalimmu.observed.types import Component

MIB = 1 << 20


def absent(doc: Doc) -> bool:
    """An empty socket or bay."""
    return doc.text("Status", "State") == "Absent"


def component(
    doc: Doc, *, version: str = "", size: int | None = None, detail: dict[str, str] | None = None
) -> Component:
    return Component(
        id=doc.text("Id") or doc.text("MemberId") or uris.last(doc.uri),
        name=doc.text("Name"),
        uri=doc.uri,
        model=doc.text("Model") or doc.text("PartNumber"),
        manufacturer=doc.text("Manufacturer"),
        serial=doc.text("SerialNumber"),
        version=version or doc.text("FirmwareVersion"),
        size=size,
        detail={k: v for k, v in (detail or {}).items() if v} | _health(doc),
    )


def _health(doc: Doc) -> dict[str, str]:
    found = {"health": doc.text("Status", "Health"), "state": doc.text("Status", "State")}
    return {k: v for k, v in found.items() if v}


def processor(doc: Doc) -> Component:
    cores, threads, speed = doc.number("TotalCores"), doc.number("TotalThreads"), doc.number("MaxSpeedMHz")
    return component(
        doc,
        detail={
            "type": doc.text("ProcessorType"),
            "architecture": doc.text("InstructionSet") or doc.text("ProcessorArchitecture"),
            "socket": doc.text("Socket"),
            "cores": _digits(cores),
            "threads": _digits(threads),
            "max_mhz": _digits(speed),
        },
    )


def memory(doc: Doc) -> Component:
    mib = doc.number("CapacityMiB")
    return component(
        doc,
        size=None if mib is None else mib * MIB,
        detail={
            "type": doc.text("MemoryDeviceType"),
            "mhz": _digits(doc.number("OperatingSpeedMhz")),
            "slot": doc.text("DeviceLocator"),
        },
    )


def disk(doc: Doc) -> Component:
    return component(
        doc,
        version=doc.text("Revision"),
        size=doc.number("CapacityBytes"),
        detail={"media": doc.text("MediaType"), "protocol": doc.text("Protocol"), "wwn": _wwn(doc)},
    )


def _wwn(doc: Doc) -> str:
    names = [Doc(i, doc.uri, doc.odd) for i in doc.items("Identifiers") if isinstance(i, dict)]
    return next((n.text("DurableName") for n in names if n.text("DurableName")), "")


def nic(doc: Doc) -> Component:
    return component(
        doc,
        detail={"mac": mac(doc), "link": doc.text("LinkStatus"), "mbps": _digits(doc.number("SpeedMbps"))},
    )


def firmware(doc: Doc) -> Component:
    updateable = doc.flag("Updateable")
    return component(
        doc,
        version=doc.text("Version"),
        detail={
            "updateable": "" if updateable is None else str(updateable).lower(),
            "software_id": doc.text("SoftwareId"),
            "released": doc.text("ReleaseDate"),
            "related": " ".join(doc.links("RelatedItem")[:5]),
        },
    )


def power_supply(doc: Doc) -> Component:
    return component(doc, detail={"watts": _digits(doc.number("PowerCapacityWatts"))})


def _digits(value: int | None) -> str:
    return "" if value is None else str(value)
