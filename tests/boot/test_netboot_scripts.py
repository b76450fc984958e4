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
    "dhcp-drivers": Settings(mode="dhcp", interface="eth1", range="10.1.0.100-10.1.0.200", loader="ipxe-drivers"),
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


V6 = "http://[fd00::5]:8080"


def test_an_ipv6_address_is_bracketed_where_the_loaders_want_it():
    """GRUB's device is `(http,[ADDRESS]:PORT)`, iPXE takes a URL. Nowhere is it without its brackets."""
    ipxe = [scripts.start("ipxe", V6), scripts.boot("ipxe", V6, JOB)]
    grub = [scripts.start("grub", V6), scripts.boot("grub", V6, JOB)]
    assert f"imgfetch --name script {V6}/boot/ipxe?mac=" in ipxe[0]
    assert f"kernel --name vmlinuz {V6}/m/abcdefgh/vmlinuz initrd=" in ipxe[1]
    assert f"initrd --name slot.cpio {V6}/m/abcdefgh/slot.cpio ||" in ipxe[1]
    assert 'configfile "(http,[fd00::5]:8080)/boot/grub.cfg?$who"' in grub[0]
    assert 'linux "(http,[fd00::5]:8080)/m/abcdefgh/vmlinuz"' in grub[1]
    assert '"(http,[fd00::5]:8080)/m/abcdefgh/slot.cpio"' in grub[1]
    for text in (*ipxe, *grub):
        assert text.count("fd00::5") == text.count("[fd00::5]:8080") > 0


def test_dnsmasq_sends_loaders_to_an_ipv6_address(tmp_path):
    for name in ("hosts", "options"):
        (tmp_path / name).write_text("")
    for settings in SETTINGS.values():
        text = dnsmasq.config(settings, url=V6, folder=tmp_path, leases=tmp_path / "leases")
        assert f"dhcp-boot=tag:ipxe,{V6}/boot/start.ipxe" in text
        (tmp_path / "dnsmasq.conf").write_text(text)
        argv = ["dnsmasq", "--test", "-C", tmp_path / "dnsmasq.conf"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_what_is_served_by_how_a_machine_boots():
    """What `auto` believes: see plan.method.Can."""
    served = {name: set(dnsmasq.boot_files(settings, URL)) for name, settings in SETTINGS.items()}
    assert served["dhcp"] == served["dhcp-drivers"] == {"bios", "uefi", "http"}
    assert served["dhcp-shim"] == {"uefi"}
    assert served["proxy"] == {"bios", "uefi"}


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
