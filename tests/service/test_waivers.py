"""The life of a waiver: accepted, shown as waived, and drift again."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from scan_rig import Rig, rig

from metalimmu.cli.scan_table import print_scan
from metalimmu.desired.check import check
from metalimmu.desired.waiver import Waiver
from metalimmu.errors import NotFound, SiteError, UsageError
from metalimmu.main import run
from metalimmu.observed.snapshot import Job
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.types import Finding, Word
from metalimmu.plan.waivers import Waivers, lapsed
from metalimmu.service.metrics import collect
from metalimmu.service.report.build import build
from metalimmu.service.scans.accept import accept
from metalimmu.service.scans.drift import drifts, hosts_of, show
from metalimmu.service.scans.result import exit_status
from metalimmu.service.scans.scan import scan

LATER = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86400 * 30))
DAY = 86400.0


@pytest.fixture
def drifted(tmp_path: Path) -> Iterator[Rig]:
    """a and b differ in the same way, c in another."""
    made = rig(tmp_path, "a", "b", "c", "good")
    for name, value in (("a", "Off"), ("b", "Off"), ("c", "Auto")):
        made.machines[name].settings["bios.Turbo"] = value
    scan(made.site(), read=made.read)
    yield made
    made.close()


def accepted(made: Rig, *hosts: str, until: str = LATER, setting: str = "bios.Turbo"):
    site = made.site()
    return accept(site, hosts_of(site, hosts), setting, until=until, reason="ticket 4711")


def test_a_waiver_lives_until_the_value_changes_again(drifted):
    done = accepted(drifted, "a", "b", "good")
    assert (done.hosts, done.left_out) == (2, 1)
    result = scan(drifted.site(), read=drifted.read)
    shown = {r.host: r.finding.waived for r in result.drift()}
    assert shown == {"a": f"until {LATER}: ticket 4711", "b": f"until {LATER}: ticket 4711", "c": ""}
    assert (result.waived, result.severities, exit_status(result)) == (2, {"critical": 1}, 3)
    drifted.machines["c"].settings["bios.Turbo"] = "On"
    assert exit_status(scan(drifted.site(), read=drifted.read)) == 0
    drifted.machines["a"].settings["bios.Turbo"] = "Auto"
    back = scan(drifted.site(), read=drifted.read)
    assert exit_status(back) == 3
    assert {r.host: bool(r.finding.waived) for r in back.drift()} == {"a": False, "b": True}
    life = show(drifted.site(), "a", "bios.Turbo")
    ((waiver, why),) = life.waivers
    assert waiver.actual == "Off"
    assert why == "the value is Auto now, Off was accepted"
    assert show(drifted.site(), "b", "Turbo").waivers[0][1] == ""


def test_a_waiver_that_has_lapsed_does_not_come_back(drifted):
    """Accepted, mended, and then set so again by somebody else: that is new drift, which nobody has accepted."""
    accepted(drifted, "a")
    assert {d.host: bool(d.waived) for d in drifts(drifted.site())}["a"]
    for value in ("On", "Off"):
        drifted.machines["a"].settings["bios.Turbo"] = value
        again = scan(drifted.site(), read=drifted.read)
    assert {r.host: r.finding.waived for r in again.drift()}["a"] == ""
    assert again.counts.states["drift"] == 3
    ((_, why),) = show(drifted.site(), "a", "Turbo").waivers
    assert why == "the value has changed since it was accepted, and has come back"
    accepted(drifted, "a")  # and can be accepted once more
    assert scan(drifted.site(), read=drifted.read).counts.states == {"drift": 2, "waived": 1, "match": 1}


def test_a_waiver_is_about_the_value_and_not_about_the_profile(drifted):
    """What is expected changes, or the right value is staged: what is there is still what was accepted."""
    accepted(drifted, "a")
    profile = drifted.folder / "profiles/acme.yaml"
    profile.write_text(profile.read_text().replace('value: "On"', 'value: "Maximum"'))
    result = scan(drifted.site(), read=drifted.read)
    assert {r.host: bool(r.finding.waived) for r in result.drift() if r.host == "a"} == {"a": True}
    drifted.machines["a"].jobs = (Job(id="J", name="ConfigBIOS", state="Scheduled", about="bios"),)
    result = scan(drifted.site(), read=drifted.read)
    turbo = next(r for r in result.drift() if (r.host, r.finding.setting) == ("a", "bios.Turbo"))
    assert (str(turbo.finding.word), bool(turbo.finding.waived)) == ("job-running", True)


def test_a_waiver_ends_with_its_day():
    waiver = Waiver(hosts=["a"], setting="bios.X", actual="Off", until="2027-03-31", reason="r")
    finding = Finding(setting="bios.X", word=Word.differs, actual="Off", host="a")
    last = 1_806_537_599.0  # 2027-03-31T23:59:59Z
    assert time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(last)) == "2027-03-31T23:59:59"
    assert Waivers([waiver]).why(finding, last, 0.0) == "until 2027-03-31: r"
    assert Waivers([waiver]).why(finding, last + 1, 0.0) == ""
    assert Waivers([waiver]).apply(finding, last, 0.0).waived
    assert Waivers([waiver]).apply(finding, last + 1, 0.0) is finding


@pytest.mark.parametrize(
    ("since", "holds", "ends"),
    [
        ("2027-01-31T12:00:00.5Z", "2027-01-31T12:00:00.500000+00:00", "2027-01-31T12:00:00.501000+00:00"),
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00+00:00", "2027-01-31T12:00:01+00:00"),
        ("2027-01-31", "2027-02-01T00:00:00+00:00", "2027-02-01T00:00:01+00:00"),
    ],
)
def test_a_waiver_ends_with_the_first_change_after_it_was_accepted(since, holds, ends):
    waiver = Waiver(hosts=["a"], setting="bios.X", actual="Off", until="2999-01-01", reason="r", since=since)
    at = [datetime.fromisoformat(t).timestamp() for t in (holds, ends)]
    assert [bool(lapsed(waiver, "Off", 0.0, began)) for began in at] == [False, True]


@pytest.mark.parametrize("word", [Word.match, Word.unknown])
def test_only_drift_can_be_waived(word):
    waiver = Waiver(hosts=["a"], setting="bios.X", actual="", until="2999-01-01", reason="r")
    assert Waivers([waiver]).why(Finding(setting="bios.X", word=word, host="a"), 0.0, 0.0) == ""


def test_of_several_waivers_any_that_holds_counts():
    def waiver(actual: str, until: str) -> Waiver:
        return Waiver(hosts=["a"], setting="bios.X", actual=actual, until=until, reason=until)

    both = Waivers([waiver("Off", "2000-01-01"), waiver("Off", "2999-01-01"), waiver("Auto", "2998-01-01")])
    assert (
        both.why(Finding(setting="bios.X", word=Word.differs, actual="Off", host="a"), 1e9, 1e9)
        == "until 2999-01-01: 2999-01-01"
    )
    assert both.why(Finding(setting="bios.X", word=Word.differs, actual="On", host="a"), 1e9, 1e9) == ""


def test_one_waiver_per_value(drifted):
    done = accepted(drifted, "a", "b", "c")
    assert [(w.actual, w.hosts) for w in done.waivers] == [("Auto", ["c"]), ("Off", ["a", "b"])]
    document = yaml.safe_load((drifted.folder / "waivers.yaml").read_text())
    assert [d["reason"] for d in document] == ["ticket 4711"] * 2
    assert all(d["by"] and d["since"] for d in document)
    assert check(drifted.folder).problems == ()
    assert [e.kind for e in drifted.site().store.history("a")] == ["waiver"]


def test_what_people_wrote_stays(drifted):
    path = drifted.folder / "waivers.yaml"
    path.write_text(
        '# ours\n- hosts: [c]   # the odd one\n  setting: bios.Turbo\n  actual: Auto\n  until: "2999-01-01"\n'
        "  reason: because  # so it is"
    )
    before = path.read_text()
    accepted(drifted, "a")
    assert path.read_text().startswith(before + "\n- hosts:")
    assert len(drifted.site().docs.waivers) == 2


@pytest.mark.parametrize(
    "text",
    ["[]\n", "", "# only words\n", "- {hosts: [c], setting: bios.Turbo, actual: x, until: '2999-01-01', reason: r}\n"],
)
def test_other_styles_of_yaml(drifted, text):
    (drifted.folder / "waivers.yaml").write_text(text)
    accepted(drifted, "a")
    assert drifted.site().docs.waivers[-1].hosts == ["a"]
    assert (drifted.folder / "waivers.yaml").read_text().startswith(text if text.startswith("#") else "")


def test_a_broken_document_is_left_as_it_is(drifted):
    path = drifted.folder / "waivers.yaml"
    site = drifted.site()
    hosts = hosts_of(site, ["a"])
    path.write_text("- {hosts: [a]\n")
    with pytest.raises(SiteError):
        accept(site, hosts, "bios.Turbo", until=LATER, reason="r")
    assert path.read_text() == "- {hosts: [a]\n"


def test_what_cannot_be_accepted(drifted):
    with pytest.raises(NotFound, match=r"nothing is known of 'bios\.Turbi'") as caught:
        accepted(drifted, "a", setting="bios.Turbi")
    assert "bios.Turbo" in caught.value.hint
    with pytest.raises(UsageError, match=r"bios\.Free is no drift"):
        accepted(drifted, "a", setting="bios.Free")
    with pytest.raises(UsageError, match="is no drift"):
        accepted(drifted, "good")
    with pytest.raises(NotFound, match="no host 'd'"):
        accepted(drifted, "d")
    for until in ("2020-01-01", "tomorrow", "2027-02-30", "20270201"):
        with pytest.raises(UsageError, match="--until"):
            accepted(drifted, "a", until=until)
    site = drifted.site()
    with pytest.raises(UsageError, match="needs a reason"):
        accept(site, {"a"}, "bios.Turbo", until=LATER, reason=" ")
    assert not (drifted.folder / "waivers.yaml").exists()


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ("{hosts: [x], setting: bios.Turbo, actual: a, until: '2999-01-01', reason: r}", "hosts[0]"),
        ("{hosts: [], setting: bios.Turbo, actual: a, until: '2999-01-01', reason: r}", "hosts"),
        ("{hosts: [a], setting: Turbo, actual: a, until: '2999-01-01', reason: r}", "setting"),
        ("{hosts: [a], setting: bios.Turbo, actual: a, until: 2999-01-01, reason: r}", "until"),
        ("{hosts: [a], setting: bios.Turbo, actual: a, until: '2999-02-30', reason: r}", "until"),
        ("{hosts: [a], setting: bios.Turbo, actual: a, until: '2999-01-01', reason: r, since: '2026-02-30'}", "since"),
        ("{hosts: [a], setting: bios.Turbo, actual: a, until: '2999-01-01', reason: r, since: now}", "since"),
        ("{hosts: [a], setting: bios.Turbo, actual: a, until: '2999-01-01', reason: ''}", "reason"),
        ("{hosts: [a], setting: bios.Turbo, until: '2999-01-01', reason: r}", "actual"),
        ("{hosts: [a], setting: bios.Turbo, actual: a, until: '2999-01-01', reason: r, whom: me}", "whom"),
    ],
)
def test_check_finds_what_is_wrong(drifted, entry, field):
    (drifted.folder / "waivers.yaml").write_text(f"- {entry}\n")
    (problem,) = check(drifted.folder).problems
    assert (problem.file, problem.field) == ("waivers.yaml", f"[0].{field}")


def test_check_says_which_have_run_out(drifted):
    (drifted.folder / "waivers.yaml").write_text(
        "- {hosts: [a, b], setting: bios.Turbo, actual: a, until: '2020-01-01', reason: r}\n"
    )
    assert any("bios.Turbo of a and 1 more (until 2020-01-01)" in r for r in check(drifted.folder).remarks)


def test_waived_drift_is_still_listed(drifted):
    accepted(drifted, "a")
    assert {d.host: bool(d.waived) for d in drifts(drifted.site())} == {"a": True, "b": False, "c": False}


def test_a_host_whose_drift_is_all_waived_is_a_state_of_its_own(drifted, capsys):
    """In the scan's summary, its list, the report, the metrics, and drift's own statuses."""
    machine = drifted.machines["b"]
    machine.settings["bios.Sriov"] = "Disabled"  # and something else, which nobody has accepted
    scan(drifted.site(), read=drifted.read)
    accepted(drifted, "a", "b", "c", until=LATER)
    want = {"waived": 2, "drift": 1, "match": 1}
    # Accepted between two scans: what is shown from the store says so at once.
    assert {k: v for k, v in collect(drifted.site()).hosts.items() if v} == want
    assert {k: v for k, v in build(drifted.site()).states.items() if v} == want
    result = scan(drifted.site(), read=drifted.read)
    assert result.counts.states == want
    assert drifted.site().store.scans(1)[0].summary["states"] == want
    out = io.StringIO()
    print_scan(drifted.site(), result, out)
    assert "4 hosts: 1 match, 1 drift, 2 waived." in out.getvalue()
    assert run(["scan", "--list", "--site", str(drifted.folder)]) == 0
    head, newest, *_ = capsys.readouterr().out.splitlines()
    assert newest.split()[head.split().index("WAIVED") - len(head.split()) :] == ["2", "0"]
    machine.settings["bios.Sriov"] = "Enabled"
    result = scan(drifted.site(), read=drifted.read)
    assert result.counts.states == {"waived": 3, "match": 1}
    assert exit_status(result) == 0


def test_what_is_not_known_of_a_host_makes_it_unknown_whatever_is_waived(drifted):
    accepted(drifted, "a")
    machine = drifted.machines["a"]
    del machine.settings["bios.Sriov"]
    machine.unknown["bios.Sriov"] = Unknown(Reason.timeout)
    assert scan(drifted.site(), read=drifted.read).counts.states == {"drift": 2, "unknown": 1, "match": 1}
