"""From the store to the receiver: at least once, under one id, over kills, refusals and a receiver that keeps silent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from alert_sinks import Sink, http_sink, scanned

from metalimmu.errors import AlertError, NotFound
from metalimmu.plan.types import Finding, Word
from metalimmu.service.alerts import evaluate as alerts
from metalimmu.service.alerts.outbox import LONGEST_WAIT, deliver, wait
from metalimmu.service.site import OpenSite

DRIFTED = Finding(setting="bios.ProcCStates", word=Word.differs, expected="Disabled", actual="Enabled", severity="warning")  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def write_site(folder: Path, url: str, **alert_fields: object) -> Path:
    site = folder / "site"
    (site / "hosts").mkdir(parents=True, exist_ok=True)
    (site / "key").write_text("a signing key")
    (site / "key").chmod(0o600)
    alert = {"name": "hook", "webhook": {"url": url, "secret": "file:key"}, **alert_fields}
    document = {
        "name": "ams1",
        "urls": {"bmc": "http://127.0.0.1:8080", "machines": "https://127.0.0.1:8443"},
        "alerts": [{k: v for k, v in alert.items() if v is not None}],
    }
    (site / "site.yaml").write_text(yaml.safe_dump(document))
    hosts = [{"name": f"n{i}", "bmc": f"redfish+https://10.0.0.{i}"} for i in range(1, 6)]
    (site / "hosts/h.yaml").write_text(yaml.safe_dump(hosts))
    return site


def scan(site: OpenSite, at: float, drifted: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> None:
    """One scan of all hosts, as it leaves the store."""
    hosts = [f"n{i}" for i in range(1, 6)]
    record = site.store.begin_scan({}, trigger="test", hosts=hosts)
    site.store.record_scanned(
        record.id,
        [
            scanned(h, at, *([DRIFTED] if h in drifted else []), failure="BmcUnreachable" if h in silent else "")
            for h in hosts
        ],
    )
    site.store.finish_scan(record.id, {})


@pytest.fixture
def sink() -> Iterator[Sink]:
    with http_sink() as sink:
        yield sink


@pytest.fixture
def site(tmp_path: Path, sink: Sink) -> Iterator[OpenSite]:
    opened = OpenSite(write_site(tmp_path, sink.url))
    yield opened
    opened.close()


def send(site: OpenSite, clock: Callable[[], float] = time.time) -> tuple[int, int]:
    return deliver(site.store.triggers, site.docs.site.alerts, site.folder, clock=clock)


def test_from_a_scan_to_the_receiver_and_back_to_good(site: OpenSite, sink: Sink) -> None:
    scan(site, 1000.0, drifted=("n1", "n2"))
    assert alerts.evaluate(site) == 1
    assert alerts.evaluate(site) == 0
    assert send(site) == (1, 0)
    assert send(site) == (0, 0)
    scan(site, 2000.0, drifted=("n1", "n2"))
    assert alerts.evaluate(site) == 0
    scan(site, 3000.0)
    assert alerts.evaluate(site) == 1
    assert send(site) == (1, 0)
    told = [r.json() for r in sink.requests]
    assert [(t["kind"], t["causes"][0]["hosts"]) for t in told] == [("drift", ["n1", "n2"]), ("fixed", ["n1", "n2"])]
    assert alerts.evaluate(site) == 0


def test_everything_unreachable_for_three_scans(site: OpenSite, sink: Sink) -> None:
    everyone = tuple(f"n{i}" for i in range(1, 6))
    scan(site, 1000.0, drifted=("n1",))
    assert alerts.evaluate(site) == 1
    for at, new in ((2000.0, 0), (3000.0, 0), (4000.0, 1), (5000.0, 0)):
        scan(site, at, silent=everyone)
        assert alerts.evaluate(site) == new
    assert send(site) == (2, 0)
    assert [r.json()["kind"] for r in sink.requests] == ["drift", "unknown"]
    assert sink.requests[1].json()["causes"][0]["hosts_total"] == 5


def test_a_refusal_is_tried_again_later_under_the_same_id(site: OpenSite, sink: Sink) -> None:
    clock = Clock()
    sink.statuses = [503, 503]
    scan(site, 1000.0, drifted=("n1",))
    alerts.evaluate(site)
    site.store.triggers._clock = clock
    assert send(site, clock) == (0, 1)
    assert send(site, clock) == (0, 0)  # not before its time
    (message,) = site.store.triggers.messages(status="waiting")
    assert "503" in message.error
    clock.now = message.next_at
    assert send(site, clock) == (0, 1)
    (message,) = site.store.triggers.messages(status="waiting")
    clock.now = message.next_at
    assert send(site, clock) == (1, 0)
    assert len({r.headers["webhook-id"] for r in sink.requests}) == 1
    assert len(sink.requests) == 3
    assert len({r.body for r in sink.requests}) == 1


def test_waits_grow_to_an_hour_and_end_after_three_days(site: OpenSite) -> None:
    waits = [wait("key", n) for n in range(20)]
    assert waits == sorted(waits)
    assert 3 < waits[0] < 7
    assert waits[-1] <= LONGEST_WAIT * 1.25
    assert wait("another", 3) != wait("key", 3)
    clock = Clock()
    scan(site, 1000.0, drifted=("n1",))
    alerts.evaluate(site)
    site.store.triggers._clock = clock

    def refuse(*_: object) -> None:
        raise AlertError("410 Gone")

    tries = 0
    while site.store.triggers.count_messages()["waiting"]:
        clock.now = site.store.triggers.messages(status="waiting")[0].next_at or clock.now
        deliver(site.store.triggers, site.docs.site.alerts, site.folder, clock=clock, sender=refuse)
        tries += 1
    assert 55 < tries < 120
    assert site.store.triggers.messages(status="dropped")[0].error == "410 Gone"


def test_an_alert_that_was_taken_out_of_the_site(site: OpenSite, sink: Sink) -> None:
    scan(site, 1000.0, drifted=("n1",))
    alerts.evaluate(site)
    assert deliver(site.store.triggers, [], site.folder) == (0, 0)
    assert site.store.triggers.count_messages() == {"waiting": 0, "sent": 0, "dropped": 1}
    assert sink.requests == []


def test_a_silent_receiver_does_not_hold_up_the_others(tmp_path: Path, sink: Sink) -> None:
    with http_sink() as silent:
        folder = write_site(tmp_path, sink.url)
        document = yaml.safe_load((folder / "site.yaml").read_text())
        document["alerts"].insert(0, {"name": "silent", "webhook": {"url": silent.url, "secret": "file:key"}})
        (folder / "site.yaml").write_text(yaml.safe_dump(document))
        site = OpenSite(folder)
        scan(site, 1000.0, drifted=("n1",))
        assert alerts.evaluate(site) == 2
        silent.go.clear()
        import threading

        thread = threading.Thread(target=lambda: send(site))
        thread.start()
        deadline = time.monotonic() + 30
        while not (silent.requests and sink.requests and site.store.triggers.count_messages()["sent"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert thread.is_alive()
        silent.go.set()
        thread.join(timeout=30)
        assert site.store.triggers.count_messages() == {"waiting": 0, "sent": 2, "dropped": 0}
        site.close()


def test_two_processes_decide_once(site: OpenSite, tmp_path: Path) -> None:
    scan(site, 1000.0, drifted=("n1",))
    other = OpenSite(site.folder)
    barrier: list[int] = []
    import threading

    threads = [threading.Thread(target=lambda s=s: barrier.append(alerts.evaluate(s))) for s in (site, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(barrier) == [0, 1]
    assert len(site.store.triggers.messages()) == 1
    other.close()


def _evaluate_and_send(folder: Path) -> None:
    site = OpenSite(folder)
    alerts.evaluate(site)
    send(site)


def _evaluate_and_die(folder: Path) -> None:
    alerts.evaluate(OpenSite(folder))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("when", ["before it is sent", "after it has arrived"])
def test_a_kill_loses_no_alert(site: OpenSite, sink: Sink, when: str) -> None:
    """kill -9 between outbox and send; and between the receiver's taking it and our writing that down."""
    scan(site, 1000.0, drifted=("n1",))
    context = multiprocessing.get_context("spawn")
    if when == "before it is sent":
        process = context.Process(target=_evaluate_and_die, args=(site.folder,))
        process.start()
    else:
        sink.go.clear()  # it has the request, and has not answered yet
        process = context.Process(target=_evaluate_and_send, args=(site.folder,))
        process.start()
        deadline = time.monotonic() + 60
        while not sink.requests:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    sink.go.set()
    assert site.store.triggers.count_messages()["waiting"] == 1
    clock = Clock()
    clock.now += 600  # whoever held it is gone
    site.store.triggers._clock = clock
    assert alerts.evaluate(site) == 0
    assert send(site, clock) == (1, 0)
    ids = [r.headers["webhook-id"] for r in sink.requests]
    assert len(ids) == (1 if when == "before it is sent" else 2)
    assert len(set(ids)) == 1


def test_alertmanager_is_told_again_what_holds(tmp_path: Path, sink: Sink) -> None:
    site = OpenSite(write_site(tmp_path, "", webhook=None, alertmanager={"url": sink.url}))
    alerts.refresh(site)
    assert sink.requests == []
    scan(site, 1000.0, drifted=("n1",), silent=())
    alerts.evaluate(site)
    send(site)
    sink.statuses = [503]
    alerts.refresh(site)  # a failure is no matter
    alerts.refresh(site)
    first, _, again = sink.requests
    assert first.json()[0]["labels"] == again.json()[0]["labels"]
    assert first.json()[0]["startsAt"] == again.json()[0]["startsAt"]
    scan(site, 2000.0)
    alerts.evaluate(site)
    alerts.refresh(site)
    assert len(sink.requests) == 3
    site.close()


def test_a_test(site: OpenSite, sink: Sink) -> None:
    alerts.test(site, "hook")
    assert sink.requests[0].json()["kind"] == "test"
    with pytest.raises(NotFound, match="no alert 'x'") as caught:
        alerts.test(site, "x")
    assert "hook" in caught.value.hint
