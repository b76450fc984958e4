"""BMC networks behind a bastion: SOCKS 5 and HTTP CONNECT, the BMC's TLS from end to end."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collecting import Fleet, fleet, one, statuses
from redfish_server import PASSWORD, USER

from metalimmu.bmc.discovery import Sweep
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.unknown import NotSent, ProxyUnusable
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcCertificateError, BmcUnreachable
from metalimmu.service.brownfield.discover import Discovery, discover


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as running:
        yield running


def exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = sock.recv(size - len(found))
        if not part:
            raise OSError("ended")
        found += part
    return found


class Proxy:
    """Takes connections, speaks `greet`, which says where to, and pumps."""

    def __init__(self, greet: Callable[[socket.socket, Proxy], tuple[str, int] | None]) -> None:
        self.asked: list[tuple[str, int]] = []
        self.logins: list[tuple[str, str]] = []
        self._greet = greet
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self._server.accept()
                threading.Thread(target=self._one, args=(taken,), daemon=True).start()

    def _one(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError), taken:
            place = self._greet(taken, self)
            if not place:
                return
            self.asked.append(place)
            with socket.create_connection(("127.0.0.1", place[1])) as onward:
                back = threading.Thread(target=_pump, args=(onward, taken), daemon=True)
                back.start()
                _pump(taken, onward)
                back.join(10)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def socks(
    *, login: tuple[str, str] | None = None, refuse: int = 0
) -> Callable[[socket.socket, Proxy], tuple[str, int] | None]:
    """RFC 1928."""

    def greet(sock: socket.socket, proxy: Proxy) -> tuple[str, int] | None:
        assert exactly(sock, 1) == b"\x05"
        methods = exactly(sock, exactly(sock, 1)[0])
        if login:
            if 2 not in methods:
                sock.sendall(b"\x05\xff")
                return None
            sock.sendall(b"\x05\x02")
            assert exactly(sock, 1) == b"\x01"
            user = exactly(sock, exactly(sock, 1)[0]).decode()
            password = exactly(sock, exactly(sock, 1)[0]).decode()
            proxy.logins.append((user, password))
            sock.sendall(b"\x01\x00" if (user, password) == login else b"\x01\x01")
            if (user, password) != login:
                return None
        else:
            sock.sendall(b"\x05\x00")
        assert exactly(sock, 3) == b"\x05\x01\x00"
        kind = exactly(sock, 1)[0]
        if kind == 3:
            host = exactly(sock, exactly(sock, 1)[0]).decode()
        else:
            family = socket.AF_INET if kind == 1 else socket.AF_INET6
            host = socket.inet_ntop(family, exactly(sock, 4 if kind == 1 else 16))
        port = int.from_bytes(exactly(sock, 2))
        sock.sendall(bytes([5, refuse, 0, 1]) + bytes(6))
        return None if refuse else (host, port)

    return greet


def connect(*, login: str | None = None) -> Callable[[socket.socket, Proxy], tuple[str, int] | None]:
    """RFC 9110, 9.3.6."""

    def greet(sock: socket.socket, proxy: Proxy) -> tuple[str, int] | None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += exactly(sock, 1)
        method, place, _ = head.split(b" ", 2)
        assert method == b"CONNECT"
        if login and f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}".encode() not in head:
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return None
        sock.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
        host, _, port = place.decode().rpartition(":")
        return host, int(port)

    return greet


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    running: list[Proxy] = []

    def make(greet: Callable[[socket.socket, Proxy], tuple[str, int] | None]) -> Proxy:
        running.append(Proxy(greet))
        return running[-1]

    yield make
    for one_ in running:
        one_.close()


@pytest.mark.parametrize(("scheme", "greet"), [("socks5", socks()), ("socks5h", socks()), ("http", connect())])
def test_through_a_proxy(racks: Fleet, proxy: Callable[..., Proxy], scheme: str, greet: Callable[..., None]) -> None:
    server, between = racks.bmc(), proxy(greet)
    result = one(racks.host(server, proxy=f"{scheme}://127.0.0.1:{between.port}"))
    assert statuses(result) == [200, 200, 200, 200]
    assert between.asked == [("127.0.0.1", server.port)]  # one connection, and the BMC's name in it


@pytest.mark.parametrize("scheme", ["socks5h", "http"])
def test_names_are_resolved_by_the_proxy(racks: Fleet, proxy: Callable[..., Proxy], scheme: str) -> None:
    server, between = racks.bmc(), proxy(connect() if scheme == "http" else socks())
    host = racks.host(
        f"redfish+https://bmc-7.rack.invalid:{server.port}", "h", proxy=f"{scheme}://127.0.0.1:{between.port}",
        tls=Tls(fingerprint=racks.pin),
    )  # fmt: skip
    assert statuses(one(host)) == [200, 200, 200, 200]
    assert between.asked == [("bmc-7.rack.invalid", server.port)]


def test_a_socks_proxy_with_a_login(racks: Fleet, proxy: Callable[..., Proxy]) -> None:
    server, between = racks.bmc(), proxy(socks(login=("jump", "p@ss")))
    assert statuses(one(racks.host(server, proxy=f"socks5://jump:p%40ss@127.0.0.1:{between.port}"))) == [200] * 4
    assert between.logins == [("jump", "p@ss")]
    bad = one(racks.host(server, proxy=f"socks5://jump:no@127.0.0.1:{between.port}"), patience=0.0)
    assert isinstance(bad.failure, NotSent)
    assert "refused its login" in str(bad.failure)
    none = one(racks.host(server, proxy=f"socks5://127.0.0.1:{between.port}"), patience=0.0)
    assert "another kind of login" in str(none.failure)


def test_an_http_proxy_with_a_login(racks: Fleet, proxy: Callable[..., Proxy]) -> None:
    server, between = racks.bmc(), proxy(connect(login="jump:p@ss"))
    assert statuses(one(racks.host(server, proxy=f"http://jump:p%40ss@127.0.0.1:{between.port}"))) == [200] * 4
    bad = one(racks.host(server, proxy=f"http://127.0.0.1:{between.port}"), patience=0.0)
    assert "407" in str(bad.failure)


def test_a_proxy_that_reaches_nobody(racks: Fleet, proxy: Callable[..., Proxy]) -> None:
    between = proxy(socks(refuse=5))
    result = one(racks.host("redfish+https://10.0.0.1", proxy=f"socks5://127.0.0.1:{between.port}"), patience=0.0)
    assert isinstance(result.failure, NotSent)
    assert "10.0.0.1:443: connection refused" in str(result.failure)


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"x" * 20000])
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_what_is_no_proxy(racks: Fleet, proxy: Callable[..., Proxy], scheme: str, words: bytes) -> None:
    def greet(sock: socket.socket, _: Proxy) -> None:
        sock.recv(3)
        sock.sendall(words)

    between = proxy(greet)
    host = racks.host("redfish+https://10.0.0.1", proxy=f"{scheme}://127.0.0.1:{between.port}", connect_timeout=2.0)
    result = one(host, patience=0.0)
    assert isinstance(result.failure, BmcUnreachable)
    assert result.seconds < 6


def test_a_silent_proxy(racks: Fleet, proxy: Callable[..., Proxy]) -> None:
    between = proxy(lambda sock, _: sock.recv(1) and sock.recv(1000) and sock.recv(1) and None)
    host = racks.host("redfish+https://10.0.0.1", proxy=f"http://127.0.0.1:{between.port}", connect_timeout=0.5)
    result = one(host, patience=0.0)
    assert isinstance(result.failure, NotSent)
    assert result.seconds < 4


def test_a_proxy_that_leads_to_another_machine_learns_no_password(racks: Fleet, proxy: Callable[..., Proxy]) -> None:
    honest, evil = racks.bmc(), racks.bmc()

    def elsewhere(sock: socket.socket, between: Proxy) -> tuple[str, int] | None:
        connect()(sock, between)
        return "127.0.0.1", evil.port

    between = proxy(elsewhere)
    host = racks.host(honest, proxy=f"http://127.0.0.1:{between.port}", tls=Tls(fingerprint="00" * 32))
    assert isinstance(one(host, patience=0.0).failure, BmcCertificateError)
    assert evil.requests == []


def found(racks: Fleet, *addresses: str, proxy: str, **more: object) -> Discovery:
    sweep = Sweep(rate=1000, connect=2.0, answer=3.0, proxy=proxy)
    return discover(addresses, sweep=sweep, ledger=MemoryLedger(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scheme", "greet"), [("socks5h", socks()), ("http", connect())])
def test_discovery_goes_through_the_proxy(
    racks: Fleet, proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch, scheme: str, greet: object
) -> None:
    """The sweep and the login; names are the proxy's to resolve."""
    monkeypatch.setenv("GOOD_USERNAME", USER)
    monkeypatch.setenv("GOOD_PASSWORD", PASSWORD)
    server, way = racks.bmc(), proxy(greet)
    where = f"bmc-1.inside:{server.port}"
    (one,) = found(racks, where, proxy=f"{scheme}://127.0.0.1:{way.port}", credentials="env:GOOD").found
    assert (one.by, one.model) == ("login", "Server 3000")
    assert set(way.asked) == {("bmc-1.inside", server.port)}
    assert len(way.asked) == 2


def test_addresses_where_nobody_lives_behind_a_proxy(racks: Fleet, proxy: Callable[..., Proxy]) -> None:
    way = proxy(socks(refuse=4))
    result = found(racks, "10.9.9.0/29", proxy=f"socks5://127.0.0.1:{way.port}")
    assert (result.found, result.troubles, result.looked_at) == ((), (), 6)


@pytest.mark.parametrize("login", [True, False])
def test_a_proxy_that_is_no_use_is_said_and_is_no_empty_network(
    racks: Fleet, proxy: Callable[..., Proxy], login: bool
) -> None:
    way = proxy(socks(login=("jump", "secret")))
    if not login:
        way.close()
    with pytest.raises(ProxyUnusable, match="refused its login" if login else "no TCP connection to the proxy"):
        found(racks, "10.9.9.0/28", proxy=f"socks5://jump:wrong@127.0.0.1:{way.port}")
