"""What dnsmasq says in its log, as far as somebody should know of it: pure. Lines of dnsmasq 2.90."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lease", "no-address", "loader", "no-file", "tftp-failed", "tftp-ended"]

_LINE = re.compile(r"^dnsmasq-(?P<part>dhcp|tftp)(\[\d+\])?: (\d+ )?(?P<text>.*)$")
_MAC = r"(?P<mac>[0-9a-f]{2}(:[0-9a-f]{2}){5})"
_ADDRESS = r"(?P<address>[0-9a-f.:]+)"

_PATTERNS: tuple[tuple[Kind, str, re.Pattern[str]], ...] = (
    ("no-address", "dhcp", re.compile(rf"^DHCPDISCOVER\([^)]*\) ([0-9.]+ )?{_MAC} no address available$")),
    ("lease", "dhcp", re.compile(rf"^DHCPACK\([^)]*\) {_ADDRESS} {_MAC}( .*)?$")),
    ("lease", "dhcp", re.compile(rf"^PXE\([^)]*\) ({_ADDRESS} )?{_MAC} (?P<file>\S+)$")),
    ("loader", "tftp", re.compile(rf"^sent (?P<file>\S+) to {_ADDRESS}$")),
    ("no-file", "tftp", re.compile(rf"^file (?P<file>\S+) not found for {_ADDRESS}$")),
    ("tftp-failed", "tftp", re.compile(rf"^failed sending (?P<file>\S+) to {_ADDRESS}$")),
    ("tftp-ended", "tftp", re.compile(rf"^error [0-9]+ .*received from {_ADDRESS}$")),
)


@dataclass(frozen=True)
class Heard:
    kind: Kind
    mac: str = ""
    address: str = ""
    file: str = ""  # its last part

    def sentence(self) -> str:
        words: dict[str, str] = {
            "lease": f"DHCP answered {self.mac}: {self.address or 'by proxy'}",
            "no-address": f"DHCP has no address left for {self.mac}: make netboot.range larger, or netboot.lease shorter",
            "loader": f"TFTP sent {self.file} to {self.address}",
            "no-file": f"TFTP has no {self.file} for {self.address}",
            "tftp-failed": f"TFTP could not send {self.file} to {self.address}: it stopped answering; is UDP blocked between?",
            "tftp-ended": f"TFTP was asked by {self.address}, which broke off, as firmware does that asks for the size first",
        }
        return words.get(self.kind, self.kind)


def parse(line: str) -> Heard | None:
    found = _LINE.match(line)
    if found is None:
        return None
    for kind, part, pattern in _PATTERNS:
        match = pattern.match(found["text"]) if part == found["part"] else None
        if match:
            said = match.groupdict()
            return Heard(
                kind, said.get("mac") or "", said.get("address") or "", (said.get("file") or "").rpartition("/")[2]
            )
    return None
