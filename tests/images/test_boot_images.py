"""The images that we build really boot, take their run-time config from the seed, and report what they are."""

from __future__ import annotations

from pathlib import Path

import image_builds as built
import pytest
from image_controller import listening, write_seed
from image_vm import HOW_IT_IS, all_is_well, booted

from metalimmu.desired.render import digest
from metalimmu.images.chunks import reassemble
from metalimmu.wire.messages import PROOF_FILE

pytestmark = pytest.mark.e2e

SERIAL, UUID = "SN-4711", "0f2d6a1c-52c1-4b3a-9d57-3c1f0a9b8e77"
SMBIOS = ("-smbios", f"type=1,serial={SERIAL},uuid={UUID}")
META = "instance-id: i-1\nlocal-hostname: r12-u07\n"
STATIC = """\
version: 2
ethernets:
  nic0:
    match: {macaddress: "52:54:00:12:34:56"}
    dhcp4: false
    addresses: [10.0.2.77/24]
    routes: [{to: 0.0.0.0/0, via: 10.0.2.2}]
"""
# The same as controllers write it.
STATIC_BLOCK = """\
version: 2
ethernets:
  nic0:
    match:
      macaddress: 52:54:00:12:34:56
    dhcp4: false
    addresses:
    - 10.0.2.77/24
    routes:
    - to: 0.0.0.0/0
      via: 10.0.2.2
    nameservers:
      addresses:
      - 10.0.2.3
"""


@pytest.mark.parametrize("firmware", ["bios", "secure"])  # by UEFI: tests/e2e/test_reimage_uefi.py
def test_tiny_boots_and_reports(firmware: str, tmp_path: Path) -> None:
    store, image = built.image("tiny@1", "tiny")
    disk = tmp_path / "disk.raw"
    reassemble(image.manifest, store.chunks, disk)
    assert image.manifest.seed is not None
    with listening(tmp_path) as controller:
        network = {
            "uefi": {},
            "bios": {"network-config": STATIC_BLOCK},
            "secure": {"network-config": "version: 2\nethernets: {all: {match: {name: 'e*'}, dhcp4: true}}\n"},
        }
        write_seed(disk, image.manifest.seed, tmp_path, {"metalimmu.json": controller.seed_file, **network[firmware]})
        with booted(disk, tmp_path, firmware=firmware, extra=SMBIOS) as machine:
            text = machine.wait_for("tiny tiny@1", seconds=120)
            assert controller.heard.wait(60), machine.text()[-2000:]
            machine.wait_for("metalimmu-proof: acknowledged", seconds=20)
    assert ("eth0 has 10.0.2.77/24" in text) == (firmware == "bios")
    assert ("Secure boot enabled" in text) == (firmware == "secure")
    for report in controller.reports:
        assert (report.image_id, report.image_version, report.build_id) == ("tiny", "1", image.manifest.build_id)
        assert (report.serial, report.uuid, report.config_digest) == (SERIAL, UUID, "c" * 64)
    assert len({r.boot_id for r in controller.reports}) == 1


def test_tiny_without_a_seed_says_so(tmp_path: Path) -> None:
    store, image = built.image("tiny@1", "tiny")
    reassemble(image.manifest, store.chunks, tmp_path / "disk.raw")
    with booted(tmp_path / "disk.raw", tmp_path) as machine:
        assert "tiny: no seed" in machine.wait_for("tiny tiny@1", seconds=120)


USER = (
    """\
#cloud-config
hostname: r12-u07
runcmd:
  - [sh, -c, 'grep -E -A9 "WARN|Traceback" /var/log/cloud-init.log | head -40 > /dev/ttyS0']
"""
    + HOW_IT_IS
)


def test_debian_boots_configures_itself_and_reports(tmp_path: Path) -> None:
    """Version 2, built on version 1 with one package updated, by UEFI with Microsoft's keys enrolled. Version 1, by BIOS: see
    test_boot_config.
    """
    package, version = built.older_package()
    built.image("debian@1", "debian", packages=(f"{package}={version}",))
    store, image = built.image("debian@2", "debian", base="debian@1")
    disk = tmp_path / "disk.raw"
    reassemble(image.manifest, store.chunks, disk)
    with disk.open("r+b") as file:
        file.truncate(3 << 30)  # a machine's disk is larger
    assert image.manifest.seed is not None
    with listening(tmp_path) as controller:
        files = {"meta-data": META, "user-data": USER, "network-config": STATIC, "metalimmu.json": controller.seed_file}
        write_seed(disk, image.manifest.seed, tmp_path, files)
        with booted(disk, tmp_path, firmware="secure", extra=SMBIOS, memory=1024) as machine:
            text = machine.wait_for(" END", seconds=600)
            assert controller.heard.wait(120), machine.text()[-2000:]
    assert "10.0.2.77/24" in all_is_well(text, "r12-u07")
    assert "Secure boot enabled" in text
    of_the_seed = digest({k: v for k, v in files.items() if k != PROOF_FILE})  # as it is now, not what PROOF_FILE says
    report = controller.reports[-1]
    assert (f"{report.image_id}@{report.image_version}", report.build_id) == ("debian@2", image.manifest.build_id)
    assert (report.serial, report.uuid, report.config_digest) == (SERIAL, UUID, of_the_seed)
