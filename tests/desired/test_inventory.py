"""Bare lists of BMCs, as people have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.desired.inventory import address, parse
from metalimmu.errors import SiteError


@pytest.mark.parametrize(
    ("text", "bmc"),
    [
        ("10.0.0.1", "redfish+https://10.0.0.1"),
        ("10.0.0.1:8443", "redfish+https://10.0.0.1:8443"),
        ("bmc-7.example.com", "redfish+https://bmc-7.example.com"),
        ("fd00::1", "redfish+https://[fd00::1]"),
        ("[fd00::1]:443", "redfish+https://[fd00::1]:443"),
        ("https://10.0.0.1/redfish/v1", "redfish+https://10.0.0.1"),
        ("redfish+http://10.0.0.1/", "redfish+http://10.0.0.1"),
        ("ipmi://10.0.0.1", "ipmi://10.0.0.1"),
    ],
)
def test_addresses(text, bmc):
    assert address(text) == bmc


@pytest.mark.parametrize(
    "text", ["", "ssh://x", "http://", "user:pw@10.0.0.1", "10.0.0.1:port", "10.0.0.1:99999", "a b", "[fd00::1"]
)
def test_no_addresses(text):
    with pytest.raises(ValueError, match=r"address|Invalid|Port"):
        address(text)


def test_one_address_per_line():
    found = parse("# racks 1 and 2\n10.0.0.1\n\n10.0.0.2\r\n10.0.0.1\n")
    assert [(h.name, h.bmc) for h in found] == [
        ("10.0.0.1", "redfish+https://10.0.0.1"),
        ("10.0.0.2", "redfish+https://10.0.0.2"),
    ]


def test_csv_with_a_header():
    text = "\ufeffName,Address,location.rack,credentials,ignored\nn1,10.0.0.1,r1,env:A,x\nn2, ipmi://10.0.0.2 ,,,\n"
    first, second = parse(text)
    assert (first.name, first.bmc, first.rack, first.credentials) == ("n1", "redfish+https://10.0.0.1", "r1", "env:A")
    assert (second.name, second.bmc, second.rack, second.credentials) == ("n2", "ipmi://10.0.0.2", None, None)


def test_the_hosts_of_a_site_will_do():
    (one,) = parse('name,bmc,serial,nics\nr12-u07,redfish+https://10.12.0.7,7XK2P13,"b8:ca:3a:00:00:01"\n')
    assert (one.name, one.bmc) == ("r12-u07", "redfish+https://10.12.0.7")


def test_names_are_unique_and_systems_are_told_apart():
    found = parse("name,bmc,system\nn1,10.0.0.1,1\nn1,10.0.0.1,2\nn1,10.0.0.1,2\n")
    assert [(h.name, h.system) for h in found] == [("n1", "1"), ("n1 (10.0.0.1)", "2")]


def test_all_problems_at_once_with_their_lines():
    with pytest.raises(SiteError, match=r"2 lines of hosts\.csv") as caught:
        parse("bmc\n10.0.0.1\nssh://x\n10.0.0.2:port\n", "hosts.csv")
    assert [p.partition(": ")[0] for p in caught.value.problems] == ["hosts.csv:3", "hosts.csv:4"]
    many = "\n".join("ssh://x" for _ in range(50))
    with pytest.raises(SiteError) as caught:
        parse(many)
    assert len(caught.value.problems) == 21
    for empty in ("", "# nothing\n", "bmc,name\n"):
        with pytest.raises(SiteError, match="lists no BMC"):
            parse(empty)


@given(text=st.text(max_size=200))
def test_any_text_gives_hosts_or_says_what_is_wrong(text):
    try:
        found = parse(text)
    except SiteError:
        return
    assert found
    assert len({h.name for h in found}) == len(found)
