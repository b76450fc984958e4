"""What is done behind a BMC's back, and recordings as personas."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_rig import ROOT, client, walk

from metalimmu.errors import UsageError
from metalimmu_emulator.fleet import MAKES, Fleet, Member


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet([*MAKES], tls=False) as running:
        yield running


FIRST = {"dell": "ProcVirtualization", "hpe": "ProcVirtualization", "lenovo": "Processors_TurboMode"}


def test_drift_with_and_without_an_entry_in_the_log(fleet: Fleet) -> None:
    for make, name in FIRST.items():
        bmc = next(b for b in fleet if b.make == make)
        entries = len(bmc.log_entries())
        bmc.set_bios({name: "Disabled"}, logged=False)
        assert bmc.bios()[name] == "Disabled"
        assert len(bmc.log_entries()) == entries
        bmc.set_bios({name: "Enabled"}, user="jane")
        newest = bmc.log_entries()[-1]
        assert len(bmc.log_entries()) == entries + 1
        assert "jane" in json.dumps(newest)
        assert name in newest["Message"]
        assert bmc.counters().writes == 0


def test_cmos_clear_and_factory_reset(fleet: Fleet) -> None:
    bmc = fleet["hpe-000003"]
    factory = bmc.bios()
    bmc.set_bios({"Sriov": "Disabled", "BootMode": "LegacyBios"})
    bmc.stage_bios({"ProcTurbo": "Disabled"})
    bmc.cmos_clear()
    assert bmc.bios() == factory
    assert bmc.pending() == {}
    assert "CMOS" in bmc.log_entries()[-1]["Message"]
    bmc.edit(f"{ROOT}/Managers/1/NetworkProtocol", {"IPMI": {"ProtocolEnabled": True}})
    bmc.set_firmware("bmc", "1.60")
    bmc.set_bios({"Sriov": "Disabled"})
    bmc.factory_reset(user="jane")
    assert bmc.document(f"{ROOT}/Managers/1/NetworkProtocol")["IPMI"]["ProtocolEnabled"] is False
    assert bmc.bios()["Sriov"] == "Disabled"
    assert "jane" in bmc.log_entries()[-1]["Message"]


def test_firmware_behind_its_back(fleet: Fleet) -> None:
    hpe, dell = fleet["hpe-000003"], fleet["dell-000002"]
    hpe.set_firmware("bios", "2.20", user="jane")
    assert hpe.document(f"{ROOT}/UpdateService/FirmwareInventory/2")["Version"] == "U54 v2.20 (03/01/2026)"
    assert hpe.document(f"{ROOT}/Systems/1")["BiosVersion"] == "U54 v2.20 (03/01/2026)"
    dell.set_firmware("bmc", "7.20.10.05")
    assert dell.document(f"{ROOT}/Managers/iDRAC.Embedded.1")["FirmwareVersion"] == "7.20.10.05"
    with pytest.raises(UsageError, match="warp drive"):
        hpe.set_firmware("warp drive", "9")


def test_documents_are_changed_broken_and_removed(fleet: Fleet) -> None:
    http = client(fleet, 0)
    bmc = fleet[0]
    bmc.edit(f"{ROOT}/Systems/1", {"AssetTag": "A-1"})
    assert http.read(f"{ROOT}/Systems/1")["AssetTag"] == "A-1"
    bmc.replace(f"{ROOT}/Systems/1/SecureBoot", None)
    assert http.get(f"{ROOT}/Systems/1/SecureBoot").status == 404
    bmc.replace(f"{ROOT}/Systems/1/Bios", b"not json at all")
    assert http.get(f"{ROOT}/Systems/1/Bios").body == b"not json at all"
    with pytest.raises(UsageError):
        bmc.edit(f"{ROOT}/NoSuchThing", {"a": 1})
    http.close()


def test_a_bmc_that_restarts_forgets_sessions_and_is_away(fleet: Fleet) -> None:
    http = client(fleet, 0)
    fleet[0].restart_bmc()
    assert http.get(f"{ROOT}/Systems").status == 401
    http.close()
    fleet[0].restart_bmc(seconds=60)
    with pytest.raises(OSError):
        http.get(ROOT)
    http.close()
    fleet[0].restart_bmc()
    assert http.log_in().status == 201
    http.close()


def test_names_addresses_and_faults_of_members(tmp_path: Path) -> None:
    members = [Member("dell", count=2), Member("hpe", name="special", faults={"busy": {"status": 500}})]
    with Fleet(members, folder=tmp_path, tls=False, username="admin", password="pass word 1") as fleet:
        assert [b.name for b in fleet] == ["dell-000001", "dell-000002", "special"]
        assert len({b.address for b in fleet}) == len(fleet) == 3
        assert fleet["special"].faults() == ["busy"]
        assert fleet["special"].document(f"{ROOT}/AccountService/Accounts/1")["UserName"] == "admin"
        assert fleet.inventory.read_text().splitlines()[0].startswith("name,bmc,")
    for bad in ([Member("nosuch")], [Member("dell", name="a"), Member("hpe", name="a")], []):
        with pytest.raises(UsageError):
            Fleet(bad)


# recordings


def mockup(folder: Path) -> Path:
    """A small recording of our own, with a file that is cut off."""
    with Fleet(["dell"], tls=False) as fleet:
        http = client(fleet)
        tree = walk(http)
        http.close()
    for uri, document in tree.items():
        if "/Sessions/" not in uri:
            where = folder / uri.strip("/") / "index.json"
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text(json.dumps(document))
    (folder / "redfish/v1/Chassis/System.Embedded.1/Thermal/index.json").write_text('{"Id": "Ther')
    return folder


def test_a_recording_is_a_persona_with_its_writes_beside_it(tmp_path: Path) -> None:
    folder = mockup(tmp_path / "recorded")
    zipped = tmp_path / "again.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for path in folder.rglob("index.json"):
            archive.write(path, f"some-folder/{path.relative_to(folder)}")
    before = {p: p.read_bytes() for p in folder.rglob("*.json")}
    with Fleet([str(folder), str(zipped)], tls=False) as fleet:
        for bmc in fleet:
            http = client(fleet, bmc.index)
            bios = f"{ROOT}/Systems/System.Embedded.1/Bios"
            assert http.read(bios)["Attributes"]["LogicalProc"] == "Enabled"
            assert http.get(f"{ROOT}/Chassis/System.Embedded.1/Thermal").body == b'{"Id": "Ther'
            assert http.ask("PATCH", f"{bios}/Settings", {"Attributes": {"LogicalProc": "Disabled"}}).status == 200
            assert http.read(f"{bios}/Settings")["Attributes"] == {"LogicalProc": "Disabled"}
            bmc.reset()
            assert http.read(bios)["Attributes"]["LogicalProc"] == "Disabled"
            assert "staged" in bmc.log_entries()[-1]["Message"]
            bmc.edit(f"{ROOT}/Systems/System.Embedded.1", {"AssetTag": "kept beside"})
            assert http.read(f"{ROOT}/Systems/System.Embedded.1")["AssetTag"] == "kept beside"
            http.close()
        assert fleet[0].name == "recorded-000001"
    assert {p: p.read_bytes() for p in folder.rglob("*.json")} == before


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no zip")
    for bad in ("empty", "text.zip"):
        with pytest.raises(UsageError, match=bad), Fleet([str(tmp_path / bad)]):
            raise AssertionError("started")
