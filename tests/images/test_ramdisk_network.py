"""How the ramdisk finds its way to the controller."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from metalimmu import paths


@pytest.fixture(scope="module")
def network() -> ModuleType:
    """It is no part of the package: it lies in the ramdisk beside the agent."""
    spec = importlib.util.spec_from_file_location("ramdisk_network", paths.data("pxe") / "ramdisk/network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def nic(
    root: Path, name: str, *, index: int, mac: str, carrier: str | None, kind: str = "1", device: bool = True
) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "address").write_text(f"{mac}\n")
    (folder / "type").write_text(f"{kind}\n")
    (folder / "ifindex").write_text(f"{index}\n")
    if carrier is not None:
        (folder / "carrier").write_text(f"{carrier}\n")
    if device:
        (folder / "device").mkdir()
        (root / "drivers/ice").mkdir(parents=True, exist_ok=True)
        (folder / "device/driver").symlink_to(root / "drivers/ice")


def test_nics_are_ethernet_with_a_device_in_their_order(network, tmp_path):
    net = tmp_path / "net"
    nic(net, "eth1", index=2, mac="B8:CA:3A:00:00:01", carrier="1")
    nic(net, "eth0", index=3, mac="b8:ca:3a:00:00:02", carrier=None)  # down: its carrier cannot be read
    nic(net, "lo", index=1, mac="00:00:00:00:00:00", carrier="1", kind="772", device=False)
    nic(net, "ib0", index=4, mac="80:00", carrier="1", kind="32")
    found = network.nics(net)
    assert [(n.name, n.mac, n.driver, n.link) for n in found] == [
        ("eth1", "b8:ca:3a:00:00:01", "ice", True),
        ("eth0", "b8:ca:3a:00:00:02", "ice", False),
    ]


def test_no_address_means_dhcp(network):
    assert network.static({}) is None
    assert network.static({"mac": "b8:ca:3a:00:00:01", "vlan": "210"}) is None


def test_static_address(network):
    given = {"address": "10.1.12.7/24", "gateway": "10.1.12.1", "dns": "10.1.0.3, 10.1.0.4", "mtu": "9000"}
    address = network.static(given)
    assert network.up_commands("eth0", address) == [
        ["ip", "link", "set", "eth0", "mtu", "9000"],
        ["ip", "addr", "add", "10.1.12.7/24", "dev", "eth0"],
        ["ip", "route", "add", "default", "via", "10.1.12.1", "dev", "eth0"],
    ]
    assert network.resolv_conf(address) == "nameserver 10.1.0.3\nnameserver 10.1.0.4\n"


def test_a_gateway_outside_of_the_subnet_gets_a_route_first(network):
    address = network.static({"address": "203.0.113.7/32", "gateway": "198.51.100.1"})
    assert network.up_commands("eth0", address)[-2:] == [
        ["ip", "route", "add", "198.51.100.1", "dev", "eth0"],
        ["ip", "route", "add", "default", "via", "198.51.100.1", "dev", "eth0"],
    ]


def test_ipv6(network):
    address = network.static({"address": "2001:db8::7/64", "gateway": "2001:db8::1"})
    assert network.up_commands("eth0", address) == [
        ["ip", "-6", "addr", "add", "2001:db8::7/64", "dev", "eth0"],
        ["ip", "-6", "route", "add", "default", "via", "2001:db8::1", "dev", "eth0"],
    ]


def test_no_gateway_no_route(network):
    assert network.up_commands("eth0", network.static({"address": "10.0.0.2/24"})) == [
        ["ip", "addr", "add", "10.0.0.2/24", "dev", "eth0"]
    ]


@pytest.mark.parametrize("bad", [{"address": "10.0.0.300/24"}, {"address": "10.0.0.2/24", "gateway": "router"}])
def test_a_wrong_address_is_an_error(network, bad):
    with pytest.raises(ValueError, match="does not appear to be"):
        network.static(bad)


def test_vlan(network):
    assert network.vlan_commands("eth0", "210") == [
        ["ip", "link", "add", "link", "eth0", "name", "eth0.210", "type", "vlan", "id", "210"],
        ["ip", "link", "set", "eth0.210", "up"],
    ]


def test_lease(network):
    text = "address=10.1.2.3/20\ngateway=10.1.0.1\ndns=10.1.0.3 10.1.0.4\ndomain=example.org\nmtu=\n"
    lease = network.parse_lease(text)
    assert lease == network.Address("10.1.2.3/20", "10.1.0.1", ("10.1.0.3", "10.1.0.4"), "example.org", "")
    assert network.resolv_conf(lease).startswith("search example.org\nnameserver 10.1.0.3\n")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://10.1.0.5:8443", ("10.1.0.5", 8443)),
        ("https://controller.example", ("controller.example", 443)),
        ("http://[2001:db8::1]:8080/x", ("2001:db8::1", 8080)),
    ],
)
def test_controller(network, url, expected):
    assert network.controller(url) == expected


def test_an_url_without_host_is_an_error(network):
    with pytest.raises(ValueError, match="no host"):
        network.controller("8443")


def test_probe_says_why_not(network):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert network.probe("lo", "127.0.0.1", port) == ""
    assert "refused" in network.probe("lo", "127.0.0.1", port)


def test_wrong_boot_data_end_with_a_line_not_a_trace(network, tmp_path, capsys):
    file = tmp_path / "boot.json"
    file.write_text('{"url": 5}')
    assert network.main([str(file)]) == 1
    assert "the boot data are wrong" in capsys.readouterr().out
