"""Readers of what switches print. Each raises ValueError for what it cannot read; nothing is guessed."""

from __future__ import annotations

import json
import re
from typing import Any

from metalimmu.observed.switch import Bond, Neighbour, Pair, Slots

MOST = 4096  # ports, neighbours, bonds: no switch has more


def fields(text: str) -> dict[str, str]:
    """`KEY=value` and `key: value` lines, quotes taken off, `set` of a GRUB file too."""
    found = {}
    for line in text.splitlines()[:MOST]:
        if m := re.match(r"\s*(?:set\s+)?([A-Za-z_][\w.]*)\s*[=:]\s*(.*?)\s*$", line):
            found[m[1]] = m[2].strip("'\"")
    return found


def mac(text: str) -> str:
    """Lower case, colons; of a line that may have other words."""
    m = re.search(r"\b([0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5})\b", text)
    if not m:
        raise ValueError(f"no MAC address in {text.strip()[:60]!r}")
    return m[1].lower().replace("-", ":")


def word(text: str) -> str:
    """The last word of the last line that says anything."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("nothing")
    return lines[-1].split()[-1]


def memory(text: str) -> int:
    m = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    if not m:
        raise ValueError("no MemTotal")
    return int(m[1]) * 1024


def space(text: str) -> int:
    """Bytes that are free, of `df -Pk`."""
    row = text.strip().splitlines()[-1].split()
    if len(row) < 6 or not row[3].isdigit():
        raise ValueError(f"not of df: {text.strip()[-80:]!r}")
    return int(row[3]) * 1024


def links(text: str) -> dict[str, str]:
    rows = [line.split() for line in text.splitlines()[:MOST]]
    return {r[0]: r[1] for r in rows if len(r) == 2 and r[0] != "lo"}


def route(text: str) -> str:
    """The port that leads to the controller, of `ip route get`."""
    m = re.search(r"\bdev (\S+)", text)
    if not m:
        raise ValueError(f"no port in {text.strip()[-80:]!r}")
    return m[1]


def neighbours(text: str) -> tuple[Neighbour, ...]:
    """`lldpctl -f json0`: everything is a list there."""
    found = []
    for lldp in _list(_json(text), "lldp"):
        for port in _list(lldp, "interface")[:MOST]:
            name = str(port.get("name", ""))
            chassis = next(iter(_list(port, "chassis")), {})
            system = _value(chassis, "name") or _value(chassis, "id")
            remote = next(iter(_list(port, "port")), {})
            if name and system:
                found.append(Neighbour(port=name, system=system, remote_port=_value(remote, "id")))
    return tuple(sorted(set(found)))


def clag(text: str) -> Pair:
    """`clagctl -j` of Cumulus."""
    said = _json(text)
    status = _object(said, "status")
    bonds = _object(said, "clagIntfs")
    alive, backup = status.get("peerAlive"), status.get("backupActive")
    if alive not in (True, False):
        raise ValueError("no status.peerAlive")
    found = [
        Bond(name=str(name), up=b.get("operstate") == "up", dual=b.get("status") == "dual")
        for name, b in list(bonds.items())[:MOST]
        if isinstance(b, dict)
    ]
    return Pair(
        alive=bool(alive),
        backup=backup if isinstance(backup, bool) else None,
        link=None,  # peerAlive is heard over it
        role=str(status.get("ourRole", "")),
        bonds=tuple(sorted(found, key=lambda b: b.name)),
    )


def mclag(text: str) -> Pair:
    """`mclagdctl dump state` of SONiC, and a line for each bond and the peer link."""
    alive = re.search(r"^The MCLAG's keepalive is:\s*(\w+)", text, re.MULTILINE)
    synced = re.search(r"^MCLAG info sync is:\s*(\w+)", text, re.MULTILINE)
    if not alive:
        raise ValueError("no keepalive state")
    bonds = [
        Bond(name=m[1], up=m[2] == "up", dual=m[2] == "up" and m[3] == "up")
        for m in re.finditer(r"^Bond (\S+): local (\S*) remote (\S*)\s*$", text, re.MULTILINE)
    ][:MOST]
    link = re.search(r"^Link \S+:[ \t]*(\S*)", text, re.MULTILINE)  # without a state: not up
    role = re.search(r"^Role:\s*(\w+)", text, re.MULTILINE)
    return Pair(
        alive=alive[1] == "OK" and (synced is None or synced[1] == "completed"),
        backup=None,
        has_backup=False,
        link=link[1] == "up" if link else None,
        role=role[1].lower() if role else "",
        bonds=tuple(sorted(bonds, key=lambda b: b.name)),
    )


def slots(text: str) -> Slots:
    """`sonic-installer list`."""
    current = re.search(r"^Current:\s*(\S+)", text, re.MULTILINE)
    following = re.search(r"^Next:\s*(\S+)", text, re.MULTILINE)
    if not current or not following:
        raise ValueError(f"not of sonic-installer: {text.strip()[:80]!r}")
    _, _, rest = text.partition("Available:")
    return Slots(current=current[1], next=following[1], available=tuple(rest.split()[:16]))


def traffic(text: str) -> str:
    """`TSC` of SONiC: normal or maintenance."""
    m = re.search(r"System Mode:\s*(\w+)", text)
    if not m:
        raise ValueError(f"no System Mode in {text.strip()[:80]!r}")
    return m[1].lower()


def ztp(text: str) -> str:
    m = re.search(r"^\s*ZTP Status\s*:\s*(\S+)", text, re.MULTILINE)
    if not m:
        raise ValueError("no ZTP Status")
    return m[1]


def eeprom(text: str) -> dict[str, str]:
    """The table of `decode-syseeprom`: TLV codes 0x23 (serial) and 0x24 (base MAC) of ONIE's EEPROM format."""
    found = {}
    for name, code in (("serial", "0x23"), ("base_mac", "0x24")):
        if m := re.search(rf"{code}\s+\d+\s+(\S+)", text, re.IGNORECASE):
            found[name] = m[1]
    return found


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  # ValueError is what readers raise
    return found


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Empty where it is missing, or something else."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _list(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = value.get(name) or []
    return [v for v in (found if isinstance(found, list) else [found]) if isinstance(v, dict)]


def _value(value: dict[str, Any], name: str) -> str:
    found = next(iter(_list(value, name)), {})
    return str(found.get("value", ""))[:200]
