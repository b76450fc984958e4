"""Answers of real machines, walked whole by the redfish driver.

METALIMMU_RECORDINGS names the folder; the project has no copy. Without it these tests are skipped, visibly, and in CI
that is an error (see conftest).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from redfish_server import PASSWORD, USER, RedfishServer, key, recording
from subjects import named, recordings

from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.observed.types import (
    BootEnabled,
    BootMode,
    BootTarget,
    Inventory,
    PowerAction,
    PowerState,
    Reason,
    SystemIdentity,
    Unknown,
    WriteRequest,
)

FOUND = {path.stem: path for path in recordings()}


@dataclass
class Facts:
    model: str
    serial: str
    firmware: int
    bios: int
    media: int
    nics: int
    system: str = "1"
    unknown: dict[str, Reason] = field(default_factory=dict)
    insert: WriteRequest | None = None
    eject: WriteRequest | None = None
    boot: WriteRequest | None = None
    actions: set[PowerAction] = field(default_factory=lambda: set(PowerAction) - {PowerAction.power_cycle})


URL = "http://10.0.0.5:8080/m/0123/boot.iso"
CD_ONCE = {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI"}


def by_action(slot: str, verb: str) -> WriteRequest:
    return WriteRequest("POST", f"{slot}/Actions/VirtualMedia.{verb}Media", {"Image": URL} if verb == "Insert" else {})


DELL = "/redfish/v1/Systems/System.Embedded.1"
LENOVO = "/redfish/v1/Systems/1/VirtualMedia/EXT1"
FACTS = {
    "dell-poweredge-r750-idrac9": Facts(
        model="PowerEdge R750",
        serial="N36H4C7",  # the service tag, not the mainboard's NCHKE...
        firmware=29,
        bios=455,
        media=4,
        nics=5,
        system="System.Embedded.1",
        insert=by_action(f"{DELL}/VirtualMedia/1", "Insert"),
        eject=by_action(f"{DELL}/VirtualMedia/1", "Eject"),
        boot=WriteRequest("PATCH", DELL, {"Boot": CD_ONCE}),
        actions=set(PowerAction),
    ),
    "hpe-dl360-gen10plus-ilo5": Facts(
        model="ProLiant DL360 Gen10 Plus - SIMULATED",
        serial="KKJ5712PKE",
        firmware=23,
        bios=276,
        media=2,
        nics=6,
        insert=by_action("/redfish/v1/Managers/1/VirtualMedia/2", "Insert"),
        eject=by_action("/redfish/v1/Managers/1/VirtualMedia/2", "Eject"),
        boot=WriteRequest("PATCH", "/redfish/v1/Systems/1", {"Boot": CD_ONCE}),
    ),
    "hpe-dl380a-gen12-ilo7": Facts(
        model="HPE ProLiant Compute DL380a Gen12 -- SIMULATED",
        serial="1S0P7N37SR",
        firmware=43,
        bios=350,
        media=2,
        nics=6,
        insert=by_action("/redfish/v1/Managers/1/VirtualMedia/2", "Insert"),
        eject=by_action("/redfish/v1/Managers/1/VirtualMedia/2", "Eject"),
        boot=WriteRequest("PATCH", "/redfish/v1/Systems/1", {"Boot": CD_ONCE}),
    ),
    "lenovo-sr670v2-xcc": Facts(
        model="ThinkSystem SR670 V2",
        serial="N657832N",
        firmware=43,
        bios=348,
        media=10,  # listed under the system and under the manager
        nics=5,
        insert=WriteRequest("PATCH", LENOVO, {"Image": URL, "Inserted": True, "WriteProtected": True}),
        eject=WriteRequest("PATCH", LENOVO, {"Image": None, "Inserted": False}),
        boot=WriteRequest("PATCH", "/redfish/v1/Systems/1", {"Boot": CD_ONCE}),
    ),
    "supermicro-sys821ge-x13": Facts(
        model="SYS-821GE-TNHR",
        serial="G242353C5220068",
        firmware=106,
        bios=379,
        media=3,  # one collection, linked from both
        nics=12,
        insert=by_action("/redfish/v1/Managers/1/VirtualMedia/VirtualMedia1", "Insert"),
        eject=by_action("/redfish/v1/Managers/1/VirtualMedia/VirtualMedia1", "Eject"),
        boot=WriteRequest(
            "PATCH", "/redfish/v1/Systems/1", {"Boot": CD_ONCE | {"BootSourceOverrideTarget": "UsbCd"}}
        ),
        actions=set(PowerAction),
    ),
    "nvidia-gb200-openbmc": Facts(
        model="GB200 NVL",
        serial="",  # null in the host's system
        firmware=30,
        bios=403,
        media=2,
        nics=0,
        system="System_0",
        unknown={"nics": Reason.not_modelled},
        insert=by_action("/redfish/v1/Managers/BMC_0/VirtualMedia/USB2", "Insert"),
        eject=by_action("/redfish/v1/Managers/BMC_0/VirtualMedia/USB2", "Eject"),
        boot=WriteRequest(  # no mode: it has none
            "PATCH",
            "/redfish/v1/Systems/System_0/Settings",
            {"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once"}},
        ),
        actions=set(PowerAction),
    ),
    "supermicro-x10sdv-redfish101": Facts(
        model="Super Server",
        serial="",  # blanks
        firmware=0,
        bios=0,
        media=0,
        nics=4,
        unknown={
            "bios": Reason.not_modelled,
            "firmware": Reason.not_modelled,
        },
        boot=WriteRequest(
            "PATCH",
            "/redfish/v1/Systems/1",
            {"Boot": {"BootSourceOverrideTarget": "UsbCd", "BootSourceOverrideEnabled": "Once"}},
        ),
    ),
    "dmtf-public-rackmount1": Facts(
        model="3500", serial="324FF0736R0", firmware=3, bios=10, media=3, nics=4, system="324FF0736R0",
        insert=WriteRequest(
            "PATCH",
            "/redfish/v1/Systems/324FF0736R0/VirtualMedia/CD1",
            {"Image": URL, "Inserted": True, "WriteProtected": True},
        ),
        eject=WriteRequest(
            "PATCH", "/redfish/v1/Systems/324FF0736R0/VirtualMedia/CD1", {"Image": None, "Inserted": False}
        ),
        boot=WriteRequest("PATCH", "/redfish/v1/Systems/324FF0736R0", {"Boot": CD_ONCE}),
    ),
}  # fmt: skip

PARTS = {
    "identity", "power", "boot", "media", "processors", "memory", "disks", "nics", "firmware", "bios",
    "power_supplies", "bmc",
}  # fmt: skip


@pytest.fixture(params=sorted(FACTS))
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, RedfishServer]:
    named(FOUND, request.param)
    monkeypatch.setenv("REC_USERNAME", USER)
    monkeypatch.setenv("REC_PASSWORD", PASSWORD)
    with RedfishServer(recording(FOUND[request.param])) as server:
        yield request.param, server


def walked(server: RedfishServer, **more: object) -> Inventory:
    with connect(Address(bmc=server.address, credentials="env:REC", **more), ledger=MemoryLedger()) as bmc:
        return bmc.inventory()


def test_every_recording_has_facts_here() -> None:
    assert not FOUND or set(FOUND) == set(FACTS)


def test_inventory_of_a_real_machine(machine: tuple[str, RedfishServer]) -> None:
    name, server = machine
    facts = FACTS[name]
    found = walked(server)
    assert isinstance(found.identity, SystemIdentity)
    assert found.identity.model == facts.model
    assert found.identity.serial == facts.serial
    assert found.identity.system_id == facts.system
    assert len(found.identity.uuid) == 36
    assert found.power is PowerState.on
    unknown = {n: getattr(found, n).reason for n in PARTS if isinstance(getattr(found, n), Unknown)}
    assert unknown == facts.unknown
    for part, count in {
        "firmware": facts.firmware,
        "bios": facts.bios,
        "media": facts.media,
        "nics": facts.nics,
    }.items():
        assert part in unknown or len(getattr(found, part)) == count, part
    assert not isinstance(found.bmc, Unknown)
    assert found.bmc["firmware"]
    assert found.processors
    assert found.memory
    assert found.requests == len(server.requests) - 1  # the DELETE of the session comes after
    assert server.sessions == {}
    assert server.connections == 1
    assert server.writes == []


def test_what_would_be_sent_to_a_real_machine(machine: tuple[str, RedfishServer]) -> None:
    name, server = machine
    facts = FACTS[name]
    with connect(Address(bmc=server.address, credentials="env:REC"), ledger=MemoryLedger()) as bmc:
        assert bmc.power_actions() == facts.actions
        slot = next((s for s in bmc.media() if s.takes_cd), None)
        assert (slot is None) == (facts.insert is None)
        if slot is not None:
            assert bmc.rehearse(lambda: bmc.insert_media(slot, URL)) == [facts.insert]
            assert bmc.rehearse(lambda: bmc.eject_media(slot)) == [facts.eject]
        override = bmc.rehearse(lambda: bmc.set_boot_override(BootTarget.cd, BootEnabled.once, BootMode.uefi))
        assert override == [facts.boot]
        [reset] = bmc.rehearse(lambda: bmc.set_power(PowerAction.force_restart))
        assert reset.path.endswith("Systems/" + facts.system + "/Actions/ComputerSystem.Reset")
        assert reset.body == {"ResetType": "ForceRestart"}
    assert server.writes == []


def test_every_member_broken_in_turn_costs_that_member_alone(machine: tuple[str, RedfishServer]) -> None:
    """Truncated, null, a list, a string, of wrong types: whatever a resource becomes, the walk ends and says so."""
    _, server = machine
    walked(server)
    asked = [p for m, p in server.requests if m == "GET"]
    broken: list[object] = [b'{"Id": "1", "Na', b"", b"\xff\xfe\x00", [], "text", None, 5, {}, {"Members": None}]
    broken += [{"Members": [{"@odata.id": "/redfish/v1/Systems"}, 3], "Members@odata.count": "many"}, wrong_types()]
    step = max(1, len(asked) // 12)
    for i, path in enumerate(dict.fromkeys(asked[::step])):
        good = server.tree.get(key(path))
        server.tree[key(path)] = broken[i % len(broken)] or b"null"
        found = walked(server)
        assert isinstance(found, Inventory)
        server.tree[key(path)] = good
        if good is None:
            del server.tree[key(path)]
    assert server.sessions == {}


def wrong_types() -> dict[str, object]:
    names = (
        "Id",
        "Model",
        "SerialNumber",
        "PowerState",
        "Boot",
        "Actions",
        "Links",
        "MediaTypes",
        "Inserted",
        "Version",
    )
    return {name: {"@odata.id": 7} for name in names} | {"CapacityMiB": "lots", "Attributes": [1], "Drives": 4}


def test_the_other_system_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    path = named(FOUND, "nvidia-gb200-openbmc")
    monkeypatch.setenv("REC_USERNAME", USER)
    monkeypatch.setenv("REC_PASSWORD", PASSWORD)
    with RedfishServer(recording(path)) as server:
        found = walked(server, system="hgx_baseboard_0")
    assert isinstance(found.identity, SystemIdentity)
    assert found.identity.serial == "4339381573003"
    assert found.systems == ("System_0", "HGX_Baseboard_0")
    assert isinstance(found.boot, Unknown)
    assert isinstance(found.bios, Unknown)
    assert found.boot.reason is found.bios.reason is Reason.not_modelled
