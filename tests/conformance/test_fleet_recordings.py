"""Recordings of real machines, replayed by the fleet and recorded again: the same machine, and nobody's serial number."""

from __future__ import annotations

import json
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from subjects import recordings

from metalimmu.bmc.ask import drive
from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.record import record
from metalimmu.bmc.recording import Recording
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.bmc.redfish_service import fetch
from metalimmu.bmc.walk import walk
from metalimmu.bmc.wanted import EVERYTHING
from metalimmu.desired.types import Tls
from metalimmu.observed.snapshot import Snapshot
from metalimmu.observed.types import SystemIdentity, Unknown
from metalimmu_emulator.fleet import Fleet

FOUND = {p.stem: p for p in recordings()}
NAMES = sorted(FOUND) or ["no recordings"]


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest) -> Path:
    if request.param not in FOUND:
        pytest.skip("METALIMMU_RECORDINGS is not set: recordings of real machines are not read")
    return FOUND[request.param]


def opened(fleet: Fleet) -> RedfishBmc:
    address = Address(bmc=fleet[0].address, credentials=fleet.credentials, tls=Tls(ca=str(fleet.ca)))
    found = connect(address, ledger=MemoryLedger(), patience=2.0)
    assert isinstance(found, RedfishBmc)
    return found


def walked(fleet: Fleet) -> Snapshot:
    with opened(fleet) as driver:
        return drive(walk(Address(bmc=fleet[0].address), EVERYTHING), partial(fetch, driver.connector))


def from_file(path: Path) -> Snapshot:
    return drive(walk(Address(bmc="redfish+https://10.0.0.1"), EVERYTHING), Recording.open(path).reply)


def test_replayed_over_the_wire_as_from_the_file(path: Path) -> None:
    with Fleet([str(path)]) as fleet:
        served = walked(fleet)
        assert fleet[0].counters().writes == 0
    kept = from_file(path)
    assert {k: v for k, v in served.settings.items() if k != "bmc.clock"} == {
        k: v for k, v in kept.settings.items() if k != "bmc.clock"
    }
    assert {k: v.reason for k, v in served.unknown.items() if not k.startswith(("bmc.clock", "bmc.certificate"))} == {
        k: v.reason for k, v in kept.unknown.items() if not k.startswith(("bmc.clock", "bmc.certificate"))
    }


MAC = re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")
OWN = (
    "hardware.nics.macs",
    "bmc.ntp.servers",
    "bmc.dns.servers",
    "bmc.syslog.servers",
    "bmc.certificate.",
    "bmc.clock",
    "bmc.account",
    "cabling.",
)


def test_recorded_again_it_is_the_same_machine_without_its_identity(path: Path, tmp_path: Path) -> None:
    with Fleet([str(path)]) as fleet, opened(fleet) as driver:
        record(driver.connector.get, tmp_path / "again")
    before, after = from_file(path), from_file(tmp_path / "again")
    changed = {k for k in before.settings if after.settings.get(k) != before.settings[k] and not k.startswith(OWN)}
    private = identities(path)
    private |= {p.replace(":", "") for p in private if p.count(":") == 5}
    assert [k for k in changed if not any(p.lower() in f"{k} {before.settings[k]}".lower() for p in private)] == []
    assert len(after.settings) == len(before.settings)
    assert isinstance(before.identity, SystemIdentity)
    assert isinstance(after.identity, SystemIdentity)
    assert (after.identity.manufacturer, after.identity.model) == (before.identity.manufacturer, before.identity.model)
    text = "\n".join(f"{p}\n{p.read_text()}" for p in (tmp_path / "again").rglob("*") if p.is_file())
    lower = text.lower()
    assert [p for p in private if p.lower() in lower] == []


def identities(path: Path) -> set[str]:
    """What can be told to be private without asking the code under test: serial numbers, UUIDs and MACs of resources."""
    found: set[str] = set()
    names = {
        "SerialNumber",
        "UUID",
        "MACAddress",
        "PermanentMACAddress",
        "ServiceTag",
        "HostName",
        "NodeGUID",
        "PortGUID",
    }

    def take(value: Any) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                if key in names and isinstance(one, str) and telling(one):
                    found.add(one.strip())
                take(one)
        elif isinstance(value, list):
            for one in value:
                take(one)

    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("index.json") and "JsonSchemas" not in name and "/Sessions/" not in name:
                content = archive.read(name)
                found |= {m for m in MAC.findall(content.decode(errors="replace")) if telling(m)}
                try:
                    take(json.loads(content))
                except ValueError:
                    continue
    return found


def telling(value: str) -> bool:
    """Long enough to be somebody's, and no placeholder."""
    bare = value.strip().replace(":", "").replace("-", "").replace("0", "").upper()
    return len(bare) >= 6 and any(c.isdigit() for c in value) and not set(bare) <= {"F"} and " " not in value.strip()


def test_unknown_is_not_hidden() -> None:
    """So that the comparison above is of something: the clean sample has a whole snapshot."""
    for path in FOUND.values():
        assert not isinstance(from_file(path).identity, Unknown)
