"""`scan` and `drift` as they are typed: what is printed where, and the exit status."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from scan_rig import Rig, away, rig

from metalimmu.main import run
from metalimmu.observed.log_entry import LogEntry, LogKind
from metalimmu.service.scans import drivers
from metalimmu.service.scans import scan as service


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = rig(tmp_path / "site", *(f"n{i}" for i in range(5)))
    monkeypatch.setattr(service, "of_site", lambda *_: made.read)
    monkeypatch.chdir(made.folder)
    yield made
    made.close()


def drift_one(fleet: Rig) -> None:
    run(["scan"])
    fleet.machines["n1"].settings["bios.Turbo"] = "Off"


def test_status_0_and_one_line_when_all_is_well(fleet, capsys):
    assert run(["scan"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("5 hosts: 5 match. Scan s-")
    assert said.out.count("\n") == 1


def test_status_3_with_drift(fleet, capsys):
    drift_one(fleet)
    capsys.readouterr()
    assert run(["scan"]) == 3
    said = capsys.readouterr().out
    assert "critical  bios.Turbo  On        On -> Off  1      n1" in said
    assert "5 hosts: 4 match, 1 drift. Findings that are drift: 1 critical. New: 1, fixed: 0." in said
    assert run(["scan", "n0", "n2"]) == 0
    fleet.machines["n0"].settings["bios.Sriov"] = "Disabled"
    assert run(["scan", "n0"]) == 3
    assert run(["scan", "n0", "--fail-on", "critical"]) == 0
    assert run(["scan", "n1", "--fail-on", "critical"]) == 3


def test_status_4_with_more_unknown_hosts_than_allowed(fleet, capsys):
    fleet.machines["n3"].failure = away()
    assert run(["scan"]) == 4
    said = capsys.readouterr().out
    assert "unknown: 1 of 5 hosts (n3): https://it: no TCP connection: timed out" in said
    assert "hint:" in said
    assert run(["scan", "--max-unknown", "20%"]) == 0
    assert run(["scan", "--max-unknown", "1"]) == 0
    assert run(["scan", "--max-unknown", "19%"]) == 4
    fleet.machines["n1"].settings["bios.Turbo"] = "Off"
    assert run(["scan"]) == 4
    assert run(["scan", "--max-unknown", "1"]) == 3


def test_all_unreachable_is_said_once(fleet, capsys):
    for machine in fleet.machines.values():
        machine.failure = away()
    assert run(["scan"]) == 4
    said = capsys.readouterr().out
    assert said.count("no TCP connection") == 1
    assert "unknown: all of 5 hosts (n0, n1, n2, n3, n4)" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan", "nobody"],
        ["scan", "-l", "row=r9"],
        ["scan", "n1", "-l", "row=r1"],
        ["scan", "--max-unknown", "x"],
        ["scan", "--resume"],
        ["scan", "--resume", "s-1", "-l", "row=r1"],
        ["scan", "--credentials", "env:X"],
        ["scan", "--inventory", "none.csv"],
        ["scan", "--inventory", "site.yaml", "n1"],
        ["scan", "-o", "xml"],
        ["drift", "--since", "soon"],
        ["drift", "show", "n1", "bios.None"],
        ["drift", "-o", "html", "--since", "7d"],
        ["drift", "-o", "html", "--group-by", "cause"],
        ["drift", "-o", "junit", "--group-by", "cause"],
        ["drift", "accept", "bios.Turbo", "--until", "2999-01-01", "--reason", "r"],
        ["drift", "accept", "--host", "n1", "bios.Turbo", "--until", "2999-01-01"],
    ],
)
def test_status_2_is_usage(fleet, arguments, capsys):
    assert run(arguments) == 2
    assert capsys.readouterr().out == ""


def test_an_interrupted_scan_says_how_to_go_on(fleet, capsys):
    def stop(name: str) -> None:
        if name == "n3":
            raise KeyboardInterrupt

    fleet.before_each = stop
    assert run(["scan"]) == 130
    assert "metalimmu scan --resume" in capsys.readouterr().err
    fleet.before_each = lambda _name: None
    assert run(["scan", "--list"]) == 0
    assert "not finished" in capsys.readouterr().out
    assert run(["scan", "--resume"]) == 0
    assert [m.reads for m in fleet.machines.values()] == [1, 1, 1, 1, 1]


def test_how_many_logins_may_be_refused(fleet, monkeypatch):
    """The option, else what the site says."""
    asked = []
    monkeypatch.setattr(drivers, "reading", lambda *_, max_refused, **__: asked.append(max_refused) or fleet.read)
    monkeypatch.setattr(service, "of_site", drivers.of_site)
    assert run(["scan"]) == 0
    with (fleet.folder / "site.yaml").open("a") as site:
        site.write("bmc: {max_refused: 7}\n")
    assert run(["scan"]) == 0
    assert run(["scan", "--max-refused", "1"]) == 0
    assert asked == [3, 7, 1]
    assert run(["scan", "--max-refused", "0"]) == 2


def test_formats_to_a_file(fleet, capsys, tmp_path):
    drift_one(fleet)
    for fmt in ("json", "csv", "junit", "html", "table"):
        capsys.readouterr()
        file = tmp_path / f"out.{fmt}"
        assert run(["scan", "-o", fmt, "--out", str(file)]) == 3
        assert capsys.readouterr().out == ""
        assert "bios.Turbo" in file.read_text()
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert ET.parse(tmp_path / "out.junit").getroot().tag == "testsuites"
    assert json.loads((tmp_path / "out.json").read_text())["states"] == {"match": 4, "drift": 1}


def test_drift_lists_groups_shows_and_accepts(fleet, capsys):
    run(["scan"])
    for name in ("n1", "n2"):
        fleet.machines[name].settings["bios.Turbo"] = "Off"
    run(["scan"])
    capsys.readouterr()
    assert run(["drift", "-o", "json"]) == 3
    rows = json.loads(capsys.readouterr().out)
    assert [(r["host"], r["before"], r["actual"], r["waived"]) for r in rows] == [
        ("n1", "On", "Off", ""),
        ("n2", "On", "Off", ""),
    ]
    assert run(["drift", "--group-by", "cause"]) == 3
    assert "2      critical  bios.Turbo: On -> Off" in capsys.readouterr().out
    assert run(["drift", "-l", "row=r0", "-o", "name"]) == 3
    assert capsys.readouterr().out == "n2\n"
    assert run(["drift", "accept", "-l", "row=r0", "Turbo", "--until", "2999-01-01", "--reason", "ticket 1"]) == 0
    said = capsys.readouterr()
    assert said.out == "bios.Turbo: Off is accepted on 1 host until 2999-01-01\n"
    assert "left out, as it does not differ there: 2 hosts" in said.err
    assert run(["drift"]) == 3
    assert "waived until 2999-01-01: ticket 1" in capsys.readouterr().out
    assert run(["drift", "show", "n2", "bios.Turbo"]) == 0
    said = capsys.readouterr().out
    assert "until 2999-01-01 (ticket 1) holds" in said
    assert "by unknown: this BMC has no log that could be read" in said
    assert run(["check"]) == 0
    capsys.readouterr()
    assert run(["drift", "export", "--as", "ansible"]) == 0
    (play,) = yaml.safe_load(capsys.readouterr().out)
    assert [t["name"] for t in play["tasks"]] == ["n1: 1 BIOS settings"]
    assert run(["drift", "export", "--as", "redfish-patch"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["body"] == {"Attributes": {"Turbo": "On"}}
    assert run(["drift", "--since", "1h", "-o", "name"]) == 3


def test_the_life_of_a_setting_says_who_staged_what(fleet, capsys):
    run(["scan"])
    machine = fleet.machines["n1"]
    machine.staged = {"bios.Turbo": "Off"}
    machine.logs = (
        LogEntry(at=time.time(), message="BIOS settings staged: Turbo by: bob", account="bob", kind=LogKind.other),
    )
    run(["scan"])
    capsys.readouterr()
    assert run(["drift", "show", "n1", "Turbo"]) == 0
    said = capsys.readouterr().out
    assert "by bob: the log says that bob changed this setting at that time" in said
    assert "[bob] BIOS settings staged" in said
    machine.failure = away()
    run(["scan"])
    capsys.readouterr()
    assert run(["drift"]) == 3
    assert "not read since 20" in capsys.readouterr().out


def test_since_takes_a_duration_or_a_day(fleet, capsys):
    run(["scan"])
    fleet.machines["n1"].settings["bios.Turbo"] = "Off"
    run(["scan"])
    fleet.machines["n1"].settings["bios.Turbo"] = "On"
    run(["scan"])
    capsys.readouterr()
    for since in ("7d", "1h", "2020-01-01"):
        assert run(["drift", "--since", since]) == 0
        assert "fixed 20" in capsys.readouterr().out
    assert run(["drift", "--since", "2999-01-01"]) == 0
    assert "no drift is known" in capsys.readouterr().err


def test_control_characters_of_a_bmc_do_not_reach_the_terminal(fleet, capsys):
    fleet.machines["n1"].settings["bios.Turbo"] = "\x1b]0;owned\x07\u202e"
    run(["scan"])
    run(["drift"])
    run(["drift", "show", "n1", "bios.Turbo"])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\x07" not in said
    assert "\u202e" not in said
    assert "\\x1b]0;owned" in said


def test_drift_fails_where_it_is_asked_to(fleet):
    drift_one(fleet)
    assert run(["scan"]) == run(["drift"]) == 3
    assert run(["drift", "--fail-on", "critical"]) == 3
    assert run(["drift", "--fail-on", "critical", "-l", "row=r0"]) == 0
    fleet.machines["n3"].failure = away()
    run(["scan"])
    assert run(["drift", "--fail-on", "critical", "--max-unknown", "20%"]) == 3
    assert run(["drift", "--fail-on", "critical", "--max-unknown", "0"]) == 4
    run(["drift", "accept", "--host", "n1", "bios.Turbo", "--until", "2999-01-01", "--reason", "r"])
    assert run(["drift"]) == 0
    fleet.machines["n2"].settings["bios.Sriov"] = "Disabled"  # a warning
    run(["scan"])
    assert [run(["drift", "--fail-on", level]) for level in ("info", "warning", "critical")] == [3, 3, 0]


def test_drift_for_other_programs(fleet, capsys, tmp_path):
    drift_one(fleet)
    fleet.machines["n1"].settings["bios.Sriov"] = "=cmd|'<b>&"
    run(["scan"])
    capsys.readouterr()
    assert run(["drift", "-o", "junit"]) == 3
    root = ET.fromstring(capsys.readouterr().out)
    assert {s.get("name"): s.get("failures") for s in root} == {f"n{i}": "2" if i == 1 else "0" for i in range(5)}
    assert run(["drift", "-o", "csv"]) == 3
    lines = capsys.readouterr().out.split("\r\n")
    assert lines[0].startswith("host,severity,setting,word")
    assert any("'=cmd|'<b>&" in line for line in lines[1:])
    assert run(["drift", "--group-by", "cause", "-o", "csv"]) == 3
    assert run(["drift", "-o", "html", "--out", str(tmp_path / "drift.html")]) == 3
    assert "<b>&" not in (tmp_path / "drift.html").read_text()
