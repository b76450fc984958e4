"""The verb `scan` on readings that are given: order, crash safety, conflicts, registries, blame, exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from scan_rig import GOOD, Rig, away, rig

from metalimmu.cli.scan_progress import words
from metalimmu.errors import BmcLoginRefused, NotFound, StoreError, UsageError
from metalimmu.observed.log_entry import LogEntry, LogKind
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.types import DRIFT, Word
from metalimmu.service.scans import reading as scan_reading
from metalimmu.service.scans.record import Progress
from metalimmu.service.scans.registries import AGAIN, TRIES, Key, Registries
from metalimmu.service.scans.result import MaxUnknown, exit_status, max_unknown
from metalimmu.service.scans.scan import LAST, scan
from metalimmu.store.fakes import FailingStore
from metalimmu.triggers.paced import WindowClosed


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Rig]:
    made = rig(tmp_path, "a", "b", "c")
    yield made
    made.close()


def test_an_unchanged_fleet_has_no_drift_ever(three):
    first = scan(three.site(), read=three.read)
    assert first.counts.states == {"match": 3}
    assert first.record.hosts == 3
    for _ in range(3):
        again = scan(three.site(), read=three.read)
        assert (again.counts.new, again.counts.fixed, again.counts.changes) == (0, 0, 0)
        assert list(again.drift()) == []
        assert exit_status(again) == 0
    assert list(three.site().store.changes(0)) == []


def test_drift_is_found_kept_and_ended(three):
    scan(three.site(), read=three.read)
    three.machines["b"].settings["bios.Turbo"] = "Off"
    found = scan(three.site(), read=three.read)
    (record,) = found.drift()
    assert (record.host, record.finding.setting, record.finding.word) == ("b", "bios.Turbo", Word.differs)
    assert (record.finding.severity, record.finding.owner) == ("critical", "platform")
    assert found.counts.states == {"match": 2, "drift": 1}
    assert (found.counts.new, exit_status(found)) == (1, 3)
    three.machines["b"].settings["bios.Turbo"] = "On"
    mended = scan(three.site(), read=three.read)
    assert (mended.counts.fixed, exit_status(mended)) == (1, 0)


def test_values_that_no_profile_names_are_kept_and_what_changes_by_itself_is_not(three):
    three.machines["a"].settings |= {"bmc.clock": 1.0, "hardware.nics.macs": ("x",)}
    scan(three.site(), read=three.read)
    three.machines["a"].settings |= {"bios.Free": 8, "bmc.clock": 2.0}
    scan(three.site(), read=three.read)
    store = three.site().store
    assert store.values("a") == GOOD | {"bios.Free": 8, "hardware.nics.macs": ("x",)}
    assert [(c.setting, c.before, c.after) for c in store.changes(0)] == [("bios.Free", 7, 8)]


def test_hosts_are_chosen_by_name_and_by_selector(three):
    assert scan(three.site(), hosts=["c", "a"], read=three.read).hosts == {"a", "c"}
    assert scan(three.site(), selector="row=r1", read=three.read).hosts == {"b"}
    assert three.machines["b"].reads == 1
    with pytest.raises(NotFound, match="no host 'd'"):
        scan(three.site(), hosts=["d"], read=three.read)
    with pytest.raises(UsageError, match="no host fits"):
        scan(three.site(), selector="row=r9", read=three.read)
    with pytest.raises(UsageError, match="by name and by selector"):
        scan(three.site(), hosts=["a"], selector="row=r1", read=three.read)


def test_exit_status(three):
    scan(three.site(), read=three.read)
    three.machines["a"].settings["bios.Sriov"] = "Disabled"
    warned = scan(three.site(), read=three.read)
    assert exit_status(warned) == 3
    assert exit_status(warned, fail_on="warning") == 3
    assert exit_status(warned, fail_on="critical") == 0
    three.machines["c"].failure = away()
    both = scan(three.site(), read=three.read)
    assert exit_status(both) == 4
    assert exit_status(both, limit=MaxUnknown(1)) == 3
    assert exit_status(both, limit=MaxUnknown(34, percent=True)) == 3
    assert exit_status(both, limit=MaxUnknown(33, percent=True)) == 4
    three.machines["a"].failure = away()
    gone = scan(three.site(), read=three.read)
    assert exit_status(gone, limit=MaxUnknown(2)) == 0, "what was drift before was not seen by this scan"
    assert [r.stale for r in gone.drift()] == [True]


@pytest.mark.parametrize(
    ("text", "wanted"), [("2%", MaxUnknown(2, True)), ("5", MaxUnknown(5)), ("0.5%", MaxUnknown(0.5, True))]
)
def test_max_unknown(text, wanted):
    assert max_unknown(text) == wanted


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "2.5", "1e3", "%"])
def test_max_unknown_that_is_none(text):
    with pytest.raises(UsageError, match="neither a number"):
        max_unknown(text)


def test_everything_unreachable_is_one_line(tmp_path):
    made = rig(tmp_path, *(f"n{i:03}" for i in range(300)))
    for machine in made.machines.values():
        machine.failure = away()
    made.machines["n007"].failure = BmcLoginRefused("401")
    result = scan(made.site(), read=made.read)
    unread = result.unread()
    assert [(u.code, u.hosts, len(u.examples)) for u in unread] == [
        ("BmcUnreachable", 299, 5),
        ("BmcLoginRefused", 1, 1),
    ]
    assert result.counts.reasons == {"BmcUnreachable": 299, "BmcLoginRefused": 1}
    assert "no TCP connection" in unread[0].message
    made.close()


def test_a_host_of_which_a_part_was_not_read_is_unknown(three):
    del three.machines["a"].settings["bios.Sriov"], three.machines["a"].settings["bios.Turbo"]
    three.machines["a"].unknown["bios"] = Unknown(Reason.not_permitted, "403")
    result = scan(three.site(), read=three.read)
    assert result.counts.states == {"unknown": 1, "match": 2}
    assert result.partly() == ["a"]
    assert exit_status(result) == 4


def test_a_bmc_that_went_away_in_the_middle_leaves_what_was_read(three):
    machine = three.machines["a"]
    scan(three.site(), read=three.read)

    def read(hosts, reader):
        for found in three.read(hosts, reader):
            yield msgspec.structs.replace(found, failure=away()) if found.target.name == "a" else found

    del machine.settings["bios.Sriov"], machine.settings["bios.Turbo"], machine.settings["bios.Free"]
    machine.unknown["bios"] = Unknown(Reason.unreachable, "no answer")
    result = scan(three.site(), read=read)
    assert result.counts.states == {"unknown": 1, "match": 2}
    assert result.counts.reasons == {"BmcUnreachable": 1}
    assert three.site().store.values("a") == GOOD
    assert not any(h.streak for h in three.site().store.known_hosts())


def test_passwords_are_never_kept(three):
    registry = Registry(id="R", source="/r", attributes={"Unlock": Attribute(name="Unlock", type="Password")})
    three.site().store.keep_registry("Acme Inc.", "A1", "", registry)
    three.machines["a"].settings["bios.Unlock"] = "hunter2"
    scan(three.site(), read=three.read)
    assert three.site().store.values("a") == GOOD
    assert b"hunter2" not in b"".join(p.read_bytes() for p in (three.folder / ".metalimmu").glob("store.sqlite*"))


def test_what_a_bmc_does_not_have_makes_no_host_unknown(three):
    (three.folder / "profiles/acme.yaml").write_text('match: {vendor: "Acme*"}\nbmc: {lockdown: true}\n')
    for machine in three.machines.values():
        machine.unknown["bmc"] = Unknown(Reason.not_modelled, "none")
    result = scan(three.site(), read=three.read)
    assert result.counts.words == {"unknown": 3}
    assert (result.counts.states, exit_status(result)) == ({"match": 3}, 0)


def test_two_profiles_in_conflict_are_refused_for_this_host_alone(three):
    for name, more in (("one", "model: R1"), ("two", "labels: {row: r1}")):
        (three.folder / f"profiles/{name}.yaml").write_text(f"match: {{vendor: Rival, {more}}}\nbios_raw: {{X: 1}}\n")
    three.machines["b"].manufacturer, three.machines["b"].model = "Rival", "R1"
    result = scan(three.site(), read=three.read)
    (unread,) = result.unread()
    assert (unread.code, unread.examples) == ("SiteError", ("b",))
    assert "one" in unread.message
    assert "two" in unread.message
    assert result.counts.states == {"match": 2, "unknown": 1}


def test_a_host_that_left_the_site_is_not_lost(three):
    three.before_each = _stop_at("b")
    with pytest.raises(KeyboardInterrupt):
        scan(three.site(), read=three.read)
    (three.folder / "hosts/all.yaml").write_text(
        '- {name: a, bmc: "redfish+https://10.9.0.1"}\n- {name: b, bmc: "redfish+https://10.9.0.2"}\n'
    )
    three.before_each = lambda _name: None
    result = scan(three.site(), resume=LAST, read=three.read)
    assert result.counts.states == {"match": 2, "unknown": 1}
    assert "c is no longer in the site" in result.unread()[0].message


def _stop_at(name: str, what: type[BaseException] = KeyboardInterrupt):
    def check(host: str) -> None:
        if host == name:
            raise what

    return check


def test_a_scan_that_was_interrupted_goes_on_where_it_was(three):
    three.before_each = _stop_at("c")
    with pytest.raises(KeyboardInterrupt):
        scan(three.site(), read=three.read)
    store = three.site().store
    (left,) = store.unfinished_scans()
    assert store.pending_hosts(left.id) == ["c"]
    three.before_each = lambda _name: None
    result = scan(three.site(), resume=left.id, read=three.read)
    assert result.record.id == left.id
    assert [m.reads for m in three.machines.values()] == [1, 1, 1]
    assert result.counts.states == {"match": 3}
    with pytest.raises(UsageError, match="has ended"):
        scan(three.site(), resume=left.id, read=three.read)
    with pytest.raises(UsageError, match="no scan broke off"):
        scan(three.site(), resume=LAST, read=three.read)
    with pytest.raises(NotFound):
        scan(three.site(), resume="s-none", read=three.read)


def test_one_process_per_scan(three):
    def meanwhile(_name: str) -> None:
        with pytest.raises(UsageError, match="is under way"):
            scan(three.site(), resume=LAST, read=three.read)

    three.before_each = meanwhile
    assert scan(three.site(), read=three.read).counts.states == {"match": 3}
    assert list((three.folder / ".metalimmu/scans").iterdir()) == []


def test_a_full_disk_breaks_the_scan_off_and_it_goes_on_later(three):
    site = three.site()
    failing = FailingStore(site.store, only=frozenset({"record_scanned"}))
    site.__dict__["store"] = failing
    failing.broken = True
    with pytest.raises(StoreError, match="full"):
        scan(site, read=three.read)
    failing.broken = False
    assert scan(site, resume=LAST, read=three.read).counts.states == {"match": 3}


VICTIM = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from scan_rig import rig
from metalimmu.service.scans.scan import scan
from metalimmu.service.scans import record as scan_record
scan_record.BATCH = 7
made = rig(Path(sys.argv[1]), *(f"n{i:03}" for i in range(200)))
def before(name):
    with open(sys.argv[1] + "/reads", "a") as out:
        out.write(name + "\\n")
    time.sleep(0.005)
made.before_each = before
scan(made.site(), read=made.read)
"""


def test_kill_9_in_mid_scan_loses_no_host_and_records_none_twice(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    paths = [str(Path(__file__).parent)]
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, str(folder), *paths], env={**os.environ, "PYTHONPATH": ""})
    reads = folder / "reads"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not reads.exists() or len(reads.read_text().split()) < 60):
        assert victim.poll() is None, "the scan ended before it was killed"
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    read_before = reads.read_text().split()
    made = rig(folder, *(f"n{i:03}" for i in range(200)))
    store = made.site().store
    (left,) = store.unfinished_scans()
    done = store.scanned_hosts(left.id)
    assert 50 <= len(done) < 200
    result = scan(made.site(), resume=LAST, read=made.read)
    assert result.counts.states == {"match": 200}, "each host is counted once"
    read_after = {name for name, m in made.machines.items() if m.reads}
    assert read_after.isdisjoint(done)
    assert read_after | done == set(made.machines)
    assert len(read_after & set(read_before)) <= 7, "only what was read and not yet written is read again"
    assert not any(h.streak for h in store.known_hosts())
    made.close()


def test_the_logs_of_changed_hosts_are_asked_who_did_it(three):
    scan(three.site(), read=three.read)
    three.machines["a"].settings["bios.Sriov"] = "Disabled"
    three.machines["b"].settings["bios.Free"] = 9  # a change, and no drift
    entry = LogEntry(at=time.time(), message="BIOS settings changed", account="jim", kind=LogKind.bios_change)
    three.machines["a"].logs = (entry,)
    scan(three.site(), read=three.read)
    assert [m.log_reads for m in three.machines.values()] == [1, 0, 0]
    store = three.site().store
    change = store.last_change("a", "bios.Sriov")
    blame = store.blame("a", "bios.Sriov", change.at)
    assert (blame.kind, blame.who, blame.entries) == ("account", "jim", (entry,))
    scan(three.site(), read=three.read)
    assert three.machines["a"].log_reads == 1, "asked once per change"


def test_a_machine_that_does_not_say_what_it_is_keeps_its_profile_and_its_drift(three, monkeypatch):
    """Its system cannot be read, its BMC can: what was known stays, and it is no host without a profile."""
    (three.folder / "profiles/acme.yaml").write_text(
        'match: {vendor: "Acme*"}\nbmc: {lockdown: true}\nbios_raw: {Turbo: "On"}\n'
    )
    for machine in three.machines.values():
        machine.settings["bmc.lockdown"] = "Disabled"
    first = scan(three.site(), read=three.read)
    assert first.counts.states == {"drift": 3}
    lost = Unknown(Reason.timeout, "no answer")
    three.machines["a"].settings = {"bmc.lockdown": "Disabled", "boot.mode": "UEFI"}
    three.machines["a"].unknown["bios"] = lost
    whole = three.snapshot

    def snapshot(name):
        found = whole(name)
        return msgspec.structs.replace(found, identity=lost) if name == "a" else found

    monkeypatch.setattr(three, "snapshot", snapshot)
    again = scan(three.site(), read=three.read)
    assert again.counts.states == {"drift": 3}
    assert (again.counts.new, again.counts.fixed, again.counts.changes) == (0, 0, 0)
    about = next(iter(three.site().store.known_hosts(["a"]))).about
    assert (about.manufacturer, about.profile, about.serial) == ("Acme Inc.", "acme", "SN-a")


def test_a_machine_that_never_said_what_it_is_is_unknown(three, monkeypatch):
    whole = three.snapshot
    lost = Unknown(Reason.timeout, "no answer")
    monkeypatch.setattr(three, "snapshot", lambda name: msgspec.structs.replace(whole(name), identity=lost))
    result = scan(three.site(), hosts=["a"], read=three.read)
    assert result.counts.states == {"unknown": 1}
    assert exit_status(result) == 4
    assert three.site().store.values("a") == GOOD


def test_logs_that_cannot_be_asked_lose_no_host(three):
    scan(three.site(), read=three.read)
    three.machines["a"].settings["bios.Sriov"] = "Disabled"

    def read(hosts, reader):
        if reader.__module__.endswith("scans.blame"):
            raise WindowClosed("the schedule's window closed")
        yield from three.read(hosts, reader)

    result = scan(three.site(), read=read)
    assert result.record.finished is not None
    assert result.counts.states == {"match": 2, "drift": 1}


def test_a_first_scan_asks_no_logs(three):
    three.machines["a"].settings["bios.Sriov"] = "Disabled"
    scan(three.site(), read=three.read)
    assert three.machines["a"].log_reads == 0


def test_of_one_cause_only_some_logs_are_read(tmp_path):
    made = rig(tmp_path, *(f"n{i:02}" for i in range(60)))
    scan(made.site(), read=made.read)
    for machine in made.machines.values():
        machine.settings["bios.Sriov"] = "Disabled"
    scan(made.site(), read=made.read)
    assert sum(m.log_reads for m in made.machines.values()) == 20
    made.close()


@pytest.mark.parametrize(
    ("done", "elapsed", "rate"),
    [(1, 100.0, ""), (1, 2.0, ", 0.5/s"), (5, 2.0, ", 2.5/s"), (500, 2.0, ", 250/s"), (0, 2.0, "")],
)
def test_progress_never_says_that_nothing_happens_while_something_does(done, elapsed, rate):
    said = words(Progress(done=done, total=done, elapsed=elapsed, here=done))
    assert said == f"{done} of {done} hosts, 0 unknown, 0 with drift{rate}"


def test_progress_is_told(three):
    told = []
    scan(three.site(), read=three.read, progress=told.append)
    assert [(p.done, p.total) for p in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1].left == 0


REGISTRY = Registry(
    id="R", source="/r", attributes={"Sriov": Attribute(name="Sriov", type="Enumeration", read_only=True)}
)


def test_readings_wait_for_the_registry_of_their_make(three, monkeypatch):
    """The first machine of a kind fetches it; without it, a read-only attribute would look like drift."""
    fetched: list[str] = []

    def of(snapshot):
        fetched.append(snapshot.host)
        return REGISTRY
        yield

    def walk(host, *_args, **_kwargs):
        return three.snapshot(host.name)
        yield

    monkeypatch.setattr(scan_reading, "walk", walk)
    monkeypatch.setattr(scan_reading.registry_places, "of", of)
    for machine in three.machines.values():
        machine.settings["bios.Sriov"] = "Disabled"

    def read(hosts, reader):
        walks = {h.name: reader(h) for h in hosts}
        order = ["b", "c", "a"]  # b and c are read while a has the registry in hand
        results = {}
        for name in ["a", *order[:2]]:
            try:
                next(walks[name])
            except StopIteration as done:
                results[name] = done.value
        for host in sorted(hosts, key=lambda h: order.index(h.name)):
            yield three._result(host, results[host.name], None)

    result = scan(three.site(), read=read)
    assert fetched == ["a"]
    assert result.counts.states == {"match": 3}
    assert {f.finding.reason.partition(":")[0] for f in result.of({Word.unknown})} == {"read-only"}
    assert three.site().store.registry("Acme Inc.", "A1", "") == REGISTRY
    assert list(result.of(DRIFT)) == []


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_registry_that_hangs_is_fetched_by_another(three):
    clock = Clock()
    registries = Registries(three.site().store, clock=clock)
    key = Key("Acme", "A1", "1")
    assert registries.claim(key) is True
    assert registries.claim(key) is False
    clock.now = AGAIN + 1
    assert registries.claim(key) is True
    for _ in range(TRIES - 1):
        registries.put(key, Unknown(Reason.timeout))
        assert not registries.known(key), "one slow BMC must not make drift of what is read-only on all the others"
        assert registries.claim(key) is True, "the next one tries at once"
    registries.put(key, Unknown(Reason.timeout))
    assert registries.known(key)
    assert registries.claim(key) is False
    assert registries.get(key) is None
    registries.put(key, REGISTRY)
    assert registries.get(key) == REGISTRY
    assert registries.claim(key) is False
    registries.save()
    again = Registries(three.site().store)
    assert again.known(key)


def test_a_registry_that_could_not_be_read_is_asked_for_by_the_next_scan(three):
    store = three.site().store
    registries = Registries(store)
    key = Key("Acme", "A1", "1")
    registries.put(key, Unknown(Reason.timeout))
    registries.save()
    assert not Registries(store).known(key)
    registries.put(key, Unknown(Reason.not_modelled))
    registries.save()
    assert Registries(store).known(key)
