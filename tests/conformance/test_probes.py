"""The census of recorded machines: what a person who knows them would say."""

from __future__ import annotations

from pathlib import Path

import pytest
from redfish_server import PASSWORD, USER, RedfishServer, recording
from subjects import recordings

from metalimmu.bmc import credentials
from metalimmu.bmc.connect import Address
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.probe import probe
from metalimmu.bmc.redfish import RedfishBmc

# Which questions are answered with no; the rest is yes but for what UNKNOWN names.
NO = {
    "dell-poweredge-r750-idrac9": {"event_stream", "event_subscriptions"},
    "dmtf-public-rackmount1": {"http_boot", "bios_registry", "firmware_multipart", "event_stream"},
    "hpe-dl360-gen10plus-ilo5": {"firmware_multipart", "event_stream"},
    "hpe-dl380a-gen12-ilo7": {"firmware_multipart", "event_stream"},
    "lenovo-sr670v2-xcc": {"http_boot"},
    "nvidia-gb200-openbmc": {"http_boot", "firmware_pull"},
    "supermicro-sys821ge-x13": {"firmware_push", "event_stream"},
    "supermicro-x10sdv-redfish101": {
        "virtual_media",
        "http_boot",
        "bios_settings",
        "bios_registry",
        "firmware_multipart",
        "firmware_push",
        "firmware_pull",
        "event_stream",
        "secure_boot",
        "certificate",
    },
}
UNKNOWN = {"dmtf-public-rackmount1": {"licence"}, "supermicro-x10sdv-redfish101": {"licence"}}
BY = {"dmtf-public-rackmount1": "PATCH", "lenovo-sr670v2-xcc": "PATCH"}


@pytest.mark.parametrize("path", recordings(), ids=lambda p: p.stem)
def test_census(path: Path) -> None:
    with RedfishServer(recording(path)) as server:
        target = Address(bmc=server.address)
        login = credentials.make(USER, PASSWORD)
        with RedfishBmc.open(target, credentials=login, mode="read-only", ledger=MemoryLedger()) as bmc:
            found = bmc.run(probe)
        assert server.writes == []
        assert {m for m, p in server.requests if "SessionService/Sessions" not in p} == {"GET"}
    name = path.stem
    assert {a.capability for a in found.answers if a.answer == "no"} == NO[name]
    assert {a.capability for a in found.answers if a.answer == "unknown"} == UNKNOWN.get(name, set())
    if "virtual_media" not in NO[name]:
        assert found.of("virtual_media").detail["by"] == BY.get(name, "InsertMedia action")
    if name == "supermicro-sys821ge-x13":
        assert found.of("bios_registry").detail["trusted"] is False
    if name == "dell-poweredge-r750-idrac9":
        assert "Enterprise" in found.of("licence").reason
        assert found.of("certificate").detail["not_after"] == "2032-11-23T01:28:00+00:00"
