"""From the store to the report: states, causes, history, silence, outliers, coverage; and bounded whatever the fleet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from alert_sinks import scanned

from metalimmu.errors import UsageError
from metalimmu.plan.types import Finding, Word
from metalimmu.service.report import html
from metalimmu.service.report.build import build
from metalimmu.service.site import OpenSite
from metalimmu.store.scan_records import About, Scanned

NOW = 1_790_000_000.0
DAY = 86400.0


def finding(
    setting: str, actual: str, expected: str = "Disabled", severity: str = "warning", **fields: object
) -> Finding:
    word = Word.match if actual == expected else Word.differs
    return Finding(**{"setting": setting, "word": word, "expected": expected, "actual": actual, "severity": severity} | fields)  # fmt: skip


class Fleet:
    def __init__(self, folder: Path, hosts: int) -> None:
        self.now = NOW - 10 * DAY
        self.names = [f"n{i}" for i in range(1, hosts + 1)]
        for name in ("hosts", "pools"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "site.yaml").write_text(
            "name: ams1\nurls: {bmc: 'http://127.0.0.1:1', machines: 'https://127.0.0.1:2'}\n"
        )
        (folder / "pools/web.yaml").write_text("{}")
        listed = [
            {"name": n, "bmc": f"redfish+https://10.{i >> 16}.{i >> 8 & 255}.{i & 255}"}
            | ({"pool": "web"} if i % 2 else {})
            for i, n in enumerate(self.names, 1)
        ]
        (folder / "hosts/h.yaml").write_text(yaml.safe_dump(listed))
        self.site = OpenSite(folder)
        self.site.store._clock = lambda: self.now

    def scan(self, days_ago: float, found: dict[str, Scanned | list[Finding] | str], settings: dict[str, dict[str, str]] | None = None) -> None:  # fmt: skip
        """By host: its findings, or why it was not read. Hosts that are not named match."""
        self.now = NOW - days_ago * DAY
        record = self.site.store.begin_scan({}, trigger="schedule:nightly", hosts=self.names)
        batch = []
        for name in self.names:
            what = found.get(name, [])
            one = scanned(name, self.now, failure=what) if isinstance(what, str) else scanned(name, self.now, *[msgspec.structs.replace(f, host=name) for f in what or [finding("bios.A", "Disabled")]])  # fmt: skip
            if one.snapshot is not None:
                values = {"bios.A": "Disabled", "bios.B": "1"} | (settings or {}).get(name, {})
                about = About(manufacturer="Dell", model="R750", profile="web")
                one = msgspec.structs.replace(one, snapshot=msgspec.structs.replace(one.snapshot, settings=values), about=about)  # fmt: skip
            batch.append(one)
        self.site.store.record_scanned(record.id, batch)
        self.site.store.finish_scan(record.id, {})


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, 8)
    yield made
    made.site.close()


def test_what_a_fleet_went_through(fleet: Fleet) -> None:
    bad = finding("bios.A", "Enabled", severity="critical", owner="platform")
    fleet.scan(10, {"n1": [bad], "n2": [bad], "n3": [bad]})
    fleet.scan(5, {"n1": [bad], "n2": [bad]})
    fleet.scan(1, {"n1": [bad], "n2": "BmcUnreachable", "n4": [finding("bios.B", "2", "1")]}, {"n4": {"bios.B": "2"}})
    found = build(fleet.site, now=NOW)
    assert found.hosts == 8
    assert found.states == {"drift": 2, "unknown": 1, "match": 5}
    assert found.findings == 3  # of n2 what was known before
    assert found.severities == {"critical": 2, "warning": 1}
    assert [(s.name, s.severity, s.owner, s.hosts) for s in found.settings] == [
        ("bios.A", "critical", "platform", 2),
        ("bios.B", "warning", "", 1),
    ]
    (change,) = found.settings[0].changes
    assert (change.actual, change.expected, change.hosts.first, change.first_seen) == ("Enabled", "Disabled", ("n1", "n2"), NOW - 10 * DAY)  # fmt: skip
    assert found.times[0] == pytest.approx(NOW - 10 * DAY)
    assert found.times[-1] == NOW
    critical, warning, info = found.by_severity
    assert (critical.name, warning.name, info.name) == ("critical", "warning", "info")
    assert critical.values[0] == 3
    assert critical.values[-1] == 2
    assert (warning.values[0], warning.values[-1]) == (0, 1)
    assert {line.name: line.values[-1] for line in found.by_pool} == {"web": 1, "no pool": 2}
    assert {p.name: (p.hosts, p.states.get("drift", 0), p.findings) for p in found.pools} == {"web": (4, 1, 1), "no pool": (4, 1, 2)}  # fmt: skip
    assert [(s.reason, s.hosts.first, s.longest) for s in found.silent] == [("unreachable", ("n2",), 1)]
    assert [(h.name, h.worst, h.findings) for h in found.drifted] == [("n1", "critical", 1), ("n2", "critical", 1), ("n4", "warning", 1)]  # fmt: skip
    assert [(o.setting, o.usual, o.value, o.hosts.first) for o in found.outliers] == [("bios.B", "1", "2", ("n4",))]
    assert found.coverage[0].group == "web"
    assert found.coverage[0].hosts == 8
    assert found.coverage[0].settings == 2
    assert found.scan is not None
    assert found.scan.trigger == "schedule:nightly"
    assert "<h1>ams1</h1>" in html(fleet.site)


def test_only_some_hosts(fleet: Fleet) -> None:
    fleet.scan(1, {"n1": [finding("bios.A", "Enabled")], "n2": [finding("bios.A", "Enabled")]})
    found = build(fleet.site, selector="pool=web", now=NOW)
    assert (found.scope, found.hosts, found.findings, found.drifted_total) == ("pool=web", 4, 1, 1)
    assert build(fleet.site, hosts=["n2"], now=NOW).findings == 1
    with pytest.raises(UsageError, match="no host fits"):
        build(fleet.site, selector="pool=none")


def test_waived_drift_is_shown_as_such_and_not_counted(fleet: Fleet) -> None:
    fleet.scan(1, {"n1": [finding("bios.A", "Enabled")]})
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 30 * DAY))
    waiver = {"hosts": ["n1"], "setting": "bios.A", "actual": "Enabled", "until": day, "reason": "waits for a part", "by": "ann", "since": "2026-09-21"}  # fmt: skip
    (fleet.site.folder / "waivers.yaml").write_text(yaml.safe_dump([waiver]))
    fleet.site.reload()
    found = build(fleet.site, now=NOW)
    assert (found.findings, found.waived, found.drifted_total) == (0, 1, 0)
    assert "waits for a part" in found.settings[0].changes[0].waived


def test_before_the_first_scan(fleet: Fleet) -> None:
    found = build(fleet.site, now=NOW)
    assert found.times == (NOW,)
    assert found.states == {"unknown": 8}
    assert [(s.reason, s.hosts.total) for s in found.silent] == [("never scanned", 8)]
    assert found.scan is None


def test_a_large_fleet_is_a_small_report(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 1500)
    bad = [finding(f"bios.S{i}", "Enabled") for i in range(80)]
    fleet.scan(2, dict.fromkeys(fleet.names[:900], bad) | dict.fromkeys(fleet.names[900:1100], "BmcUnreachable"))
    found = build(fleet.site, now=NOW)
    page = html(fleet.site)
    assert (found.settings_total, len(found.settings)) == (80, 50)
    assert found.findings == 72_000
    assert found.silent[0].hosts.total == 200
    assert len(page) < 1_500_000
    fleet.site.close()
