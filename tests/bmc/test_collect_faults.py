"""BMCs that are slow, silent, half-broken or lying: each costs its own time only, and is said plainly."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redfish_server as rs
from collecting import PATHS, SYSTEM, Fleet, fleet, one, scan, statuses

from metalimmu.bmc import readonly
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.desired.types import Tls
from metalimmu.errors import (
    BmcBroken,
    BmcBusy,
    BmcCertificateError,
    BmcLoginNotTried,
    BmcLoginRefused,
    BmcReadOnly,
    BmcRefused,
    BmcUnreachable,
    ScanStopped,
)

BIOS = PATHS[3]


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as running:
        yield running


@contextlib.contextmanager
def listener(answer: Callable[[socket.socket], None] | None = None) -> Iterator[int]:
    """A port that takes connections; `answer` does the rest, and without it nobody says a word."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = server.accept()
                    held.append(taken)
                    if answer:
                        threading.Thread(target=talk, args=(taken,), daemon=True).start()

        def talk(taken: socket.socket) -> None:
            with contextlib.suppress(OSError), taken:
                answer(taken)  # type: ignore[misc]

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for taken in held:
        taken.close()


def http(answer: bytes, *, times: int = 100) -> Callable[[socket.socket], None]:
    """The same bytes for every request."""

    def talk(taken: socket.socket) -> None:
        for _ in range(times):
            while b"\r\n\r\n" not in taken.recv(65536):
                pass
            taken.sendall(answer)

    return talk


def plain(racks: Fleet, port: int, **more: Any) -> Any:
    return racks.host(f"redfish+http://127.0.0.1:{port}", "odd", **more)


# nobody there, or nobody who speaks


def test_silent_after_accept(racks: Fleet) -> None:
    good = racks.bmc()
    with listener() as port:
        silent = racks.host(f"redfish+https://127.0.0.1:{port}", "silent", connect_timeout=0.5)
        results = scan(silent, racks.host(good, "good"), patience=1.0)
    assert isinstance(results["silent"].failure, BmcTimeout)
    assert "no TLS in time" in str(results["silent"].failure)
    assert results["silent"].seconds < 4
    assert results["good"].failure is None


def test_nobody_listens(racks: Fleet) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        result = one(racks.host(f"redfish+https://127.0.0.1:{nobody.getsockname()[1]}", "gone"), patience=1.5)
    assert isinstance(result.failure, BmcUnreachable)
    assert "refused" in str(result.failure)
    assert result.failure.hint
    assert result.value is None


def test_no_such_name(racks: Fleet) -> None:
    result = one(racks.host("redfish+https://bmc.invalid", "lost"), patience=0.1)
    assert isinstance(result.failure, BmcUnreachable)


def test_this_is_no_tls(racks: Fleet) -> None:
    with listener(http(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        result = one(racks.host(f"redfish+https://127.0.0.1:{port}", "plain"), patience=0.1)
    assert isinstance(result.failure, (BmcCertificateError, BmcUnreachable))


def test_silent_in_the_middle_is_given_up_and_said(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Systems", rs.silent)
    result = one(racks.host(server, read_timeout=0.3), patience=0.1)
    assert isinstance(result.failure, BmcTimeout)
    # The second timeout in a row is enough: the third and fourth resource are not asked for.
    assert statuses(result) == [200, BmcTimeout, BmcTimeout, BmcTimeout]
    assert sum("Systems" in p for _, p in server.requests) == 2
    assert server.sessions == {}


def test_one_slow_resource_is_not_a_silent_bmc(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Systems/1", rs.silent, times=1)
    result = one(racks.host(server, read_timeout=0.3), patience=0.1)
    assert statuses(result) == [200, 200, BmcTimeout, 200]
    assert result.failure is None


@pytest.mark.parametrize("fault", [rs.drip, rs.drip_headers])
def test_one_that_drips(racks: Fleet, fault: rs.Fault) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", fault)
    began = time.monotonic()
    result = one(racks.host(server, read_timeout=0.3), patience=0.1)
    assert statuses(result) == [200, 200, 200, BmcTimeout]
    assert "not complete after" in str(result.value[BIOS].error)
    assert time.monotonic() - began < 5


def test_silent_ones_give_their_place_in_the_window_away(racks: Fleet) -> None:
    silent = [racks.bmc() for _ in range(4)]
    for server in silent:
        server.fault("GET", "Systems", rs.silent)
    good = [racks.bmc() for _ in range(4)]
    hosts = [racks.host(s, f"silent-{i}", read_timeout=4.0) for i, s in enumerate(silent)]
    hosts += [racks.host(s, f"good-{i}") for i, s in enumerate(good)]
    results = scan(*hosts, window=2, silence=0.2, patience=0.1)
    ended = {name: r.at + r.seconds for name, r in results.items()}
    assert max(ended[f"good-{i}"] for i in range(4)) < min(ended[f"silent-{i}"] for i in range(4))
    assert all(results[f"good-{i}"].failure is None for i in range(4))


def test_a_bmc_has_so_much_time_in_all(racks: Fleet) -> None:
    server = racks.bmc()

    def slow(handler: rs.Handler) -> bool:
        return bool(handler.service.release.wait(0.3)) and False

    server.fault("GET", "Systems", slow)
    result = one(racks.host(server), paths=(SYSTEM,) * 1 + tuple(f"{SYSTEM}?{i}" for i in range(50)), total=1.5)
    assert isinstance(result.failure, BmcTimeout)
    assert "within 1.5 s in all" in str(result.failure)
    assert result.seconds < 4
    assert statuses(result)[0] == 200
    assert server.sessions == {}  # that much time there is


# broken connections


def test_a_reset_in_the_middle_is_tried_again(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.reset, times=1)
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]
    assert server.connections == 2
    assert len(server.logins) == 1


def test_resets_without_end(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Systems", rs.reset)
    result = one(racks.host(server), patience=2.0)
    assert isinstance(result.failure, BmcUnreachable)
    assert statuses(result)[1:] == [BmcUnreachable] * 3
    assert sum("Systems" in p for _, p in server.requests) <= 5


def test_an_idle_end_costs_one_request_and_no_patience(racks: Fleet) -> None:
    """BMCs close kept-alive connections after so many requests, without a word."""
    server = racks.bmc()

    def close(handler: rs.Handler) -> bool:
        handler.close_connection = True
        return False

    server.fault("GET", "Systems", close)
    began = time.monotonic()
    assert statuses(one(racks.host(server), patience=0.0)) == [200, 200, 200, 200]
    assert time.monotonic() - began < 2


def test_a_truncated_answer_is_asked_for_again(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.truncated, times=1)
    assert b"ProcTurbo" in one(racks.host(server)).value[BIOS].body


def test_truncated_json_is_an_answer_for_the_reader(racks: Fleet) -> None:
    server = racks.bmc()
    server.tree[rs.key(BIOS)] = b'{"Attributes": {"ProcTurbo": "Ena'
    reply = one(racks.host(server)).value[BIOS]
    assert reply.status == 200
    assert reply.body == b'{"Attributes": {"ProcTurbo": "Ena'


# answers without end


def test_chunks(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.chunked)
    assert json.loads(one(racks.host(server)).value[BIOS].body) == server.doc(BIOS)
    assert server.connections == 1


def test_chunks_without_end(racks: Fleet) -> None:
    server = racks.bmc()

    def endless(handler: rs.Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            while not handler.service.release.is_set():
                handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        return True

    server.fault("GET", "Bios", endless)
    result = one(racks.host(server), largest=1 << 20)
    assert statuses(result) == [200, 200, 200, BmcBroken]
    assert "larger than 1 MiB" in str(result.value[BIOS].error)


def test_a_huge_body_is_not_read(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.huge(64 << 20))
    result = one(racks.host(server), largest=1 << 20)
    assert statuses(result) == [200, 200, 200, BmcBroken]


def test_a_compressed_bomb_is_not_unpacked(racks: Fleet) -> None:
    server = racks.bmc()
    server.tree[rs.key(BIOS)] = b"[" * (16 << 20)
    server.fault("GET", "Bios", rs.gzipped)
    result = one(racks.host(server), largest=1 << 20)
    assert statuses(result) == [200, 200, 200, BmcBroken]
    assert "unpacking stopped" in str(result.value[BIOS].error)


def test_a_compressed_answer_where_the_bmc_insists(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.gzipped)
    assert json.loads(one(racks.host(server)).value[BIOS].body) == server.doc(BIOS)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 40_000, BmcBroken, "head of the answer is larger"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 200_000, BmcBroken, "larger than"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BmcBroken, "no HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            BmcBroken,
            "another protocol",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", BmcBroken, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", BmcBroken, "no HTTP"),
    ],
)
def test_what_is_no_answer(racks: Fleet, answer: bytes, kind: type[Exception], words: str) -> None:
    with listener(http(answer, times=1)) as port:
        result = one(plain(racks, port), password=None, patience=0.1, largest=1 << 20)
    assert isinstance(result.failure, kind), result.failure
    assert words in str(result.failure)


def test_a_body_that_ends_with_the_connection(racks: Fleet) -> None:
    with listener(http(b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"A": 1}', times=1)) as port:
        result = one(plain(racks, port), password=None, paths=(SYSTEM, BIOS))
    assert [r.body for r in result.value.values()] == [b'{"A": 1}'] * 2


def test_early_hints_come_before_the_answer(racks: Fleet) -> None:
    answer = b'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"A": 1}'
    with listener(http(answer)) as port:
        result = one(plain(racks, port), password=None, paths=(SYSTEM, BIOS))
    assert [(r.status, r.body) for r in result.value.values()] == [(200, b'{"A": 1}')] * 2
    assert "Link" not in result.value[SYSTEM].headers


def test_a_second_answer_to_one_request_is_not_taken_for_the_next_one(racks: Fleet) -> None:
    first = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"A": 1}'
    lie = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"A": 2}'
    with listener(http(first + lie)) as port:
        result = one(plain(racks, port), password=None, paths=(SYSTEM, BIOS))
    assert [r.body for r in result.value.values()] == [b'{"A": 1}'] * 2


# busy


def test_503_with_a_number(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.status(503, {"Retry-After": "1"}), times=1)
    began = time.monotonic()
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]
    assert time.monotonic() - began >= 1.0


def test_503_with_a_date(racks: Fleet) -> None:
    server = racks.bmc()
    date = email.utils.formatdate(time.time() + 2, usegmt=True)
    server.fault("GET", "Bios", rs.status(503, {"Retry-After": date}), times=1)
    began = time.monotonic()
    assert statuses(one(racks.host(server), patience=5.0)) == [200, 200, 200, 200]
    assert time.monotonic() - began >= 0.9


def test_503_for_longer_than_our_patience(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.status(503, {"Retry-After": "3000"}))
    began = time.monotonic()
    result = one(racks.host(server))
    assert statuses(result) == [200, 200, 200, 503]
    assert time.monotonic() - began < 3
    assert result.failure is None


def test_503_while_we_log_in(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("*", "redfish", rs.status(503), times=2)
    assert statuses(one(racks.host(server), patience=10.0)) == [200, 200, 200, 200]


def test_busy_for_good_when_we_log_in(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("POST", "Sessions", rs.status(503))
    result = one(racks.host(server), patience=1.0)
    assert isinstance(result.failure, BmcBusy)
    assert result.value is None


def test_500_that_stays_costs_three_requests(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.status(500))
    assert statuses(one(racks.host(server), patience=10.0)) == [200, 200, 200, 500]
    assert sum("Bios" in p for _, p in server.requests) == 3


def test_refusals_are_answers(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.status(403))
    assert statuses(one(racks.host(server), paths=(BIOS, "/redfish/v1/None"))) == [403, 404]


# who it is


def test_a_wrong_certificate_is_told_nothing(racks: Fleet) -> None:
    server = racks.bmc()
    result = one(racks.host(server, tls=Tls()))
    assert isinstance(result.failure, BmcCertificateError)
    assert "fingerprint" in result.failure.hint
    assert server.requests == []
    assert server.connections == 1


def test_another_name_is_told_nothing(racks: Fleet) -> None:
    server = racks.bmc(host="0.0.0.0")
    result = one(racks.host(f"redfish+https://127.0.0.9:{server.port}", "other"))
    assert isinstance(result.failure, BmcCertificateError)
    assert server.requests == []


def test_a_pinned_certificate(racks: Fleet) -> None:
    server = racks.bmc()
    pinned = ":".join(racks.pin.upper()[i : i + 2] for i in range(0, 64, 2))
    assert statuses(one(racks.host(server, tls=Tls(fingerprint=pinned)))) == [200, 200, 200, 200]


def test_a_wrong_pin_is_told_nothing(racks: Fleet) -> None:
    server = racks.bmc()
    result = one(racks.host(server, tls=Tls(fingerprint="ab" * 32, verify=False)))
    assert isinstance(result.failure, BmcCertificateError)
    assert racks.pin in str(result.failure)  # so that a person can compare
    assert server.requests == []


def test_unverified_is_said_once_for_all(racks: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    servers = [racks.bmc() for _ in range(3)]
    results = scan(*(racks.host(s, tls=Tls(verify=False)) for s in servers))
    assert all(r.failure is None for r in results.values())
    assert sum("not verified" in r.message for r in caplog.records) == 1


@pytest.mark.parametrize(
    "where", ["https://127.0.0.1:{port}/redfish/v1/Systems/1", "http://127.0.0.1:{own}/redfish/v1", "//evil.example/x"]
)
def test_a_redirect_elsewhere_is_not_followed(racks: Fleet, where: str) -> None:
    server, other = racks.bmc(), racks.bmc()
    location = where.format(port=other.port, own=server.port)
    server.fault("GET", "Bios", rs.status(302, {"Location": location}))
    result = one(racks.host(server))
    assert statuses(result) == [200, 200, 200, BmcRefused]
    assert "another address" in str(result.value[BIOS].error)
    assert other.requests == []


def test_a_circle_of_redirects_ends(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.status(307, {"Location": BIOS}))
    assert statuses(one(racks.host(server))) == [200, 200, 200, BmcRefused]


# logins


def test_a_session_that_expires_is_made_anew_once(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Bios", rs.then(lambda s: s.restart_bmc()), times=1)
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]
    assert len(server.logins) == 2
    assert server.sessions == {}


def test_401_for_one_resource_is_no_wrong_password(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "Systems", rs.status(401))
    ledger = MemoryLedger()
    result = one(racks.host(server), paths=(*PATHS, "/redfish/v1/Managers"), ledger=ledger)
    assert statuses(result) == [200, BmcLoginRefused, BmcLoginRefused, BmcLoginRefused, 200]
    assert len(server.logins) == 2  # one fresh session in a scan, not one for each 401
    assert server.sessions == {}
    assert statuses(one(racks.host(server), ledger=ledger, paths=(PATHS[0],))) == [200]  # not remembered as refused


@pytest.mark.parametrize("kind", ["session", "basic"])
def test_a_wrong_password_is_tried_once_by_all_scans(racks: Fleet, kind: str) -> None:
    server = racks.bmc(login=kind)
    ledger = MemoryLedger()
    for _ in range(3):
        result = one(racks.host(server), password="wrong", ledger=ledger)
        assert isinstance(result.failure, BmcLoginRefused)
        assert not isinstance(result.failure, ScanStopped)
    assert server.logins == [(rs.USER, "wrong")]
    assert one(racks.host(server), ledger=ledger).failure is None  # another version of the credentials


def test_ilo_refuses_a_login_with_400(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault(
        "POST", "Sessions", rs.status(400, document=rs.refusal(400, "iLO.2.14.UnauthorizedLoginAttempt", "no")[2])
    )
    result = one(racks.host(server))
    assert isinstance(result.failure, BmcLoginRefused)
    assert sum(m == "POST" for m, _ in server.requests) == 1


def test_no_session_left_means_basic(racks: Fleet) -> None:
    server = racks.bmc()
    full = rs.refusal(503, "Base.1.8.SessionLimitExceeded", "no session left")
    server.fault("POST", "Sessions", rs.status(503, document=full[2]))
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]


def test_no_credentials_where_some_are_wanted(racks: Fleet) -> None:
    server = racks.bmc()
    result = one(racks.host(server), password=None)
    assert statuses(result) == [200, BmcLoginNotTried, BmcLoginNotTried, BmcLoginNotTried]
    assert "no credentials" in str(result.value[SYSTEM].error)


@pytest.mark.parametrize("kind", ["session", "basic"])
def test_the_scan_stops_before_an_account_is_locked(racks: Fleet, kind: str) -> None:
    servers = [racks.bmc(login=kind) for _ in range(12)]
    ledger = MemoryLedger()
    results = scan(*(racks.host(s, f"h{i}") for i, s in enumerate(servers)), password="wrong", ledger=ledger)
    assert sum(len(s.logins) for s in servers) == 3
    stopped = [r for r in results.values() if isinstance(r.failure, ScanStopped)]
    assert len(stopped) == 9
    assert "3 logins were refused (h" in str(stopped[0].failure)
    assert all(isinstance(r.failure, BmcLoginRefused) for r in results.values())
    # The next scan begins with those that were never asked, and stops again.
    scan(*(racks.host(s, f"h{i}") for i, s in enumerate(servers)), password="wrong", ledger=ledger)
    assert sum(len(s.logins) for s in servers) == 6
    assert max(len(s.logins) for s in servers) == 1


@pytest.mark.parametrize("fault", [rs.reset, rs.silent, rs.truncated])
def test_a_login_without_an_answer_is_not_tried_twice(racks: Fleet, fault: rs.Fault) -> None:
    server = racks.bmc()
    server.fault("POST", "Sessions", fault)
    result = one(racks.host(server, read_timeout=0.4), patience=5.0)
    assert isinstance(result.failure, BmcUnreachable)
    assert result.value is None
    assert sum(m == "POST" for m, _ in server.requests) == 1


def test_a_root_that_wants_a_login_and_takes_basic_only_is_asked_once_with_a_wrong_one(racks: Fleet) -> None:
    server = racks.bmc(login="basic")
    public = rs.status(401)
    server.fault("GET", rs.ROOT, public)
    ledger = MemoryLedger()
    for _ in range(2):
        result = one(racks.host(server), password="wrong", ledger=ledger)
        assert isinstance(result.failure, BmcLoginRefused)
    assert sum("Authorization" in h for h in server.headers) == 1


def test_busy_without_credentials_is_waited_out(racks: Fleet) -> None:
    server = racks.bmc(login="none")
    server.fault("GET", rs.ROOT, rs.status(503), times=1)
    assert statuses(one(racks.host(server), password=None)) == [200, 200, 200, 200]


def test_a_session_is_ended_over_a_new_connection_where_the_old_one_has_ended(racks: Fleet) -> None:
    server = racks.bmc()

    def close(handler: rs.Handler) -> bool:
        handler.close_connection = True
        return False

    server.fault("GET", "Bios", close)
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]
    assert server.sessions == {}
    assert server.connections == 2


def test_good_logins_open_the_gate(racks: Fleet) -> None:
    servers = [racks.bmc() for _ in range(12)]
    results = scan(*(racks.host(s) for s in servers), max_refused=1)
    assert all(r.failure is None for r in results.values())


def test_bmcs_that_are_silent_when_we_log_in_do_not_keep_the_gate_shut(racks: Fleet) -> None:
    servers = [racks.bmc() for _ in range(8)]
    for server in servers[:4]:
        server.fault("POST", "Sessions", rs.silent)
    hosts = [racks.host(s, f"h{i}", read_timeout=2.5) for i, s in enumerate(servers)]
    results = scan(*hosts, silence=0.2, patience=0.1)
    assert all(results[f"h{i}"].failure is None for i in range(4, 8))
    assert all(isinstance(results[f"h{i}"].failure, BmcTimeout) for i in range(4))


# nothing but reading


def test_nothing_but_reads_and_the_session_leaves(racks: Fleet) -> None:
    servers = [racks.bmc(), racks.bmc(login="basic"), racks.bmc(login="none")]
    servers[0].fault("GET", "Bios", rs.then(lambda s: s.restart_bmc()), times=1)
    scan(*(racks.host(s) for s in servers))
    for server in servers:
        for method, path in server.requests:
            session = rs.key(path).startswith(rs.key(rs.SESSIONS))
            assert method in ("GET", "HEAD") or (method in ("POST", "DELETE") and session), (method, path)
        assert server.writes == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{SYSTEM}/Actions/ComputerSystem.Reset"),
        ("HEAD", SYSTEM),
        ("POST", "/redfish/v1/SessionService/Sessions"),
        ("POST", "/redfish/v1/SessionService/Sessions/"),
        ("POST", "/redfish/v1/SessionService/Sessions/Members"),
        ("POST", "/redfish/v1/Sessions"),
        ("DELETE", "/redfish/v1/SessionService/Sessions/operator00000000609a71e1f9ca3c36"),
        ("DELETE", "/redfish/v1/sessionservice/sessions/7/"),
    ],
)
def test_what_may_leave(method: str, path: str) -> None:
    readonly.check(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", SYSTEM),
        ("PUT", SYSTEM),
        ("post", "/redfish/v1/SessionService/Sessions"),
        ("POST", SYSTEM),
        ("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset"),
        ("POST", f"{SYSTEM}/Actions/Sessions"),
        ("POST", "/redfish/v1/Systems/1?x=/redfish/v1/Sessions"),
        ("POST", "/redfish/v1/Systems/1%3f/Sessions"),
        ("POST", "/redfish/v1/SessionService/Sessions/7"),
        ("POST", "/other/Sessions"),
        ("DELETE", "/redfish/v1/SessionService/Sessions"),
        ("DELETE", "/redfish/v1/SessionService/Sessions/../../Systems/1"),
        ("DELETE", "/redfish/v1/SessionService/Sessions/.."),
        ("DELETE", "/redfish/v1/SessionService/Sessions/%2e%2e"),
        ("DELETE", "/redfish/v1/SessionService/Sessions/1/Oem"),
        ("DELETE", "/redfish/v1/AccountService/Accounts/1"),
        ("PATCH", "/redfish/v1/SessionService/Sessions/1"),
        ("M-POST", "/redfish/v1/Sessions"),
    ],
)
def test_what_may_not_leave(method: str, path: str) -> None:
    with pytest.raises(BmcReadOnly):
        readonly.check(method, path)


@pytest.mark.parametrize(
    "where", [f"{SYSTEM}/Actions/ComputerSystem.Reset", f"{SYSTEM}", "/redfish/v1/Sessions/Actions/X/Sessions"]
)
def test_a_root_that_lies_about_where_sessions_are_made(racks: Fleet, where: str) -> None:
    server = racks.bmc()
    server.doc(rs.ROOT)["Links"] = {"Sessions": {"@odata.id": where}}
    result = one(racks.host(server))
    assert isinstance(result.failure, BmcReadOnly)
    assert {m for m, _ in server.requests} == {"GET"}


@pytest.mark.parametrize(
    "where", [SYSTEM, f"{SYSTEM}/Actions/ComputerSystem.Reset", "/redfish/v1/Managers/BMC?x=/Sessions/1"]
)
def test_a_bmc_that_lies_about_where_its_session_is(racks: Fleet, where: str, caplog: pytest.LogCaptureFixture) -> None:
    server = racks.bmc()
    real = server.create_session

    def lying(body: Any) -> Any:
        code, headers, document = real(body)
        return code, {**headers, "Location": where}, document

    server.create_session = lying  # type: ignore[method-assign]
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]
    assert "DELETE" not in {m for m, _ in server.requests}
    assert any("could not be ended" in r.message for r in caplog.records)


def test_a_location_of_another_host_gets_no_token(racks: Fleet) -> None:
    server, other = racks.bmc(), racks.bmc()
    real = server.create_session

    def lying(body: Any) -> Any:
        code, headers, document = real(body)
        return code, {**headers, "Location": f"https://127.0.0.1:{other.port}{headers['Location']}"}, document

    server.create_session = lying  # type: ignore[method-assign]
    one(racks.host(server))
    assert other.requests == []
    assert server.sessions == {}  # ended on the BMC itself


def test_everything_unreachable_ends(racks: Fleet) -> None:
    hosts = [racks.host(f"redfish+https://127.0.0.1:{9 + i}", f"h{i}") for i in range(50)]
    began = time.monotonic()
    results = scan(*hosts, patience=0.5, window=10)
    assert all(isinstance(r.failure, BmcUnreachable) for r in results.values())
    assert time.monotonic() - began < 20


def test_a_cancelled_scan_leaves_no_session(racks: Fleet) -> None:
    from collecting import login, read

    from metalimmu.bmc.collect import collect

    server = racks.bmc()
    server.fault("GET", "Bios", rs.silent)

    async def secret(_: Any) -> Any:
        return login()

    async def use() -> None:
        async for _ in collect([racks.host(server)], lambda _: read(), ledger=MemoryLedger(), credentials=secret):
            pass

    async def run() -> None:
        task = asyncio.create_task(use())
        while not any("Bios" in p for _, p in server.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert server.sessions == {}
