"""What differs from one machine of a make to the next: serial, UUID, MACs, addresses. Made from a number, always the same."""

from __future__ import annotations

import hashlib
import re
import time
import uuid

TOKEN = re.compile(rb"%%([A-Z]+)(\d*)%%")
NOW = "%%NOW%%"
ETAG = "%%ETAG%%"
ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXYZ"


class Identity:
    """Values of the tokens in a make's documents: ``%%SERIAL%%``, ``%%SERIAL3%%`` (of its third part), ``%%UUID%%``,
    ``%%MAC1%%``, ``%%MACHEX1%%`` (as UEFI writes it), ``%%IP%%``, ``%%NAME%%``, ``%%N%%``, ``%%USER%%`` (the fleet's account);
    ``%%NOW%%``, the BMC's clock, and ``%%ETAG%%`` are left to the reading.
    """

    __slots__ = ("_digest", "ip", "name", "number", "username")

    def __init__(self, number: int, name: str, ip: str, seed: int, username: str) -> None:
        self.username = username
        self.number = number
        self.name = name
        self.ip = ip
        self._digest = hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()

    def value(self, kind: bytes, part: bytes) -> bytes:
        index = int(part or b"0")
        match kind:
            case b"SERIAL":
                return self.serial(index).encode()
            case b"UUID":
                return self.uuid(index).encode()
            case b"MAC":
                return self.mac(index).encode()
            case b"MACHEX":
                return self.mac(index).replace(":", "").upper().encode()
            case b"IP":
                return self.ip.encode()
            case b"NAME":
                return self.name.encode()
            case b"N":
                return b"%d" % self.number
            case b"USER":
                return self.username.encode()
        return b"%%" + kind + part + b"%%"

    def serial(self, part: int = 0) -> str:
        found = int.from_bytes(self._mixed(part)[:8])
        letters = []
        for _ in range(10 if part else 7):
            found, rest = divmod(found, len(ALPHABET))
            letters.append(ALPHABET[rest])
        return "".join(letters)

    def uuid(self, part: int = 0) -> str:
        return str(uuid.UUID(bytes=self._mixed(1000 + part)[:16], version=4))

    def mac(self, part: int) -> str:
        """Locally administered (02:...): no real machine has it."""
        raw = bytes((2, *self._mixed(2000)[:4], part & 255))
        return ":".join(f"{b:02x}" for b in raw)

    def _mixed(self, part: int) -> bytes:
        return hashlib.blake2b(part.to_bytes(4), key=self._digest, digest_size=16).digest()


def clock(at: float) -> bytes:
    """A DateTime (DSP0266 10.4.3)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)).encode()
