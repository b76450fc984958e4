"""`serve` as a process: it starts, says that it is ready, works, ends quickly, and goes on where a killed one stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))

from alert_sinks import http_sink
from prometheus_client.parser import text_string_to_metric_families
from rack import free_port
from redfish_server import PASSWORD, USER, RedfishServer, small_tree

from metalimmu.engine.lock import WorkerLock
from metalimmu.service.site import OpenSite
from metalimmu.store.trigger_records import TurnRecord
from metalimmu.triggers import turns

DEADLINE = 90.0
PROFILE = {"match": {"name": "*"}, "bios_raw": {"ProcTurbo": "Disabled"}}


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


class Served:
    """A site whose hosts are served by this process, and the `serve` processes on it."""

    def __init__(self, folder: Path, stack: ExitStack, hosts: int = 2, **site: Any) -> None:
        self.folder = folder / "site"
        self.stack = stack
        self.listen = f"127.0.0.1:{free_port()}"
        self.servers = [stack.enter_context(RedfishServer(small_tree())) for _ in range(hosts)]
        (self.folder / "hosts").mkdir(parents=True)
        (self.folder / "profiles").mkdir()
        self.write(
            "site.yaml",
            {
                "name": "ams1",
                "urls": {"bmc": f"http://127.0.0.1:{free_port()}", "machines": f"https://127.0.0.1:{free_port()}"},
                "listen": {"serve": self.listen},
                "credentials": [{"ref": "env:BMC"}],
                "schedules": {"nightly": {"cron": "0 2 * * *"}},
                **site,
            },
        )
        self.write("hosts/h.yaml", [{"name": f"n{i}", "bmc": s.address} for i, s in enumerate(self.servers, 1)])
        self.write("profiles/all.yaml", PROFILE)

    def write(self, name: str, document: Any) -> None:
        (self.folder / name).write_text(yaml.safe_dump(document))

    def change(self, **site: Any) -> None:
        document = yaml.safe_load((self.folder / "site.yaml").read_text())
        self.write("site.yaml", document | site)

    def serve(self, *args: str, **env: str) -> subprocess.Popen[str]:
        def plain() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        process = subprocess.Popen(
            [sys.executable, "-m", "metalimmu", "--site", str(self.folder), "serve", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"BMC_USERNAME": USER, "BMC_PASSWORD": PASSWORD} | env,
            preexec_fn=plain,  # noqa: PLW1509
        )

        def end() -> None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

        self.stack.callback(end)
        return process

    def get(self, path: str, listen: str = "") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{listen or self.listen}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()
        except OSError:
            return 0, ""

    def ready(self, listen: str = "") -> dict[str, Any]:
        def ask() -> dict[str, Any] | None:
            code, text = self.get("/healthz", listen)
            return json.loads(text) if code == 200 else None

        found: dict[str, Any] = until(ask, "serve never answered")
        return found

    def turn(self, **fields: Any) -> TurnRecord:
        """A turn that was claimed by a scheduler which is dead."""
        site = OpenSite(self.folder)
        turns.state(site, "nightly")
        now = time.time()
        record = TurnRecord(**{"schedule": "nightly", "due": now, "begins": now, "ends": now, "claimed": now} | fields)
        assert site.store.triggers.claim(record)
        site.close()
        return record


def stop(process: subprocess.Popen[str], sign: signal.Signals = signal.SIGTERM, *, within: float = 60.0) -> str:
    began = time.monotonic()
    process.send_signal(sign)
    out, _ = process.communicate(timeout=DEADLINE)
    assert time.monotonic() - began < within, out
    assert process.returncode == 0, out
    assert "Traceback" not in out, out
    return out


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_says_so_and_ends_quickly(tmp_path: Path, stack: ExitStack, sign: signal.Signals) -> None:
    served = Served(tmp_path, stack)
    notified = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(DEADLINE)
    process = served.serve(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="500000")
    assert notified.recv(1000).decode() == "READY=1\nSTATUS=serving ams1"
    assert notified.recv(1000) == b"WATCHDOG=1"
    health = served.ready()
    assert (health["status"], health["worker"]) == ("ok", "this process")
    code, text = served.get("/metrics")
    assert code == 200
    found = {f.name: f for f in text_string_to_metric_families(text)}
    assert found["metalimmu_worker"].samples[0].value == 1
    assert found["metalimmu_schedule_next_timestamp_seconds"].samples[0].labels == {"schedule": "nightly"}
    assert served.get("/other")[0] == 404
    out = stop(process, sign)
    assert "serving ams1: 1 schedules, 0 alerts" in out
    while (said := notified.recv(1000)) == b"WATCHDOG=1":
        pass
    assert said == b"STOPPING=1"


def test_a_dead_schedulers_turn_goes_on_and_alerts_and_metrics_follow(tmp_path: Path, stack: ExitStack) -> None:
    sink = stack.enter_context(http_sink())
    served = Served(
        tmp_path,
        stack,
        alerts=[{"name": "hook", "webhook": {"url": sink.url, "secret": "env:HOOK"}}],
        textfile="metalimmu.prom",
    )
    served.turn()
    process = served.serve(HOOK="a signing key")
    until(lambda: sink.requests, "no alert came")
    told = sink.requests[0].json()
    assert told["kind"] == "drift"
    assert told["causes"][0]["hosts"] == ["n1", "n2"]
    assert (told["causes"][0]["setting"], told["causes"][0]["actual"]) == ("bios.ProcTurbo", "Enabled")
    until(lambda: 'metalimmu_scan_hosts{state="drift"} 2' in served.get("/metrics")[1], "metrics do not show the scan")
    assert 'metalimmu_scan_hosts{state="drift"} 2' in (served.folder / "metalimmu.prom").read_text()
    site = OpenSite(served.folder)
    (turn,) = site.store.triggers.turns("nightly")
    assert turn.error is None
    assert turn.scan == site.store.scans(1)[0].id
    site.close()
    out = stop(process)
    assert "schedule nightly: turn has ended" in out
    for server in served.servers:
        assert server.sessions == {}  # logged out
        assert server.writes == []


def test_killed_in_mid_scan_the_next_one_goes_on(tmp_path: Path, stack: ExitStack) -> None:
    served = Served(tmp_path, stack, hosts=3)
    begins = time.time() + 2
    served.turn(begins=begins, ends=begins + 300)  # hosts have their moments over five minutes
    first = served.serve()
    site = OpenSite(served.folder)
    stack.callback(site.close)
    until(lambda: site.store.scans(1), "the scan never began")
    (scan,) = site.store.scans(1)
    first.kill()
    first.wait()
    # The turn's own process lives on, as it may; a power cut takes it too.
    holder = (served.folder / ".metalimmu/turns/nightly.lock").read_text()
    os.kill(int(holder.rsplit(" ", 1)[1]), signal.SIGKILL)
    site.store.triggers.set_turn("nightly", site.store.triggers.turns("nightly")[0].due, begins=begins - 600, ends=begins - 600)  # fmt: skip
    second = served.serve()
    until(lambda: site.store.triggers.turns("nightly")[0].finished, "the turn never ended")
    assert [s.id for s in site.store.scans()] == [scan.id]
    assert site.store.scan(scan.id).finished is not None
    assert site.store.scan_summary(scan.id).states == {"drift": 3}
    stop(second)


def test_asked_to_end_in_mid_scan_it_ends_and_the_turn_stays(tmp_path: Path, stack: ExitStack) -> None:
    served = Served(tmp_path, stack)
    begins = time.time() + 600
    served.turn(begins=begins, ends=begins)
    process = served.serve()
    site = OpenSite(served.folder)
    stack.callback(site.close)
    until(lambda: site.store.scans(1), "the scan never began")
    assert served.ready()["turns"] == ["nightly"]
    stop(process)
    assert [t.schedule for t in turns.unfinished(site)] == ["nightly"]
    assert site.store.unfinished_scans()


def test_it_waits_for_the_worker_and_takes_over(tmp_path: Path, stack: ExitStack) -> None:
    served = Served(tmp_path, stack)
    lock = WorkerLock(served.folder / ".metalimmu/worker.lock")
    assert lock.take()
    process = served.serve()
    served.ready()
    waits = f"waits for {lock.holder()}"  # said as soon as it has looked
    until(lambda: served.ready()["worker"] == waits, "it does not say for whom it waits")
    assert served.ready()["status"] == "ok"
    lock.release()
    until(lambda: served.ready()["worker"] == "this process", "it did not take over")
    out = stop(process)
    assert "takes over when it ends" in out


def test_two_of_them_run_a_turn_once(tmp_path: Path, stack: ExitStack) -> None:
    served = Served(tmp_path, stack, schedules={"often": {"cron": "* * * * *"}})
    other = f"127.0.0.1:{free_port()}"
    processes = [served.serve(), served.serve("--listen", other)]
    served.ready()
    served.ready(other)
    site = OpenSite(served.folder)
    stack.callback(site.close)
    until(lambda: [t for t in site.store.triggers.turns("often") if t.finished], "no turn came within a minute")
    done = site.store.triggers.turns("often")
    assert len(site.store.scans()) == len(done) == 1
    for process in processes:
        stop(process)


def test_a_taken_port_is_said_at_once(tmp_path: Path, stack: ExitStack) -> None:
    served = Served(tmp_path, stack)
    taken = stack.enter_context(socket.create_server(("127.0.0.1", int(served.listen.rsplit(":", 1)[1]))))
    assert taken
    out, _ = (process := served.serve()).communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert "listen.serve" in out
    assert "hint:" in out


def test_changed_documents_are_taken_over_and_wrong_ones_are_not(tmp_path: Path, stack: ExitStack) -> None:
    served = Served(tmp_path, stack)
    process = served.serve()
    served.ready()
    served.change(schedules={"weekly": {"cron": "0 2 * * sun"}})
    until(lambda: 'schedule="weekly"' in served.get("/metrics")[1], "the new schedule is not there")
    served.change(schedules={"weekly": {"cron": "every sunday"}})
    time.sleep(0)
    out_before = served.ready()
    assert out_before["status"] == "ok"
    lines: list[str] = []
    assert process.stdout is not None
    while "the old ones stay" not in (line := process.stdout.readline()):
        assert line, lines
        lines.append(line)
    assert "schedules.weekly.cron" in line
    assert 'schedule="weekly"' in served.get("/metrics")[1]
    stop(process)
