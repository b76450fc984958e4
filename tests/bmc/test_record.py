"""`bmc record`: a persona recorded, searched for what was planted in it, and replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from metalimmu.bmc.ask import drive
from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.record import Recorded, record
from metalimmu.bmc.recording import Recording
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.bmc.redfish_service import fetch
from metalimmu.bmc.walk import walk
from metalimmu.bmc.wanted import EVERYTHING
from metalimmu.cli import cli
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcLoginRefused, BmcUnreachable, UsageError
from metalimmu.observed.snapshot import Snapshot
from metalimmu_emulator.fleet import MAKES, Bmc, Fleet

ROOT = "/redfish/v1"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet([*MAKES]) as running:
        yield running


def opened(fleet: Fleet, bmc: Bmc, **more: Any) -> RedfishBmc:
    address = Address(bmc=bmc.address, credentials=fleet.credentials, tls=Tls(ca=str(fleet.ca)))
    found = connect(address, ledger=MemoryLedger(), patience=1.0, **more)
    assert isinstance(found, RedfishBmc)
    return found


def recorded(fleet: Fleet, bmc: Bmc, folder: Path, **more: Any) -> Recorded:
    with opened(fleet, bmc) as driver:
        return record(driver.connector.get, folder, **more)


def everything(folder: Path) -> str:
    """All of it, names of folders too."""
    return "\n".join(f"{p.relative_to(folder)}\n{p.read_text()}" for p in sorted(folder.rglob("*")) if p.is_file())


# Settings that are identities of a machine or of its network.
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


def plain(snapshot: Snapshot) -> dict[str, Any]:
    return {
        k: v for k, v in snapshot.settings.items() if not k.startswith(OWN) and "_02" not in k and not str(v).isupper()
    }


@pytest.mark.parametrize("index", range(len(MAKES)), ids=MAKES)
def test_a_recording_replayed_is_the_same_machine_but_for_its_identity(
    fleet: Fleet, tmp_path: Path, index: int
) -> None:
    bmc, folder = fleet[index], tmp_path / "recording"
    with opened(fleet, bmc) as driver:
        before = drive(walk(Address(bmc=bmc.address), EVERYTHING), partial(fetch, driver.connector))
    made = recorded(fleet, bmc, folder)
    assert made.complete
    assert made.skipped == ()
    assert bmc.counters().writes == 0
    assert bmc.counters().sessions == 0
    again = drive(walk(Address(bmc=bmc.address), EVERYTHING), Recording.open(folder).reply)
    assert len(before.settings) > 260
    assert plain(again) == plain(before)
    assert len(again.settings) == len(before.settings) - 1  # the clock: files have no Date
    with Fleet([str(folder)]) as replaying, opened(replaying, replaying[0]) as driver:
        served = drive(walk(Address(bmc=replaying[0].address), EVERYTHING), partial(fetch, driver.connector))
    assert plain(served) == plain(before)
    text = everything(folder)
    identity = bmc.identity
    for private in (
        identity.serial(),
        identity.uuid(),
        identity.mac(1),
        identity.mac(200),
        bmc.name,
        bmc.ip,
        *(identity.serial(n) for n in (100, 200, 300)),
    ):
        assert private not in text, private
        assert private.upper() not in text
    assert identity.mac(1).replace(":", "").upper() not in text.upper()


PLANTED = ("hunter2", "n0tpublic", "7XK2P13", "7xk2p13", "rack-77-db.corp", "jane.doe", "10.66.6.6", "2a02:cafe::7", "MIIEplanted",
           "AAAAplanted", "Kerkstraat", "b8:ca:3a:12:34:56", "B8CA3A123456", "ops@corp", "cafe-babe", "sl4ckt0ken")  # fmt: skip


def test_no_planted_secret_survives(fleet: Fleet, tmp_path: Path) -> None:
    bmc = fleet["dell-000002"]
    system, manager = f"{ROOT}/Systems/System.Embedded.1", f"{ROOT}/Managers/iDRAC.Embedded.1"
    bmc.edit(system, {"AssetTag": "7XK2P13", "HostName": "rack-77-db.corp.example"})
    bmc.edit(
        system,
        {
            "Oem": {
                "Dell": {
                    "Note": "moved from 7xk2p13 at 10.66.6.6, 2a02:cafe::7, ask ops@corp.example",
                    "Password": "hunter2",
                }
            }
        },
    )
    bmc.edit(f"{system}/EthernetInterfaces/NIC.Integrated.1-1-1", {"MACAddress": "b8:ca:3a:12:34:56"})
    bmc.edit(
        f"{system}/Bios", {"Attributes": {"HttpDev1Uri": "https://x:sl4ckt0ken@boot.corp.example/B8CA3A123456.efi"}}
    )
    bmc.edit(
        f"{manager}/Oem/Dell/DellAttributes/iDRAC.Embedded.1",
        {
            "Attributes": {
                "Users.4.UserName": "jane.doe",
                "Users.4.Password": "hunter2",
                "SNMP.1.AgentCommunity": "n0tpublic",
            }
        },
    )
    bmc.edit(
        f"{ROOT}/Chassis/System.Embedded.1",
        {
            "Location": {"PostalAddress": {"Country": "NL", "Street": "Kerkstraat 7"}},
            "UUID": "4c4c4544-cafe-babe-8032-b7c04f503133",
        },
    )
    certificate = "-----BEGIN CERTIFICATE-----\nMIIEplanted\n-----END CERTIFICATE-----"
    bmc.edit(f"{manager}/NetworkProtocol/HTTPS/Certificates/1", {"CertificateString": certificate})
    bmc.add_log("jane.doe added the key ssh-rsa AAAAplanted jane.doe@laptop from 10.66.6.6", user="jane.doe")
    folder = tmp_path / "r"
    made = recorded(fleet, bmc, folder)
    text = everything(folder)
    for secret in PLANTED:
        assert secret not in text, secret
    assert set(made.replaced) == {"certificate", "ip", "mac", "name", "place", "secret", "serial", "uuid"}
    index = json.loads((folder / system.strip("/") / "index.json").read_text())
    assert index["AssetTag"] in json.dumps(index["Oem"]).upper()


def test_sessions_schemas_and_long_logs_are_left_out(fleet: Fleet, tmp_path: Path) -> None:
    bmc = fleet["clean-000001"]
    for n in range(60):
        bmc.add_log(f"event {n}")
    recorded(fleet, bmc, tmp_path / "r", entries=20)
    sessions = json.loads((tmp_path / "r/redfish/v1/SessionService/Sessions/index.json").read_text())
    assert (sessions["Members"], sessions["Members@odata.count"]) == ([], 0)
    entries = json.loads((tmp_path / "r/redfish/v1/Managers/BMC/LogServices/Audit/Entries/index.json").read_text())
    assert len(entries["Members"]) == entries["Members@odata.count"] == 20
    assert (
        tmp_path / "r/redfish/v1/Registries/BiosAttributeRegistry/BiosAttributeRegistry.v1_0_0.json/index.json"
    ).exists()


def test_limits_and_broken_resources(fleet: Fleet, tmp_path: Path) -> None:
    bmc = fleet["hpe-000003"]
    bmc.replace(f"{ROOT}/Systems/1/SecureBoot", b'{"Id": "Sec')
    bmc.fault("not-permitted", path="/AccountService/Accounts/2")
    made = recorded(fleet, bmc, tmp_path / "r")
    assert {u for u, _ in made.skipped} == {f"{ROOT}/Systems/1/SecureBoot", f"{ROOT}/AccountService/Accounts/2"}
    assert "SecureBoot" in (tmp_path / "r/README").read_text()
    short = recorded(fleet, bmc, tmp_path / "short", most=10)
    assert (short.resources, short.complete) == (10, False)


def test_a_bmc_that_goes_away_leaves_what_was_read(fleet: Fleet, tmp_path: Path) -> None:
    bmc = fleet["clean-000001"]
    bmc.fault("refuse", after=30)
    made = recorded(fleet, bmc, tmp_path / "r")
    assert not made.complete
    assert 15 < made.resources < 40
    bmc.heal()
    bmc.fault("refuse")
    with pytest.raises(BmcUnreachable):
        recorded(fleet, bmc, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_hostile_tree_stays_in_its_folder(fleet: Fleet, tmp_path: Path) -> None:
    bmc = fleet["clean-000001"]
    bmc.edit(
        f"{ROOT}/Systems/1",
        {
            "Oem": {
                "Evil": {"@odata.id": f"{ROOT}/../../../../etc/passwd"},
                "Far": {"@odata.id": "http://10.0.0.9/redfish/v1/x"},
            }
        },
    )
    made = recorded(fleet, bmc, tmp_path / "r")
    assert list(tmp_path.iterdir()) == [tmp_path / "r"]
    assert any("etc" in uri for uri, _ in made.skipped)


def test_a_folder_that_is_not_empty_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(UsageError, match="not empty"):
        recorded(fleet, fleet[0], tmp_path)
    assert fleet[0].counters().requests == 0


def test_the_command(fleet: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    result = CliRunner().invoke(cli, ["--site", str(fleet.site), "bmc", "record", "lenovo-000004", str(folder)])
    assert result.exit_code == 0, result.output
    assert "resources in" in result.output
    assert "serial" in result.output
    assert (folder / "redfish/v1/Systems/1/Bios/Pending/index.json").exists()
    fleet["lenovo-000004"].fault("login")
    with pytest.raises(BmcLoginRefused):
        CliRunner().invoke(
            cli,
            ["--site", str(fleet.site), "bmc", "record", "lenovo-000004", str(tmp_path / "x")],
            catch_exceptions=False,
        )
