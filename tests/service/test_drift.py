"""What scans have found, asked afterwards: lists, causes, the life of a setting, exports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from scan_rig import Rig, away, rig

from metalimmu import structs
from metalimmu.errors import NotFound
from metalimmu.observed.log_entry import LogEntry, LogKind
from metalimmu.observed.snapshot import Job
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.causes import grouped
from metalimmu.plan.types import DRIFT
from metalimmu.service.alerts.evaluate import evaluate
from metalimmu.service.alerts.notice import Notice, Told
from metalimmu.service.scans import export as drift_export
from metalimmu.service.scans.accept import accept
from metalimmu.service.scans.drift import drifts, findings, hosts_of, show
from metalimmu.service.scans.history import history
from metalimmu.service.scans.outliers import outliers, rows
from metalimmu.service.scans.scan import scan


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Rig]:
    made = rig(tmp_path, *(f"n{i}" for i in range(6)))
    scan(made.site(), read=made.read)
    yield made
    made.close()


def test_drift_with_its_change_and_who_made_it(fleet):
    for name in ("n0", "n1", "n2"):
        fleet.machines[name].settings["bios.Sriov"] = "Disabled"
        fleet.machines[name].logs = (
            LogEntry(at=time.time(), message="BIOS changed", account="jim", kind=LogKind.bios_change),
        )
    scan(fleet.site(), read=fleet.read)
    found = list(drifts(fleet.site()))
    assert {(d.host, d.before, d.actual, d.blame) for d in found} == {
        (n, "Enabled", "Disabled", "jim") for n in ("n0", "n1", "n2")
    }
    (cause,) = grouped(found)
    assert (cause.title, cause.hosts) == ("bios.Sriov: Enabled -> Disabled by jim", ("n0", "n1", "n2"))
    life = show(fleet.site(), "n0", "Sriov")
    assert [(v.value, v.until is None) for v in life.values] == [("Enabled", False), ("Disabled", True)]
    assert [str(f.finding.word) for f in life.findings] == ["match", "differs"]
    assert [b.who for b in life.blames] == ["jim"]


def test_since_lists_what_began_and_what_was_fixed(fleet):
    fleet.machines["n0"].settings["bios.Sriov"] = "Disabled"
    scan(fleet.site(), read=fleet.read)
    mark = time.time()
    fleet.machines["n0"].settings["bios.Sriov"] = "Enabled"
    fleet.machines["n1"].settings["bios.Turbo"] = "Off"
    scan(fleet.site(), read=fleet.read)
    found = {d.host: d for d in drifts(fleet.site(), since=mark)}
    assert set(found) == {"n0", "n1"}
    assert found["n0"].fixed_at > mark
    assert found["n0"].before == "Enabled"
    assert found["n1"].fixed_at is None
    assert {d.host for d in drifts(fleet.site())} == {"n1"}
    assert list(drifts(fleet.site(), since=time.time())) == []


def test_a_host_that_is_away_keeps_its_drift(fleet):
    fleet.machines["n0"].settings["bios.Sriov"] = "Disabled"
    scan(fleet.site(), read=fleet.read)
    fleet.machines["n0"].failure = away()
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert one.stale
    assert one.seen < fleet.site().store.scans(1)[0].created


def test_drift_from_the_first_scan_has_no_change(tmp_path):
    made = rig(tmp_path, "a")
    made.machines["a"].settings["bios.Sriov"] = "Disabled"
    scan(made.site(), read=made.read)
    (one,) = drifts(made.site())
    assert (one.before, one.blame) == (None, "")
    made.close()


def test_a_profile_that_changes_makes_drift_and_no_change(fleet):
    (fleet.folder / "profiles/acme.yaml").write_text('match: {vendor: "Acme*"}\nbios_raw: {Free: 8}\n')
    scan(fleet.site(), read=fleet.read)
    found = list(drifts(fleet.site()))
    assert len(found) == 6
    assert {d.before for d in found} == {None}


def test_hosts_that_left_the_site_are_not_shown(fleet):
    for machine in fleet.machines.values():
        machine.settings["bios.Sriov"] = "Disabled"
    scan(fleet.site(), read=fleet.read)
    (fleet.folder / "hosts/all.yaml").write_text('- {name: n3, bmc: "redfish+https://10.9.0.3"}\n')
    assert {d.host for d in drifts(fleet.site())} == {"n3"}
    assert {f.host for f in findings(fleet.site())} == {"n3"}


def test_what_is_not_known(fleet):
    with pytest.raises(NotFound, match=r"nothing is known of 'bios\.Sriof'") as caught:
        show(fleet.site(), "n0", "bios.Sriof")
    assert "bios.Sriov" in caught.value.hint
    with pytest.raises(NotFound, match="no host"):
        show(fleet.site(), "n9", "bios.Sriov")
    lines = (fleet.folder / "hosts/all.yaml").read_text()
    (fleet.folder / "hosts/all.yaml").write_text(lines + '- {name: new, bmc: "redfish+https://10.9.9.9"}\n')
    with pytest.raises(NotFound, match="never scanned"):
        show(fleet.site(), "new", "bios.Sriov")


def test_export_for_those_who_mend_by_other_means(fleet):
    fleet.machines["n0"].settings |= {"bios.Sriov": "Disabled", "bios.Turbo": "Off"}
    del fleet.machines["n1"].settings["bios.Sriov"]
    scan(fleet.site(), read=fleet.read)
    site = fleet.site()
    found, left = drift_export.mends(site, hosts_of(site))
    (request,) = json.loads(drift_export.redfish(found))
    assert request["url"] == "https://10.9.0.0/redfish/v1/Systems/1/Bios/Settings"
    assert request["body"] == {"Attributes": {"Sriov": "Enabled", "Turbo": "On"}}
    (play,) = yaml.safe_load(drift_export.ansible(found))
    (task,) = play["tasks"]
    assert task["community.general.redfish_config"] == {
        "category": "Systems",
        "command": "SetBiosAttributes",
        "baseuri": "10.9.0.0",
        "username": "{{ bmc_username }}",
        "password": "{{ bmc_password }}",
        "bios_attributes": {"Sriov": "Enabled", "Turbo": "On"},
        "resource_id": "1",
    }
    assert list(drift_export.left_out(left)) == ["1 setting of 1 host left out: the machine has no such attribute"]
    assert list(drift_export.remarks(found)) == []


def test_export_knows_who_wants_an_etag_and_who_a_job(fleet):
    for name, maker in (("n0", "Supermicro"), ("n1", "Dell Inc."), ("n2", "HPE")):
        fleet.machines[name].manufacturer = maker
        fleet.machines[name].settings["bios.Sriov"] = "Disabled"
    (fleet.folder / "profiles/acme.yaml").write_text("match: {model: A1}\nbios_raw: {Sriov: Enabled}\n")
    scan(fleet.site(), read=fleet.read)
    found, left = drift_export.mends(fleet.site(), hosts_of(fleet.site()))
    requests = {r["host"]: r for r in json.loads(drift_export.redfish(found))}
    assert {host for host, r in requests.items() if "first" in r} == {"n0"}
    assert requests["n0"]["first"]["send as"] == "If-Match"
    (said,) = drift_export.remarks(found)
    assert said.startswith("n0: refused (428) without If-Match")
    (play,) = yaml.safe_load(drift_export.ansible(found))
    jobs = [task for task in play["tasks"] if "community.general.idrac_redfish_command" in task]
    assert [task["name"] for task in jobs] == ["n1: the job that applies them at the next reboot"]
    assert left == []


def test_a_bmc_without_a_settings_object_is_left_out(fleet, monkeypatch):
    fleet.machines["n0"].settings["bios.Sriov"] = "Disabled"
    whole = Rig.snapshot

    def without(self, name):
        found = whole(self, name)
        return msgspec.structs.replace(found, sources={k: v for k, v in found.sources.items() if k != "pending"})

    monkeypatch.setattr(Rig, "snapshot", without)
    scan(fleet.site(), read=fleet.read)
    found, left = drift_export.mends(fleet.site(), hosts_of(fleet.site()))
    assert found == []
    assert json.loads(drift_export.redfish(found)) == []
    assert list(drift_export.left_out(left)) == [
        "1 setting of 1 host left out: the BMC names no @Redfish.Settings object to write to"
    ]


def test_a_playbook_runs_nothing_that_a_bmc_says():
    evil = "{{ lookup('pipe', 'id') }}"
    mend = drift_export.Mend(
        host="a",
        bmc="https://10.9.0.0",
        system=f"/redfish/v1/Systems/{evil}",
        uri="/x",
        attributes={"A": evil, "B": "On"},
    )
    text = drift_export.ansible([mend])
    for line in text.splitlines():
        assert "lookup" not in line or "!unsafe '" in line, line
    assert "B: 'On'" in text
    assert "'{{ bmc_password }}'" in text


def test_history_has_what_was_done_and_what_was_seen(fleet):
    site = fleet.site()
    site.store.add_event("n0", "power", "On asked by jim")
    for value in (8, 9):
        fleet.machines["n0"].settings["bios.Free"] = value
        scan(fleet.site(), read=fleet.read)
    assert [(r["kind"], r["text"]) for r in history(fleet.site(), "n0")] == [
        ("power", "On asked by jim"),
        ("value", "bios.Free: 7 -> 8"),
        ("value", "bios.Free: 8 -> 9"),
    ]
    assert [r["text"] for r in history(fleet.site(), "n0", 1)] == ["bios.Free: 8 -> 9"]
    assert history(fleet.site(), "n1") == []
    with pytest.raises(NotFound):
        history(fleet.site(), "n9")


def test_what_is_noise_says_so(fleet):
    with pytest.raises(NotFound, match="is not kept: it changes by itself"):
        show(fleet.site(), "n0", "bmc.clock")


def test_outliers_of_what_was_recorded(fleet):
    fleet.machines["n5"].settings["bios.Free"] = 8
    fleet.machines["n4"].settings["bmc.clock"] = 99.0
    scan(fleet.site(), read=fleet.read)
    found = rows(outliers(fleet.site().store))
    assert [(r["group"], r["setting"], r["value"], r["majority"], r["which"]) for r in found] == [
        ("Acme Inc. A1 (BMC 1)", "bios.Free", "8", "7", "n5")
    ]


def test_a_mac_in_a_name_makes_no_outlier(fleet):
    for number, name in enumerate(fleet.machines):
        fleet.machines[name].settings[f"bios.Nic_02dc9b000{number:03x}__Slot4_LinkType"] = "Ethernet"
    fleet.machines["n5"].settings["bios.Nic_02dc9b000005__Slot4_LinkType"] = "InfiniBand"
    scan(fleet.site(), read=fleet.read)
    (found,) = rows(outliers(fleet.site().store))
    assert (found["setting"], found["value"], found["which"]) == (
        "bios.Nic_<MAC>__Slot4_LinkType",
        "InfiniBand",
        "n5",
    )


def test_who_did_it_is_known_while_the_word_changes(fleet):
    """Dell shows what is to come as if it were there, until the job has run: one change, one account. And a job that
    changes one setting is no drift of the others.
    """
    n0 = fleet.machines["n0"]
    n0.settings["bios.Sriov"] = "Disabled"
    n0.waiting = ("bios.Sriov",)
    n0.jobs = (Job(id="JID_1", name="ConfigBIOS", state="Scheduled", about="bios"),)
    n0.logs = (LogEntry(at=time.time(), message="BIOS changed", account="jim", kind=LogKind.bios_change),)
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert (one.setting, one.word, one.blame) == ("bios.Sriov", "job-running", "jim")
    n0.jobs = n0.waiting = ()
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert (one.setting, one.word, one.before, one.blame) == ("bios.Sriov", "differs", "Enabled", "jim")


def staged_by(who: str) -> tuple[LogEntry, ...]:
    return (
        LogEntry(at=time.time(), message="BIOS settings staged: Sriov by: " + who, account=who, kind=LogKind.other),
    )


def test_who_staged_a_change_is_known_before_and_after_the_reboot(fleet):
    n0 = fleet.machines["n0"]
    n0.staged = {"bios.Sriov": "Disabled"}
    n0.logs = staged_by("bob")
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert (one.word, one.actual, one.before, one.blame) == ("differs", "Enabled (Disabled staged)", "Enabled", "bob")
    (cause,) = grouped([one])
    assert cause.title == "bios.Sriov: Enabled -> Enabled (Disabled staged) by bob"
    assert [b.who for b in show(fleet.site(), "n0", "Sriov").blames] == ["bob"]
    n0.staged, n0.logs = {}, ()
    n0.settings["bios.Sriov"] = "Disabled"
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert (one.word, one.actual, one.before, one.blame) == ("differs", "Disabled", "Enabled", "bob")


def test_who_staged_the_mending_is_known_and_who_is_to_blame_is_not_forgotten(fleet):
    n0 = fleet.machines["n0"]
    n0.settings["bios.Sriov"] = "Disabled"
    n0.logs = (LogEntry(at=time.time(), message="BIOS changed", account="jim", kind=LogKind.bios_change),)
    scan(fleet.site(), read=fleet.read)
    n0.staged, n0.logs = {"bios.Sriov": "Enabled"}, staged_by("bob")
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert (one.word, one.actual, one.before, one.blame) == ("staged", "Disabled", "Disabled", "bob")
    assert [b.who for b in show(fleet.site(), "n0", "Sriov").blames] == ["jim", "bob"]
    n0.staged = {}  # taken back
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert (one.word, one.blame) == ("differs", "jim")


def test_what_was_staged_before_the_profile_asked_has_no_change(fleet):
    fleet.machines["n0"].staged = {"bios.Free": 8}
    scan(fleet.site(), read=fleet.read)
    (fleet.folder / "profiles/acme.yaml").write_text('match: {vendor: "Acme*"}\nbios_raw: {Free: 7}\n')
    scan(fleet.site(), read=fleet.read)
    (one,) = drifts(fleet.site())
    assert (one.actual, one.before, one.blame) == ("7 (8 staged)", None, "")


def test_vendor_neutral_names_are_known(fleet):
    """As scans print them; each make has its own name for it."""
    for name, make, attribute in (
        ("n0", "Dell Inc.", "LogicalProc"),
        ("n1", "HPE", "ProcHyperthreading"),
        ("n2", "Supermicro", "Hyper_Threading_ALL__3B03"),
    ):
        machine = fleet.machines[name]
        machine.manufacturer, machine.model = make, "B2"
        machine.settings = {f"bios.{attribute}": "Disable" if name == "n2" else "Disabled", "bios.Other": 1}
    (fleet.folder / "profiles/all.yaml").write_text("match: {model: B2}\nbios: {hyperthreading: enabled}\n")
    scan(fleet.site(), read=fleet.read)
    hosts = hosts_of(fleet.site(), ["n0", "n1", "n2"])
    assert {d.host for d in drifts(fleet.site(), hosts=hosts)} == hosts
    for name in ("hyperthreading", "neutral.hyperthreading"):
        assert show(fleet.site(), "n0", name).setting == "bios.LogicalProc"
        assert show(fleet.site(), "n2", name).setting == "bios.Hyper_Threading_ALL__3B03"
        done = accept(fleet.site(), hosts, name, until="2999-01-01", reason="r")
        assert {(w.setting, w.actual, *w.hosts) for w in done.waivers} == {
            ("bios.LogicalProc", "Disabled", "n0"),
            ("bios.ProcHyperthreading", "Disabled", "n1"),
            ("bios.Hyper_Threading_ALL__3B03", "Disable", "n2"),
        }
    assert all(d.waived for d in drifts(fleet.site(), hosts=hosts))
    with pytest.raises(NotFound, match=r"'neutral\.sriov'"):
        show(fleet.site(), "n0", "neutral.sriov")


def test_a_job_of_which_nothing_is_known_is_one_cause(fleet):
    for name in ("n0", "n1"):
        fleet.machines[name].jobs = (Job(id=f"JID_{name}", name="ConfigBIOS", state="Scheduled", about="bios"),)
    scan(fleet.site(), read=fleet.read)
    (cause,) = grouped(drifts(fleet.site()))
    assert (cause.title, cause.hosts) == ("bios.* (2 settings): job-running", ("n0", "n1"))


ALERTS = "alerts: [{name: ops, slack: {url: 'env:SLACK'}}]\n"


def told(fleet: Rig) -> list[Told]:
    site = fleet.site()
    evaluate(site)
    messages = site.store.triggers.due_messages()
    for message in messages:
        site.store.triggers.message_sent(message.id)
    return [cause for m in messages for cause in structs.convert(m.body, Notice).causes]


def test_an_alert_says_since_when_and_who(fleet):
    """Decided a day after the change: it says when the value changed, and by whom; also of hosts that join later."""
    with (fleet.folder / "site.yaml").open("a") as file:
        file.write(ALERTS)
    for name, who in (("n0", "jim"), ("n1", "eva")):
        fleet.machines[name].settings["bios.Sriov"] = "Disabled"
        fleet.machines[name].logs = (
            LogEntry(at=time.time(), message="BIOS changed", account=who, kind=LogKind.bios_change),
        )
    scan(fleet.site(), hosts=["n0"], read=fleet.read)
    changed = fleet.site().store.value_history("n0", "bios.Sriov")[-1].since
    time.sleep(0.05)
    scan(fleet.site(), hosts=["n0"], read=fleet.read)
    (cause,) = told(fleet)
    assert (cause.since, cause.by) == (changed, ("jim",))
    scan(fleet.site(), hosts=["n1"], read=fleet.read)
    (cause,) = told(fleet)
    assert (cause.hosts, cause.since, cause.by) == (("n0", "n1"), changed, ("jim", "eva"))


def test_what_was_staged_first_drifted_then(fleet):
    """In another word it is another finding, and still the same drift."""
    with (fleet.folder / "site.yaml").open("a") as file:
        file.write(ALERTS)
    machine = fleet.machines["n0"]
    machine.settings["bios.Sriov"] = "Disabled"
    machine.jobs = (Job(id="1", about="bios", state="Running", name="config", uri="/1"),)
    scan(fleet.site(), read=fleet.read)
    changed = fleet.site().store.value_history("n0", "bios.Sriov")[-1].since
    machine.jobs = ()
    scan(fleet.site(), read=fleet.read)
    (finding,) = findings(fleet.site(), words=DRIFT)
    assert finding.first_seen > changed
    (cause,) = told(fleet)
    assert cause.since == changed


def test_a_host_that_is_only_ever_half_read_is_told_after_three_scans(fleet):
    with (fleet.folder / "site.yaml").open("a") as file:
        file.write(ALERTS)
    machine = fleet.machines["n0"]
    del machine.settings["bios.Sriov"]
    machine.unknown["bios.Sriov"] = Unknown(Reason.timeout, "no answer in 60 s")
    seen = []
    for _ in range(4):
        scan(fleet.site(), read=fleet.read)
        seen.append([(c.kind, c.reason, c.hosts) for c in told(fleet)])
    assert seen == [[], [], [("unknown", "PartlyRead", ("n0",))], []]
    machine.unknown.clear()
    machine.settings["bios.Sriov"] = "Enabled"
    scan(fleet.site(), read=fleet.read)
    assert [c.how for c in told(fleet)] == ["read-again"]
