"""Settings of the BMC itself, wherever its make keeps them (places.yaml): each is read or unknown for itself."""

from __future__ import annotations

import re
from typing import Any

from metalimmu.bmc import answers, times
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.places import Candidate, Users
from metalimmu.bmc.reading import Reading
from metalimmu.bmc.snapshot_certificate import certificate
from metalimmu.bmc.tree import ROOT
from metalimmu.bmc.unknown import Hindered, unknown
from metalimmu.errors import BmcError, BmcNotPermitted, BmcUnsupported
from metalimmu.observed.snapshot import Value
from metalimmu.observed.types import Reason, Unknown

ACCOUNTS = f"{ROOT}AccountService/Accounts"
NOT_SERVICES = frozenset({"NTP", "DHCP", "DHCPv6"})
"""They have ProtocolEnabled too, but listen to nobody."""

_NOBODY = frozenset({"", "0.0.0.0", "::", "0:0:0:0:0:0:0:0", "none", "null", "(null)"})  # noqa: S104  addresses that say nothing is set
_SPLIT = re.compile(r"[;,\s]+")
CLOCK_STEP = 60


def read(reading: Reading) -> Asking[None]:
    """Fills bmc.*."""
    manager = reading.the_manager()
    reading.sources["bmc"] = manager.uri
    clock(reading, manager)
    for name, candidates in reading.places.settings.items():
        try:
            yield from _setting(reading, name, candidates)
        except BmcError as exc:
            reading.unknown[f"bmc.{name}"] = unknown(exc, manager.uri)
    yield from reading.section("bmc.protocol", _protocols(reading))
    yield from reading.section("bmc.accounts", _accounts(reading))
    if "bmc.accounts" in reading.unknown:
        reading.unknown["bmc.account"] = reading.unknown["bmc.accounts"]
    yield from reading.section("bmc.certificate", certificate(reading))


def _setting(reading: Reading, name: str, candidates: tuple[Candidate, ...]) -> Asking[None]:
    """The first candidate that has a value; an empty list only when no other has more. Raises the first trouble; at once
    where it may be over the next time: another place may say it in other words, which must not look like a change.
    """
    trouble: BmcError | None = None
    empty = ""
    for candidate in candidates:
        try:
            doc = yield from reading.document(candidate.at)
        except (BmcUnsupported, BmcNotPermitted) as exc:
            trouble = trouble or exc
            continue
        value = _value(doc, name, candidate)
        if value == ():
            empty = empty or doc.uri
        elif value is not None:
            reading.set(f"bmc.{name}", value, doc.uri)
            return
    if empty:
        reading.set(f"bmc.{name}", (), empty)
    else:
        raise trouble or BmcUnsupported(f"this make has no {name}, as far as is known")


def _value(doc: Doc, name: str, candidate: Candidate) -> Value:
    if name.endswith("servers"):
        return _servers(doc, candidate)
    found = doc.raw(*candidate.path)
    flag = found if isinstance(found, bool) else None if not isinstance(found, str) else found in candidate.truth
    if flag is None or name != "lockdown":
        return flag
    return "Enabled" if flag else "Disabled"


def _servers(doc: Doc, candidate: Candidate) -> tuple[str, ...] | None:
    """Addresses, each once, in the BMC's order. None: there is no such field."""
    paths = candidate.paths or (candidate.path,)
    if not any(path[-1] in _parent(doc, path) for path in paths):
        return None
    texts: list[Any] = []
    for path in paths:
        found = doc.raw(*path)
        texts += found if isinstance(found, list) else [found]
    words = [w for t in texts if isinstance(t, str) for w in _SPLIT.split(answers.clean(t))]
    return tuple(dict.fromkeys(w for w in words if w.casefold() not in _NOBODY))


def _parent(doc: Doc, path: tuple[str, ...]) -> dict[str, Any]:
    found = doc.raw(*path[:-1])
    return found if isinstance(found, dict) else {}


def clock(reading: Reading, manager: Doc) -> None:
    """bmc.clock in whole minutes, towards zero: reading takes seconds, and a scan must not find drift in that."""
    told, at = times.seconds(manager.text("DateTime")), reading.manager_at
    if told is None:
        told, at = times.http(reading.dated[0]), reading.dated[1]
    if told is None:
        reading.unknown["bmc.clock"] = Unknown(Reason.not_modelled, "it does not tell its time", manager.uri)
        return
    if not at:
        reading.unknown["bmc.clock"] = Unknown(Reason.not_read, "when it told its time was not noted", manager.uri)
        return
    ahead = told - at
    reading.set("bmc.clock", int(ahead / CLOCK_STEP) * CLOCK_STEP, manager.uri)
    if abs(ahead) > times.DAY:
        word = "ahead" if ahead > 0 else "behind"
        reading.note(
            f"the BMC's clock is {abs(ahead) / times.DAY:,.0f} days {word}: its logs and certificates are dated wrong"
        )


def _protocols(reading: Reading) -> Asking[None]:
    network = yield from reading.document("network")
    for name in network.data:
        enabled = network.data[name].get("ProtocolEnabled") if isinstance(network.data[name], dict) else None
        if isinstance(enabled, bool) and name not in NOT_SERVICES:
            reading.set(f"bmc.protocol.{answers.clean(name, 40).lower()}", enabled, network.uri)


# accounts


def _accounts(reading: Reading) -> Asking[None]:
    users = reading.places.accounts.attributes
    found: list[tuple[str, str]] = []
    source = ""
    if users is not None:
        try:
            doc = yield from reading.document(users.at)
            found, source = _numbered(doc, users), doc.uri
        except BmcUnsupported:
            users = None
    if users is None:
        before = len(reading.gaps)
        found = list((yield from reading.collection("accounts", ACCOUNTS, lambda: _account_service(reading), account)))
        source = reading.sources.pop("accounts")
        lost = reading.lost_since(before)
        if lost:
            raise Hindered(lost)
    reading.set("bmc.accounts", tuple(sorted(name for name, _ in found)), source)
    for name, role in found:
        reading.set(f"bmc.account.{name}.role", role, source)


def _account_service(reading: Reading) -> Asking[str]:
    service = (yield from reading.tree.read(ROOT)).link("AccountService")
    uri = (yield from reading.tree.read(service)).link("Accounts") if service else ""
    if not uri:
        raise BmcUnsupported("the service lists no accounts")
    return uri


def account(doc: Doc) -> tuple[str, str] | None:
    """(name, role); None for an empty slot, a disabled user, and the one that a host makes for itself at each boot."""
    name = doc.text("UserName")
    if not name or doc.flag("Enabled") is False or doc.flag("HostBootstrapAccount"):
        return None
    return name, doc.text("RoleId")


def _numbered(doc: Doc, users: Users) -> list[tuple[str, str]]:
    """Raises BmcUnsupported when the attributes have no users."""
    attributes = doc.raw("Attributes")
    if not isinstance(attributes, dict) or users.name.format(n=1) not in attributes:
        raise BmcUnsupported(f"{doc.uri} has no users")
    found = []
    for n in range(1, users.count + 1):
        name, on, role = (attributes.get(pattern.format(n=n)) for pattern in (users.name, users.enabled, users.role))
        if isinstance(name, str) and name and on in users.truth:
            found.append((answers.clean(name), users.roles.get(str(role), f"privilege {role}")))
    return found
