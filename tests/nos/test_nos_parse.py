"""What switches print, read: outputs in the form that each NOS has."""

from __future__ import annotations

import pytest

from metalimmu.nos import parse
from metalimmu.nos.adapter import adapters, fitting
from metalimmu.nos.driver import commands
from metalimmu.observed.switch import Bond, Neighbour, Slots

MCLAG = """The MCLAG's keepalive is: OK
MCLAG info sync is: completed
Domain id: 1
Local Ip: 192.168.3.1
Peer Ip: 192.168.3.2
Peer Link Interface: PortChannel30
Keepalive time: 1
sesssion Timeout : 15
Peer Link Mac: b8:6a:97:73:6c:96
Role: Active
MCLAG Interface: PortChannel50,PortChannel51
Loglevel: NOTICE
Bond PortChannel50: local up remote up
Bond PortChannel51: local up remote down
Link PortChannel30: up
"""
CLAG = """{"clagIntfs": {"bond1": {"clagId": 1, "operstate": "up", "peerIf": "bond1", "status": "dual"},
  "bond2": {"clagId": 2, "operstate": "down", "status": "-"}},
 "status": {"backupActive": false, "peerAlive": true, "ourRole": "primary", "peerIf": "peerlink.4094"}}"""
LLDP = """{"lldp": [{"interface": [
  {"name": "eth0", "via": "LLDP", "chassis": [{"id": [{"type": "mac", "value": "00:11"}], "name": [{"value": "mgmt-1"}]}],
   "port": [{"id": [{"type": "ifname", "value": "Gi0/1"}], "descr": [{"value": "x"}]}]},
  {"name": "Ethernet0", "chassis": [{"id": [{"type": "mac", "value": "00:22"}]}], "port": [{"id": [{"value": "e4"}]}]}]}]}"""
EEPROM = """TLV Name             Code Len Value
-------------------- ---- --- -----
Product Name         0x21  11 AS7726-32X
Serial Number        0x23  14 772632X2010012
Base MAC Address     0x24   6 34:EF:B6:00:11:22
"""


def test_sonics_pair() -> None:
    found = parse.mclag(MCLAG)
    assert (found.alive, found.backup, found.link, found.role) == (True, None, True, "active")
    assert not found.has_backup
    assert (
        parse.mclag(MCLAG.replace("PortChannel30: up", "PortChannel30: ")).link is False
    )  # there, and nothing said of it
    assert parse.mclag(MCLAG.replace("Link PortChannel30: up", "")).link is None
    assert found.bonds == (
        Bond(name="PortChannel50", up=True, dual=True),
        Bond(name="PortChannel51", up=True, dual=False),
    )
    assert not parse.mclag(MCLAG.replace("keepalive is: OK", "keepalive is: ERROR")).alive
    assert not parse.mclag(
        MCLAG.replace("sync is: completed", "sync is: incomplete")
    ).alive  # up, and its session broken
    with pytest.raises(ValueError, match="no keepalive"):
        parse.mclag("iccpd is not running")


def test_cumulus_pair() -> None:
    found = parse.clag(CLAG)
    assert (found.alive, found.backup, found.link, found.has_backup) == (True, False, None, True)
    assert found.bonds == (Bond(name="bond1", up=True, dual=True), Bond(name="bond2", up=False, dual=False))
    for broken in ("{}", "[]", "", '{"status": {"peerAlive": "yes"}}', "The daemon is not running"):
        with pytest.raises(ValueError, match="no "):
            parse.clag(broken)


def test_neighbours_are_in_order_and_have_a_name_of_some_kind() -> None:
    assert parse.neighbours(LLDP) == (
        Neighbour(port="Ethernet0", system="00:22", remote_port="e4"),
        Neighbour(port="eth0", system="mgmt-1", remote_port="Gi0/1"),
    )
    assert parse.neighbours('{"lldp": [{}]}') == ()


def test_small_things() -> None:
    assert parse.slots("Current: S-1\nNext: S-2\nAvailable: \nS-1\nS-2\n") == Slots(
        current="S-1", next="S-2", available=("S-1", "S-2")
    )
    assert parse.eeprom(EEPROM) == {"serial": "772632X2010012", "base_mac": "34:EF:B6:00:11:22"}
    assert parse.fields("set onie_platform='x86_64-a_b-r0'\nonie_arch=x86_64\nbuild_version: '202411.1'\n") == {
        "onie_platform": "x86_64-a_b-r0", "onie_arch": "x86_64", "build_version": "202411.1",
    }  # fmt: skip
    assert (
        parse.space("Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda4 100 40 60 40% /host")
        == 60 * 1024
    )
    assert parse.memory("MemTotal:        8000 kB\n") == 8000 * 1024
    assert parse.route("10.0.0.1 52718 10.0.0.2 22\n10.0.0.1 dev eth0 src 10.0.0.2 uid 0") == "eth0"
    assert parse.traffic("System Mode: Maintenance") == "maintenance"
    assert parse.ztp("ZTP Admin Mode : True\nZTP Status     : SUCCESS\n") == "SUCCESS"
    assert parse.mac("52-54-00-AA-00-01") == "52:54:00:aa:00:01"


@pytest.mark.parametrize(
    ("reader", "text"),
    [(parse.mac, "none"), (parse.word, " \n"), (parse.memory, ""), (parse.space, "df: no"), (parse.route, ""), (parse.slots, "sudo: no"),
     (parse.traffic, ""), (parse.ztp, "")],
)  # fmt: skip
def test_nothing_is_guessed(reader, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        reader(text)


def test_each_nos_is_known_by_what_it_says() -> None:
    assert fitting({"ID": "debian"}, {"build_version": "202411"}) == "sonic"
    assert fitting({"ID": "cumulus-linux"}, {}) == "cumulus"
    assert fitting({"ID": "lab-nos"}, {}) == "lab"
    assert fitting({"ID": "debian"}, {}) == ""


def test_what_is_asked_of_each_nos() -> None:
    sonic, cumulus = commands("sonic"), commands("cumulus")
    assert sonic["shift"] == ("sudo -n TSA",)
    assert sonic["keep"] == ("sudo -n sonic-installer set-default NEW",)
    (onie,) = cumulus["onie"]
    assert "onie-select -i" in onie
    assert onie.endswith("onie-boot-mode -o install && sudo -n /mnt/onie-boot/onie/tools/bin/onie-boot-mode -l")
    assert "slot" not in cumulus
    assert set(adapters()) == {"lab", "sonic", "cumulus"}
