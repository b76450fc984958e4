"""host discovered, enroll: a machine that asked the network what to boot becomes a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from metalimmu.bmc import fake_machines
from metalimmu.boot.ports import Sighting
from metalimmu.main import run
from metalimmu.observed.machine import Machine
from metalimmu.service.site import OpenSite

MAC, UUID = "52:54:00:00:00:aa", "4c4c4544-0058-4b10-8032-b7c04f503133"
SITE = """\
name: demo
urls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "hosts").mkdir()
    known = [{"name": "old", "bmc": "fake://enroll-old", "serial": "SN-old", "nics": ["52:54:00:00:00:01"]}]
    (tmp_path / "hosts" / "r1.yaml").write_text(yaml.safe_dump(known))
    opened = OpenSite(tmp_path)
    opened.store.sighted(
        [
            Sighting(
                MAC, uuid=UUID, serial="SN9", vendor="ACME", product="R1", firmware="uefi", why="x", last_seen=9e8
            ),
            Sighting("52:54:00:00:00:01", serial="SN-old", last_seen=8e8),
            Sighting("52:54:00:00:00:bb", serial="SN-twin", last_seen=7e8),
            Sighting("52:54:00:00:00:cc", serial="SN-twin", uuid=UUID, last_seen=7e8),
        ]
    )
    opened.close()
    return tmp_path


def machine(name: str, serial: str = "SN9", uuid: str = UUID) -> str:
    address = f"fake://{name}"
    fake_machines.create(address, Machine(serial=serial, uuid=uuid, nics=(MAC,)))
    return address


def said(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> tuple[str, str]:
    assert run(list(argv)) == status
    out, err = capsys.readouterr()
    return out, err


def test_unknown_machines_are_listed(site, capsys):
    out, _ = said(capsys, "host", "discovered", "-o", "json")
    rows = json.loads(out)
    assert [r["mac"] for r in rows] == [MAC, "52:54:00:00:00:bb", "52:54:00:00:00:cc"]
    assert (rows[0]["serial"], rows[0]["vendor"], rows[0]["times"]) == ("SN9", "ACME", 1)
    out, _ = said(capsys, "host", "discovered", "--all", "-o", "json")
    assert {r["mac"]: r["host"] for r in json.loads(out)}["52:54:00:00:00:01"] == "old"
    out, _ = said(capsys, "host", "discovered")
    assert "ACME" in out
    assert "1998" in out


def test_a_machine_becomes_a_host(site, capsys):
    _, err = said(capsys, "enroll", "SN9", "--bmc", machine("enroll-1"), "--name", "node-9")
    assert "node-9: the BMC says the same serial number and UUID" in err
    (host,) = yaml.safe_load((site / "hosts" / "enrolled.yaml").read_text())
    assert host == {"name": "node-9", "bmc": "fake://enroll-1", "serial": "SN9", "nics": [MAC]}
    said(capsys, "check")
    out, _ = said(capsys, "host", "discovered", "-o", "name")
    assert MAC not in out
    out, _ = said(capsys, "history", "node-9", "-o", "json")
    assert "enrolled by" in out


def test_another_machines_bmc_is_refused(site, capsys):
    _, err = said(capsys, "enroll", MAC, "--bmc", machine("enroll-2", serial="SN-other"), status=1)
    assert "is of a machine with serial number SN-other, the one that asked has SN9" in err
    assert not (site / "hosts" / "enrolled.yaml").exists()


def test_without_asking_the_bmc(site, capsys):
    said(capsys, "enroll", "52-54-00-00-00-AA", "--bmc", "redfish+https://192.0.2.1", "--no-check")
    (host,) = yaml.safe_load((site / "hosts" / "enrolled.yaml").read_text())
    assert (host["name"], host["serial"]) == ("sn9", "SN9")


@pytest.mark.parametrize(
    ("which", "status", "why"),
    [
        ("SN-nobody", 2, "no machine 'SN-nobody' has asked"),
        ("SN-twin", 2, "is said by several machines: 52:54:00:00:00:bb, 52:54:00:00:00:cc"),
        ("SN-old", 2, "SN-old is old already"),
    ],
)
def test_who_is_not_meant(site, capsys, which, status, why):
    _, err = said(capsys, "enroll", which, "--bmc", "redfish+https://192.0.2.1", "--no-check", status=status)
    assert why in err
