"""Accounts of a BMC: made, changed and deleted; each change in its log."""

from __future__ import annotations

from typing import Any

from metalimmu_emulator.fleet import message
from metalimmu_emulator.fleet.message import Answer, error
from metalimmu_emulator.fleet.persona import ROLES, Persona

SETTABLE = {"UserName": str, "Password": str, "RoleId": str, "Enabled": bool, "Locked": bool}
SHORTEST = 8


def create(persona: Persona, body: dict[str, Any], user: str) -> Answer:
    for name in ("UserName", "Password"):
        if not isinstance(body.get(name), str) or not body[name]:
            return error(400, "PropertyMissing", name)
    bad = _bad(body)
    if bad is not None:
        return bad
    name, role = body["UserName"], body.get("RoleId", "ReadOnly")
    if name in names(persona):
        return error(400, "ResourceAlreadyExists", "UserName")
    where = persona.template.places.accounts
    ident = name if persona.template.make == "openbmc" else str(100 + next(persona.serials))
    document = {
        "@odata.id": f"{where}/{ident}",
        "@odata.type": "#ManagerAccount.v1_12_1.ManagerAccount",
        "Id": ident,
        "Name": "User Account",
        "UserName": name,
        "Password": None,
        "RoleId": role,
        "Enabled": body.get("Enabled", True),
        "Locked": False,
        "AccountTypes": ["Redfish"],
        "Links": {"Role": {"@odata.id": f"/redfish/v1/AccountService/Roles/{role}"}},
    }
    uri = persona.add_member(where, document)
    persona.passwords[name] = (body["Password"], role)
    persona.log("account", f"The user account {name} was created with the role {role}.", user)
    return message.document(201, document, (b"Location", uri.encode()), *_etag(persona, uri))


def change(persona: Persona, uri: str, document: dict[str, Any], body: dict[str, Any], user: str) -> Answer:
    bad = _bad(body)
    if bad is not None:
        return bad
    old, new = str(document.get("UserName") or ""), str(body.get("UserName", document.get("UserName")) or "")
    if new != old and new and new in names(persona):
        return error(400, "ResourceAlreadyExists", "UserName")
    password, role = persona.passwords.pop(old, ("", str(document.get("RoleId") or "ReadOnly")))
    role = str(body.get("RoleId", role))
    password = body.get("Password", password)
    document |= {k: v for k, v in body.items() if k in document and k != "Password"}
    if "RoleId" in body and isinstance(document.get("Links"), dict):
        document["Links"]["Role"] = {"@odata.id": f"/redfish/v1/AccountService/Roles/{role}"}
    persona.put(uri, document)
    if new and password and document.get("Enabled", True):
        persona.passwords[new] = (password, role)
    what = "created" if not old and new else "deleted" if old and not new else "changed"
    persona.log("account", f"The user account {new or old} was {what}.", user)
    if persona.template.traits.patch_status == 204:
        return Answer(204)
    return message.document(200, document, *_etag(persona, uri))


def delete(persona: Persona, uri: str, document: dict[str, Any], user: str) -> Answer:
    name = str(document.get("UserName") or "")
    if name == persona.identity.username:
        return error(400, "ResourceInUse")
    persona.drop_member(persona.template.places.accounts, uri)
    persona.passwords.pop(name, None)
    for token in [t for t, s in persona.sessions.items() if s.user == name]:
        del persona.sessions[token]
    persona.log("account", f"The user account {name} was deleted.", user)
    return Answer(204)


def names(persona: Persona) -> set[str]:
    where = persona.document(persona.template.places.accounts) or {}
    found = (persona.document(str(m.get("@odata.id"))) for m in where.get("Members") or [])
    return {str(d.get("UserName")) for d in found if d and d.get("UserName")}


def _bad(body: dict[str, Any]) -> Answer | None:
    for name, value in body.items():
        if name.startswith("@"):
            continue
        if name not in SETTABLE and name not in (
            "AccountTypes",
            "PasswordChangeRequired",
            "Oem",
            "Name",
            "Description",
        ):
            return error(400, "PropertyUnknown", name)
        if name in SETTABLE and not isinstance(value, SETTABLE[name]):
            return error(400, "PropertyValueTypeError", name)
    if "Password" in body and len(body["Password"]) < SHORTEST:
        return error(400, "PropertyValueTypeError", "Password")
    if body.get("RoleId", "ReadOnly") not in ROLES:
        return error(400, "PropertyValueNotInList", "RoleId")
    return None


def _etag(persona: Persona, uri: str) -> tuple[tuple[bytes, bytes], ...]:
    page = persona.page(uri)
    tag = persona.etag(page) if page is not None else b""
    return ((b"ETag", tag),) if tag else ()
