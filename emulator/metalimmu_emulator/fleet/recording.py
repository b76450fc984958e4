"""A recording (DMTF mockup format: a folder or a zip with `…/redfish/v1/…/index.json`) as a make.

The tree is served as it was recorded; what is written to it is kept beside it. Files that are no JSON are served as they are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from metalimmu.errors import UsageError
from metalimmu_emulator.fleet.page import Page, key
from metalimmu_emulator.fleet.template import ROOT, Happened, Places, Template, Traits

INDEX = "index.json"
TYPES = {".json": "application/json", ".xml": "application/xml"}


def template(path: Path) -> Template:
    """Raises UsageError."""
    pages: dict[str, Page] = {}
    uris: dict[str, str] = {}
    for name, content in _files(path):
        uri, page = _page(name, content)
        pages[key(uri)] = page
        uris[key(uri)] = uri
    root = pages.get(ROOT)
    if root is None or root.document is None:
        raise UsageError(f"{path}: no {ROOT}/{INDEX}, so no recording in DMTF's mockup format")
    places = _places(pages)
    return Template(
        make=str(path),
        pages=pages,
        uris=uris,
        traits=_traits(pages, places, any_case=_hpe(root.document)),
        places=places,
        log_entry=_entry_like(pages, places),
        defaults=_attributes(pages, places.bios),
        recorded=True,
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name from the first `redfish` (or the recording's root) on, and content."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield str(file.relative_to(path)), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/"):
                    yield name, archive.read(name)
    except (OSError, zipfile.BadZipFile) as exc:
        raise UsageError(f"{path} is no recording: {exc}") from exc


def _page(name: str, content: bytes) -> tuple[str, Page]:
    parts = name.split("/")
    if "redfish" in parts:
        parts = parts[parts.index("redfish") :]
    elif parts[0] == "v1":  # mockups that begin below /redfish
        parts = ["redfish", *parts]
    if parts[-1] == INDEX:
        parts = parts[:-1]
    uri = "/" + "/".join(parts)
    kind = TYPES.get(Path(name).suffix, "application/octet-stream")
    if kind == "application/json":
        try:
            document = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return uri, Page(None, content, kind)
        if isinstance(document, dict):
            return uri, Page(document)
    return uri, Page(None, content, kind)


def _document(pages: dict[str, Page], uri: str) -> dict[str, Any]:
    page = pages.get(key(uri)) if uri else None
    return (page.document or {}) if page is not None else {}


def _link(document: dict[str, Any], *path: str) -> str:
    found: Any = document
    for step in (*path, "@odata.id"):
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _members(pages: dict[str, Page], uri: str) -> list[str]:
    found = _document(pages, uri).get("Members")
    return [m["@odata.id"] for m in found or [] if isinstance(m, dict) and isinstance(m.get("@odata.id"), str)]


def _places(pages: dict[str, Page]) -> Places:
    root = _document(pages, ROOT)
    systems = _members(pages, _link(root, "Systems"))
    system = next((s for s in systems if _link(_document(pages, s), "Bios")), systems[0] if systems else "")
    bios = _link(_document(pages, system), "Bios")
    settings = _link(_document(pages, bios), "@Redfish.Settings", "SettingsObject")
    managers = _members(pages, _link(root, "Managers"))
    managed = _document(pages, system).get("Links", {})
    manager = next(
        (m["@odata.id"] for m in managed.get("ManagedBy") or [] if "@odata.id" in m), managers[0] if managers else ""
    )
    update = _link(root, "UpdateService")
    tasks = _link(_document(pages, _link(root, "Tasks")), "Tasks")
    return Places(
        system=system,
        bios=bios,
        settings=settings,
        manager=manager,
        update=update,
        firmware=_link(_document(pages, update), "FirmwareInventory"),
        accounts=_link(_document(pages, _link(root, "AccountService")), "Accounts"),
        tasks=tasks if tasks and pages.get(key(tasks)) else "",
        protocol=_link(_document(pages, manager), "NetworkProtocol"),
        log=_log(pages, manager, system),
        chassis=next(iter(_members(pages, _link(root, "Chassis"))), ""),
    )


# What makes call the log that names who did what.
AUDIT = ("auditlog", "lclog", "iel", "log1", "journal", "eventlog", "sel")


def _log(pages: dict[str, Page], manager: str, system: str) -> str:
    found = []
    for owner in (manager, system):
        for service in _members(pages, _link(_document(pages, owner), "LogServices")):
            name = key(service).rpartition("/")[2]
            entries = _link(_document(pages, service), "Entries")
            if name in AUDIT and _document(pages, entries):
                found.append((AUDIT.index(name), entries))
    return min(found)[1] if found else ""


def _traits(pages: dict[str, Page], places: Places, *, any_case: bool) -> Traits:
    tag = str(_document(pages, places.system).get("@odata.etag") or "")
    settings = _document(pages, places.settings)
    bios = _document(pages, places.bios)
    pending: Any = "delta"
    if "Attributes" not in settings:
        pending = "hidden"
    elif settings["Attributes"] and len(settings["Attributes"]) >= len(bios.get("Attributes") or {}) // 2:
        pending = "mirror"
    features = _document(pages, ROOT).get("ProtocolFeaturesSupported")
    expand = features.get("ExpandQuery") if isinstance(features, dict) else None
    return Traits(
        etags="none" if not tag else "weak" if tag.startswith("W/") else "strong",
        any_case=any_case,
        expand="right" if expand else "absent",
        pending=pending,
    )


def _hpe(root: dict[str, Any]) -> bool:
    return "Hpe" in (root.get("Oem") or {})


def _attributes(pages: dict[str, Page], bios: str) -> dict[str, Any]:
    return dict(_document(pages, bios).get("Attributes") or {})


def _entry_like(pages: dict[str, Page], places: Places) -> Any:
    """An entry of the recorded log, with another text: so the make's own form is kept."""
    example: dict[str, Any] = {}
    for member in _members(pages, places.log):
        example = _document(pages, member)
        if example:
            break

    def entry(happened: Happened) -> dict[str, Any]:
        known = {
            k: v
            for k, v in example.items()
            if k in ("@odata.type", "@odata.context", "EntryType", "OemRecordFormat", "Severity")
        }
        text = f"{happened.text} (user {happened.user})" if happened.user else happened.text
        known.setdefault("@odata.type", "#LogEntry.v1_4_0.LogEntry")
        return known | {
            "Id": str(happened.number),
            "Name": f"Log Entry {happened.number}",
            "Created": happened.at,
            "Message": text,
        }

    return entry
