"""Machines of other kinds: secure boot; and AHCI, e1000, two disks, a static address, with the ramdisk for real servers."""

from __future__ import annotations

import pytest
from e2e_rig import Rig, declared

pytestmark = pytest.mark.e2e

NODE = "node-1"


def test_secure_boot_with_microsofts_keys(up) -> None:
    rig: Rig = up(firmware="secure")
    assert "tiny@1: proven" in rig("reimage", NODE, "--yes")
    checked_in = rig.deployed().check_in
    assert checked_in is not None
    assert (checked_in.firmware, checked_in.secure_boot) == ("uefi", True)
    assert rig.boots() == (1, 1)
    assert rig.bmc() == ("On", "", "")


def test_generic_ramdisk_ahci_e1000_a_gibibyte_and_the_second_disk_by_its_hint(up, generic_ramdisk: None) -> None:
    """tiny's cloud kernel has neither AHCI nor e1000: it cannot run here, so the role asks for no proof and the host reads the disk."""
    rig: Rig = up(disks=2, disk="ahci", cd="ahci", nic="e1000", memory=1024, ramdisk="generic")
    server = rig.lab.server(NODE)
    rig.role(proof={"by": "none"})
    rig.host_document(
        root_disk={"serial": server.disks[1].serial}, network={"address": "10.0.2.15/24", "gateway": "10.0.2.2"}
    )
    said = rig("reimage", NODE, "--yes")
    assert "active, unproven" in said

    host, report = rig.host(), rig.deployed().report
    assert (host.state, host.proof, host.image) == ("active", "unproven", "tiny@1")
    assert report is not None
    assert (report.disk.path, report.disk.serial, report.disk.transport) == ("/dev/sdb", server.disks[1].serial, "sata")
    assert rig.differing_chunks("tiny@1", rig.lab.disk(NODE, 1), declared(report.changed)) == []
    assert rig.lab.disk(NODE, 0).stat().st_blocks == 0, "the first disk was never written"
    checked_in = rig.deployed().check_in
    assert checked_in is not None
    assert [n.driver for n in checked_in.identity.nics] == ["e1000"]
    assert checked_in.memory < 1 << 30
    assert "DHCP" not in rig.console()
    assert rig.bmc() == ("On", "", "")
