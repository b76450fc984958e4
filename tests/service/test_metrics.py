"""Metrics as Prometheus reads them: valid, complete, of few labels, and never half written."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from alert_sinks import scanned
from prometheus_client.parser import text_string_to_metric_families

from metalimmu.errors import ToolError
from metalimmu.plan.types import Finding, Word
from metalimmu.service.metrics import MOST_LABELS, LastScan, Metrics, ScheduleMetrics, collect, text, write
from metalimmu.service.scans.result import last_ended
from metalimmu.service.site import OpenSite

FULL = Metrics(
    version="0.1.0",
    hosts={"match": 9310, "drift": 548, "unknown": 142},
    findings={("warning", "web-ams"): 1100, ("critical", "db"): 41},
    waived=17,
    unknown={"BmcUnreachable": 120, 'Odd"\\\n': 22},
    scan=LastScan(started=1_795_000_000.0, finished=1_795_001_800.5, hosts=10_000, requests=31_204, new=37, fixed=112),
    unfinished=1,
    schedules=(
        ScheduleMetrics(name="nightly", paused=False, next=1_795_050_000.0, last_success=1_795_001_800.0),
        ScheduleMetrics(name="weekly", paused=True, next=None),
    ),
    messages={"waiting": 1, "sent": 20, "dropped": 0},
    worker=True,
)


def parsed(content: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(content):
        assert family.type == "gauge", family.name
        assert family.documentation.endswith("."), family.name
        assert family.samples, family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def test_a_parser_reads_back_what_was_meant() -> None:
    found = parsed(text(FULL))
    assert found["metalimmu_scan_hosts", (("state", "drift"),)] == 548
    assert found["metalimmu_scan_hosts", (("state", "no-profile"),)] == 0  # no gap in a graph
    assert found["metalimmu_drift_findings", (("pool", "web-ams"), ("severity", "warning"))] == 1100
    assert found["metalimmu_drift_findings", (("pool", "web-ams"), ("severity", "critical"))] == 0
    assert found["metalimmu_unknown_hosts", (("reason", 'Odd"\\\n'),)] == 22
    assert found["metalimmu_scan_last_success_timestamp_seconds", ()] == 1_795_001_800.5
    assert found["metalimmu_scan_last_duration_seconds", ()] == 1800.5
    assert found["metalimmu_schedule_paused", (("schedule", "weekly"),)] == 1
    assert ("metalimmu_schedule_next_timestamp_seconds", (("schedule", "weekly"),)) not in found
    assert found["metalimmu_worker", ()] == 1


def test_names_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming: one prefix, base units, and for a gauge no _total."""
    for line in text(FULL).splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert re.fullmatch(r"metalimmu_[a-z][a-z_]*[a-z]", name)
            assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
            assert not re.search(r"milli|minute|hour|percent", name)
            if "timestamp" in name or "duration" in name:
                assert name.endswith("_seconds")
    assert text(FULL).endswith("\n")


def test_before_the_first_scan() -> None:
    found = parsed(text(Metrics(version="0.1.0")))
    assert found["metalimmu_scan_hosts", (("state", "match"),)] == 0
    assert not any("scan_last" in name for name, _ in found)


def test_labels_are_few_whatever_a_site_has() -> None:
    many = Metrics(
        version="1",
        findings={("warning", f"pool-{i}"): i + 1 for i in range(1000)},
        unknown={f"Code{i}": 1 for i in range(1000)},
    )
    found = parsed(text(many))
    assert len(found) < 5 * MOST_LABELS
    findings = {k: v for k, v in found.items() if k[0] == "metalimmu_drift_findings"}
    assert sum(findings.values()) == sum(range(1, 1001))
    assert findings["metalimmu_drift_findings", (("pool", "other"), ("severity", "warning"))] == sum(range(1, 801))
    assert sum(v for k, v in found.items() if k[0] == "metalimmu_unknown_hosts") == 1000


def test_a_textfile_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "metalimmu.prom"
    write(path, "old 1\n")
    write(path, "new 1\n")
    assert path.read_text() == "new 1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ToolError, match="metrics cannot be written"):
        write(tmp_path / "absent" / "metalimmu.prom", "x 1\n")


SITE = """
name: ams1
urls: {bmc: "http://127.0.0.1:8080", machines: "https://127.0.0.1:8443"}
"""


def test_from_the_store(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "pools").mkdir()
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "pools/web.yaml").write_text("{}\n")
    (tmp_path / "hosts/h.yaml").write_text(
        "".join(
            f"- {{name: n{i}, bmc: 'redfish+https://10.0.0.{i}'{', pool: web' if i < 3 else ''}}}\n"
            for i in range(1, 6)
        )
    )
    site = OpenSite(tmp_path)
    assert collect(site).scan is None
    drift = Finding(setting="bios.A", word=Word.differs, expected="0", actual="1", severity="critical", profile="p")
    good = Finding(setting="bios.A", word=Word.match, expected="1", actual="1", severity="critical", profile="p")
    hosts = [f"n{i}" for i in range(1, 6)]
    record = site.store.begin_scan({}, trigger="test", hosts=[*hosts, "gone"])
    site.store.record_scanned(
        record.id,
        [
            scanned("n1", 100.0, drift),
            scanned("n2", 100.0, good),
            scanned("n3", 100.0, drift),
            scanned("n4", 100.0, failure="BmcUnreachable"),
            scanned("n5", 100.0, failure="BmcLoginRefused"),
            scanned("gone", 100.0, drift),
        ],
    )
    first = collect(site)
    assert first.unfinished == 1
    site.store.finish_scan(record.id, {})
    found = collect(site, before=first)
    assert found.hosts == {"drift": 2, "match": 1, "unknown": 2}  # a host that is no longer in the site does not count
    assert found.findings == {("critical", "web"): 1, ("critical", "none"): 1}
    assert found.unknown == {"BmcUnreachable": 1, "BmcLoginRefused": 1}
    assert found.scan is not None
    assert found.scan.hosts == 6
    assert found.unfinished == 0
    assert collect(site, before=found) == found
    parsed(text(found))
    long = site.store.begin_scan({}, trigger="schedule:nightly", hosts=hosts)
    short = site.store.begin_scan({}, trigger="cli", hosts=["n1"])
    site.store.finish_scan(short.id, {})
    site.store.finish_scan(long.id, {})
    ended = last_ended(site.store)
    assert ended is not None
    assert ended.id == long.id, "a long scan that ends after a short one is news"
    site.close()
