"""Who a BMC belongs to, with the fewest requests: make, model, serial number, firmware."""

from __future__ import annotations

import msgspec

from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.redfish_service import Service
from metalimmu.bmc.tree import ROOT, Tree
from metalimmu.errors import BmcError, BmcUnsupported


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str = ""
    model: str = ""
    serial: str = ""
    uuid: str = ""
    bios: str = ""
    hostname: str = ""
    power: str = ""
    bmc_model: str = ""
    bmc_firmware: str = ""
    redfish: str = ""
    systems: tuple[str, ...] = ()
    note: str = ""  # why something is missing


def identify(service: Service, tree: Tree) -> Asking[Identified]:
    """About five requests. Raises BmcError when not even the root can be read, or when the login is refused."""
    root = yield from tree.read(ROOT)
    note = ""
    who, power = Identified(vendor=root.text("Vendor"), model=root.text("Product")), ""
    try:
        system = yield from service.identity(tree, nics=False)
        power = (yield from service.system(tree)).text("PowerState")
        who = Identified(
            vendor=system.manufacturer,
            model=system.model,
            serial=system.serial,
            uuid=system.uuid,
            bios=system.bios_version,
            hostname=system.hostname,
        )
    except BmcUnsupported as exc:  # a rack's power strip, or several systems of which none is the host
        note = exc.message
    manager = Doc({}, ROOT)
    try:
        manager = next(iter((yield from service.managers(tree))), manager)
    except BmcError as exc:
        note = note or exc.message
    return msgspec.structs.replace(
        who,
        power=power,
        bmc_model=manager.text("Model"),
        bmc_firmware=manager.text("FirmwareVersion"),
        redfish=root.text("RedfishVersion"),
        systems=service.systems,
        note=note,
    )
