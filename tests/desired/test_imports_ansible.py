"""Ansible inventories of the kinds that people have."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.desired.ansible_inventory import expanded, parse
from metalimmu.desired.imports import bmc_url
from metalimmu.desired.imports_ansible import imported
from metalimmu.errors import UsageError
from metalimmu.service.brownfield import imports

INI = """\
# production
bastion.example.com ansible_host=10.1.0.1

[web]
web[01:03].example.com idrac_ip=10.12.0.7   # the first of them; the others below
web02.example.com idrac_ip=10.12.0.8 service_tag="7XK2P14"
web03.example.com:2222 idrac_ip='10.12.0.9'

[gpu]
gpu-a ilo_host=ilo-gpu-a.mgmt.example.com ansible_password="hunter 2"
gpu-b ilo_host="{{ inventory_hostname }}.mgmt.example.com"
gpu-c ilo_host="{{ lookup('dns', 'x') }}"

[gpu:vars]
serial=OF-A-WHOLE-GROUP
idrac_password=s3cret-of-the-bmc

[servers:children]
web
gpu

[servers:vars]
datacenter=ams1
"""

YAML = """\
---
all:
  vars:
    bmc_password: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      3061
  children:
    storage:
      hosts:
        st-[1:2]:
        st-1: {ipmi_address: 10.13.0.1, serial_number: "123"}
        st-2:
          ipmi_address: 10.13.0.2
    compute:
      children:
        hpc:
          hosts:
            hpc1: {baseuri: "10.14.0.1:8443"}
            hpc2: {baseuri: "https://admin:pw@10.14.0.2"}
"""

LISTED = """\
{"_meta": {"hostvars": {"a": {"bmc_address": "fd00::1", "ansible_become_password": "x"}, "b": {}}},
 "all": {"children": ["ungrouped", "rack1"]}, "rack1": {"hosts": ["a", "b"]}, "ungrouped": {}}
"""


def test_ini() -> None:
    result = imported(parse(INI))
    found = {c.fields["name"]: c.fields for c in result.candidates}
    assert {n: f["bmc"] for n, f in found.items()} == {
        "web01.example.com": "redfish+https://10.12.0.7",
        "web02.example.com": "redfish+https://10.12.0.8",
        "web03.example.com": "redfish+https://10.12.0.9",
        "gpu-a": "redfish+https://ilo-gpu-a.mgmt.example.com",
        "gpu-b": "redfish+https://gpu-b.mgmt.example.com",
    }
    assert found["web02.example.com"]["serial"] == "7XK2P14"
    assert found["web01.example.com"]["labels"] == {"web": "true", "servers": "true"}
    assert "serial" not in found["gpu-a"]
    assert {line.partition(":")[0] for line in result.left_out} == {"bastion.example.com", "gpu-c"}
    assert any("ansible-inventory --list" in line for line in result.left_out)


def test_no_password_is_taken_over() -> None:
    for text in (INI, YAML, LISTED):
        result = imported(parse(text))
        said = repr(result)
        for secret in ("hunter", "s3cret", "VAULT", "3061", "pw@", "become"):
            assert secret not in said


def test_yaml_with_a_vault_and_nested_groups() -> None:
    result = imported(parse(YAML))
    found = {c.fields["name"]: c.fields for c in result.candidates}
    assert found["st-1"] == {"name": "st-1", "bmc": "ipmi://10.13.0.1", "serial": "123", "labels": {"storage": "true"}}
    assert found["st-2"]["bmc"] == "ipmi://10.13.0.2"
    assert found["hpc1"]["bmc"] == "redfish+https://10.14.0.1:8443"
    assert found["hpc1"]["labels"] == {"hpc": "true", "compute": "true"}
    assert [line for line in result.left_out if "hpc2" in line] == ["hpc2: baseuri has a login in it"]


def test_the_output_of_ansible_inventory() -> None:
    result = imported(parse(LISTED))
    assert [c.fields for c in result.candidates] == [
        {"name": "a", "bmc": "redfish+https://[fd00::1]", "labels": {"rack1": "true"}}
    ]
    assert "b: no variable" in result.left_out[0]


def test_another_variable_and_one_group() -> None:
    result = imported(parse(INI), bmc_vars=["ansible_host"])
    assert [c.fields["bmc"] for c in result.candidates] == ["redfish+https://10.1.0.1"]
    assert len(imported(parse(INI), groups=["gpu"]).candidates) == 2


def test_group_variables_and_the_hosts_own_win() -> None:
    text = "[a]\nh1\nh2 bmc_ip=10.0.0.2\n[b:children]\na\n[b:vars]\nbmc_ip=10.0.0.9\n[a:vars]\nbmc_ip=10.0.0.8\n"
    assert [c.fields["bmc"][-8:] for c in imported(parse(text)).candidates] == ["10.0.0.8", "10.0.0.2"]


def test_a_circle_of_groups_ends() -> None:
    text = "[a]\nh1 bmc_ip=10.0.0.1\n[a:children]\nb\n[b:children]\na\n"
    assert set(imported(parse(text)).candidates[0].fields["labels"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web[08:11]", ["web08", "web09", "web10", "web11"]),
        ("n[1:5:2].x", ["n1.x", "n3.x", "n5.x"]),
        ("r[a:c]", ["ra", "rb", "rc"]),
        ("r[1:2]n[1:2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("h:2222", ["h"]),
        ("fd00::1", ["fd00::1"]),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    assert list(expanded(pattern)) == names


@pytest.mark.parametrize(
    "text", ["[a]\nh[1:999999999]\n", "[a]\nh[1:9999]n[1:9999]\n", "[a]\nx='\n", "all: [\n", "{", "[a]\nkey=value\n"]
)
def test_bad_input_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@given(st.text(max_size=200))
def test_any_text_is_an_inventory_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        imported(parse(text))


def test_a_folder_with_variables_beside(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[web]\nweb1\nweb2\nweb3\n")
    (tmp_path / "host_vars" / "web2").mkdir(parents=True)
    (tmp_path / "host_vars" / "web1.yml").write_text("idrac_ip: 10.0.0.1\nidrac_password: secret\n")
    (tmp_path / "host_vars" / "web2" / "bmc.yaml").write_text("idrac_ip: 10.0.0.2\n")
    (tmp_path / "host_vars" / "web2" / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3061\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "web.yml").write_text("idrac_ip: 10.0.0.99\n")
    for source in (tmp_path, tmp_path / "hosts"):
        result = imports.ansible(source, bmc_vars=[], scheme="redfish+https", groups=[])
        assert [c.fields["bmc"][-9:] for c in result.candidates] == ["/10.0.0.1", "/10.0.0.2", "10.0.0.99"]


@pytest.mark.parametrize(
    ("text", "bmc"),
    [
        ("10.0.0.7/24", "redfish+https://10.0.0.7"),
        ("fd00::7/64", "redfish+https://[fd00::7]"),
        ("https://10.0.0.7/", "redfish+https://10.0.0.7"),
        ("ipmi://10.0.0.7", "ipmi://10.0.0.7"),
        ("bmc-1.example.com:8443", "redfish+https://bmc-1.example.com:8443"),
        ("root:calvin@10.0.0.7", ""),
        ("a b", ""),
        ("", ""),
    ],
)
def test_addresses_of_bmcs(text: str, bmc: str) -> None:
    assert bmc_url(text) == bmc
