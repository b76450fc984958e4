"""Few alerts for many findings; each told once; silence fixes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from alert_sinks import alert, drift, silent
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.desired.alerts import Alert
from metalimmu.plan.types import Word
from metalimmu.service.alerts.evaluate import decide_all
from metalimmu.service.alerts.notice import MOST_HOSTS, Notice
from metalimmu.service.alerts.render import headline, plain
from metalimmu.store.scan_records import About, FindingRecord, HostScan
from metalimmu.store.trigger_records import AlertState


class Receiver:
    """One receiver's state over several scans."""

    def __init__(self, alert_: Alert | None = None, hosts: Iterable[str] = ()) -> None:
        self.alert = alert_ or alert()
        self.scope = set(hosts)
        self.states: dict[str, AlertState] = {}
        self.now = 1000.0

    def scan(self, findings: Sequence[FindingRecord] = (), unread: Sequence[HostScan] = ()) -> list[Notice]:
        self.now += 3600
        scope = self.scope or {f.host for f in findings} | {h.host for h in unread} | {h for s in self.states.values() for h in s.hosts}  # fmt: skip
        keep, forget, messages = decide_all(
            "ams1", [self.alert], {self.alert.name: scope}, findings, unread, list(self.states.values()), self.now
        )
        for state in forget:
            del self.states[state.cause]
        self.states |= {s.cause: s for s in keep}
        return [msgspec.convert(m.body, Notice) for m in messages]


def test_the_same_change_on_500_hosts_is_one_alert() -> None:
    hosts = [f"n{i:03}" for i in range(500)]
    (notice,) = Receiver().scan([drift(h) for h in hosts])
    assert notice.kind == "drift"
    (cause,) = notice.causes
    assert (cause.setting, cause.expected, cause.actual) == ("bios.ProcCStates", "Disabled", "Enabled")
    assert cause.hosts == tuple(hosts)
    assert cause.hosts_total == cause.new_hosts_total == 500


def test_everything_unreachable_is_one_alert_and_no_drift_is_fixed() -> None:
    hosts = [f"n{i:05}" for i in range(10_000)]
    receiver = Receiver(hosts=hosts)
    assert len(receiver.scan([drift("n00001")])) == 1
    codes = ("BmcUnreachable", "BmcTimeout")  # what a network that is down looks like
    unread = [silent(h, code=codes[i % 2]) for i, h in enumerate(hosts)]
    (notice,) = receiver.scan([drift("n00001", stale=True)], unread)
    assert notice.kind == "unknown"
    (cause,) = notice.causes
    assert (cause.reason, cause.hosts_total, len(cause.hosts)) == ("BmcUnreachable", 10_000, MOST_HOSTS)
    (over,) = receiver.scan([drift("n00001")])
    assert (over.kind, over.causes[0].kind, over.causes[0].how) == ("fixed", "unknown", "read-again")


def test_nothing_is_told_twice() -> None:
    receiver = Receiver()
    findings, unread = [drift("a"), drift("b")], [silent("c")]
    assert [n.kind for n in receiver.scan(findings, unread)] == ["drift", "unknown"]
    for _ in range(3):
        assert receiver.scan(findings, unread) == []


def test_hosts_that_join_are_told_and_the_last_that_leaves_ends_it() -> None:
    receiver = Receiver()
    (first,) = receiver.scan([drift("a")])
    (second,) = receiver.scan([drift("a"), drift("b"), drift("c")])
    assert second.id != first.id
    assert (second.causes[0].revision, second.causes[0].new_hosts_total, second.causes[0].hosts_total) == (2, 2, 3)
    assert second.causes[0].cause == first.causes[0].cause
    assert second.causes[0].since == first.causes[0].since
    assert receiver.scan([drift("b")]) == []
    (fixed,) = receiver.scan([])
    assert (fixed.kind, fixed.causes[0].how, fixed.causes[0].hosts) == ("fixed", "fixed", ("b",))
    (again,) = receiver.scan([drift("a")])
    assert again.id not in {first.id, second.id, fixed.id}  # another episode


def test_staged_is_the_same_cause_as_differs() -> None:
    receiver = Receiver()
    receiver.scan([drift("a")])
    assert receiver.scan([drift("a", word=Word.staged)]) == []


def test_a_waiver_ends_it_and_says_so() -> None:
    receiver = Receiver()
    receiver.scan([drift("a"), drift("b")])
    assert receiver.scan([drift("a", waived="until 2027-01-01: known"), drift("b")]) == []
    (over,) = receiver.scan([drift("a", waived="x"), drift("b", waived="x")])
    assert over.causes[0].how == "waived"


def test_another_value_and_another_reason_fix_nothing() -> None:
    receiver = Receiver()
    receiver.scan([drift("a"), drift("b")], [silent("c")])
    notices = receiver.scan(
        [drift("a", actual="Auto"), drift("b", actual="Auto")], [silent("c", code="BmcLoginRefused")]
    )
    over = {n.causes[0].kind: n.causes[0].how for n in notices if n.kind == "fixed"}
    assert over == {"drift": "changed", "unknown": "changed"}
    (unread,) = [headline(n) for n in notices if n.kind == "fixed" and n.causes[0].kind == "unknown"]
    assert "cannot be read for another reason now" in unread
    assert {n.causes[0].how for n in receiver.scan([drift("a", actual="Auto")])} == {"read-again"}


@pytest.mark.parametrize(
    ("fields", "expected", "over"),
    [
        ({}, ["BmcUnreachable", "bios.A", "bios.B"], 3),
        ({"severity": "critical"}, ["BmcUnreachable", "bios.B"], 2),
        ({"news": ["unknown"]}, ["BmcUnreachable"], 0),
        ({"news": ["fixed"]}, [], 3),
        ({"unknown_scans": 4}, ["bios.A", "bios.B"], 2),
    ],
)
def test_what_a_receiver_wants_to_know(fields: dict[str, object], expected: list[str], over: int) -> None:
    receiver = Receiver(alert(**fields))
    notices = receiver.scan([drift("a", "bios.A"), drift("a", "bios.B", severity="critical")], [silent("b", 3)])
    assert sorted(n.causes[0].setting or n.causes[0].reason for n in notices) == expected
    assert [n.kind for n in receiver.scan()] == ["fixed"] * over


def test_only_hosts_in_scope() -> None:
    (notice,) = Receiver(hosts=["a"]).scan([drift("a"), drift("b")])
    assert notice.causes[0].hosts == ("a",)


def test_a_new_profile_is_one_message_and_not_300() -> None:
    receiver = Receiver()
    (notice,) = receiver.scan([drift(h, f"bios.S{i:03}") for i in range(300) for h in ("a", "b")])
    assert len(notice.causes) == 300
    assert len(receiver.states) == 300
    (fixed,) = receiver.scan([])
    assert len(fixed.causes) == 300


def test_hosts_that_are_read_now_and_then_are_told_by_the_number_of_scans() -> None:
    receiver = Receiver(alert(unknown_scans=3))
    assert receiver.scan(unread=[silent("a", 1)]) == []
    assert receiver.scan(unread=[silent("a", 2)]) == []
    assert [n.kind for n in receiver.scan(unread=[silent("a", 3)])] == ["unknown"]


HOSTS = st.sets(st.sampled_from("abcdef"))
SCANS = st.lists(st.dictionaries(st.sampled_from(["bios.A", "bios.B", "bios.C"]), HOSTS), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(SCANS)
def test_whoever_adds_up_the_notices_knows_what_holds(scans: list[dict[str, set[str]]]) -> None:
    """Each id once; open causes are those told and not fixed; a second look at the same state says nothing."""
    receiver = Receiver(hosts="abcdef")
    told: dict[str, int] = {}
    ids: set[str] = set()
    for scan in scans:
        findings = [drift(host, setting) for setting, hosts in scan.items() for host in hosts]
        for notice in receiver.scan(findings):
            assert notice.id not in ids
            ids.add(notice.id)
            for cause in notice.causes:
                if notice.kind == "fixed":
                    del told[cause.setting]
                else:
                    assert cause.new_hosts_total > 0
                    assert set(cause.hosts) == scan[cause.setting]
                    told[cause.setting] = cause.hosts_total
        assert set(told) == {setting for setting, hosts in scan.items() if hosts}
        assert receiver.scan(findings) == []


def test_one_thing_on_three_makes_is_one_alert() -> None:
    off = [
        drift("a", "bios.LogicalProc", "Disabled", expected="Enabled"),
        drift("b", "bios.Processors_HyperThreading", "Disabled", expected="Enabled"),
        drift("c", "bios.ProcHyperthreading", "Disabled", expected="Enabled"),
    ]
    makers = {"a": "Dell Inc.", "b": "Lenovo", "c": "HPE"}
    known = [HostScan(host=h, about=About(manufacturer=m)) for h, m in makers.items()]
    (notice,) = Receiver().scan(off, known)
    (cause,) = notice.causes
    assert (cause.setting, cause.expected, cause.actual) == ("neutral.hyperthreading", "enabled", "disabled")
    assert cause.hosts == ("a", "b", "c")
    assert cause.settings == ("bios.LogicalProc", "bios.ProcHyperthreading", "bios.Processors_HyperThreading")
    assert "bios.ProcHyperthreading" in plain(notice)


def test_since_is_when_it_was_seen_first_and_not_when_it_is_told() -> None:
    receiver = Receiver(hosts="abc")
    (notice,) = receiver.scan(
        [drift("a")], [HostScan(host="b", streak=3, read_at=77.0, failure=silent("b").failure), silent("c")]
    )[:1]
    assert notice.causes[0].since == 1.0
    unread = [HostScan(host="b", streak=3, read_at=77.0, failure=silent("b").failure), silent("c")]
    assert [c.since for n in Receiver(hosts="bc").scan([], unread) for c in n.causes] == [77.0]
    never = Receiver(hosts="c")
    assert [c.since for n in never.scan([], [silent("c")]) for c in n.causes] == [never.now]


def half(host: str, gaps: int = 1, dark: int = 3, **fields: object) -> HostScan:
    return HostScan(host=host, read_at=50.0, gaps=gaps, dark=dark, found="unknown", **fields)


def test_hosts_that_are_only_ever_half_read_are_told_too() -> None:
    (notice,) = Receiver().scan([], [half("a"), half("b", gaps=9)])
    (cause,) = notice.causes
    assert (notice.kind, cause.hosts) == ("unknown", ("a", "b"))
    assert headline(notice) == "[ams1] 2 hosts can be read in part only"
    assert "metalimmu scan a" in plain(notice)
    assert Receiver().scan([], [half("a", dark=2)]) == []


def test_so_many_settings_may_be_unknown() -> None:
    receiver = Receiver(alert(unknown_settings=4))
    (notice,) = receiver.scan([], [half("a", gaps=4), half("b", gaps=5)])
    assert notice.causes[0].hosts == ("b",)


def test_now_silent_and_now_half_read_is_one_row_of_scans() -> None:
    (notice,) = Receiver().scan([], [half("a", streak=1, failure=silent("a").failure)])
    assert notice.causes[0].reason == "BmcUnreachable"
