"""Where to look: what people write becomes addresses, each once."""

from __future__ import annotations

import pytest

from metalimmu.bmc.spots import Spot, order, parse, read
from metalimmu.errors import UsageError


def hosts(*items: str, **more: bool) -> list[str]:
    return [str(s) for s in parse(items, **more)]


def test_a_network_without_its_first_and_last_address() -> None:
    assert hosts("10.0.0.0/30") == ["10.0.0.1", "10.0.0.2"]
    assert hosts("10.0.0.4/31") == ["10.0.0.4", "10.0.0.5"]
    assert hosts("10.0.0.9/32") == ["10.0.0.9"]
    assert hosts("10.0.0.5/30") == ["10.0.0.5", "10.0.0.6"]  # an address with its mask means its network


def test_what_overlaps_is_looked_at_once() -> None:
    both = hosts("10.0.0.0/24", "10.0.0.128/25", "10.0.0.7", "10.0.0.5-10.0.0.9")
    assert len(both) == len(set(both)) == 254
    assert hosts("10.0.0.7", "10.0.0.7") == ["10.0.0.7"]


def test_ranges() -> None:
    assert hosts("10.0.0.8-10.0.0.10") == ["10.0.0.8", "10.0.0.9", "10.0.0.10"] or len(hosts("10.0.0.8-10.0.0.10")) == 3
    assert len(hosts("10.0.0.5-9")) == 5


def test_addresses_with_ports_names_and_schemes() -> None:
    found = list(
        parse(["10.0.0.1:8443", "bmc-1.example.com", "redfish+https://[fd00::5]:444/", "ipmi://10.0.0.2", "fd00::7"])
    )
    assert found == [
        Spot("10.0.0.1", 8443),
        Spot("bmc-1.example.com"),
        Spot("fd00::5", 444, "redfish+https"),
        Spot("10.0.0.2", 0, "ipmi"),
        Spot("fd00::7"),
    ]
    assert str(found[2]) == "[fd00::5]:444"


def test_an_address_with_a_port_stays_beside_its_network() -> None:
    assert "10.0.0.1:8443" in hosts("10.0.0.0/30", "10.0.0.1:8443")


@pytest.mark.parametrize(
    "item",
    [
        "10.0.0.0/33",
        "10.0.0.300",
        "http:/x",
        "10.0.0.9-10.0.0.1",
        "ftp://10.0.0.1",
        "",
        " ",
        "a b",
        "1.2.3.4/x",
        "10.0.0.1:99999",
        "--",
    ],
)
def test_what_is_no_address_is_named(item: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse([item])
    assert repr(item) in caught.value.message or "no address" in caught.value.message


def test_absurd_ranges_need_a_word() -> None:
    assert len(parse(["10.0.0.0/16"])) == 65534
    with pytest.raises(UsageError, match="131,07") as caught:
        parse(["10.0.0.0/15"])
    assert "--yes" in caught.value.hint
    assert len(parse(["10.0.0.0/15"], large=True)) == 131070
    for absurd in ("0.0.0.0/0", "fd00::/64", "::/0"):
        with pytest.raises(UsageError, match="addresses are to be looked at") as caught:
            parse([absurd], large=True)
        assert "--yes" not in caught.value.hint


def test_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="no address"):
        parse([])


def test_lists() -> None:
    assert read("# BMCs\n10.0.0.1\n\n10.0.0.0/30  # rack 1\n10.0.0.9, web-1\n") == [
        "10.0.0.1",
        "10.0.0.0/30",
        "10.0.0.9",
    ]
    assert read("name,bmc,serial\nweb-1,redfish+https://10.0.0.1,X\nweb-2,,Y\n") == ["redfish+https://10.0.0.1"]
    assert read("") == []


def test_order_is_by_number() -> None:
    assert sorted(["10.0.0.10:8443", "10.0.0.9", "web", "[fd00::1]:443", "fd00::2"], key=order) == [
        "10.0.0.9",
        "10.0.0.10:8443",
        "[fd00::1]:443",
        "fd00::2",
        "web",
    ]


def test_networks_and_ranges_have_ports_too() -> None:
    assert hosts("10.0.0.0/30:8443") == ["10.0.0.1:8443", "10.0.0.2:8443"]
    assert hosts("10.0.0.1-10.0.0.2:8443") == ["10.0.0.1:8443", "10.0.0.2:8443"]
    assert hosts("fd00::/126:8443") == ["[fd00::1]:8443", "[fd00::2]:8443", "[fd00::3]:8443"]
    assert sorted(hosts("10.0.0.0/30", "10.0.0.0/30:444", "10.0.0.1:444", "10.0.0.2")) == [
        "10.0.0.1", "10.0.0.1:444", "10.0.0.2", "10.0.0.2:444",
    ]  # fmt: skip


def test_ports_are_for_all_that_name_none() -> None:
    found = parse(["10.0.0.0/30", "10.0.0.9", "10.0.0.8:1", "ipmi://10.0.0.7", "https://a"], ports=[443, 8443])
    assert len(found) == len(list(found)) == 10
    assert {str(s) for s in found} == {
        "10.0.0.1:443", "10.0.0.2:443", "10.0.0.1:8443", "10.0.0.2:8443", "10.0.0.9:443", "10.0.0.9:8443",
        "10.0.0.8:1", "10.0.0.7", "a:443", "a:8443",
    }  # fmt: skip


def test_a_port_that_is_none() -> None:
    with pytest.raises(UsageError, match="no port 70000"):
        parse(["10.0.0.0/30:70000"])
