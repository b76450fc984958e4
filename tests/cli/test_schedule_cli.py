"""schedule, alert, report and metrics as an operator types them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from alert_sinks import Sink, http_sink, scanned

from metalimmu.main import run
from metalimmu.plan.types import Finding, Word
from metalimmu.service.site import OpenSite

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with http_sink() as sink:
        yield sink


@pytest.fixture
def site(tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOOK", "a signing key")
    document = {
        "name": "ams1",
        "urls": {"bmc": "http://127.0.0.1:8080", "machines": "https://127.0.0.1:8443"},
        "schedules": {
            "nightly": {"cron": "0 2 * * *", "splay": "30m", "window": {"start": "22:00", "end": "06:00"}, "scope": "pool=web"},
            "weekly": {"cron": "0 4 * * sun"},
        },
        "alerts": [{"name": "ops", "webhook": {"url": sink.url, "secret": "env:HOOK"}}],
    }  # fmt: skip
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/h.yaml").write_text("- {name: n1, bmc: 'redfish+https://10.0.0.1'}\n")
    return tmp_path


@pytest.fixture
def say(site: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def typed(*words: str) -> tuple[int, str, str]:
        code = run(["--site", str(site), *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return typed


@pytest.fixture
def drifted(site: Path) -> Path:
    opened = OpenSite(site)
    found = Finding(
        setting="bios.ProcTurbo", word=Word.differs, expected="Disabled", actual="Enabled", severity="warning"
    )
    record = opened.store.begin_scan({}, trigger="cli", hosts=["n1"])
    opened.store.record_scanned(record.id, [scanned("n1", 1_790_000_000.0, found)])
    opened.store.finish_scan(record.id, {})
    opened.close()
    return site


def test_list(say: Say) -> None:
    code, out, _ = say("schedule", "list")
    assert code == 0
    head, nightly, weekly = out.splitlines()
    assert head.split() == ["NAME", "CRON", "TIMEZONE", "NEXT", "LAST", "OUTCOME"]
    assert "0 2 * * *" in nightly
    assert nightly.startswith("nightly")
    assert weekly.startswith("weekly")
    rows = json.loads(say("schedule", "list", "-o", "json")[1])
    assert (rows[0]["window"], rows[0]["scope"], rows[0]["splay"]) == ("22:00-06:00", "pool=web", "30m")
    assert rows[0]["next"].endswith("01:30:00Z")  # half an hour before it is due: splay


def test_pause_with_a_reason_and_resume(say: Say) -> None:
    assert say("schedule", "pause", "nightly")[0] == 2  # a reason is asked for
    assert say("schedule", "pause", "nightly", "--reason", "BMC update") == (0, "schedule nightly is paused\n", "")
    assert ": BMC update" in say("schedule", "list")[1].splitlines()[1]
    assert say("schedule", "resume", "nightly")[0] == 0
    assert "BMC update" not in say("schedule", "list")[1]


@pytest.mark.parametrize("verb", [("start",), ("pause", "--reason", "x"), ("resume",)])
def test_a_name_that_is_not_there(say: Say, verb: tuple[str, ...]) -> None:
    code, _, err = say("schedule", *verb, "nihgtly")
    assert code == 2
    assert "no schedule 'nihgtly'" in err
    assert "nightly, weekly" in err


def test_start_of_a_schedule_for_nobody(say: Say) -> None:
    code, _, err = say("schedule", "start", "nightly")
    assert code == 2
    assert "no host fits 'pool=web'" in err
    assert "no host fits" in say("schedule", "list")[1]


def test_an_alert_is_tested_sent_and_listed(say: Say, drifted: Path, sink: Sink) -> None:
    assert say("alert", "test", "ops") == (0, "ops has taken a test message\n", "")
    assert sink.requests[-1].json()["kind"] == "test"
    sink.statuses = [500]
    code, out, err = say("alert", "send")
    assert code == 1
    assert "1 receivers did not take" in err
    _, out, _ = say("alert", "list")
    (line,) = out.splitlines()[1:]
    assert "waiting" in line
    assert "[ams1] warning: bios.ProcTurbo drifted on 1 host" in line
    assert "answered 500" in line
    assert say("alert", "test", "nobody")[0] == 2


def test_report(say: Say, drifted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert say("report", "--out", str(out)) == (0, f"wrote {out}\n", "")
    assert "bios.ProcTurbo" in out.read_text()
    assert "0 of 1 hosts are as they must be." in out.read_text()
    assert say("report")[0] == 2
    code, _, err = say("report", "-l", "pool=x", "--out", str(out))
    assert code == 2
    assert "no host fits" in err


def test_metrics(say: Say, drifted: Path, tmp_path: Path) -> None:
    code, out, _ = say("metrics")
    assert code == 0
    assert 'metalimmu_drift_findings{severity="warning",pool="none"} 1' in out
    assert 'metalimmu_schedule_paused{schedule="weekly"} 0' in out
    assert say("metrics", "--out", str(tmp_path / "m.prom"))[0] == 0
    assert "metalimmu_scan_hosts" in (tmp_path / "m.prom").read_text()


def test_a_site_without_schedules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.yaml").write_text("name: a\nurls: {bmc: 'http://127.0.0.1:1', machines: 'https://127.0.0.1:2'}\n")
    assert run(["--site", str(tmp_path), "schedule", "list"]) == 0
    assert "no schedules: write" in capsys.readouterr().err
