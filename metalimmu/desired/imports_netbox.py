"""NetBox's devices as host documents. Pure: from what its API answers, or from its JSON and CSV exports.

Read: name, serial, device_type, role (device_role before NetBox 4), site, location, rack, position, tags, status, and as the
BMC's address oob_ip (NetBox 3.6), else the address of an interface with mgmt_only. Where a device has neither, it is left
out and named.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from metalimmu.desired.imports import Fields, Imported, bmc_url, clean, label, named, short, vendor
from metalimmu.desired.merge import Candidate
from metalimmu.errors import UsageError

Json = dict[str, Any]

# A column's header as people's exports have it -> the field of the API.
_COLUMNS = {
    "serial_number": "serial",
    "serial": "serial",
    "name": "name",
    "manufacturer": "manufacturer",
    "type": "device_type",
    "device_type": "device_type",
    "role": "role",
    "device_role": "role",
    "site": "site",
    "location": "location",
    "rack": "rack",
    "position": "position",
    "position_(u)": "position",
    "status": "status",
    "tags": "tags",
    "oob_ip": "oob_ip",
    "out-of-band_ip": "oob_ip",
    "oob_ip_address": "oob_ip",
    "id": "id",
    "asset_tag": "asset_tag",
}


def devices(text: str) -> list[Json]:
    """The devices of an export: JSON as the API answers it (`results`), a list of devices, or CSV. Raises UsageError."""
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped[:1] in ("{", "["):
        return _json(stripped)
    return _csv(stripped)


def _json(text: str) -> list[Json]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"this is no JSON: {exc}", hint="export again, or use the API's URL") from exc
    items = found.get("results", found.get("devices")) if isinstance(found, dict) else found
    if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
        raise UsageError("this JSON is no list of NetBox devices", hint="save the answer of /api/dcim/devices/?limit=0")
    return items


def _csv(text: str) -> list[Json]:
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [_COLUMNS.get(c.strip().lower().replace(" ", "_"), "") for c in next(reader, [])]
    if "name" not in header:
        raise UsageError("this CSV has no column Name", hint="in NetBox: Devices, Export, All Data (CSV)")
    rows = [dict(zip(header, row, strict=False)) for row in reader if any(row)]
    return [{k: v.strip() for k, v in row.items() if k and v.strip()} for row in rows]


def management(interfaces: Iterable[Json], addresses: Iterable[Json]) -> dict[int, str]:
    """By device id the address of its interface with mgmt_only; the interface that sorts first where there are several."""
    device_of = {
        i["id"]: i["device"]["id"]
        for i in sorted(interfaces, key=lambda i: str(i.get("name", "")), reverse=True)
        if i.get("mgmt_only") and isinstance(i.get("device"), dict) and isinstance(i.get("id"), int)
    }
    order = {interface: n for n, interface in enumerate(device_of)}
    found: dict[int, tuple[int, str]] = {}
    for address in addresses:
        interface, text = address.get("assigned_object_id"), address.get("address")
        if address.get("assigned_object_type") != "dcim.interface" or interface not in device_of:
            continue
        best = found.get(device_of[interface])
        if isinstance(text, str) and (best is None or order[interface] > best[0]):
            found[device_of[interface]] = order[interface], text
    return {device: text for device, (_, text) in found.items()}


def without_address(found: Iterable[Json]) -> list[int]:
    """Ids of devices whose interfaces have to be asked for."""
    return [d["id"] for d in found if not _address(d) and isinstance(d.get("id"), int)]


def imported(
    found: Iterable[Json],
    managed: Mapping[int, str] | None = None,
    *,
    scheme: str = "redfish+https",
    only: Mapping[str, str] | None = None,
) -> Imported:
    """Host documents of these devices. `only` keeps those whose site, role, status, tag or manufacturer is that."""
    result = Imported([], [])
    for device in found:
        if not _chosen(device, only or {}):
            continue
        name = short(device.get("name")) or f"device {short(device.get('id')) or '?'}"
        address = _address(device) or (managed or {}).get(_id(device), "")
        bmc = bmc_url(address, scheme) if address else ""
        if not bmc:
            why = (
                f"{address!r} is no address" if address else "no oob_ip, and no address on an interface with mgmt_only"
            )
            result.left_out.append(f"{name}: {why}")
            continue
        result.candidates.append(Candidate(_fields(device, name, bmc), f"NetBox device {_id(device) or name}"))
    return result


def _fields(device: Json, name: str, bmc: str) -> Fields:
    kind = device.get("device_type")
    maker = _text(kind.get("manufacturer")) if isinstance(kind, dict) else short(device.get("manufacturer"))
    model = short(kind.get("model") or kind.get("display")) if isinstance(kind, dict) else short(kind)
    fields = {
        "name": named(name, f"netbox-{_id(device)}"),
        "bmc": bmc,
        "vendor": vendor(maker),
        "model": model,
        "serial": short(device.get("serial")),
        "location": {
            "site": _text(device.get("site")),
            "room": _text(device.get("location")),
            "rack": _text(device.get("rack")),
            "u": _unit(device.get("position")),
        },
        "labels": _labels(device),
    }
    return clean(fields)


def _labels(device: Json) -> dict[str, str]:
    """Tags as keys. The device's role is not metalimmu's role: it has a key of its own."""
    tags = device.get("tags") or []
    names = tags.split(",") if isinstance(tags, str) else [_slug(t) for t in tags]
    found = {label(n): "true" for n in names if label(n)}
    role, site = _slug(_role(device)), _slug(device.get("site"))
    return found | {k: label(v) for k, v in (("device_role", role), ("site", site)) if label(v)}


def _role(device: Json) -> Any:
    return device.get("role") or device.get("device_role")


def _address(device: Json) -> str:
    found = device.get("oob_ip")
    if isinstance(found, dict):
        found = found.get("address")
    return found if isinstance(found, str) else ""


def _unit(value: Any) -> int | None:
    """NetBox counts rack units in halves: 7.0 is 7; half a unit is none of ours."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() and 0 < number < 1000 else None


def _chosen(device: Json, only: Mapping[str, str]) -> bool:
    for key, wanted in only.items():
        if key in ("tag", "tags"):
            tags = device.get("tags") or []
            words = {w.strip().casefold() for w in tags.split(",")} if isinstance(tags, str) else _words(tags)
        elif key in ("manufacturer", "vendor"):
            kind = device.get("device_type")
            words = _words([kind.get("manufacturer") if isinstance(kind, dict) else device.get("manufacturer")])
        else:
            words = _words([_role(device) if key in ("role", "device_role") else device.get(key)])
        if wanted.casefold() not in words:
            return False
    return True


def _words(values: Iterable[Any]) -> set[str]:
    """Slug, name and value: people write any of them."""
    found: set[str] = set()
    for value in values:
        parts = [value.get(k) for k in ("slug", "name", "value", "label")] if isinstance(value, dict) else [value]
        found |= {short(p).casefold() for p in parts if short(p)}
    return found


def _slug(value: Any) -> str:
    return short(value.get("slug") or value.get("name")) if isinstance(value, dict) else short(value)


def _text(value: Any) -> str:
    return short(value.get("name") or value.get("display")) if isinstance(value, dict) else short(value)


def _id(device: Json) -> int:
    found = device.get("id")
    if isinstance(found, str) and found.isdecimal():
        return int(found)
    return found if isinstance(found, int) else 0
