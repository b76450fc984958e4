"""What a BMC answers to one request: who asks, may they, and what then."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from metalimmu_emulator.fleet import message, reading, writing
from metalimmu_emulator.fleet.identity import clock
from metalimmu_emulator.fleet.message import Answer, Request, error
from metalimmu_emulator.fleet.page import key
from metalimmu_emulator.fleet.persona import KEPT_WRITES, Persona, Session
from metalimmu_emulator.fleet.template import ROOT

SESSIONS = f"{ROOT}/SessionService/Sessions"
SESSIONS_KEY = key(SESSIONS)
PUBLIC = frozenset({"/redfish", ROOT, f"{ROOT}/odata", f"{ROOT}/$metadata"})
WWW = ((b"WWW-Authenticate", b'Basic realm="Redfish"'),)


def answer(persona: Persona, request: Request, known: set[bytes]) -> Answer:
    """`known` are the Basic logins that this connection has used: each is counted once."""
    persona.tick()
    where = key(request.path)
    counters = persona.counters
    if request.headers.get(b"odata-version", b"4.0") != b"4.0":  # DSP0266 6.5
        return error(412, "PreconditionFailed")
    if request.method == "POST" and where in (SESSIONS_KEY, f"{SESSIONS_KEY}/members"):
        counters.reads += 1
        return _log_in(persona, request)
    if where in PUBLIC and request.method in ("GET", "HEAD"):
        counters.reads += 1
        return reading.read(persona, request)
    user = _who(persona, request, known)
    own = where.startswith(SESSIONS_KEY + "/")
    if request.method in ("GET", "HEAD") or (request.method == "DELETE" and own):
        counters.reads += 1
    else:
        counters.writes += 1
        note_write(persona, request)
    if user is None:
        return error(401, "NoValidSession", headers=WWW)
    if persona.faults and persona.fault("not-permitted", request.method, request.path) is not None:
        return error(403, "InsufficientPrivilege")
    if where == SESSIONS_KEY or own:
        return _sessions(persona, request, where, user)
    if request.method in ("GET", "HEAD"):
        return reading.read(persona, request)
    return writing.write(persona, request, user)


def note_write(persona: Persona, request: Request) -> None:
    if len(persona.written) < KEPT_WRITES:
        try:
            body = msgspec.json.decode(request.body) if request.body else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = f"{len(request.body)} bytes of {request.header(b'content-type') or 'something'}"
        persona.written.append((request.method, request.path, body))


def _who(persona: Persona, request: Request, known: set[bytes]) -> str | None:
    """The user, or None."""
    token = request.headers.get(b"x-auth-token")
    given = request.headers.get(b"authorization", b"")
    if token is None and not given:
        return None
    if persona.faults:
        for fault in persona.faults:
            if fault.name == "expire" and fault.bites(request.method, request.path):
                persona.sessions.pop((token or b"").decode("latin-1"), None)
                fault.seen = 0 if token is None else fault.seen
                return None
    if token is not None:
        session = persona.sessions.get(token.decode("latin-1"))
        return session.user if session else None
    return _basic(persona, given, known)


def _basic(persona: Persona, given: bytes, known: set[bytes]) -> str | None:
    scheme, _, encoded = given.partition(b" ")
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, _, password = pair.partition(":")
    if scheme.lower() != b"basic" or persona.check(user, password) is None or persona.fault("login", "POST", SESSIONS):
        persona.counters.refused_logins += 1
        return None
    if given not in known:
        known.add(given)
        persona.counters.logins += 1
    return user


def _log_in(persona: Persona, request: Request) -> Answer:
    if persona.page(f"{ROOT}/SessionService") is None:
        return message.missing(request.path)
    try:
        body = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return error(400, "MalformedJSON")
    if not isinstance(body, dict):
        return error(400, "UnrecognizedRequestBody")
    for name in ("UserName", "Password"):
        if not isinstance(body.get(name), str):
            return error(400, "PropertyMissing" if name not in body else "PropertyValueTypeError", name)
    refusing = persona.fault("login", "POST", request.path)
    if refusing is not None or persona.check(body["UserName"], body["Password"]) is None:
        persona.counters.refused_logins += 1
        status = (refusing.status if refusing else 0) or persona.template.traits.login_refused
        return error(status, "AccessDenied", request.path, headers=WWW if status == 401 else ())
    session = persona.open_session(body["UserName"])
    if session is None:
        return error(503, "SessionLimitExceeded")
    uri = f"{SESSIONS}/{session.id}"
    headers = ((b"X-Auth-Token", session.token.encode()), (b"Location", uri.encode()))
    return message.document(201, _session(session), *headers)


def _session(session: Session) -> dict[str, Any]:
    return {
        "@odata.id": f"{SESSIONS}/{session.id}",
        "@odata.type": "#Session.v1_7_0.Session",
        "Id": session.id,
        "Name": "User Session",
        "UserName": session.user,
        "CreatedTime": clock(session.created).decode(),
        "SessionType": "Redfish",
    }


def _sessions(persona: Persona, request: Request, where: str, user: str) -> Answer:
    """The collection and its members, as they are now."""
    if where == SESSIONS_KEY:
        if request.method not in ("GET", "HEAD"):
            return error(405, "OperationNotAllowed", headers=((b"Allow", b"GET, HEAD, POST"),))
        members = [{"@odata.id": f"{SESSIONS}/{s.id}"} for s in persona.sessions.values()]
        found = {
            "@odata.id": SESSIONS,
            "@odata.type": "#SessionCollection.SessionCollection",
            "Name": "Session Collection",
            "Members": members,
            "Members@odata.count": len(members),
        }
        return reading.finish(persona, request, found, "GET, HEAD, POST")
    ident = where.rpartition("/")[2]
    session = next((s for s in persona.sessions.values() if s.id == ident), None)
    if session is None:
        return message.missing(request.path)
    if request.method in ("GET", "HEAD"):
        return reading.finish(persona, request, _session(session), "GET, HEAD, DELETE")
    if request.method != "DELETE":
        return error(405, "OperationNotAllowed", headers=((b"Allow", b"GET, HEAD, DELETE"),))
    if user != session.user and persona.role(user) != "Administrator":
        return error(403, "InsufficientPrivilege")
    del persona.sessions[session.token]
    return Answer(204)
