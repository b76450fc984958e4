"""Scans of emulated BMCs of every make, over TLS: from the first look to the blame, and nothing is ever written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fleet_rig import client

from metalimmu.main import run
from metalimmu.plan.types import Word
from metalimmu.service.brownfield.probe import probe
from metalimmu.service.profiles import captured
from metalimmu.service.scans import export as drift_export
from metalimmu.service.scans.drift import drifts, show
from metalimmu.service.scans.result import ScanResult, exit_status
from metalimmu.service.scans.scan import scan
from metalimmu.service.site import OpenSite
from metalimmu_emulator.fleet import MAKES, Fleet

pytestmark = pytest.mark.emulator

# One attribute of each make with the value that the emulated machine has, and another that it may have.
ATTRIBUTES = {
    "dell": ("LogicalProc", "Enabled", "Disabled"),
    "hpe": ("ProcHyperthreading", "Enabled", "Disabled"),
    "lenovo": ("Processors_HyperThreading", "Enabled", "Disabled"),
    "supermicro": ("IntelVirtualizationTechnology_3B03", "Enable", "Disable"),
    "openbmc": ("AssetTagProtection", "Disabled", "Enabled"),
}


class Site:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.folder = Path(fleet.site)
        (self.folder / "profiles").mkdir(exist_ok=True)
        for make, (name, value, _) in ATTRIBUTES.items():
            vendor = "nvidia" if make == "openbmc" else make
            (self.folder / f"profiles/{make}-all.yaml").write_text(
                f"match: {{vendor: {vendor}}}\nowner: platform\nbios_raw: {{{name}: {value}}}\n"
            )
        self.opened: list[OpenSite] = []

    def open(self) -> OpenSite:
        self.opened.append(OpenSite(self.folder))
        return self.opened[-1]

    def scan(self, *hosts: str) -> ScanResult:
        return scan(self.open(), hosts=hosts or None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    assert set(ATTRIBUTES) <= set(MAKES)
    with Fleet([*ATTRIBUTES], folder=tmp_path / "fleet") as fleet:
        made = Site(fleet)
        yield made
        for opened in made.opened:
            opened.close()
        for bmc in fleet:
            assert bmc.written() == [], f"{bmc.name} was written to"


def test_no_drift_on_an_unchanged_machine_ever(site):
    first = site.scan()
    assert first.counts.states == {"match": 5}, [(f.host, f.finding) for f in first.of() if f.finding.word != "match"]
    again = site.scan()
    assert (again.counts.new, again.counts.changes, exit_status(again)) == (0, 0, 0)
    for bmc in site.fleet:
        bmc.reset()
    rebooted = site.scan()
    assert (rebooted.counts.new, rebooted.counts.changes, exit_status(rebooted)) == (0, 0, 0)
    for bmc in site.fleet:
        bmc.restart_bmc()
    assert (site.scan().counts.changes, exit_status(site.scan())) == (0, 0)
    assert list(site.open().store.changes(0)) == []
    for bmc in site.fleet:
        assert bmc.counters().sessions == 0, "a session was left open"
        assert bmc.counters().most_in_flight <= 1


def test_what_was_captured_from_one_machine_fits_its_twins(tmp_path):
    """Of each make: nothing that is one machine's own is in the profile, a MAC in an attribute's name neither."""
    with Fleet([*ATTRIBUTES] * 3, folder=tmp_path / "fleet") as fleet, closing(OpenSite(Path(fleet.site))) as opened:
        profiles = opened.folder / "profiles"
        profiles.mkdir(exist_ok=True)
        first = {bmc.make: bmc.name for bmc in reversed(list(fleet))}
        for make, name in first.items():
            found = captured([name], (), opened.folder, now=True)
            (profiles / f"{make}.yaml").write_text(found if isinstance(found, str) else found.text)
        with closing(OpenSite(opened.folder)) as site:
            result = scan(site)
            odd = [(f.host, f.finding) for f in result.of() if f.finding.word is not Word.match]
            assert (odd, result.counts.states) == ([], {"match": 15})


def test_a_scan_that_was_made_before_costs_fewer_requests(site):
    cold, warm = site.scan().counts.requests, site.scan().counts.requests
    assert warm < cold


def test_who_changed_it_is_in_the_log(site):
    site.scan()
    for bmc in site.fleet:
        name, _, other = ATTRIBUTES[bmc.make]
        bmc.set_bios({name: other}, logged=True, user="jane")
    result = site.scan()
    assert result.counts.states == {"drift": 5}
    assert exit_status(result) == 3
    found = {site.fleet[d.host].make: d for d in drifts(site.open())}
    for make, (name, value, other) in ATTRIBUTES.items():
        d = found[make]
        assert (d.setting, d.before, d.actual) == (f"bios.{name}", value, other)
    blamed = {make: d.blame for make, d in found.items()}
    assert set(blamed.values()) <= {"jane", "unknown"}
    assert blamed["dell"] == blamed["hpe"] == "jane"


def test_a_change_that_nobody_logged_is_unknown(site):
    site.scan("dell-000001")
    site.fleet["dell-000001"].set_bios({"LogicalProc": "Disabled"})
    site.scan("dell-000001")
    life = show(site.open(), "dell-000001", "bios.LogicalProc")
    assert [b.kind for b in life.blames] == ["unknown"]
    assert [v.value for v in life.values] == ["Enabled", "Disabled"]


def test_a_change_that_waits_for_a_reboot_is_staged(site):
    bmc = site.fleet["hpe-000002"]
    site.scan(bmc.name)
    bmc.set_bios({"ProcHyperthreading": "Disabled"})
    site.scan(bmc.name)
    bmc.stage_bios({"ProcHyperthreading": "Enabled"})
    (staged,) = site.scan(bmc.name).drift()
    assert staged.finding.word is Word.staged
    bmc.reset()
    assert list(site.scan(bmc.name).drift()) == []
    words = [str(f.finding.word) for f in show(site.open(), bmc.name, "bios.ProcHyperthreading").findings]
    assert words == ["match", "differs", "staged", "match"]


def test_a_host_that_is_off_is_unknown_and_not_drift(site):
    site.scan()
    for bmc in site.fleet:
        bmc.power("Off")
    off = site.scan()
    assert off.counts.new == 0
    assert off.counts.states.get("drift", 0) == 0
    assert list(site.open().store.changes(0)) == []
    for bmc in site.fleet:
        bmc.power("On")
    assert site.scan().counts.states == {"match": 5}


def test_a_value_that_waits_and_is_shown_as_if_it_were_there_is_no_match(site):
    """Dell's early answers: what the job will bring stands there as the current value until it has run."""
    bmc = site.fleet["dell-000001"]
    site.scan(bmc.name)
    bmc.set_bios({"LogicalProc": "Disabled"})
    site.scan(bmc.name)
    bmc.stage_bios({"LogicalProc": "Enabled"})
    bmc.fault("lying-current")
    (shown,) = site.scan(bmc.name).drift()
    assert (shown.finding.word, shown.finding.actual) == (Word.job_running, "Enabled")
    bmc.heal()
    bmc.reset()
    assert list(site.scan(bmc.name).drift()) == []


def test_an_attribute_that_a_bios_update_renamed_is_followed(site):
    bmc = site.fleet["supermicro-000004"]
    site.scan(bmc.name)
    bmc.update_bios("2.1")
    names = [n for n in bmc.bios() if n.startswith("IntelVirtualizationTechnology_")]
    assert names != ["IntelVirtualizationTechnology_3B03"]
    result = site.scan(bmc.name)
    assert result.counts.states == {"match": 1}
    (finding,) = (r.finding for r in result.of())
    assert finding.setting == f"bios.{names[0]}"


def test_what_is_exported_is_taken_by_every_make(tmp_path):
    """Sent as it stands, and with what `first` says where it is there."""
    with Fleet([*ATTRIBUTES], folder=tmp_path / "fleet") as fleet:
        made = Site(fleet)
        for bmc in fleet:
            name, _, other = ATTRIBUTES[bmc.make]
            bmc.set_bios({name: other})
        made.scan()
        found, left = drift_export.mends(made.open(), [bmc.name for bmc in fleet])
        assert left == []
        bare = {}
        for request in json.loads(drift_export.redfish(found)):
            bmc = fleet[request["host"]]
            http = client(fleet, bmc.index)
            headers = {name.replace("-", "_"): value for name, value in request["headers"].items()}
            bare[bmc.make] = http.ask(request["method"], request["uri"], request["body"], **headers).status
            if "first" in request:
                etag = http.ask(request["first"]["method"], request["uri"]).headers["etag"]
                sent = http.ask(request["method"], request["uri"], request["body"], **headers, If_Match=etag)
                assert sent.status in (200, 202, 204), (bmc.make, sent)
            http.close()
            bmc.reset()
            name, wanted, _ = ATTRIBUTES[bmc.make]
            assert bmc.bios()[name] == wanted
        assert set(bare) == set(ATTRIBUTES)
        assert [make for make, status in bare.items() if status == 428] == ["supermicro"]
        assert all(status in (200, 202, 204, 428) for status in bare.values()), bare
        (said,) = drift_export.remarks(found)
        assert said.startswith("supermicro-000004: refused (428)")
        for opened in made.opened:
            opened.close()


# Where each make shows its licence, and what stands there on a machine that has too small a one.
LICENCES = {
    "dell": (
        "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellLicenses",
        {"Members": [{"LicenseDescription": ["iDRAC9 16g Express License"]}]},
    ),
    "hpe": ("/redfish/v1/Managers/1/LicenseService/1", {"License": "iLO Standard"}),
    "lenovo": (
        "/redfish/v1/LicenseService/Licenses",
        {"Members": [{"@odata.id": "/redfish/v1/LicenseService/Licenses/XCC_Advanced"}]},
    ),
    "supermicro": ("/redfish/v1/Managers/1/LicenseManager/QueryLicense", {"Licenses": []}),
}


def test_a_licence_that_is_missing_is_seen(site):
    def census() -> dict[str, str]:
        opened = site.open()
        specs = [opened.spec(bmc.name) for bmc in site.fleet if bmc.make in LICENCES]
        return {site.fleet[p.host].make: p.probe.of("licence").answer for p in probe(opened, specs)}

    assert census() == dict.fromkeys(LICENCES, "yes")
    for bmc in site.fleet:
        if bmc.make in LICENCES:
            bmc.edit(*LICENCES[bmc.make])
    assert census() == dict.fromkeys(LICENCES, "no")


# Parameters of the fault, and what the host is found to be. `match`: the scan gets along with it.
FAULTS = {
    "silent": ({}, "unknown"),
    "reset": ({}, "unknown"),
    "refuse": ({}, "unknown"),
    "tls": ({}, "unknown"),
    "login": ({"status": 401}, "unknown"),
    "busy": ({"status": 503, "retry_after": 1}, "unknown"),
    "truncated": ({}, "unknown"),
    "drip": ({"every": 0.05}, "unknown"),  # a byte at a time: no answer is whole in its time
    "not-permitted": ({}, "unknown"),
    "slow": ({"delay": 0.2, "times": 10}, "match"),
    "null-members": ({}, "match"),  # of the collections, which no profile asks about here
    "dead-links": ({}, "match"),
    "clock": ({"seconds": -3e8}, "match"),
    "etag": ({}, "match"),
    "expand": ({}, "match"),
    "expire": ({"after": 5, "times": 1}, "match"),
    "sessions": ({}, "match"),
    "lying-write": ({}, "match"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_bmc_costs_its_own_result_only(site, fault, monkeypatch):
    """And makes no drift: what it does not say is unknown, what was known stays."""
    from metalimmu.bmc import collect

    class Short(collect.CollectSettings, frozen=True, kw_only=True):
        total: float = 5.0
        patience: float = 1.0

    monkeypatch.setattr("metalimmu.bmc.collect.fleet.CollectSettings", Short)
    site.scan()
    bad = site.fleet["dell-000001"]
    parameters, expected = FAULTS[fault]
    bad.fault(fault, **parameters)
    result = site.scan()
    states = {h.host: h.state for h in site.open().store.known_hosts()}
    assert all(state == "match" for name, state in states.items() if name != bad.name)
    assert states[bad.name] == expected, (states[bad.name], [str(u) for u in result.unread()])
    assert (result.counts.new, list(result.drift())) == (0, [])
    assert list(site.open().store.changes(0)) == []
    bad.heal()
    if fault != "login":  # credentials that were refused are not tried again
        deadline = time.monotonic() + 60  # a BMC that was busy or broke off is left alone for a while
        while (states := site.scan().counts.states) != {"match": 5}:
            assert time.monotonic() < deadline, states


def test_a_list_of_addresses_is_enough(site, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fleet = site.fleet
    arguments = [
        "scan",
        "--inventory",
        str(fleet.inventory),
        "--credentials",
        str(fleet.credentials),
        "--ca",
        str(fleet.ca),
    ]
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "fewer than 3 alike, so nothing to compare with" in said
    assert "5 hosts: 5 no-profile" in said
    assert run([*arguments, "-o", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["groups"]) == 5
    assert data["states"] == {"no-profile": 5}


def test_outliers_among_like_machines(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Fleet(["dell"] * 6, folder=tmp_path / "fleet") as fleet:
        fleet[3].set_bios({"LogicalProc": "Disabled"})
        given = [
            "scan",
            "--inventory",
            str(fleet.inventory),
            "--credentials",
            str(fleet.credentials),
            "--ca",
            str(fleet.ca),
        ]
        assert run([*given, "-o", "json"]) == 0
        data = json.loads(capsys.readouterr().out)
        (outlier,) = data["outliers"]
        assert (outlier["setting"], outlier["value"], outlier["of"]) == ("bios.LogicalProc", "Disabled", "5 of 6")
        assert outlier["all"] == [fleet[3].name]
        assert fleet.counters().writes == 0


def test_kill_9_in_mid_scan_and_resume(tmp_path, capsys):
    """No host lost, and none that was recorded is read again."""
    with Fleet(["dell"] * 60, folder=tmp_path / "fleet", latency=0.03) as fleet:
        folder = Path(fleet.site)
        with (folder / "site.yaml").open("a") as out:
            out.write("bmc: {per_site: 6}\n")  # a few at a time, so that there is a middle
        victim = subprocess.Popen([sys.executable, "-m", "metalimmu", "--site", str(folder), "scan"])
        deadline = time.monotonic() + 120
        done: set[str] = set()
        while len(done) < 10:
            assert time.monotonic() < deadline, "nothing was recorded"
            assert victim.poll() is None, "the scan ended before it was killed"
            time.sleep(0.1)
            done = recorded(folder)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        done = recorded(folder)
        assert 10 <= len(done) < 60
        before = {bmc.name: bmc.counters().logins for bmc in fleet}
        assert run(["--site", str(folder), "scan", "--resume"]) == 0
        assert "60 hosts: 60 no-profile" in capsys.readouterr().out
        after = {bmc.name: bmc.counters().logins for bmc in fleet}
        assert {name for name in after if after[name] == before[name]} == done
        assert fleet.counters().writes == 0


def recorded(folder: Path) -> set[str]:
    """Hosts that the scan which is not finished has in the store."""
    if not (folder / ".metalimmu/store.sqlite").exists():
        return set()
    site = OpenSite(folder)
    try:
        return {h for scan_ in site.store.unfinished_scans() for h in site.store.scanned_hosts(scan_.id)}
    finally:
        site.close()
