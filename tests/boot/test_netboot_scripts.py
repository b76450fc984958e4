"""Boot scripts and dnsmasq's configuration as golden text: METALIMMU_GOLDEN=write makes the files anew, for review."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from metalimmu.boot import dnsmasq, scripts
from metalimmu.boot.ports import Netboot
from metalimmu.boot.scripts import Job
from metalimmu.desired.netboot import Netboot as Settings
from metalimmu.errors import ImageError

GOLDEN = Path(__file__).parent / "golden"
URL = "http://10.1.0.5:8080"
RAMDISK = Netboot("vmlinuz", ("initrd", "root.cpio", "slot.cpio"), "metalimmu.media=network console=ttyS0,115200")
JOB = Job("node-1", "web@2026.11.3", "run-7", "/m/abcdefgh", RAMDISK)


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("METALIMMU_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("loader", ["ipxe", "grub"])
def test_scripts(loader):
    suffix = "ipxe" if loader == "ipxe" else "cfg"
    golden(f"start.{suffix}", scripts.start(loader, URL))
    golden(f"boot.{suffix}", scripts.boot(loader, URL, JOB))
    golden(f"disk.{suffix}", scripts.disk(loader))


SETTINGS = {
    "dhcp": Settings(
        mode="dhcp", interface="eth1", range="10.1.0.100-10.1.0.200", router="10.1.0.1", dns=["10.1.0.53", "10.1.0.54"],
        advertise=True, lease="30m",
    ),
    "dhcp-relayed": Settings(mode="dhcp", interface="eth1", range="10.2.0.9-10.2.0.99/24", answer="known"),
    "dhcp-shim": Settings(mode="dhcp", interface="eth1", range="10.1.0.100-10.1.0.200", loader="shim"),
    "proxy": Settings(mode="proxy", interface="eth1", range="10.1.0.0/24"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_dnsmasq(name, tmp_path):
    where = {"folder": Path("/run/metalimmu"), "leases": Path("/var/lib/leases")}
    text = dnsmasq.config(SETTINGS[name], url=URL, fragments=["# more\n"], **where)
    golden(f"dnsmasq-{name}.conf", text)
    mine = tmp_path / "dnsmasq.conf"
    mine.write_text(text)
    done = subprocess.run(["dnsmasq", "--test", "-C", mine], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("netboot", "said"),
    [
        (Netboot("vmlinuz\nboot", (), ""), "vmlinuz"),
        (Netboot("vmlinuz", ("../initrd",), ""), "../initrd"),
        (Netboot("vmlinuz", (), "a\nb"), "command line"),
        (Netboot("vmlinuz", (), "a || reboot"), "command line"),
        (Netboot("vmlinuz", (), "a=${netX/mac}"), "command line"),
        (Netboot("vmlinuz", (), "a # b"), "command line"),
        (Netboot("vmlinuz", (), "ä"), "command line"),
    ],
)
@pytest.mark.parametrize("loader", ["ipxe", "grub"])
def test_what_would_break_out_of_its_line_is_refused(loader, netboot, said):
    with pytest.raises(ImageError, match=said):
        scripts.boot(loader, URL, Job("n", "i@1", "d", "/m/x", netboot))


def test_names_say_nothing_to_a_boot_loader():
    job = Job('node"; reboot', "web@1\n reboot", "d", "/m/x", RAMDISK)
    for loader in ("ipxe", "grub"):
        text = scripts.boot(loader, URL, job)
        assert 'node"' not in text
        assert "\n reboot" not in text


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://10.1.0.5:8080", "10.1.0.5:8080"),
        ("http://boot.example.org", "boot.example.org"),
        ("http://10.1.0.5:80", "10.1.0.5"),
        ("http://[fd00::5]:8080", "[fd00::5]:8080"),
    ],
)
def test_places_for_grub(url, place):
    assert scripts.place(url) == place
