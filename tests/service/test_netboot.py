"""The worker's dnsmasq on a real segment: a virtual cable from here into a namespace where the machines are."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from metalimmu.desired.resolve import resolve_all
from metalimmu.errors import ListenError
from metalimmu.service import switches
from metalimmu.service.netboot import NetbootSide, host_lines, run_folder
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import DeploymentRecord
from metalimmu.store.switch_records import SwitchRecord
from metalimmu.wire.messages import Assignment, RootDisk

CLIENT = Path(__file__).parents[1] / "boot" / "dhcp_client.py"
MAC = "52:54:00:00:00:01"
SITE = """\
name: t
urls: {{bmc: "http://10.98.0.1:{bmc}", machines: "https://10.98.0.1:{machines}"}}
listen: {{bmc: "127.0.0.1:{bmc}", machines: "127.0.0.1:{machines}"}}
mode: read-write
netboot: {{mode: {mode}, interface: {interface}, range: "{range}", ping: false}}
"""
HOSTS = """\
- {name: node-1, bmc: "fake://netboot-1", nics: ["52:54:00:00:00:01"], network: {address: 10.98.0.77/24}}
- {name: node.2, bmc: "fake://netboot-2", nics: ["52:54:00:00:00:02", "52:54:00:00:00:03"]}
- {name: node-3, bmc: "fake://netboot-3"}
- {name: node-4, bmc: "fake://netboot-4", nics: ["52:54:00:00:00:05"], network: {address: 10.98.0.78/24, vlan: 7}}
"""


class Wire:
    """`interface` is here and has 10.98.0.1, its other end is `eth0` in `machines`."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        self.interface, self.machines = f"mi{tag}", f"mi-{tag}"

    def lay(self) -> None:
        _run("ip", "netns", "add", self.machines)
        _run("ip", "link", "add", self.interface, "type", "veth", "peer", "name", "eth0", "netns", self.machines)
        _run("ip", "addr", "add", "10.98.0.1/24", "dev", self.interface)
        _run("ip", "link", "set", self.interface, "up")
        _run("ip", "-n", self.machines, "link", "set", "eth0", "up")

    def remove(self) -> None:
        subprocess.run(["ip", "link", "del", self.interface], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.machines], check=False, capture_output=True)

    def ask(self, mac: str) -> str:
        argv = ["ip", "netns", "exec", self.machines, sys.executable, str(CLIENT), "eth0", mac, "arch=7"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        return dict(line.split(" ", 1) for line in done.stdout.splitlines()).get("address", "")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def wire():
    made = Wire()
    try:
        made.lay()
        yield made
    finally:
        made.remove()


def site(folder: Path, wire: Wire, *, mode: str = "dhcp", range_: str = "10.98.0.100-10.98.0.120") -> OpenSite:
    ports = {"bmc": _free_port(), "machines": _free_port()}
    (folder / "hosts").mkdir()
    (folder / "site.yaml").write_text(SITE.format(mode=mode, interface=wire.interface, range=range_, **ports))
    (folder / "hosts" / "all.yaml").write_text(HOSTS)
    return OpenSite(folder)


def side(opened: OpenSite) -> NetbootSide:
    return NetbootSide(opened, "http://10.98.0.1:8080", lambda path, d: path.format(d), None)


def offered(host: str) -> DeploymentRecord:
    assignment = Assignment("d1", 1, "write", "web@1", "sha256:" + "1" * 64, "", "", "", (MAC,), RootDisk(), host=host)
    hashes = {f"{kind}_hash": kind for kind in ("token", "proof", "media", "chunk")}
    return DeploymentRecord(
        id="d1", run="d1", host=host, assignment=assignment, fence=1, method="pxe", offered=time.time(), **hashes
    )


SWITCH = """\
- name: leaf-1
  kind: switch
  serial: LEAF1
  bmc: "ssh://10.98.0.5"
  switch: {platform: x86_64-lab_switch-r0, base_mac: "52:54:00:10:00:01", mgmt_mac: "52:54:00:10:00:02", user: admin}
"""


def test_switches_are_known_while_no_run_is_theirs(tmp_path, wire):
    """With `answer: known` one that is not would lose its address."""
    site(tmp_path, wire).close()
    (tmp_path / "hosts" / "switches.yaml").write_text(SWITCH)
    opened = OpenSite(tmp_path)
    netboot = side(opened)
    told = []
    netboot._look(SimpleNamespace(update=lambda hosts, options: told.append((list(hosts), options))))
    opened.close()
    ((hosts, options),) = told
    assert "52:54:00:10:00:02,set:switch-leaf-1" in hosts
    assert options == []


@pytest.mark.parametrize(("method", "served"), [("onie", ["onie", "onie", "ztp"]), ("two-slot", [])])
def test_what_onie_installs_alone_is_told_addresses(tmp_path, wire, method, served):
    """A second slot keeps its config: its secret, which is in arguments of commands, opens no file with one."""
    opened = site(tmp_path, wire)
    record = SwitchRecord(
        id="r1", run="r1", host="leaf-1", secret_hash="h", method=method, image="lab@1", digest="d", size=1, serial="LEAF1",
        base_mac="52:54:00:10:00:01", mgmt_mac="52:54:00:10:00:02", platform="x86_64-lab_switch-r0", fence=1, installs=1,
    )  # fmt: skip
    opened.store.switches.add(record)
    hosts, options = switches.dhcp_lines(opened, lambda path, run: f"http://x{path.format(run)}")
    opened.close()
    assert hosts == ["52:54:00:10:00:02,set:switch-leaf-1"]
    assert [line.partition("http://x/")[2].partition("/")[0] for line in options] == served


def test_hosts_are_known_by_their_nics(tmp_path, wire):
    opened = site(tmp_path, wire)
    lines = host_lines(resolve_all(opened.docs, root=tmp_path).values())
    assert lines == [
        "52:54:00:00:00:01,10.98.0.77,set:host-node-1",
        "52:54:00:00:00:02,52:54:00:00:00:03,set:host-node-2",
        "52:54:00:00:00:05,set:host-node-4",
    ]


def test_a_host_gets_its_address_and_its_history_says_so(tmp_path, wire):
    opened = site(tmp_path, wire)
    opened.store.add_deployment(offered("node-1"))
    netboot = side(opened)
    netboot.start()
    try:
        assert run_folder(opened.state).joinpath("tftp", "snponly.efi").stat().st_size > 100_000
        assert wire.ask(MAC) == "10.98.0.77"
        assert wire.ask("52:54:00:00:00:99").startswith("10.98.0.1")
        deadline = time.monotonic() + 5
        while not opened.store.history("node-1", kind="netboot"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (event,) = opened.store.history("node-1", kind="netboot")
        assert event.text == f"DHCP answered {MAC}: 10.98.0.77"
        assert event.run == "d1"
    finally:
        netboot.stop()
        opened.close()
    assert netboot.pid is None
    assert not run_folder(opened.state).exists()
    assert MAC in (opened.state / "netboot" / "leases").read_text()


def test_two_servers_on_the_segment(tmp_path, wire):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = site(tmp_path / "a", wire), site(tmp_path / "b", wire)
    other = side(first)
    other.start()
    try:
        with pytest.raises(ListenError, match=r"another DHCP server answers on mi\w+: 10\.98\.0\.1") as refused:
            side(second).start()
        assert "mode: proxy" in refused.value.hint
    finally:
        other.stop()
        first.close()
        second.close()


def test_a_proxy_alone_is_said(tmp_path, wire, caplog):
    opened = site(tmp_path, wire, mode="proxy", range_="10.98.0.0/24")
    netboot = side(opened)
    netboot.start()
    try:
        assert "no DHCP server answers" in caplog.text
        assert netboot.pid
    finally:
        netboot.stop()
        opened.close()


def test_the_worker_has_it_as_a_child(tmp_path, wire):
    opened = site(tmp_path, wire)
    worker = Worker(opened)
    try:
        assert worker.try_start()
        assert wire.ask(MAC) == "10.98.0.77"
    finally:
        worker.stop()
        opened.close()
    assert wire.ask(MAC) == ""
