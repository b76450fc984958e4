"""A sweep against BMCs, web servers that are none, and worse."""

from __future__ import annotations

import asyncio
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest
from ipmi_rig import ipmi_sim
from redfish_server import (
    RedfishServer,
    certificate,
    chunked,
    drip,
    huge,
    recording,
    reset,
    silent,
    small_tree,
    status,
    truncated,
)
from subjects import recordings

from metalimmu.bmc import spots
from metalimmu.bmc.discovery import Sighting, Sweep, sweep
from metalimmu.bmc.presence import PING, parse

QUICK = Sweep(rate=1000, connect=1.0, answer=1.0, ipmi=0.3)


def look(*items: str, settings: Sweep = QUICK) -> list[Sighting]:
    async def run() -> list[Sighting]:
        return [s async for s in sweep(spots.parse(items), settings)]

    return asyncio.run(run())


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[ssl.SSLContext, str]]:
    with certificate(tmp_path) as (context, _, pin):
        yield context, pin


def test_a_service_root_over_tls_and_its_certificate(tls: tuple[ssl.SSLContext, str]) -> None:
    context, pin = tls
    with RedfishServer(small_tree(), tls=context) as server:
        (found,) = look(f"127.0.0.1:{server.port}")
        assert server.requests == [("GET", "/redfish/v1/")]
        assert server.logins == []
        assert "Authorization" not in server.headers[0]
    assert found.redfish
    assert (found.redfish.fingerprint, found.redfish.tls) == (pin, True)
    assert (found.redfish.vendor, found.redfish.product, found.redfish.redfish) == ("Contoso", "Test BMC", "1.15.0")


def test_in_the_clear_only_where_it_was_asked_for() -> None:
    with RedfishServer(small_tree()) as server:
        (found,) = look(f"redfish+http://127.0.0.1:{server.port}")
        assert found.redfish
        assert not found.redfish.tls
        (found,) = look(f"127.0.0.1:{server.port}")  # TLS against a plain port
    assert not found.found
    assert "no TLS" in found.trouble


TOLD = {
    "dell-poweredge-r750-idrac9": ("Dell", "N36H4C7", "", ""),
    "hpe-dl360-gen10plus-ilo5": ("HPE", "", "ProLiant DL360 Gen10 Plus - SIMULATED", "3.11"),
    "supermicro-x10sdv-redfish101": ("", "", "", ""),
}


@pytest.mark.parametrize("path", [p for p in recordings() if p.stem in TOLD], ids=lambda p: p.stem)
def test_what_recordings_tell_everybody(path: Path) -> None:
    with RedfishServer(recording(path)) as server:
        (found,) = look(f"redfish+http://127.0.0.1:{server.port}")
    assert found.redfish
    told = (found.redfish.vendor, found.redfish.serial, found.redfish.product, found.redfish.bmc_firmware)
    assert told == TOLD[path.stem]


def test_a_hostile_root_is_made_harmless() -> None:
    tree = small_tree()
    tree["/redfish/v1"].update(
        Vendor="Evil\x1b[31m\r\nnew line" + "x" * 5000,
        Product={"not": "text"},
        RedfishVersion=["1"],
        UUID=7,
        Oem={"Hpe": {"Manager": "none"}, "Dell": [1]},
    )
    with RedfishServer(tree) as server:
        (found,) = look(f"redfish+http://127.0.0.1:{server.port}")
    assert found.redfish
    assert found.redfish.vendor.isprintable()
    assert len(found.redfish.vendor) <= 100
    assert found.redfish.product == found.redfish.redfish == found.redfish.uuid == ""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (silent, "did not answer in time"),
        (drip, "did not answer in time"),
        (truncated, "broke off"),
        (reset, "broke off"),
        (huge(4 << 20), "larger than"),
        (status(404), "no Redfish"),
        (status(500), "no Redfish"),
        (status(200, {}, b"<html>a printer</html>"), "no JSON"),
        (status(200, {}, {"hello": "world"}), "no Redfish service root"),
        (status(302, {"Location": "https://example.com/redfish/v1/"}), "not followed"),
        (status(302, {"Location": "/redfish/v1/"}), "more than 3 redirects"),
    ],
)
def test_what_is_no_bmc_says_why(fault: object, words: str) -> None:
    with RedfishServer(small_tree()) as server:
        server.fault("GET", "/", fault)  # type: ignore[arg-type]
        began = time.monotonic()
        (found,) = look(f"redfish+http://127.0.0.1:{server.port}")
        assert time.monotonic() - began < 5
    assert not found.found
    assert words in found.trouble


def test_a_chunked_answer_and_a_redirect_on_itself() -> None:
    with RedfishServer(small_tree()) as server:
        server.fault("GET", "/redfish/v1/", chunked)
        (found,) = look(f"redfish+http://127.0.0.1:{server.port}")
        assert found.redfish
    with RedfishServer(small_tree()) as server:
        server.fault("GET", "/redfish/v1/", status(301, {"Location": "/redfish/v1"}))
        (found,) = look(f"redfish+http://127.0.0.1:{server.port}")
        assert found.redfish


def test_a_root_that_wants_a_login() -> None:
    tree = small_tree() | {"/redfish": {"v1": "/redfish/v1/"}}
    with RedfishServer(tree) as server:
        server.fault("GET", "/redfish/v1/", status(401))
        (found,) = look(f"redfish+http://127.0.0.1:{server.port}")
        assert found.redfish
        assert found.redfish.closed
        assert {m for m, _ in server.requests} == {"GET"}


@contextmanager
def listener(behave: str) -> Iterator[int]:
    """A TCP port that is not what it should be."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        kept: list[socket.socket] = []

        def run() -> None:
            while True:
                try:
                    found, _ = sock.accept()
                except OSError:
                    return
                kept.append(found)
                if behave == "garbage":
                    found.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            sock.shutdown(socket.SHUT_RDWR)  # ends the accept
            thread.join(10)
            for one in kept:
                one.close()


@pytest.mark.parametrize(("behave", "words"), [("mute", "did not answer in time"), ("garbage", "no TLS connection")])
def test_tls_that_is_broken(behave: str, words: str) -> None:
    with listener(behave) as port:
        (found,) = look(f"127.0.0.1:{port}")
    assert not found.found
    assert words in found.trouble


def test_nobody_is_not_worth_a_line() -> None:
    assert look("127.0.0.1:1", "127.1.2.0/29") == []


def test_a_name_that_is_none() -> None:
    (found,) = look("no-such-host.invalid")
    assert "no address" in found.trouble


def test_ipmi_presence(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path) as port:
        (found,) = look(f"ipmi://127.0.0.1:{port}")
        assert found.ipmi
        assert found.redfish is None
        found_by_sweep = look("127.0.0.1", settings=Sweep(rate=1000, connect=0.5, ipmi=0.5, ipmi_port=port))
        assert [s.ipmi is not None for s in found_by_sweep] == [True]


def test_ipmi_answers_that_are_none() -> None:
    pong = bytes.fromhex("0600ff06000011be40010010000011be000000008100000000000000")
    assert parse(pong)
    assert parse(pong[:20]) is None
    assert parse(pong.replace(b"\x81", b"\x01")) is None  # ASF without IPMI
    capable = bytes.fromhex("0600ff0700000000000000000010811c6320003800019706030000000007")
    seen = parse(capable)
    assert seen
    assert seen.version == "2.0"
    for junk in (b"", b"\x06", PING, b"\x00" * 40, b"\xff" * 40):
        assert parse(junk) is None


def test_the_second_question_is_another_one() -> None:
    """A BMC that does not know ASF is found by its authentication capabilities."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bmc:
        bmc.bind(("127.0.0.1", 0))
        bmc.settimeout(5)

        def run() -> None:
            while True:
                try:
                    data, sender = bmc.recvfrom(1000)
                except OSError:
                    return
                if data[3] == 7:
                    bmc.sendto(bytes.fromhex("0600ff0700000000000000000010811c6320003800019706030000000007"), sender)

        threading.Thread(target=run, daemon=True).start()
        (found,) = look(f"ipmi://127.0.0.1:{bmc.getsockname()[1]}")
    assert found.ipmi


def test_rate_is_kept_and_sockets_are_bounded() -> None:
    began = time.monotonic()
    look("127.3.0.0/27", settings=Sweep(rate=50, sockets=4, connect=0.5, ipmi=0.05))
    assert time.monotonic() - began > 29 / 50
    open_now, most = 0, 0
    lock = threading.Lock()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal open_now, most
            with lock:
                open_now += 1
                most = max(most, open_now)
            time.sleep(0.1)
            with lock:
                open_now -= 1
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        port = server.server_address[1]
        found = look(
            *(f"redfish+http://127.3.0.{i}:{port}" for i in range(1, 13)), settings=Sweep(rate=10_000, sockets=3)
        )
        server.shutdown()
    assert len(found) == 12
    assert most <= 3


def test_stopping_in_the_middle_leaves_nothing_behind() -> None:
    async def run() -> int:
        with listener("mute") as port:
            async with aclosing(sweep(spots.parse(["no-such-host.invalid", f"127.0.0.1:{port}"]), QUICK)) as found:
                async for _ in found:
                    break
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1
