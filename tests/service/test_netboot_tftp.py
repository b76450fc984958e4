"""Boots by TFTP, for the signed GRUB: what lies where, for how long, and who asks too often."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from metalimmu.boot.dnsmasq import Dnsmasq
from metalimmu.boot.netboot_files import Pieces
from metalimmu.boot.ports import Netboot
from metalimmu.errors import ImageError
from metalimmu.service.netboot import NetbootSide
from metalimmu.service.netboot_tftp import TftpBoots
from metalimmu.service.site import OpenSite
from metalimmu.store.records import DeploymentRecord
from metalimmu.wire.messages import Assignment, RootDisk

MAC = "52:54:00:00:00:01"
SITE = """\
name: t
urls: {bmc: "http://10.98.0.1:1", machines: "https://10.98.0.1:2"}
netboot: {mode: dhcp, interface: eth9, range: "10.98.0.9-10.98.0.99", loader: shim, max_boots: 2}
"""


class Content:
    broken = False

    def netboot(self, _deployment) -> Netboot:
        if self.broken:
            raise ImageError("no ramdisk")
        return Netboot("vmlinuz", ("initrd", "slot.cpio"), "quiet")

    def netboot_file(self, deployment, name: str) -> Pieces:
        return Pieces([f"{deployment.id} {name}".encode()])

    def files_path(self, deployment: str) -> str:
        return f"/m/secret-{deployment}"


@pytest.fixture
def site(tmp_path: Path):
    (tmp_path / "site.yaml").write_text(SITE)
    opened = OpenSite(tmp_path)
    assignment = Assignment("d1", 1, "write", "web@1", "sha256:" + "1" * 64, "", "", "", (MAC,), RootDisk(), host="n1")
    hashes = {f"{kind}_hash": kind for kind in ("token", "proof", "media", "chunk")}
    record = DeploymentRecord(id="d1", run="d1", host="n1", assignment=assignment, fence=1, offered=5.0, **hashes)
    opened.store.add_deployment(record)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("url", "listens", "told"),
    [
        ("http://10.98.0.1:8080", True, ["dhcp-option=tag:onie,option:log-server,10.98.0.1"]),
        ("http://10.98.0.1:8080", False, []),  # ONIE would talk to a port where nobody is
        ("http://localhost:8080", True, ["dhcp-option=tag:onie,option:log-server,127.0.0.1"]),
        ("http://localhost:8080", False, []),
        ("http://no-such-name.invalid:8080", True, []),
        ("http://[fd00::5]:8080", True, []),
    ],
)
def test_dnsmasq_takes_whatever_address_machines_reach_us_at(site, tmp_path, url, listens, told):
    if listens:
        (tmp_path / "site.yaml").write_text(SITE + 'listen: {syslog: "127.0.0.1:5514"}\n')
        site = OpenSite(tmp_path)
    text = NetbootSide(site, url, lambda path, _: path, Content()).config(tmp_path, tmp_path / "leases")
    assert [line for line in text.splitlines() if "log-server" in line] == told
    for name in ("hosts", "options"):
        (tmp_path / name).write_text("")
    (tmp_path / "dnsmasq.conf").write_text(text)
    argv = ["dnsmasq", "--test", "-C", tmp_path / "dnsmasq.conf"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def files(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


def child(tmp_path: Path) -> Dnsmasq:
    return Dnsmasq("", folder=tmp_path / "run", leases=tmp_path / "leases", files={})


def test_what_is_offered_lies_there_and_goes_with_the_offer(site, tmp_path):
    boots, root = TftpBoots(site, Content(), child(tmp_path)), tmp_path / "run" / "tftp"
    boots.update(site.store.offers())
    found = files(root)
    assert found["m/secret-d1/vmlinuz"] == "d1 vmlinuz"
    assert found["m/secret-d1/slot.cpio"] == "d1 slot.cpio"
    config = found[f"grub/{MAC}.cfg"]
    assert "linux \"(tftp)/m/secret-d1/vmlinuz\" 'quiet'" in config
    assert 'initrd "(tftp)/m/secret-d1/initrd" "(tftp)/m/secret-d1/slot.cpio"' in config
    assert (root / "m").stat().st_mode & 0o777 == 0o711  # nobody lists the secrets
    boots.update(site.store.offers())
    assert files(root) == found
    boots.update([])
    assert files(root) == {}


def test_what_cannot_be_laid_is_tried_again(site, tmp_path, caplog):
    content = Content()
    content.broken = True
    boots, root = TftpBoots(site, content, child(tmp_path)), tmp_path / "run" / "tftp"
    boots.update(site.store.offers())
    assert "n1 cannot boot by TFTP: no ramdisk" in caplog.text
    assert not files(root) if root.exists() else True
    content.broken = False
    boots.update(site.store.offers())
    assert f"grub/{MAC}.cfg" in files(root)


def heard(lines: Iterable[str], site: OpenSite, tmp_path: Path) -> None:
    side = NetbootSide(site, "http://10.98.0.1:1", lambda path, _: path, Content())
    side._tftp = TftpBoots(site, Content(), child(tmp_path))
    side._look(child(tmp_path))
    for line in lines:
        side._hear(line)


def test_a_machine_that_asks_too_often_is_stopped(site, tmp_path):
    line = f"dnsmasq-tftp[7]: sent /run/x/tftp/grub/{MAC}.cfg to 10.98.0.9"
    heard([line] * 2, site, tmp_path)
    assert site.store.deployment("d1").failure is None
    assert site.store.deployment("d1").asked == 2
    heard([line], site, tmp_path)
    assert site.store.deployment("d1").failure.code == "BootLoop"
    assert site.store.offers() == []


def test_one_that_nobody_knows_is_recorded(site, tmp_path):
    before = time.time()
    heard(["dnsmasq-tftp[7]: file /run/x/tftp/grub/52:54:00:00:00:99.cfg not found for 10.98.0.9"], site, tmp_path)
    (seen,) = site.store.discovered()
    assert (seen.mac, seen.via, seen.address) == ("52:54:00:00:00:99", "grub", "10.98.0.9")
    assert seen.last_seen >= before
