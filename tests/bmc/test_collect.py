"""The asynchronous collector: what a scan asks of BMCs that behave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redfish_server as rs
from collecting import PATHS, SYSTEM, Fleet, Host, drive_over, fleet, login, one, read, scan, statuses

from metalimmu.bmc.ask import Ask, Asking, Reply
from metalimmu.bmc.collect import CollectSettings, collect, collecting
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.transport import Transport
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcBroken, BmcUnsupported, SecretError, UsageError


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as running:
        yield running


def test_one_connection_one_login_one_logout(racks: Fleet) -> None:
    server = racks.bmc()
    result = one(racks.host(server))
    assert result.failure is None
    assert statuses(result) == [200, 200, 200, 200]
    assert b'"ProcTurbo"' in result.value[PATHS[3]].body
    assert server.connections == 1
    assert server.logins == [(rs.USER, rs.PASSWORD)]
    assert server.sessions == {}
    # The root is read once, to find where sessions are made, and not again for the reader.
    assert [m for m, _ in server.requests] == ["GET", "POST", "GET", "GET", "GET", "DELETE"]
    assert result.requests == 6
    assert result.seconds > 0
    assert abs(result.at - time.time()) < 60


def test_what_a_reader_is_told(racks: Fleet) -> None:
    server = racks.bmc(etags="strong")
    reply = one(racks.host(server)).value[SYSTEM]
    assert reply.headers["etag"] == reply.headers["ETag"]
    assert reply.headers.get("X-Nothing") is None
    assert "Content-Type" in reply.headers
    assert len(reply.peer) > 200  # the certificate
    assert abs(reply.at - time.time()) < 60
    assert reply.uri == ""


def test_headers_of_every_request(racks: Fleet) -> None:
    server = racks.bmc()
    one(racks.host(server))
    for sent in server.headers:
        assert sent["Accept-Encoding"] == "identity"
        assert sent["OData-Version"] == "4.0"
        assert sent["Host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(("kind", "methods"), [("basic", {"GET", "POST"}), ("none", {"GET", "POST", "DELETE"})])
def test_other_kinds_of_login(racks: Fleet, kind: str, methods: set[str]) -> None:
    server = racks.bmc(login=kind)
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]
    assert {m for m, _ in server.requests} <= methods


def test_a_root_without_session_service_means_basic(racks: Fleet) -> None:
    server = racks.bmc(login="basic")
    root = server.doc(rs.ROOT)
    del root["Links"], root["SessionService"]
    assert statuses(one(racks.host(server))) == [200, 200, 200, 200]
    assert {m for m, _ in server.requests} == {"GET"}


def test_no_credentials(racks: Fleet) -> None:
    server = racks.bmc(login="none")
    assert statuses(one(racks.host(server), password=None)) == [200, 200, 200, 200]
    assert {m for m, _ in server.requests} == {"GET"}


def test_plain_http(racks: Fleet) -> None:
    with rs.RedfishServer(rs.small_tree()) as server:
        assert statuses(one(racks.host(server))) == [200, 200, 200, 200]


def test_a_root_that_shows_less_without_login_is_read_again(racks: Fleet) -> None:
    server = racks.bmc()
    whole = server.doc(rs.ROOT)
    short = {k: v for k, v in whole.items() if k not in ("Managers", "UpdateService")}
    server.fault("GET", rs.ROOT, rs.status(200, document=short), times=1)
    assert b"UpdateService" in one(racks.host(server)).value[PATHS[0]].body


def test_expand_is_sent_as_the_standard_says(racks: Fleet) -> None:
    server = racks.bmc()

    def expanded(_: Any) -> Asking[Reply]:
        return (yield Ask(f"{rs.ROOT}/Systems", expand=True))

    assert one(racks.host(server), reader=expanded).value.status == 200
    assert f"{rs.ROOT}/Systems?$expand=.($levels=1)" in [p for _, p in server.requests]


def test_an_uri_with_blanks_and_letters_of_all_kinds_is_quoted(racks: Fleet) -> None:
    server = racks.bmc()
    assert statuses(one(racks.host(server), paths=("/redfish/v1/Chassis/Größe 1",))) == [404]
    assert "/redfish/v1/Chassis/Gr%C3%B6%C3%9Fe%201" in [p for _, p in server.requests]


def test_a_link_to_another_host_is_read_from_the_bmc_itself(racks: Fleet) -> None:
    server, other = racks.bmc(), racks.bmc()
    assert statuses(one(racks.host(server), paths=(f"https://127.0.0.1:{other.port}{SYSTEM}",))) == [200]
    assert other.requests == []


def test_redirects_on_the_own_address_are_followed(racks: Fleet) -> None:
    server = racks.bmc()
    server.fault("GET", "/old", rs.status(308, {"Location": SYSTEM}))
    reply = one(racks.host(server), paths=("/redfish/v1/old",)).value["/redfish/v1/old"]
    assert reply.status == 200
    assert reply.uri == SYSTEM


def test_the_window_is_kept_and_targets_are_drawn_as_they_are_needed(racks: Fleet) -> None:
    server = racks.bmc(login="none", host="0.0.0.0")
    drawn = finished = most = 0
    talking: set[str] = set()

    def hosts() -> Iterator[Host]:
        nonlocal drawn
        for i in range(60):
            drawn += 1
            yield racks.host(f"redfish+https://127.0.0.{i + 1}:{server.port}", f"h{i}", tls=Tls(verify=False))

    def reader(target: Any) -> Asking[None]:
        nonlocal most
        talking.add(target.name)
        most = max(most, len(talking))
        yield Ask(SYSTEM)
        talking.discard(target.name)

    async def run() -> None:
        nonlocal finished
        async for result in collect(hosts(), reader, settings=CollectSettings(window=5), ledger=MemoryLedger()):
            assert result.failure is None
            finished += 1
            assert drawn <= finished + 5 + 2 * 5  # those that talk, and results that wait

    asyncio.run(run())
    assert finished == 60
    assert 2 <= most <= 5


def test_a_slow_bmc_holds_up_nobody(racks: Fleet) -> None:
    slow, quick = racks.bmc(), [racks.bmc() for _ in range(3)]
    slow.fault("GET", "Systems/1", rs.silent)
    order: list[str] = []

    async def run() -> None:
        hosts = [racks.host(slow, "slow", read_timeout=1.0), *(racks.host(q, f"q{i}") for i, q in enumerate(quick))]
        settings = CollectSettings(patience=0.5)
        results = collect(hosts, lambda _: read(), settings=settings, ledger=MemoryLedger(), credentials=secret)
        order.extend([r.target.name async for r in results])

    async def secret(_: Any) -> Any:
        return login()

    asyncio.run(run())
    assert order[-1] == "slow"
    assert len(order) == 4


def test_two_hosts_behind_one_bmc_are_read_one_after_the_other(racks: Fleet) -> None:
    server = racks.bmc()
    inside, most, lock = 0, 0, threading.Lock()

    def count(handler: rs.Handler) -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        with lock:
            inside -= 1
        return False

    server.fault("GET", "", count)
    results = scan(*(racks.host(server, f"blade-{i}") for i in range(3)))
    assert all(r.failure is None for r in results.values())
    assert most == 1
    assert server.connections == 3
    assert len(server.logins) == 3


def test_a_reader_that_fails_costs_its_own_bmc_only(racks: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    good, odd = racks.bmc(), racks.bmc()

    def reader(target: Any) -> Asking[str]:
        yield Ask(SYSTEM)
        if target.name == "odd":
            raise KeyError("Attributes")
        return "read"

    results = scan(racks.host(good, "good"), racks.host(odd, "odd"), reader=reader)
    assert results["good"].value == "read"
    assert isinstance(results["odd"].failure, BmcBroken)
    assert "KeyError" in str(results["odd"].failure)
    assert odd.sessions == {}


def test_targets_that_are_not_for_this_collector(racks: Fleet) -> None:
    hosts = {
        "ipmi": (Host(name="ipmi", bmc="ipmi://10.0.0.1"), BmcUnsupported),
        "address": (Host(name="address", bmc="redfish+https://"), UsageError),
        "login": (Host(name="login", bmc="redfish+https://a:b@10.0.0.1"), UsageError),
        "ca": (Host(name="ca", bmc="redfish+https://127.0.0.1:1", tls=Tls(ca="/nowhere/ca.pem")), UsageError),
        "proxy": (Host(name="proxy", bmc="redfish+https://127.0.0.1:1", proxy="https://127.0.0.1:1"), UsageError),
    }
    results = scan(*(h for h, _ in hosts.values()))
    for name, (_, kind) in hosts.items():
        assert isinstance(results[name].failure, kind), results[name]
        assert results[name].value is None


def test_references_are_read_once_and_a_missing_one_costs_its_host_only(
    racks: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metalimmu.bmc import credentials

    secret = tmp_path / "bmc.txt"
    secret.write_text(f"{rs.USER}:{rs.PASSWORD}\n")
    secret.chmod(0o600)
    reads: list[str] = []
    real = credentials.read
    monkeypatch.setattr(credentials, "read", lambda ref, **more: reads.append(ref) or real(ref, **more))
    hosts = [racks.host(racks.bmc(), f"h{i}", credentials="file:bmc.txt") for i in range(4)]
    hosts.append(racks.host(racks.bmc(), "poor", credentials="file:missing.txt"))

    async def run() -> dict[str, Any]:
        return {
            r.target.name: r async for r in collect(hosts, lambda _: read(), ledger=MemoryLedger(), folder=tmp_path)
        }

    results = asyncio.run(run())
    assert sorted(reads) == ["file:bmc.txt", "file:missing.txt"]
    assert isinstance(results.pop("poor").failure, SecretError)
    assert all(r.failure is None for r in results.values())


def test_leaving_early_logs_out_everywhere(racks: Fleet) -> None:
    servers = [racks.bmc() for _ in range(5)]
    for server in servers[1:]:
        server.fault("GET", "Bios", rs.silent)

    async def secret(_: Any) -> Any:
        return login()

    async def run() -> None:
        hosts = [racks.host(s) for s in servers]
        found = collect(hosts, lambda _: read(), ledger=MemoryLedger(), credentials=secret)
        async for _ in found:
            while sum(len(s.sessions) for s in servers) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            break
        await found.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
    assert [s.sessions for s in servers] == [{}] * 5
    assert sum(m == "DELETE" for s in servers for m, _ in s.requests) == 5


def test_ordinary_code_reads_a_fleet_and_may_stop(racks: Fleet, tmp_path: Path) -> None:
    secret = tmp_path / "bmc.txt"
    secret.write_text(f"{rs.USER}:{rs.PASSWORD}\n")
    secret.chmod(0o600)
    servers = [racks.bmc() for _ in range(4)]
    hosts = [racks.host(s, f"h{i}", credentials="file:bmc.txt") for i, s in enumerate(servers)]
    results = list(collecting(hosts, lambda _: read(), ledger=MemoryLedger(), folder=tmp_path))
    assert sorted(r.target.name for r in results) == ["h0", "h1", "h2", "h3"]
    assert all(statuses(r) == [200, 200, 200, 200] for r in results)
    servers[1].fault("GET", "Bios", rs.silent)
    found = collecting(hosts, lambda _: read(), ledger=MemoryLedger(), folder=tmp_path)
    next(found)
    found.close()
    assert all(s.sessions == {} for s in servers)
    assert not [t for t in threading.enumerate() if t.name == "collector"]


def test_an_error_in_the_targets_reaches_who_reads(racks: Fleet) -> None:
    def hosts() -> Iterator[Host]:
        yield racks.host(racks.bmc(login="none"))
        raise ValueError("a document that cannot be read")

    with pytest.raises(ValueError, match="cannot be read"):
        list(collecting(hosts(), lambda _: read(), ledger=MemoryLedger()))


def test_the_blocking_driver_reads_the_same(racks: Fleet) -> None:
    server = racks.bmc()
    connector = Connector(
        Transport(f"https://127.0.0.1:{server.port}", tls=Tls(ca=str(racks.ca))), login(), ledger=MemoryLedger()
    )
    paths = (*PATHS, "/redfish/v1/Nothing")
    try:
        found = drive_over(connector, read(paths))
    finally:
        connector.close()
    theirs = one(racks.host(server), paths=paths).value
    assert [r.body for r in found.values()][:4] == [r.body for r in theirs.values()][:4]
    assert found["/redfish/v1/Nothing"].error is not None
    assert theirs["/redfish/v1/Nothing"].status == 404
