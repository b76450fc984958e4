"""One round of the lab's ONIE on a real segment: every method in ONIE's order, each with an installer that fails."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from switch_rig import Switch

from metalimmu import paths
from metalimmu.images import lab_switch
from metalimmu_emulator import switch
from metalimmu_emulator.lab import Lab

pytestmark = pytest.mark.emulator

FAILING = b"#!/bin/sh\necho 'no room on this switch'\nexit 3\n"
UPDATER = b"#!/bin/sh\n# ONIE-UPDATER-COOKIE\nexit 0\n"
PLATFORM = "x86_64-kvm_x86_64-r0"
WATERFALL = [PLATFORM, "x86_64-kvm_x86_64", "kvm_x86_64", "x86_64-qemu", "x86_64", ""]

DNSMASQ = """port=0
interface={bridge}
except-interface=lo
bind-dynamic
log-facility=-
log-dhcp
user=root
dhcp-leasefile={folder}/leases
dhcp-range={first},{last},10m
dhcp-authoritative
dhcp-vendorclass=set:onie,onie_vendor:{platform}
dhcp-userclass=set:onie-user,onie_dhcp_user_class
dhcp-option=tag:onie,tag:onie-user,vi-encap:42623,1,"http://{address}:8080/by-vivso"
dhcp-option=tag:onie,114,"http://{address}:8080/by-default-url"
dhcp-option=tag:onie,67,"http://{address}:8080/by-bootfile"
dhcp-option=tag:onie,7,{address}
enable-tftp
tftp-root={folder}/tftp
"""


class Web:
    """On ports 80 and 8080 of the segment's address."""

    def __init__(self, address: str, files: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                data = files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *args: Any) -> None:
                pass

        self._servers = [ThreadingHTTPServer((address, port), Handler) for port in (80, 8080)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def bare(lab_up: Callable[..., Lab]) -> Switch:
    disk = lab_switch.build(switch.FILES, paths.cache() / "lab" / "switch").disk
    return Switch(lab_up(servers=0, switches=1, switch_disk=disk, network=True), "sw-1")


@pytest.fixture
def served(bare: Switch, tmp_path: Path) -> Iterator[tuple[Web, Callable[[], str]]]:
    segment = bare.lab.spec.segment
    assert segment is not None
    by_mac = tmp_path / "tftp" / bare.spec.mac.replace(":", "-")
    by_mac.mkdir(parents=True)
    (by_mac / f"onie-installer-{PLATFORM}").write_bytes(FAILING)
    (tmp_path / "tftp" / "onie-installer.bin").write_bytes(FAILING)
    first, last = segment.range.split("-")
    config = tmp_path / "dnsmasq.conf"
    config.write_text(
        DNSMASQ.format(
            bridge=segment.bridge, folder=tmp_path, first=first, last=last, address=segment.address, platform=PLATFORM
        )
    )
    web = Web(
        segment.address,
        {"/by-vivso": FAILING, "/by-default-url": UPDATER, "/by-bootfile": FAILING, "/onie-installer-x86_64": FAILING},
    )
    log = tmp_path / "dnsmasq.log"
    with log.open("wb") as out:
        dnsmasq = subprocess.Popen(["dnsmasq", "--keep-in-foreground", f"--conf-file={config}"], stdout=out, stderr=out)
    yield web, lambda: log.read_text(errors="replace")
    dnsmasq.terminate()
    dnsmasq.wait(20)
    web.close()


def test_every_method_in_turn(bare: Switch, served: tuple[Web, Callable[[], str]]) -> None:
    web, dnsmasq = served
    bare.power("On")
    bare.until_said("discovery, round 2")

    # HTTP: option 125, 114 (an updater, which is not run), the names on port 80 of the one server, the bootfile as a URL.
    names = [f"/onie-installer-{n}" if n else "/onie-installer" for n in WATERFALL]
    both = [each for n in names for each in (n, f"{n}.bin")]
    assert web.asked[: len(both) + 3] == ["/by-vivso", "/by-default-url", *both, "/by-bootfile"]
    # TFTP: by MAC, by address in hex digits, by the names alone.
    said = bare.console()
    fetched = [
        line.split()[2].rpartition("//")[2].partition("/")[2]
        for line in said.splitlines()
        if line.startswith("Info: Fetched")
    ]
    assert fetched[:6] == [
        "by-vivso",
        "by-default-url",
        "onie-installer-x86_64",
        "by-bootfile",
        f"{bare.spec.mac.replace(':', '-')}/onie-installer-{PLATFORM}",
        "onie-installer.bin",
    ]
    assert said.count("(exit code 3)") == 5
    assert "this is an image of type update, not for install" in said
    # Who it is, by DHCP.
    heard = dnsmasq()
    assert f"vendor class: onie_vendor:{PLATFORM}" in heard
    assert "tags: onie" in heard
    segment = bare.lab.spec.segment
    assert segment is not None
    hexes = "".join(
        f"{int(part):02X}" for part in bare.until(lambda: _address(heard, bare.spec.mac), "an address").split(".")
    )
    assert f"/{hexes}/onie-installer-{PLATFORM} not found" in heard
    assert f"/{hexes[:1]}/onie-installer-{PLATFORM} not found" in heard


def _address(log: str, mac: str) -> str:
    acks = [line.split() for line in log.splitlines() if "DHCPACK" in line and mac in line]
    return acks[-1][acks[-1].index(mac) - 1] if acks else ""
