"""Virtual media: slots under the system, its managers or both; changed through sushy's VirtualMedia."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from metalimmu.bmc import uris
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.redfish_boot import parameters
from metalimmu.bmc.redfish_service import Connected, Service
from metalimmu.bmc.tree import Tree
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcBusy, BmcError, BmcRefused, BmcUnsupported
from metalimmu.observed.types import MediaSlot, Unknown

INSERT = "#VirtualMedia.InsertMedia"
EJECT = "#VirtualMedia.EjectMedia"


def media(service: Service, tree: Tree, gaps: list[Unknown] | None = None) -> Asking[tuple[MediaSlot, ...]]:
    """Each slot once, the system's before the managers'. A slot that cannot be read goes to `gaps`.

    Supermicro links one collection from both places; Lenovo shows its ten slots under both with two URIs each: slots
    of one id and one set of media types are one slot. Raises BmcUnsupported when there are no virtual media at all.
    """
    collections = yield from _collections(service, tree)
    if not collections:
        system = yield from service.system(tree)
        raise BmcUnsupported(f"{system.uri}: neither the system nor its managers have virtual media")
    found: dict[tuple[str, frozenset[str]], MediaSlot] = {}
    troubles: list[BmcError] = []
    for uri in collections:
        try:
            members = yield from tree.members(uri)
        except BmcError as exc:
            troubles.append(exc)
            continue
        for member in members:
            try:
                slot = _slot((yield from tree.read(member)))
            except BmcError as exc:
                if gaps is None and exc.retry:
                    raise  # a slot that cannot be read just now is not a slot that is gone
                if gaps is not None:
                    gaps.append(unknown(exc, member))
                continue
            found.setdefault((slot.id, frozenset(slot.media_types)), slot)
    if troubles and len(troubles) == len(collections):
        raise troubles[0]
    return tuple(found.values())


def _collections(service: Service, tree: Tree) -> Asking[list[str]]:
    owners = [(yield from service.system(tree))]
    try:
        owners += yield from service.managers(tree)
    except BmcError:
        if not owners[0].link("VirtualMedia"):
            raise
    found = {uris.key(o.link("VirtualMedia")): o.link("VirtualMedia") for o in owners if o.link("VirtualMedia")}
    return list(found.values())


def _slot(doc: Doc) -> MediaSlot:
    return MediaSlot(
        id=doc.text("Id") or uris.last(doc.uri),
        uri=doc.uri,
        media_types=doc.texts("MediaTypes"),
        inserted=doc.flag("Inserted"),
        image=doc.text("Image") or None,
        by_action=doc.has("Actions", INSERT, "target"),
        can_eject=doc.has("Actions", EJECT, "target"),
    )


def insert(service: Connected, slot: MediaSlot, url: str) -> None:
    from metalimmu.bmc.sushy_bridge import translated

    tree = service.tree()
    doc = service.run(tree.read(slot.uri))
    now = _slot(doc)
    # While rehearsing, the eject that comes first in the plan has not happened.
    if now.inserted and not service.connector.rehearsing:
        raise BmcRefused(
            f"slot {slot.id} has {now.image or 'an image'} inserted already; it refuses a second one",
            hint="eject it first",
        )
    protocol, method = service.run(_demanded(tree, doc, url))
    with translated(f"insert into {slot.uri}"):
        _sushy_media(service, doc).insert_media(url, transfer_protocol=protocol, transfer_method=method)


def _demanded(tree: Tree, doc: Doc, url: str) -> Asking[tuple[Any, Any]]:
    """(TransferProtocolType, TransferMethod), each only where ActionInfo says that it is required: X11 refuses more
    than Image. What a BMC demands without saying so, sushy learns from its refusal.
    """
    import sushy

    info = doc.text("Actions", INSERT, "@Redfish.ActionInfo")
    try:
        known = parameters((yield from tree.read(info))) if info else {}
        required = {n for n, p in known.items() if p.flag("Required")}
    except BmcError:
        required = set()
    scheme = urlsplit(url).scheme.upper()
    return (
        sushy.VirtualMediaTransferProtocolType(scheme) if "TransferProtocolType" in required else None,
        sushy.TransferMethod.STREAM if "TransferMethod" in required else None,
    )


def eject(service: Connected, slot: MediaSlot) -> None:
    """Not by sushy's eject_media, which takes 403 and 500 for success."""
    from metalimmu.bmc.sushy_bridge import Bridge, translated

    tree = service.tree()
    doc = service.run(tree.read(slot.uri))
    # iDRAC answers 500 (VRM0009) to an eject of nothing.
    if _empty(doc) and not service.connector.rehearsing:
        return
    target = doc.text("Actions", EJECT, "target")
    path = service.run(service.quirks(tree)).eject_path
    bridge = Bridge(service.connector, {})
    try:
        with translated(f"eject from {slot.uri}"):
            if target or path:
                bridge.post(target or doc.uri + path)
            else:
                bridge.patch(doc.uri, {"Image": None, "Inserted": False}, etag=doc.headers.get("ETag"))
    except BmcBusy:  # some answer 5xx to an eject that they have done
        if not _empty(service.run(service.tree().read(slot.uri))):
            raise


def _empty(doc: Doc) -> bool:
    return doc.flag("Inserted") is False and not doc.text("Image")


def _sushy_media(service: Connected, doc: Doc) -> Any:
    from sushy.resources.manager.virtual_media import VirtualMedia

    from metalimmu.bmc.sushy_bridge import Bridge, known

    class Media(VirtualMedia):  # type: ignore[misc]
        def _allow_patch(self) -> bool:
            """Without an action there is nothing else than PATCH to try, whatever the Allow header omits: a BMC that
            has no such thing answers 405.
            """
            return True

    target = doc.text("Actions", INSERT, "target")
    document = {
        "@odata.id": doc.uri,
        "Id": doc.text("Id") or uris.last(doc.uri),
        "Name": doc.text("Name") or "media",
        "Image": doc.text("Image") or None,
        "Inserted": doc.flag("Inserted"),
        "Actions": {INSERT: {"target": target}} if target else {},
    }
    return Media(Bridge(service.connector, {doc.uri: known(document, doc.headers)}), doc.uri)
