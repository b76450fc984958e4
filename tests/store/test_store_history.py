"""Simulated months: whatever happens, the history tells every past state exactly, and findings tell how long."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_scan_rig import finding, read, scan, unread

from metalimmu.plan.types import DRIFT, Word
from metalimmu.store.sqlite import SqliteStore

HOSTS = ("n1", "n2")
NAMES = ("bios.A", "bios.B", "bios.B.c", "boot.order", "firmware.nic X 1.2")
VALUES = st.sampled_from(["on", "off", "", None, True, 7, ("Hdd", "Pxe")])
READING = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES))
UNKNOWN = st.frozensets(st.sampled_from(["bios", "bios.A", "bios.B", "boot", "firmware"]), max_size=3)
EVENT = st.tuples(st.sampled_from(HOSTS), READING, UNKNOWN, st.booleans(), st.floats(0.5, 5000))


def below(name: str, unknown: frozenset[str]) -> bool:
    return any(name == u or name.startswith(u + ".") for u in unknown)


class Model:
    """The dull way: a copy per scan."""

    def __init__(self) -> None:
        self.state: dict[str, dict[str, Any]] = {h: {} for h in HOSTS}
        self.seen: dict[str, dict[str, float]] = {h: {} for h in HOSTS}  # when each name was looked for last
        self.past: list[tuple[float, dict[str, dict[str, Any]]]] = []
        self.changes: list[tuple[float, str, str, Any, Any, float]] = []

    def read(self, at: float, host: str, found: dict[str, Any], unknown: frozenset[str]) -> None:
        now, seen = self.state[host], self.seen[host]
        for name in NAMES:
            if below(name, unknown) and name not in found:
                continue
            before, after = now.get(name, "absent"), found.get(name, "absent")
            if before != after and name in seen:
                self.changes.append((at, host, name, before, after, seen[name]))
            if name in found:
                now[name] = found[name]
            else:
                now.pop(name, None)
            seen[name] = at
        self.past.append((at, copy.deepcopy(self.state)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENT, min_size=1, max_size=25))
def test_any_past_state_is_told_exactly(tmp_path_factory, events):
    store = SqliteStore(tmp_path_factory.mktemp("history") / "store.sqlite")
    model = Model()
    at = 1_700_000_000.0
    for host, values, unknown, fails, step in events:
        at += step
        found = {n: v for n, v in values.items() if not below(n, unknown)}
        name = scan(store, host)
        if fails or not found:
            store.record_scanned(name, [unread(host, at)])
            model.past.append((at, copy.deepcopy(model.state)))
        else:
            store.record_scanned(name, [read(host, at, found, unknown=unknown)])
            model.read(at, host, found, unknown)
        store.finish_scan(name, {})
    for moment, state in model.past:
        for host in HOSTS:
            assert store.values(host, moment) == state[host]
    for host in HOSTS:
        assert store.values(host) == model.state[host]
        for name in model.state[host]:
            assert store.value_history(host, name)[-1].seen == model.seen[host][name]
    told = [
        (
            c.at,
            c.host,
            c.setting,
            "absent" if c.appeared else c.before,
            "absent" if c.vanished else c.after,
            c.before_seen,
        )
        for c in store.changes(0)
    ]
    assert sorted(told, key=repr) == sorted(model.changes, key=repr)
    store.close()


LOOK = st.sampled_from(["match", "differs on", "differs off", "missing", "unknown", "unread", "asked no more"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(looks=st.lists(LOOK, min_size=1, max_size=25))
def test_drift_lasts_from_its_first_sight_to_its_end(tmp_path_factory, looks):
    """Reads that saw nothing neither end drift nor make it last; what holds is what was known last."""
    store = SqliteStore(tmp_path_factory.mktemp("findings") / "store.sqlite")
    began: float | None = None
    known: str | None = None
    ended: list[tuple[float, str]] = []
    for i, look in enumerate(looks):
        at = 1_700_000_000.0 + i
        word, _, actual = look.partition(" ")
        name = scan(store, "n1")
        if look == "unread":
            store.record_scanned(name, [unread("n1", at)])
        elif look == "asked no more":
            store.record_scanned(name, [read("n1", at, {"bios.X": i})])
        else:
            unknown = ["bios"] if look == "unknown" else []
            seen = {"boot.mode": "UEFI"} if unknown else {"boot.mode": "UEFI", "bios.X": actual}
            store.record_scanned(name, [read("n1", at, seen, [finding("bios.X", word, actual)], unknown)])
        store.finish_scan(name, {})
        if look not in ("unknown", "unread") and look != known:
            drifted = known is not None and known.partition(" ")[0] in DRIFT
            if drifted:
                how = "dropped" if look == "asked no more" else "fixed" if look == "match" else "changed"
                ended.append((at, how))
            known = None if look == "asked no more" else look
            began = at
        held = [f for f in store.current_findings() if f.finding.word is not Word.unknown]
        assert [(f"{f.finding.word} {f.finding.actual}".strip(), f.first_seen) for f in held] == (
            [(known, began)] if known else []
        )
    assert [(f.fixed_at, f.ended) for f in store.fixed_findings(0)] == ended
    store.close()
