"""What every store does with scans: values and findings as changes over time."""

from __future__ import annotations

import pytest
from store_scan_rig import ABOUT, finding, read, scan, scan_all, unread

from metalimmu.errors import NotFound, StoreError
from metalimmu.observed.log_entry import LogEntry, LogKind
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.remembered import MakeKey, Remembered
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.types import Word
from metalimmu.store.fakes import FailingStore
from metalimmu.store.scan_records import BlameRecord, ChangeRecord, ScanCounts

T = 1_795_000_000.0


def test_a_scan_knows_its_hosts_and_what_is_left(store):
    began = store.begin_scan({"selector": "role=web"}, trigger="cli", hosts=["b", "a", "c"])
    assert began.id.startswith("s-")
    assert (began.hosts, began.unfinished) == (3, True)
    assert store.pending_hosts(began.id) == ["b", "a", "c"]
    store.record_scanned(began.id, [read("a", T, {"bios.X": 1})])
    assert store.scanned_hosts(began.id) == {"a"}
    assert store.pending_hosts(began.id) == ["b", "c"]
    assert [s.id for s in store.unfinished_scans()] == [began.id]
    done = store.finish_scan(began.id, {"why": "done"})
    assert done.finished
    assert done.summary == {"why": "done"}
    assert store.finish_scan(began.id, {"why": "again"}) == done
    assert store.unfinished_scans() == []
    assert store.pending_hosts(began.id) == []
    assert store.scan(began.id).scope == {"selector": "role=web"}
    with pytest.raises(NotFound, match="s-none"):
        store.scan("s-none")
    with pytest.raises(NotFound):
        store.record_scanned("s-none", [read("a", T, {"bios.X": 1})])


def test_scans_are_listed_newest_first(store):
    names = [scan(store, "a") for _ in range(3)]
    assert [s.id for s in store.scans(2)] == names[:0:-1]


def streaks(store) -> dict[str, int]:
    return {h.host: h.streak for h in store.known_hosts() if h.streak}


def test_a_host_counts_once_in_a_scan(store):
    name = scan(store, "a", "b")
    store.record_scanned(name, [read("a", T, {"bios.X": 1}, [finding("bios.X", "differs", "1")])])
    before = store.scan_summary(name)
    store.record_scanned(name, [read("a", T + 9, {"bios.X": 2}), unread("b", T)])
    store.record_scanned(name, [unread("b", T + 1)])
    after = store.scan_summary(name)
    assert store.values("a") == {"bios.X": 1}
    assert streaks(store) == {"b": 1}
    assert before.states == {"drift": 1}
    assert after.states == {"drift": 1, "unknown": 1}
    assert after.reasons == {"BmcUnreachable": 1}


def test_nothing_is_recorded_after_the_end(store):
    name = scan_all(store, read("a", T, {"bios.X": 1}))
    store.record_scanned(name, [read("b", T, {"bios.X": 1})])
    assert store.values("b") == {}


def test_values_keep_their_types(store):
    settings = {
        "bios.Text": "on",
        "bios.Number": 5,
        "bios.Real": 1.5,
        "bios.Yes": True,
        "bios.Null": None,
        "bios.Empty": "",
        "boot.order": ("Hdd", "Pxe"),
    }
    scan_all(store, read("a", T, settings))
    assert store.values("a") == settings


def test_a_value_has_a_life(store):
    for at, value in ((T, "a"), (T + 10, "a"), (T + 20, "b"), (T + 30, "a"), (T + 40, "a")):
        scan_all(store, read("n1", at, {"bios.X": value, "bios.Y": 1}))
    life = [(v.value, v.since, v.seen, v.until) for v in store.value_history("n1", "bios.X")]
    assert life == [("a", T, T + 10, T + 20), ("b", T + 20, T + 20, T + 30), ("a", T + 30, T + 40, None)]
    assert store.values("n1", T + 25) == {"bios.X": "b", "bios.Y": 1}
    assert store.values("n1", T - 1) == {}
    assert list(store.changes(T)) == [
        ChangeRecord(host="n1", setting="bios.X", before="a", after="b", at=T + 20, before_seen=T + 10),
        ChangeRecord(host="n1", setting="bios.X", before="b", after="a", at=T + 30, before_seen=T + 20),
    ]
    assert [c.at for c in store.changes(T + 21)] == [T + 30]
    assert list(store.changes(T, hosts=["other"])) == []
    assert store.last_change("n1", "bios.X").at == T + 30
    assert store.last_change("n1", "bios.Y") is None
    assert store.value_history("n1", "bios.None") == store.value_history("none", "bios.X") == []


def test_a_setting_appears_and_vanishes(store):
    scan_all(store, read("n1", T, {"bios.X": 1}))
    scan_all(store, read("n1", T + 1, {"bios.X": 1, "bios.Y": None}))
    scan_all(store, read("n1", T + 2, {"bios.X": 1}))
    assert store.values("n1") == {"bios.X": 1}
    assert [(c.appeared, c.vanished, c.before, c.after) for c in store.changes(0)] == [
        (True, False, None, None),
        (False, True, None, None),
    ]
    assert [(v.present, v.value) for v in store.value_history("n1", "bios.Y")] == [(True, None), (False, None)]


def test_what_could_not_be_read_did_not_vanish_and_is_not_newer(store):
    scan_all(store, read("n1", T, {"bios.X": 1, "boot.mode": "UEFI"}))
    scan_all(store, read("n1", T + 10, {"boot.mode": "UEFI"}, unknown=["bios"]))
    scan_all(store, unread("n1", T + 20))
    assert store.values("n1") == {"bios.X": 1, "boot.mode": "UEFI"}
    assert store.value_history("n1", "bios.X")[0].seen == T
    assert store.value_history("n1", "boot.mode")[0].seen == T + 10
    scan_all(store, read("n1", T + 30, {"boot.mode": "UEFI", "bios.X": 2}))
    assert list(store.changes(0)) == [
        ChangeRecord(host="n1", setting="bios.X", before=1, after=2, at=T + 30, before_seen=T)
    ]


def test_a_section_first_read_later_is_no_change(store):
    scan_all(store, read("n1", T, {"boot.mode": "UEFI"}, unknown=["bios"]))
    scan_all(store, read("n1", T + 10, {"boot.mode": "UEFI", "bios.X": 1}))
    assert list(store.changes(0)) == []
    assert store.value_history("n1", "bios.X")[0].since == T + 10


def test_unknown_below_unknown(store):
    """A single setting that was unknown before its whole section was keeps its own time."""
    scan_all(store, read("n1", T, {"bios.X": 1, "bios.Y": 1}))
    scan_all(store, read("n1", T + 10, {"bios.Y": 1}, unknown=["bios.X"]))
    scan_all(store, read("n1", T + 20, {"boot.mode": "UEFI"}, unknown=["bios"]))
    assert store.value_history("n1", "bios.X")[0].seen == T
    assert store.value_history("n1", "bios.Y")[0].seen == T + 10
    scan_all(store, read("n1", T + 30, {"boot.mode": "UEFI", "bios.Y": 1}, unknown=["bios.X"]))
    assert store.value_history("n1", "bios.X")[0].seen == T
    assert store.value_history("n1", "bios.Y")[0].seen == T + 30


def test_noise_ends_without_vanishing(store):
    scan_all(store, read("n1", T, {"bios.X": 1, "bios.Clock": 1}))
    name = scan(store, "n1")
    store.record_scanned(name, [read("n1", T + 1, {"bios.X": 1})], left_out=frozenset({"bios.Clock"}))
    assert store.values("n1") == {"bios.X": 1}
    assert list(store.changes(0)) == []


def test_of_two_scans_at_once_the_newer_reading_stays(store):
    scan_all(store, read("n1", T + 10, {"bios.X": "new"}))
    scan_all(store, read("n1", T, {"bios.X": "old"}))
    assert store.values("n1") == {"bios.X": "new"}


def test_a_clock_that_was_ahead_does_not_stop_later_readings(store, clock):
    ahead = clock.now + 86400
    scan_all(store, read("n1", ahead, {"bios.X": 1}))
    scan_all(store, read("n1", clock.now, {"bios.X": 2}))
    assert store.values("n1") == {"bios.X": 2}
    assert [v.value for v in store.value_history("n1", "bios.X")] == [1, 2]


def test_streaks(store):
    scan_all(store, read("a", T, {"bios.X": 1}), unread("b", T))
    scan_all(store, unread("a", T + 1), unread("b", T + 1, "BmcLoginRefused"))
    assert streaks(store) == {"a": 1, "b": 2}
    known = {h.host: h for h in store.known_hosts()}
    assert (known["a"].read_at, known["a"].tried_at) == (T, T + 1)
    assert known["b"].read_at is None
    assert known["b"].failure.code == "BmcLoginRefused"
    assert known["a"].about == ABOUT
    scan_all(store, read("a", T + 2, {"bios.X": 1}), unread("b", T + 2))
    assert streaks(store) == {"b": 3}
    assert next(store.known_hosts(["a"])).failure is None


def test_a_finding_has_a_life(store):
    scan_all(store, read("n1", T, {"bios.X": "on"}, [finding("bios.X", "match", "on")]))
    scan_all(store, read("n1", T + 10, {"bios.X": "off"}, [finding("bios.X", "differs", "off")]))
    scan_all(store, read("n1", T + 20, {"bios.X": "off"}, [finding("bios.X", "differs", "off")]))
    (now,) = store.current_findings()
    assert (now.finding.word, now.first_seen, now.last_seen, now.fixed_at) == (Word.differs, T + 10, T + 20, None)
    assert (now.host, now.finding.host, now.finding.source, now.stale) == ("n1", "n1", "/redfish/v1/x", False)
    last = scan_all(store, read("n1", T + 30, {"bios.X": "on"}, [finding("bios.X", "match", "on")]))
    assert store.scan_summary(last).fixed == 1
    life = store.finding_history("n1", "bios.X")
    assert [(f.finding.word, f.first_seen, f.last_seen, f.fixed_at, f.ended) for f in life] == [
        (Word.match, T, T, T + 10, "changed"),
        (Word.differs, T + 10, T + 20, T + 30, "fixed"),
        (Word.match, T + 30, T + 30, None, None),
    ]
    assert [f.finding.actual for f in store.fixed_findings(T + 30)] == ["off"]
    assert list(store.fixed_findings(T + 31)) == list(store.fixed_findings(0, hosts=["n2"])) == []


def test_an_unknown_ends_no_drift(store):
    drift = finding("bios.X", "differs", "off")
    lost = finding("bios.X", "unknown", reason="timeout")
    scan_all(store, read("n1", T, {"bios.X": "off", "boot.mode": "UEFI"}, [drift]))
    scan_all(store, read("n1", T + 10, {"boot.mode": "UEFI"}, [lost], unknown=["bios"]))
    found = {f.finding.word: f for f in store.current_findings()}
    assert set(found) == {Word.differs, Word.unknown}
    assert (found[Word.differs].stale, found[Word.differs].last_seen) == (True, T)
    scan_all(store, unread("n1", T + 20))
    assert all(f.stale for f in store.current_findings())
    again = scan_all(store, read("n1", T + 30, {"bios.X": "off", "boot.mode": "UEFI"}, [drift]))
    (now,) = store.current_findings()
    assert (now.first_seen, now.last_seen, now.stale) == (T, T + 30, False)
    assert store.scan_summary(again).new == 0
    assert list(store.fixed_findings(0)) == []


def test_an_unknown_under_another_name_ends_no_drift(store):
    """A vendor-neutral key whose attribute cannot be told while the BIOS is unread."""
    scan_all(store, read("n1", T, {"bios.Sriov": "off", "boot.mode": "U"}, [finding("bios.Sriov", "differs", "off")]))
    scan_all(store, read("n1", T + 10, {"boot.mode": "U"}, [finding("neutral.sriov", "unknown")], unknown=["bios"]))
    assert {f.finding.word for f in store.current_findings()} == {Word.differs, Word.unknown}


def test_what_nobody_asks_for_any_more_is_not_fixed(store):
    scan_all(store, read("n1", T, {"bios.X": "off"}, [finding("bios.X", "differs", "off")]))
    scan_all(store, read("n1", T + 1, {"bios.X": "off"}, [finding("bios.Y", "match")]))
    assert [f.ended for f in store.fixed_findings(0)] == ["dropped"]


def test_a_reason_may_change_without_a_new_finding(store):
    scan_all(store, read("n1", T, {"bios.X": 1}, [finding("bios.X", "differs", "off", reason="one")]))
    scan_all(store, read("n1", T + 1, {"bios.X": 1}, [finding("bios.X", "differs", "off", reason="two")]))
    (now,) = store.current_findings()
    assert (now.finding.reason, now.first_seen) == ("two", T)


def test_several_findings_of_one_setting(store):
    with_ops = finding("bmc.accounts", "match", "ops,root", expected="with ops")
    without_root = finding("bmc.accounts", "differs", "ops,root", expected="without root")
    scan_all(store, read("n1", T, {"bmc.accounts": ("ops", "root")}, [with_ops, without_root]))
    assert len(list(store.current_findings())) == 2
    done = finding("bmc.accounts", "match", "ops", expected="without root")
    scan_all(
        store,
        read("n1", T + 1, {"bmc.accounts": ("ops",)}, [finding("bmc.accounts", "match", "ops", "with ops"), done]),
    )
    assert [(f.finding.expected, f.ended) for f in store.fixed_findings(0)] == [("without root", "fixed")]


def test_findings_are_chosen_by_host_and_word(store):
    names = [f"n{i:03}" for i in range(250)]
    scan_all(
        store,
        *(
            read(n, T, {"bios.X": i, "bios.Y": 1}, [finding("bios.X", "differs", str(i)), finding("bios.Y", "match")])
            for i, n in enumerate(names)
        ),
    )
    assert [f.host for f in store.current_findings(words={Word.differs})] == names
    assert len(list(store.current_findings())) == 500
    assert [f.host for f in store.current_findings(["n007", "none"], {Word.differs})] == ["n007"]
    assert len(list(store.current_findings(names[:240], {Word.match}))) == 240
    assert list(store.current_findings([])) == []


def test_more_changes_than_one_page(store):
    names = [f"n{i:04}" for i in range(700)]
    for step in range(3):
        scan_all(store, *(read(n, T + step, {"bios.X": step, "bios.Y": step}) for n in names))
    found = list(store.changes(0))
    assert len(found) == 2 * 2 * 700
    assert len({(c.host, c.setting, c.at) for c in found}) == len(found)
    assert [c.at for c in found] == sorted(c.at for c in found)


def test_the_fleet_as_it_is(store):
    scan_all(
        store,
        read("a", T, {"bios.X": 1}, [finding("bios.X", "match", "on")]),
        read("b", T, {"bios.X": 2}, [finding("bios.X", "differs", "off", severity="critical")]),
        read("c", T, {"boot.mode": "U"}, [finding("bios.X", "unknown", reason="off")]),
        read("d", T, {"boot.mode": "U"}, about=type(ABOUT)()),
        unread("e", T),
    )
    assert store.fleet() == ScanCounts(
        states={"match": 1, "drift": 1, "unknown": 2, "no-profile": 1},
        words={"match": 1, "differs": 1, "unknown": 1},
        severities={"critical": 1},
        reasons={"BmcUnreachable": 1},
    )
    assert [(h.host, v) for h, v in store.fleet_values()][:2] == [("a", {"bios.X": 1}), ("b", {"bios.X": 2})]


def test_blame_is_kept_with_the_change(store):
    entry = LogEntry(at=T, message="BIOS updated", account="root", kind=LogKind.firmware_update)
    blame = BlameRecord(host="n1", setting="bios.X", at=T, kind="account", who="root", entries=(entry,))
    store.keep_blame([BlameRecord(host="n1", setting="bios.X", at=T, kind="unknown"), blame])
    assert store.blame("n1", "bios.X", T) == blame
    assert store.blame("n1", "bios.X", T + 1) is None


def test_what_was_learnt_of_a_make(store):
    key = MakeKey("Acme", "A1", "1.0")
    assert store.remembered(key) is None
    store.remember(key, Remembered(paths={"system": "/redfish/v1/Systems/1"}))
    store.remember(key, Remembered(paths={"system": "/redfish/v1/Systems/2"}, expand={"firmware": True}))
    assert store.remembered(key) == Remembered(paths={"system": "/redfish/v1/Systems/2"}, expand={"firmware": True})
    assert store.remembered(MakeKey("Acme", "A1", "1.1")) is None


def test_registries(store):
    registry = Registry(id="B", source="/r", attributes={"X": Attribute(name="X", type="Boolean", read_only=True)})
    assert store.registry("Acme", "A1", "1") is None
    store.keep_registry("Acme", "A1", "1", Unknown(Reason.not_modelled, "none"))
    assert store.registry("Acme", "A1", "1") == Unknown(Reason.not_modelled, "none")
    store.keep_registry("Acme", "A1", "1", registry)
    assert store.registry("Acme", "A1", "1") == registry


def test_a_batch_that_fails_leaves_nothing(store):
    name = scan(store, "a", "b")

    def batch():
        yield read("a", T, {"bios.New": "never seen"}, [finding("bios.New", "differs", "never seen")])
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        store.record_scanned(name, batch())
    assert store.pending_hosts(name) == ["a", "b"]
    assert store.values("a") == {}
    store.record_scanned(name, [read("b", T, {"bios.Other": "x"}), read("a", T, {"bios.New": "never seen"})])
    assert store.values("b") == {"bios.Other": "x"}
    assert store.values("a") == {"bios.New": "never seen"}


def test_a_full_disk_says_so_and_the_scan_goes_on_later(store):
    failing = FailingStore(store, only=frozenset({"record_scanned"}))
    name = scan(failing, "a")
    failing.broken = True
    with pytest.raises(StoreError, match="full"):
        failing.record_scanned(name, [read("a", T, {"bios.X": 1})])
    failing.broken = False
    failing.record_scanned(name, [read("a", T, {"bios.X": 1})])
    assert failing.calls == ["record_scanned"]
    assert failing.pending_hosts(name) == []


def dark(store) -> tuple[int, int, int]:
    (host,) = store.known_hosts(["a"])
    return host.streak, host.gaps, host.dark


def test_scans_in_a_row_that_did_not_know_all_of_a_host(store):
    """Silent or half read, unchanged or not: each scan counts, until one knows all."""
    gap = finding("bios.X", "unknown", reason="timeout: no answer")
    half = [read("a", T + i, {"bios.Y": 1}, [gap], unknown=["bios.X"]) for i in range(4)]
    seen = []
    for scanned in (half[0], half[1], unread("a", T + 2), half[3]):
        scan_all(store, scanned)
        seen.append(dark(store))
    assert seen == [(0, 1, 1), (0, 1, 2), (1, 1, 3), (0, 1, 4)]
    scan_all(store, read("a", T + 5, {"bios.X": 1}, [finding("bios.X", "match", "1")]))
    assert dark(store) == (0, 0, 0)
    scan_all(store, read("a", T + 6, {"bios.X": 1}, [finding("bios.X", "match", "1")]))
    assert dark(store) == (0, 0, 0)


def test_what_the_bmc_does_not_have_is_no_gap(store):
    scan_all(store, read("a", T, {"bios.Y": 1}, [finding("bios.X", "unknown", reason="not modelled: no such thing")]))
    assert dark(store) == (0, 0, 0)
