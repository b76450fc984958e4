"""One budget for all processes of a site: rate, turns, and being left alone; nothing of it outlives a killed process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redfish_server as rs
import yaml
from collecting import PATHS, Fleet, fleet, login, scan, statuses

from metalimmu.bmc import budget_file
from metalimmu.bmc.budget import FARTHEST, Budget, Full, Limits, NoTurn, Turn
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.transport import Transport
from metalimmu.desired import units
from metalimmu.desired.types import BmcSettings
from metalimmu.errors import BmcBusy
from metalimmu.service.site import OpenSite

BMC = "https://10.0.0.1"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bmc-budget"


@pytest.fixture
def process(file: Path) -> Iterator[Start]:
    """Another process with the same file, when it has said its first line."""
    started: list[subprocess.Popen[str]] = []

    def start(act: str, limits: str) -> subprocess.Popen[str]:
        argv = [sys.executable, str(Path(__file__).with_name("budget_process.py")), act, str(file), limits]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait(10)
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def turns(budget: Budget, rack: str | None, *, bulk: bool = False) -> list[Turn]:
    found = []
    while not isinstance(turn := budget.enter(rack, bulk=bulk), Full):
        found.append(turn)
    return found


# rate


def test_the_rate_is_kept_and_a_seconds_worth_may_come_at_once() -> None:
    account = Budget(Limits(rate=4.0)).account(BMC)
    waits = [account.reserve() for _ in range(8)]
    assert waits[:4] == [0.0] * 4
    assert waits[4:] == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.05)


def test_a_slow_rate_has_no_burst() -> None:
    account = Budget(Limits(rate=0.5)).account(BMC)
    assert account.reserve() == 0.0
    assert account.reserve() == pytest.approx(2.0, abs=0.05)


def test_without_patience_nothing_is_taken() -> None:
    account = Budget(Limits(rate=1.0)).account(BMC)
    account.reserve()
    assert account.reserve(0.5) == pytest.approx(1.0, abs=0.05)
    assert account.reserve() == pytest.approx(1.0, abs=0.05)
    assert account.reserve() == pytest.approx(2.0, abs=0.05)


def test_each_bmc_has_a_rate_of_its_own(file: Path) -> None:
    budget = Budget(Limits(rate=1.0), file)
    assert [budget.account(f"https://10.0.0.{i}").reserve() for i in range(200)] == [0.0] * 200
    assert all(budget.account(f"https://10.0.0.{i}").reserve() > 0 for i in range(200))


def test_two_processes_share_one_rate(file: Path, process: Start) -> None:
    children = [process("ask", "10,-,-") for _ in range(2)]
    assert [line(c) for c in children] == ["ready", "ready"]
    for child in children:
        assert child.stdin
        child.stdin.write("go\n")
        child.stdin.flush()
    times = sorted(float(line(c)) for c in children for _ in range(10))
    # Twenty requests at ten per second, of which ten may come at once: the last not before one second.
    assert times[-1] - times[0] >= 0.95
    for i in range(len(times) - 11):  # in no second more than twice its worth: the burst, and what came to be due
        assert times[i + 11] - times[i] > 0.05
    assert times[-1] - times[9] >= 0.85


# turns


def test_turns_of_a_rack_and_of_the_site() -> None:
    budget = Budget(Limits(per_rack=3, per_site=5))
    first = turns(budget, "r1")
    assert len(first) == 3
    assert budget.enter("r1") is Full.rack
    assert len(turns(budget, "r2")) == 2
    assert budget.enter("r3") is Full.site
    assert budget.enter(None) is Full.site
    first[0].leave()
    first[0].leave()  # once is enough
    assert isinstance(budget.enter("r1"), Turn)
    assert budget.enter("r3") is Full.site


def test_no_limits_are_no_limits() -> None:
    budget = Budget(Limits(per_rack=None, per_site=None))
    for _ in range(100):
        assert isinstance(budget.enter("r1"), Turn)


def test_a_scan_leaves_turns_for_single_acts(file: Path) -> None:
    scanning, acting = Budget(Limits(per_rack=4, per_site=16), file), Budget(Limits(per_rack=4, per_site=16), file)
    assert len(turns(scanning, "r1", bulk=True)) == 3
    assert isinstance(acting.enter("r1"), Turn)
    assert acting.enter("r1") is Full.rack
    one = Budget(Limits(per_rack=1))
    assert isinstance(one.enter("r1", bulk=True), Turn)  # of one, none can be left


def test_turns_are_shared_with_other_processes(file: Path, process: Start) -> None:
    child = process("hold", "-,4,-")
    assert line(child) == "4"
    budget = Budget(Limits(per_rack=4, per_site=None), file)
    assert budget.enter("r1") is Full.rack
    assert isinstance(budget.enter("r2"), Turn)
    assert child.stdin
    child.stdin.close()
    child.wait(10)
    assert len(turns(budget, "r1")) == 4


def test_kill_9_gives_all_turns_back_at_once(file: Path, process: Start) -> None:
    child = process("hold", "-,4,-")
    assert line(child) == "4"
    budget = Budget(Limits(per_rack=4, per_site=None), file)
    assert budget.enter("r1") is Full.rack
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    assert len(turns(budget, "r1")) == 4


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_stops_with_the_table_in_hand(
    file: Path, process: Start, signal_: signal.Signals
) -> None:
    child = process("in the table", "5,-,-")
    assert line(child) == "locked"
    os.kill(child.pid, signal_)
    if signal_ == signal.SIGKILL:
        child.wait(10)
    account = Budget(Limits(rate=5.0), file).account(BMC)
    began = time.monotonic()
    assert account.reserve() == 0.0
    assert time.monotonic() - began < 1.0
    if signal_ == signal.SIGSTOP:
        os.kill(child.pid, signal.SIGCONT)


def test_threads_share_a_budget() -> None:
    budget = Budget(Limits(per_rack=2, per_site=None))
    inside = most = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with budget.account(BMC, "r1").turn(20):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.005)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 2
    assert len(turns(budget, "r1")) == 2


def test_no_turn_within_the_patience_is_an_error_that_may_pass() -> None:
    budget = Budget(Limits(per_rack=1, per_site=9))
    held = budget.enter("r1")
    words = r"no turn became free \(9 at once in the site, 1 in rack r1\)"
    with pytest.raises(NoTurn, match=words) as caught, budget.account(BMC, "r1").turn(0.1):
        pass
    assert caught.value.retry
    assert "site.yaml" in caught.value.hint
    assert isinstance(held, Turn)


# being left alone


def test_a_busy_bmc_is_left_alone_by_every_process(file: Path, process: Start) -> None:
    mine = Budget(Limits(), file)
    account, other = mine.account(BMC), mine.account("https://10.0.0.2")
    assert account.reserve() == 0.0
    assert line(process("leave alone", "-,-,-")) == "done"
    assert 3.0 < account.reserve() <= 5.0
    assert other.reserve() == 0.0


def test_a_longer_rest_is_not_cut_short() -> None:
    account = Budget(Limits(rate=100.0)).account(BMC)
    account.back_off(10.0)
    account.back_off(1.0)
    assert account.reserve(0.0) == pytest.approx(10.0, abs=0.2)
    account.back_off(10 * FARTHEST)
    assert account.reserve(0.0) <= FARTHEST


# the file


def test_times_of_another_boot_are_forgotten(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Budget(Limits(), file).account(BMC).back_off(100.0)
    assert Budget(Limits(), file).account(BMC).reserve() > 90
    monkeypatch.setattr(budget_file, "_boot", lambda: "another")
    assert Budget(Limits(), file).account(BMC).reserve() == 0.0


def test_garbage_in_the_file_holds_up_nobody(file: Path) -> None:
    budget = Budget(Limits(rate=5.0), file)
    account = budget.account(BMC)
    account.reserve()
    with file.open("r+b") as f:
        f.seek(4096)
        f.write(os.urandom(budget_file.SIZE - 4096))
    assert account.reserve() <= FARTHEST + 60
    file.write_bytes(b"not a budget")
    again = Budget(Limits(rate=5.0), file)
    assert again.account(BMC).reserve() == 0.0
    assert file.stat().st_size == budget_file.SIZE


def test_more_bmcs_than_slots_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_file, "SLOTS", 64)
    budget = Budget(Limits(rate=1.0))
    for i in range(500):
        assert budget.account(f"https://10.0.{i}.1").reserve() <= FARTHEST


@pytest.mark.parametrize("kind", ["folder", "link", "unwritable"])
def test_without_its_file_a_budget_is_the_process_own(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bmc-budget"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path = tmp_path / "missing" / "bmc-budget"
    budget = Budget(Limits(rate=1.0), path)
    assert "other processes do not see" in caplog.text
    account = budget.account(BMC)
    assert (account.reserve(), account.reserve() > 0) == (0.0, True)


def test_a_full_disk_is_no_bus_error(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.posix_fallocate
    calls: list[int] = []

    def full(fd: int, offset: int, length: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        real(fd, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert Budget(Limits(rate=1.0), file).account(BMC).reserve() == 0.0
    assert "No space left" in caplog.text


def test_a_closed_budget_limits_nobody(file: Path) -> None:
    budget = Budget(Limits(rate=1.0, per_rack=1), file)
    account = budget.account(BMC, "r1")
    turn = account.enter()
    budget.close()
    budget.close()
    assert isinstance(turn, Turn)
    turn.leave()
    account.back_off(5)
    assert account.reserve() == 0.0
    assert isinstance(account.enter(), Turn)


def test_it_is_the_owners_file(file: Path) -> None:
    Budget(Limits(), file)
    assert file.stat().st_mode & 0o777 == 0o600


# with connections


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as running:
        yield running


@contextlib.contextmanager
def connected(racks: Fleet, server: rs.RedfishServer, budget: Budget, **more: Any) -> Iterator[Connector]:
    host = racks.host(server)
    transport = Transport(f"https://127.0.0.1:{server.port}", tls=host.tls)
    connector = Connector(
        transport, login(), ledger=MemoryLedger(), account=budget.account(transport.base, "r1"), **more
    )
    yield connector
    connector.close()


def test_a_scan_and_a_connector_share_one_rate_as_the_bmc_sees_it(racks: Fleet, file: Path) -> None:
    server = racks.bmc()
    seen: list[float] = []
    server.fault("GET", "Systems", lambda _: bool(seen.append(time.monotonic())))
    with connected(racks, server, Budget(Limits(rate=5.0), file)) as connector:
        asking = threading.Thread(target=lambda: [connector.get(PATHS[1]) for _ in range(8)])
        asking.start()
        result = scan(
            racks.host(server, "h"),
            paths=(PATHS[1],) * 1 + tuple(f"{PATHS[1]}?{i}" for i in range(7)),
            budget=Budget(Limits(rate=5.0), file),
            patience=20.0,
        )["h"]
        asking.join(30)
    assert statuses(result) == [200] * 8
    seen.sort()
    assert len(seen) == 16
    assert seen[-1] - seen[5] >= (16 - 6) / 5.0 - 0.25  # after the burst of a second's worth


def test_what_a_bmc_says_to_a_scan_holds_for_a_connector(racks: Fleet, file: Path) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.status(503, {"Retry-After": "60"}))
    result = scan(racks.host(server, "h"), budget=Budget(Limits(), file), patience=1.0)["h"]
    assert statuses(result) == [200, 200, 200, 503]
    with connected(racks, server, Budget(Limits(), file)) as connector:
        asked = len(server.requests)
        with pytest.raises(NoTurn, match=r"left alone for (60|5\d) s more"):
            connector.get(PATHS[1], patience=0.5)
        assert len(server.requests) == asked
    assert len(server.requests) == asked


def test_what_a_bmc_says_to_a_connector_holds_for_a_scan(racks: Fleet, file: Path) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.status(503, {"Retry-After": "60"}))
    with connected(racks, server, Budget(Limits(), file)) as connector, pytest.raises(BmcBusy):
        connector.get(PATHS[3], patience=0.5)
    asked = len(server.requests)
    result = scan(racks.host(server, "h"), budget=Budget(Limits(), file), patience=0.5)["h"]
    assert isinstance(result.failure, NoTurn)
    assert len(server.requests) == asked


def test_the_turns_of_a_rack_are_kept_by_a_scan(racks: Fleet, file: Path) -> None:
    servers = [racks.bmc() for _ in range(10)]
    inside = most = 0
    lock = threading.Lock()

    def count(_: rs.Handler) -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        return False

    for server in servers:
        server.fault("*", "", count)
    hosts = [racks.host(s, f"h{i}", labels={"rack": "r1"}) for i, s in enumerate(servers)]
    results = scan(*hosts, budget=Budget(Limits(per_rack=3), file), patience=20.0)
    assert all(r.failure is None for r in results.values())
    assert 1 <= most <= 2  # one of three is left to others


def test_a_full_rack_does_not_hold_up_the_next_one(racks: Fleet, file: Path) -> None:
    silent, good = [racks.bmc() for _ in range(3)], [racks.bmc() for _ in range(3)]
    for server in silent:
        server.fault("GET", "Systems", rs.silent)
    hosts = [racks.host(s, f"s{i}", labels={"rack": "r1"}, read_timeout=1.0) for i, s in enumerate(silent)]
    hosts += [racks.host(s, f"g{i}", labels={"rack": "r2"}) for i, s in enumerate(good)]
    results = scan(*hosts, budget=Budget(Limits(per_rack=1), file), silence=10.0, patience=0.1)
    ended = {name: r.at + r.seconds for name, r in results.items()}
    assert max(ended[f"g{i}"] for i in range(3)) < max(ended[f"s{i}"] for i in range(3))
    assert all(results[f"g{i}"].failure is None for i in range(3))


def test_a_rack_that_another_process_has_filled_is_scanned_when_it_lets_go(
    racks: Fleet, file: Path, process: Start
) -> None:
    child = process("hold", "-,2,-")
    assert line(child) == "2"
    server = racks.bmc()
    timer = threading.Timer(0.5, child.kill)
    timer.start()
    result = scan(racks.host(server, "h", labels={"rack": "r1"}), budget=Budget(Limits(per_rack=2), file))["h"]
    timer.join()
    assert result.failure is None
    assert result.value is not None


def test_a_site_that_another_process_has_filled_is_scanned_when_it_lets_go(
    racks: Fleet, file: Path, process: Start
) -> None:
    child = process("hold", "-,-,3")
    assert line(child) == "3"
    servers = [racks.bmc() for _ in range(3)]
    timer = threading.Timer(0.5, child.kill)
    timer.start()
    results = scan(*(racks.host(s) for s in servers), budget=Budget(Limits(per_site=3), file))
    timer.join()
    assert all(r.failure is None for r in results.values())


def test_a_site_that_stays_full_is_said_and_ends(racks: Fleet, file: Path) -> None:
    holder = Budget(Limits(per_site=1), file)
    assert isinstance(holder.enter(None), Turn)
    hosts = [racks.host(f"redfish+https://127.0.0.1:{9 + i}", f"h{i}") for i in range(30)]
    began = time.monotonic()
    results = scan(*hosts, budget=Budget(Limits(per_site=1), file), total=1.0, window=4)
    assert all(isinstance(r.failure, NoTurn) for r in results.values())
    assert time.monotonic() - began < 15


def test_a_rack_that_stays_full_is_said_and_ends(racks: Fleet, file: Path) -> None:
    holder = Budget(Limits(per_rack=1), file)
    held = holder.enter("r1")
    assert isinstance(held, Turn)
    server = racks.bmc()
    result = scan(racks.host(server, "h", labels={"rack": "r1"}), budget=Budget(Limits(per_rack=1), file), total=1.0)[
        "h"
    ]
    assert isinstance(result.failure, NoTurn)
    assert server.requests == []


@pytest.mark.parametrize(("text", "rate"), [("2/s", 2.0), ("30/m", 0.5), ("0.5/s", 0.5)])
def test_rates_of_documents(text: str, rate: float) -> None:
    assert units.per_second(text) == rate


@pytest.mark.parametrize("text", ["2", "0/s", "0.0/m", "2/h", "-1/s", "2 /s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        units.per_second(text)


@pytest.mark.parametrize(
    "document",
    ["{rate: 2}", "{rate: 0/s}", "{rate: 2/h}", "{per_rack: 0}", "{per_site: -1}", "{per_rack: '4'}", "{per_rak: 4}"],
)
def test_settings_that_are_wrong_are_named(document: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(yaml.safe_load(document), BmcSettings)


def test_the_budget_of_a_site_is_in_its_documents(tmp_path: Path) -> None:
    urls = 'urls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}'
    (tmp_path / "site.yaml").write_text(f"name: ams1\n{urls}\nbmc: {{rate: 2/s, per_rack: 4, per_site: null}}\n")
    site = OpenSite(tmp_path)
    try:
        assert site.budget.limits == Limits(rate=2.0, per_rack=4, per_site=None)
        other = Budget(site.budget.limits, tmp_path / ".metalimmu" / "bmc-budget")
        assert len(turns(other, "r1")) == 4
        assert site.budget.enter("r1") is Full.rack  # one file for all processes of the site
    finally:
        site.close()


def test_what_a_site_opens_goes_through_its_budget(tmp_path: Path, racks: Fleet) -> None:
    server = racks.bmc(login="none")
    (tmp_path / "site").mkdir()
    urls = 'urls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}'
    (tmp_path / "site" / "site.yaml").write_text(f"name: ams1\n{urls}\nbmc: {{per_rack: 1}}\ntls: {{ca: {racks.ca}}}\n")
    (tmp_path / "site" / "hosts").mkdir()
    host = f"- {{name: h1, bmc: '{server.address}', location: {{rack: r1}}}}\n"
    (tmp_path / "site" / "hosts" / "h.yaml").write_text(host)
    site = OpenSite(tmp_path / "site")
    try:
        assert site.budget.limits.per_rack == 1
        other = Budget(Limits(per_rack=1), tmp_path / "site" / ".metalimmu" / "bmc-budget")
        with site.connect(site.spec("h1")) as bmc:
            assert bmc.power_state()
            held = other.enter("r1")
            assert isinstance(held, Turn)
            threading.Timer(0.3, held.leave).start()
            began = time.monotonic()
            assert bmc.power_state()  # waits for the turn that another process has
            assert time.monotonic() - began >= 0.25
    finally:
        site.close()
