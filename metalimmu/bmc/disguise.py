"""Identities and secrets in a tree of Redfish documents, replaced: consistently, keeping shape, and with no way back.

One value is replaced by the same other value everywhere: as a property, in a text, in a URI, in a property's name. The key that
makes the other values is random and thrown away. Secrets become one fixed word. What is replaced:

=============  ==========================================================================================================
serial         serial numbers, service and asset tags, WWNs and GUIDs: other letters and digits in the same places
uuid           another UUID
mac            another MAC address of the same manufacturer, with or without colons
ip             10.x.x.x or 2001:db8::x; never masks, loopback, "any"
name           host names, domain names, mail addresses, user names (but for the makes' own: root, admin, ...)
place          rooms, racks, postal addresses, contacts, coordinates
secret         passwords, tokens, communities, licence keys, private keys
certificate    certificates, public keys, fingerprints
=============  ==========================================================================================================
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Callable
from typing import Any

from metalimmu.bmc import private
from metalimmu.bmc.passwords import is_secret

SECRET = "REPLACED"  # noqa: S105
LONGEST_NAME = 100
SHORTEST = 4  # of a value that is looked for inside other texts

Walker = Callable[[str, Any], None]


class Disguise:
    """First `learn` all documents, then `replaced` each. `counts` says how many different values of each kind there were."""

    def __init__(self, *, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._known: dict[str, tuple[str, str]] = {}  # value -> (replacement, kind)
        self._finder: re.Pattern[str] | None = None
        self._makers: set[str] = set()  # what makers call themselves and their models: never an identity
        self._seen: dict[str, set[str]] = {}

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(values) for kind, values in sorted(self._seen.items())}

    # what there is

    def learn(self, document: Any) -> None:
        """Note the identities of one document, so that they are found in all others too."""
        self._finder = None
        _walk(document, "", self._note)

    def learn_text(self, kind: str, value: str) -> None:
        """What the caller knows by itself: the address of the BMC, our own user name."""
        self._finder = None
        self._remember(kind, value)

    def _note(self, name: str, value: Any) -> None:
        if not isinstance(value, str) or value.strip().lower() in private.EMPTY or len(value) > 300:
            return
        leaf = private.leaf(name)
        if private.MAKER.search(leaf):
            self._makers.add(value.strip().lower())
        named = private.NAME.search(leaf) or (private.SERVER.search(leaf) and private.is_host_name(value))
        if private.SERIAL.search(leaf) and not private.NOT_SERIAL.search(leaf):
            self._remember("serial", value.strip())
        elif named or private.USER.search(leaf):
            self._remember("name", value.strip())
        for pattern in (private.MAC, private.BARE_MAC):
            for found in pattern.finditer(value):
                self._remember_mac(found[0])

    def _remember_mac(self, mac: str) -> None:
        bare = mac.replace(":", "").replace("-", "")
        if set(bare) <= {"0"} or set(bare.upper()) <= {"F"}:
            return
        new = self._mac(bare)
        for one, other in ((bare.upper(), new.upper()), (bare.lower(), new.lower())):
            self._known.setdefault(one, (other, "mac"))

    def _remember(self, kind: str, value: str) -> None:
        if (
            value.lower() in private.EMPTY
            or value.lower() in private.USUAL
            or private.MAC.fullmatch(value)
            or private.UUID.fullmatch(value)
            or private.address(value)
        ):
            return  # patterns find these wherever they are
        new = self._host(value) if kind == "name" else self._shaped(value)
        telling = kind == "name" or any(c.isdigit() for c in value) or (len(value) >= 7 and value.isupper())
        long = len(value) >= SHORTEST and telling
        for one, other in dict.fromkeys(((value, new), (value.lower(), new.lower()), (value.upper(), new.upper()))):
            if long:
                self._known.setdefault(one, (other, kind))

    # what becomes of it

    def replaced(self, document: Any) -> Any:
        """A copy of a document with other identities and no secrets."""
        if self._finder is None:
            words = sorted((k for k in self._known if k.lower() not in self._makers), key=len, reverse=True)
            joined = "|".join(map(re.escape, words)) or r"(?!)"
            self._finder = re.compile(rf"(?<![0-9A-Za-z])(?:{joined})(?![0-9A-Za-z])")
        return self._value("", document)

    def text(self, text: str, *, name: str = "") -> str:
        """A text, a URI, or a property's name. `name` is the property's that has it."""
        if not text:
            return text
        text = private.PEM.sub(
            lambda m: self._count("certificate", m[0], f"-----BEGIN {m[1]}-----\n{SECRET}\n-----END {m[1]}-----\n"),
            text,
        )
        text = private.SSH.sub(lambda m: self._count("certificate", m[0], f"{m[0].split(' ')[0]} {SECRET}"), text)
        text = private.JWT.sub(lambda m: self._count("secret", m[0], SECRET), text)
        text = private.URL_LOGIN.sub(lambda m: self._count("secret", m[0], f"{SECRET}:{SECRET}@"), text)
        text = private.COLON_HEX.sub(lambda m: self._count("certificate", m[0], self._shaped(m[0])), text)
        assert self._finder is not None  # noqa: S101  # `replaced` made it
        text = self._finder.sub(self._found, text)
        text = private.MAIL.sub(lambda m: self._count("name", m[0], self._host(m[0])), text)
        if not private.KIND.search(private.leaf(name)):
            text = private.UUID.sub(lambda m: self._count("uuid", m[0].lower(), self._uuid(m[0])), text)
        text = private.MAC.sub(lambda m: self._count("mac", m[0].lower(), self._mac(m[0])), text)
        if not private.VERSION.search(private.leaf(name)):
            text = private.IPV4.sub(lambda m: self._ip(m[0]), text)
        return private.IPV6.sub(lambda m: self._ip(m[0]), text)

    def uri(self, uri: str) -> str:
        return self.text(uri, name="version")  # Dell's firmware ids hold versions, which look like addresses

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            # A postal address, or a certificate's subject: its State is no status.
            located = "Country" in value
            return {
                k if k[:1] == "@" else self.uri(k): self._value("Street" if located and k == "State" else k, v)
                for k, v in value.items()
            }
        if isinstance(value, list):
            return [self._value(name, v) for v in value]
        if isinstance(value, str) and value:
            return self._string(name, value)
        if (
            isinstance(value, float | int)
            and not isinstance(value, bool)
            and private.leaf(name).lower() in ("latitude", "longitude")
        ):
            self._count("place", str(value), "")
            return 0
        return value

    def _string(self, name: str, value: str) -> str:
        leaf = private.leaf(name)
        if name in ("@odata.id", "@odata.type", "@odata.context", "MessageId", "Id", "target"):
            return self.uri(value)
        low = value.strip().lower()
        if (is_secret(leaf) or private.MORE_SECRET.search(leaf)) and low not in private.EMPTY:
            return self._count("secret", value, SECRET)
        if private.CERTIFICATE.search(leaf) and low not in private.EMPTY:
            return self._count("certificate", value, self._certificate(value))
        if low in private.EMPTY or low in private.USUAL:
            return value
        if (
            private.SERIAL.search(leaf)
            and not private.NOT_SERIAL.search(leaf)
            and not (private.MAC.fullmatch(value) or private.UUID.fullmatch(value))
        ):
            return self._count("serial", value.strip(), self._shaped(value))
        if len(value) > LONGEST_NAME:  # a description
            return self.text(value, name=name)
        if private.PLACE.search(leaf):
            return self._count("place", value, self._shaped(value))
        if (
            private.NAME.search(leaf) or private.SUBJECT.search(leaf) or private.USER.search(leaf)
        ) and not private.address(value):
            return self._count("name", value.strip(), self._host(value.strip()))
        return self.text(value, name=name)

    def _certificate(self, value: str) -> str:
        changed = self.text(value)
        return changed if changed != value else self._shaped(value)

    def _found(self, match: re.Match[str]) -> str:
        new, kind = self._known[match[0]]
        return self._count(kind, match[0].lower(), new)

    def _count(self, kind: str, value: str, new: str) -> str:
        self._seen.setdefault(kind, set()).add(value)
        return new

    # other values

    def _digest(self, kind: str, value: str) -> bytes:
        return hashlib.blake2b(f"{kind}\0{value}".encode(), key=self._key, digest_size=64).digest()

    def _shaped(self, value: str) -> str:
        """Letters for letters, digits for digits, hex for hex; the rest stays."""
        stream = self._digest("shape", value.strip().lower())
        hexadecimal = re.fullmatch(r"[0-9A-Fa-f:.\-x ]+", value) is not None and any(c in "abcdefABCDEF" for c in value)
        out = []
        for i, c in enumerate(value):
            n = stream[i % len(stream)] + i // len(stream)
            if c.isdigit():
                out.append(str(n % 10))
            elif c.isalpha():
                pool = "abcdef" if hexadecimal and c.lower() in "abcdef" else "abcdefghijklmnopqrstuvwxyz"
                new = pool[n % len(pool)]
                out.append(new.upper() if c.isupper() else new)
            else:
                out.append(c)
        return "".join(out)

    def _mac(self, mac: str) -> str:
        """The manufacturer's half stays."""
        bare = re.sub(r"[^0-9A-Fa-f]", "", mac)
        if set(bare) <= {"0"} or set(bare.upper()) <= {"F"}:
            return mac
        new = iter(bare[:6] + self._digest("mac", bare.lower()).hex()[:6])
        found = "".join(next(new) if c.isalnum() else c for c in mac)
        return found.upper() if mac.upper() == mac else found.lower()

    def _uuid(self, uuid: str) -> str:
        if set(uuid) <= set("0-") or set(uuid.upper()) <= set("F-"):
            return uuid
        new = iter(self._digest("uuid", uuid.lower()).hex())
        found = "".join(c if c == "-" else next(new) for c in uuid)
        return found.upper() if uuid.upper() == uuid else found

    def _ip(self, text: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text
        if text in ("127.0.0.1", "::1") or address.is_unspecified or text.startswith(("255.", "0.", "224.", "239.")):
            return text
        new = self._digest("ip", address.exploded)
        if address.version == 4:
            other = f"10.{new[0]}.{new[1]}.{new[2] % 254 + 1}"
        else:
            other = f"{'fe80' if address.is_link_local else '2001:db8'}::{new[0]:x}{new[1]:02x}:{new[2]:x}{new[3]:02x}"
        return self._count("ip", address.exploded, other)

    def _host(self, name: str) -> str:
        """`name-1f2e3d4c`, with `.example.net` for a name of several parts, and as a mail address if it is one."""
        new = f"name-{self._digest('name', name.lower()).hex()[:8]}"
        if "@" in name:
            return f"{new}@example.net"
        return f"{new}.example.net" if re.fullmatch(r"[\w-]+(\.[\w-]+)+\.?", name) else new


def _walk(value: Any, name: str, act: Walker) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            act("@key", key)
            _walk(one, key, act)
    elif isinstance(value, list):
        for one in value:
            _walk(one, name, act)
    else:
        act(name, value)
