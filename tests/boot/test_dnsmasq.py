"""dnsmasq as a child: on a segment of its own in a network namespace, asked by a DHCP client of a few lines."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from boot_rig import until
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.boot import dhcp_probe, dnsmasq, dnsmasq_log
from metalimmu.boot.dnsmasq import Dnsmasq
from metalimmu.boot.dnsmasq_log import Heard
from metalimmu.desired.netboot import Netboot
from metalimmu.errors import ListenError, ToolError

URL = "http://10.9.0.1:8080"
CLIENT = Path(__file__).parent / "dhcp_client.py"
MAC = "52:54:00:00:00:01"


@dataclass
class Segment:
    """Two namespaces, ours with `eth0` at 10.9.0.1/24, the machines' with `eth0` and no address."""

    ours: str
    machines: str
    folder: Path

    def dnsmasq(
        self, mode: str = "dhcp", *, range_: str = "10.9.0.100-10.9.0.101", name: str = "", **settings
    ) -> Dnsmasq:
        folder = self.folder / f"run{name}"
        where = {"folder": folder, "leases": self.folder / "leases"}
        wanted = Netboot(mode=mode, interface="eth0", range=range_, **{"ping": False, **settings})
        text = dnsmasq.config(wanted, url=URL, **where)
        self.said: list[str] = []
        prefix = ("ip", "netns", "exec", self.ours)
        files = {"snponly.efi": b"MZ" + b"x" * 5000, "undionly.kpxe": b"k"}
        return Dnsmasq(text, files=files, said=self.said.append, prefix=prefix, **where)

    def tftp(self, name: str) -> bytes:
        argv = ["ip", "netns", "exec", self.ours, "curl", "-s", f"tftp://10.9.0.1/{name}"]
        return subprocess.run(argv, capture_output=True, timeout=20, check=True).stdout

    def ask(self, mac: str = MAC, *more: str, fails: bool = False) -> dict[str, str]:
        """A lease, as `key value` lines."""
        argv = ["ip", "netns", "exec", self.machines, sys.executable, str(CLIENT), "eth0", mac, *more]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.fixture
def segment():
    tag = secrets.token_hex(3)
    ours, machines = f"mi-{tag}-a", f"mi-{tag}-b"
    folder = Path(tempfile.mkdtemp(prefix="metalimmu-test-"))
    folder.chmod(0o755)  # dnsmasq gives up root, and pytest's folders are root's alone
    try:
        for name in (ours, machines):
            subprocess.run(["ip", "netns", "add", name], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        ip(ours, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", machines)
        ip(ours, "addr", "add", "10.9.0.1/24", "dev", "eth0")
        ip(ours, "link", "set", "eth0", "up")
        ip(machines, "link", "set", "eth0", "up")
        yield Segment(ours, machines, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name in (ours, machines):
            subprocess.run(["ip", "netns", "del", name], check=False)


def ip(namespace: str, *words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words], check=True)


@pytest.fixture
def child(segment):
    made = segment.dnsmasq()
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["arch=7"], "snponly.efi"),
        (["arch=9"], "snponly.efi"),
        (["arch=0"], "undionly.kpxe"),
        (["arch=7", "ipxe=1"], f"{URL}/boot/start.ipxe"),
        (["arch=0", "ipxe=1"], f"{URL}/boot/start.ipxe"),
        (["arch=16", "class=HTTPClient:Arch:00016:UNDI:003000"], f"{URL}/boot/efi/snponly.efi"),
        ([], ""),
    ],
)
def test_each_gets_its_loader(segment, child, words, file):
    lease = segment.ask(MAC, *words)
    assert lease["file"] == file
    assert lease["address"].startswith("10.9.0.10")
    assert lease["server"] == "10.9.0.1"
    assert (lease["class"] == "HTTPClient") is ("arch=16" in words)


def test_leases_stay_over_updates_and_restarts(segment, child):
    first = segment.ask(MAC)["address"]
    pid = child.pid
    assert child.update(["52:54:00:00:00:02,10.9.0.50"], ["tag:x,option:bootfile-name,y"])
    assert not child.update(["52:54:00:00:00:02,10.9.0.50"], ["tag:x,option:bootfile-name,y"])
    until(lambda: segment.ask("52:54:00:00:00:02")["address"] == "10.9.0.50", what="the new host has its address")
    assert child.pid == pid
    assert MAC in (segment.folder / "leases").read_text()
    child.stop()
    again = segment.dnsmasq()
    again.start()
    try:
        assert segment.ask(MAC)["address"] == first
    finally:
        again.stop()


def test_a_full_pool_is_said(segment, child):
    for i in range(2):
        segment.ask(f"52:54:00:00:00:1{i}")
    segment.ask("52:54:00:00:00:19", fails=True)
    heard = [h for line in segment.said if (h := dnsmasq_log.parse(line))]
    assert any(h.kind == "no-address" and h.mac == "52:54:00:00:00:19" for h in heard)
    assert any(h.kind == "lease" and h.mac == "52:54:00:00:00:10" for h in heard)


def test_only_known_machines(segment):
    child = segment.dnsmasq(answer="known")
    child.update([MAC], [])
    child.start()
    try:
        assert segment.ask(MAC)["address"]
        segment.ask("52:54:00:00:00:77", fails=True)
    finally:
        child.stop()


def test_as_a_proxy_it_gives_no_address(segment):
    child = segment.dnsmasq("proxy", range_="10.9.0.0/24")
    child.start()
    try:
        segment.ask(MAC, fails=True)  # no PXE client, nothing is said
        offer = segment.ask(MAC, "arch=7", "class=PXEClient:Arch:00007:UNDI:003000", "offer=1")
        assert offer["address"] == "0.0.0.0"
        assert offer["class"] == "PXEClient"
    finally:
        child.stop()


def test_tftp(segment, child):
    assert segment.tftp("snponly.efi") == b"MZ" + b"x" * 5000
    until(lambda: any("sent" in line for line in segment.said), what="it is said")
    assert (
        next(h for line in segment.said if (h := dnsmasq_log.parse(line)) and h.kind == "loader").file == "snponly.efi"
    )


def test_dnsmasq_alone_reads_what_has_secrets(segment, child):
    """It has given up root by then."""
    child.put("m/secret/slot.cpio", [b"token"])
    assert segment.tftp("m/secret/slot.cpio") == b"token"
    assert Path(f"/proc/{child.pid}").stat().st_uid != 0
    for name in ("options", "hosts", "tftp/snponly.efi", "tftp/m/secret/slot.cpio"):
        path = segment.folder / "run" / name
        assert path.is_file()
        stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", str(path)]
        done = subprocess.run(stranger, capture_output=True, text=True, timeout=10, check=False)
        assert (done.returncode, "Permission denied" in done.stderr) == (1, True), name


def test_a_machine_without_the_group(tmp_path, monkeypatch):
    monkeypatch.setattr(dnsmasq, "GROUP", "no-such-group")
    child = Dnsmasq("", folder=tmp_path / "run", leases=tmp_path / "leases", files={"grub.cfg": b"x"})
    with pytest.raises(ToolError, match="no group no-such-group"):
        child.start()
    assert list((tmp_path / "run").iterdir()) == []


def test_who_listens_and_fails_is_said(tmp_path, caplog):
    heard = []

    def said(line: str) -> None:
        heard.append(line)
        raise ToolError("the store is locked") if line == "one" else ValueError("a fault")

    child = Dnsmasq("", folder=tmp_path / "run", leases=tmp_path / "leases", files={}, said=said)
    argv = ["sh", "-c", "echo one >&2; echo two >&2"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as speaker:
        child._listen(speaker)
    assert heard == ["one", "two"]
    assert "a line of dnsmasq's log was not taken: the store is locked" in caplog.text
    assert "ValueError: a fault" in caplog.text


def test_one_that_dies_is_started_again(segment, child):
    pid = child.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: child.pid not in (None, pid), what="another one runs")
    until(lambda: segment.ask(MAC, fails=False), what="it answers")


def test_what_a_killed_controller_left_is_ended(segment, child):
    other = segment.dnsmasq()
    other.start()  # with the same folder
    try:
        until(lambda: not Path(f"/proc/{child._child.pid}").exists() or child._child.poll() is not None)
        assert segment.ask(MAC)["address"]
    finally:
        child._stopping.set()
        other.stop()


def servers(namespace: str) -> str:
    code = "from metalimmu.boot.dhcp_probe import servers; print(*servers('eth0', wait=1.0))"
    argv = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def test_other_servers_are_found(segment):
    assert servers(segment.ours) == ""
    other = segment.dnsmasq(name="-other")
    other.start()
    try:
        assert servers(segment.ours) == "10.9.0.1"
        assert servers(segment.machines) == "10.9.0.1"
    finally:
        other.stop()


@given(st.binary(max_size=400))
def test_what_no_offer_is(data):
    assert dhcp_probe.offered_by(data, b"abcd") == ""
    assert dhcp_probe.offered_by(b"\x02\1\6\0abcd" + data, b"abcd") == ""
    assert dhcp_probe.offered_by(b"\x02\1\6\0abcd" + bytes(228) + b"\x63\x82\x53\x63" + data[:3], b"abcd") == ""


def test_no_such_interface(segment):
    text = dnsmasq.config(
        Netboot(mode="dhcp", interface="nope0", range="10.9.0.9-10.9.0.10"),
        url=URL, folder=segment.folder / "run", leases=segment.folder / "leases",
    )  # fmt: skip
    child = Dnsmasq(text, folder=segment.folder / "run", leases=segment.folder / "leases", files={})
    with pytest.raises((ListenError, ToolError), match="nope0"):
        child.start()


def test_without_root(segment):
    """In one line: what is missing."""
    child = segment.dnsmasq()
    child._prefix = (
        "ip",
        "netns",
        "exec",
        segment.ours,
        "setpriv",
        "--reuid=65534",
        f"--regid={dnsmasq.GROUP}",
        "--clear-groups",
        "--inh-caps=-all",
    )
    with pytest.raises(ListenError, match="needs root, or CAP_NET_ADMIN") as refused:
        child.start()
    assert "\n" not in refused.value.message
    assert "mode: off" in refused.value.hint


def test_a_configuration_that_dnsmasq_refuses(tmp_path):
    child = Dnsmasq("nonsense=1\n", folder=tmp_path / "run", leases=tmp_path / "leases", files={})
    with pytest.raises(ToolError, match="refuses its configuration"):
        child.start()


@pytest.mark.parametrize(
    ("line", "heard"),
    [
        ("dnsmasq-dhcp[7]: DHCPACK(eth0) 10.9.0.100 52:54:00:00:00:01", Heard("lease", MAC, "10.9.0.100")),
        ("dnsmasq-dhcp: 99 DHCPACK(eth0) 10.9.0.100 52:54:00:00:00:01 node", Heard("lease", MAC, "10.9.0.100")),
        ("dnsmasq-dhcp: DHCPDISCOVER(eth0) 52:54:00:00:00:01 no address available", Heard("no-address", MAC)),
        ("dnsmasq-tftp: sent /run/x/tftp/snponly.efi to 10.9.0.1", Heard("loader", "", "10.9.0.1", "snponly.efi")),
        ("dnsmasq-tftp: failed sending /a/b to 10.9.0.1", Heard("tftp-failed", "", "10.9.0.1", "b")),
        (
            "dnsmasq-tftp: error 8 User aborted the transfer received from 10.9.0.1",
            Heard("tftp-ended", "", "10.9.0.1"),
        ),
        ("dnsmasq-tftp: file /a/b not found for 10.9.0.1", Heard("no-file", "", "10.9.0.1", "b")),
        ("dnsmasq-dhcp: DHCPDISCOVER(eth0) 52:54:00:00:00:01", None),
        ("dnsmasq: started, version 2.90", None),
        ("", None),
    ],
)
def test_its_log(line, heard):
    assert dnsmasq_log.parse(line) == heard
    if heard:
        assert heard.sentence()
