"""What outlives a process about logins: which were refused, and which sessions a killed one has left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redfish_server as rs
from collecting import Fleet, fleet, login, one, scan, statuses

from metalimmu import paths
from metalimmu.bmc import ledger_file, sessions
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.ledger import Ledger, MemoryLedger, forget
from metalimmu.bmc.ledger_file import FileLedger
from metalimmu.bmc.sessions import Sessions
from metalimmu.bmc.transport import Transport
from metalimmu.desired.types import Tls

BMC = "https://10.0.0.1"
OURS = "/redfish/v1/SessionService/Sessions/7"


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as running:
        yield running


# refused logins without a site


def test_it_is_ours_alone_and_has_hashes_only() -> None:
    ledger = ledger_file.of_user()
    ledger.record_refusal(BMC, "abc123", 1_700_000_000.0)
    path = paths.state() / "refused-logins"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "10.0.0.1" not in path.read_text()
    assert "abc123" not in path.read_text()
    assert ledger.refused(BMC, "abc123") == "2023-11-14T22:13:20Z"


def test_another_process_knows_it_and_other_logins_are_free(tmp_path: Path) -> None:
    ours, theirs = FileLedger(tmp_path / "kept"), FileLedger(tmp_path / "kept")
    assert theirs.refused(BMC, "one") is None
    ours.record_refusal(BMC, "one", 1.0)
    assert theirs.refused(BMC, "one") is not None
    assert theirs.refused(BMC, "two") is None
    assert theirs.refused("https://10.0.0.2", "one") is None


def test_forgetting_is_for_all_processes(tmp_path: Path) -> None:
    ours, theirs = FileLedger(tmp_path / "kept"), FileLedger(tmp_path / "kept")
    ours.record_refusal(BMC, "one", 1.0)
    assert theirs.refused(BMC, "one") is not None
    forget(ours, f"redfish+{BMC}/")
    assert theirs.refused(BMC, "one") is None
    assert FileLedger(tmp_path / "kept").refused(BMC, "one") is None


def test_torn_lines_harm_no_other(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    FileLedger(path).record_refusal(BMC, "one", 1.0)
    path.write_bytes(path.read_bytes() + b"\xff\xfe half a li\n")
    FileLedger(path).record_refusal(BMC, "two", 2.0)
    assert FileLedger(path).refused(BMC, "one") is not None
    assert FileLedger(path).refused(BMC, "two") is not None


def test_where_nothing_can_be_written_it_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    ledger = FileLedger(tmp_path / "file" / "kept")
    ledger.record_refusal(BMC, "one", 1.0)
    ledger.record_refusal(BMC, "two", 1.0)
    assert ledger.refused(BMC, "one") is not None
    assert caplog.text.count("XDG_STATE_HOME") == 1


def test_many_threads_and_ledgers_lose_nothing(tmp_path: Path) -> None:
    def work(name: str) -> None:
        ledger = FileLedger(tmp_path / "kept")
        for i in range(50):
            ledger.record_refusal(BMC, f"{name}{i}", 1.0)

    threads = [threading.Thread(target=work, args=(n,)) for n in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = FileLedger(tmp_path / "kept")
    assert all(seen.refused(BMC, f"{n}{i}") for n in "abcd" for i in range(50))


# sessions that a killed process has left

_KILLED = """
import os, signal, sys
from collecting import Host, read, scan
from metalimmu.bmc.ledger import Ledger, MemoryLedger
from metalimmu.bmc.sessions import Sessions
from metalimmu.desired.types import Tls
from pathlib import Path

def reader(target):
    yield from read()
    os.kill(os.getpid(), signal.SIGKILL)

folder, address, ca = sys.argv[1:]
host = Host(name="it", bmc=address, tls=Tls(ca=ca))
scan(host, reader=reader, ledger=Ledger(MemoryLedger(), Sessions(Path(folder))))
"""


def killed(folder: Path, server: rs.RedfishServer, ca: Path) -> None:
    here = Path(__file__).parent
    env = {"PYTHONPATH": f"{here}:{here.parent / 'conformance'}:{here.parent.parent}", "PATH": "/usr/bin:/bin"}
    words = [sys.executable, "-c", _KILLED, str(folder), server.address, str(ca)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr


def ledger(folder: Path) -> Ledger:
    return Ledger(MemoryLedger(), Sessions(folder))


def test_the_next_scan_ends_the_session_of_a_killed_one(racks: Fleet, tmp_path: Path) -> None:
    server, folder = racks.bmc(), tmp_path / "sessions"
    killed(folder, server, racks.ca)
    assert len(server.sessions) == 1
    (left,) = server.sessions.values()
    assert any(left in path.read_text() for path in folder.iterdir())
    assert all("token" not in path.read_text() for path in folder.iterdir())

    kept = ledger(folder)
    assert statuses(one(racks.host(server), ledger=kept)) == [200, 200, 200, 200]
    assert server.sessions == {}
    assert next((m, p) for m, p in server.requests if m == "DELETE") == ("DELETE", left)
    kept.sessions.close()
    assert list(folder.iterdir()) == []


def test_a_driver_that_blocks_ends_it_too(racks: Fleet, tmp_path: Path) -> None:
    server, folder = racks.bmc(), tmp_path / "sessions"
    killed(folder, server, racks.ca)
    connector = Connector(
        Transport(server.address.removeprefix("redfish+"), tls=Tls(ca=str(racks.ca))), login(), ledger=ledger(folder)
    )
    connector.get("/redfish/v1/Systems")
    connector.close()
    assert server.sessions == {}


def test_a_session_of_another_user_with_the_same_number_is_left_alone(racks: Fleet, tmp_path: Path) -> None:
    server, folder = racks.bmc(session_user="somebody"), tmp_path / "sessions"
    killed(folder, server, racks.ca)
    one(racks.host(server), ledger=ledger(folder))
    assert len(server.sessions) == 1


def test_what_is_no_session_is_never_deleted(racks: Fleet, tmp_path: Path) -> None:
    """Somebody writes into the file, or a BMC named a strange place as its session."""
    server, folder = racks.bmc(), tmp_path / "sessions"
    folder.mkdir()
    uri = "/redfish/v1/Systems/1"
    (folder / "1-x.log").write_text(f'["+",{time.time()},"{server.address.removeprefix("redfish+")}","{uri}"]\n')
    one(racks.host(server), ledger=ledger(folder))
    assert not any(m == "DELETE" and p == uri for m, p in server.requests)
    assert server.sessions == {}


def test_sessions_of_a_process_that_lives_are_its_own(tmp_path: Path) -> None:
    living, other = Sessions(tmp_path), Sessions(tmp_path)
    living.made(BMC, OURS)
    other.made(BMC, "/redfish/v1/SessionService/Sessions/8")
    assert other.left(BMC) == []
    living.ended(BMC, OURS)
    other.close()
    assert len(list(tmp_path.iterdir())) == 2  # one has a session left, the other lives
    living.close()
    third = Sessions(tmp_path)
    third.made(BMC, OURS)
    assert third.left(BMC) == ["/redfish/v1/SessionService/Sessions/8"]


def test_old_ones_have_ended_by_themselves(tmp_path: Path) -> None:
    long_ago = time.time() - sessions.KEPT - 1
    (tmp_path / "1-x.log").write_text(f'["+",{long_ago},"{BMC}","{OURS}"]\n')
    kept = Sessions(tmp_path)
    kept.made(BMC, "/redfish/v1/SessionService/Sessions/8")
    assert kept.left(BMC) == []


def test_a_folder_that_cannot_be_used_costs_no_login(racks: Fleet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    server = racks.bmc()
    assert one(racks.host(server), ledger=ledger(tmp_path / "file" / "sessions")).failure is None
    assert server.sessions == {}


def test_a_scan_leaves_no_file(racks: Fleet, tmp_path: Path) -> None:
    kept = ledger(tmp_path / "sessions")
    scan(*(racks.host(racks.bmc()) for _ in range(4)), ledger=kept)
    kept.sessions.close()
    assert list((tmp_path / "sessions").iterdir()) == []
