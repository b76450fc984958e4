"""DMTF's client under our rules: what it would do by itself does not happen."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redfish_server import (
    PASSWORD,
    USER,
    RedfishServer,
    certificate,
    huge,
    recording,
    reset,
    silent,
    small_tree,
    status,
)
from subjects import recordings

from metalimmu.bmc import credentials
from metalimmu.bmc.connect import Address
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.bmc.redfish_raw import RawRedfishBmc
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcBroken, BmcCertificateError, BmcRefused, BmcUnreachable
from metalimmu.observed.types import PowerAction, PowerState

SYSTEM = "/redfish/v1/Systems/1"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[RedfishServer, Tls]]:
    with certificate(tmp_path) as (context, _, pin), RedfishServer(small_tree(), tls=context) as server:
        yield server, Tls(fingerprint=pin)


def open_(server: RedfishServer, tls: Tls, *, patience: float = 0.2, **more: Any) -> RawRedfishBmc:
    address = server.address.replace("redfish+", "redfish-raw+")
    target = Address(bmc=address, tls=tls, connect_timeout=2.0, read_timeout=2.0)
    login = credentials.make(USER, PASSWORD)
    return RawRedfishBmc.open(
        target, credentials=login, mode=more.pop("mode", "read-write"), ledger=MemoryLedger(), patience=patience
    )


def test_it_is_their_client_that_speaks(served: tuple[RedfishServer, Tls], monkeypatch: pytest.MonkeyPatch) -> None:
    from redfish.rest.v1 import HttpClient

    asked: list[str] = []
    theirs = HttpClient._rest_request

    def spy(self: Any, path: str = "", **more: Any) -> Any:
        asked.append(path)
        return theirs(self, path, **more)

    monkeypatch.setattr(HttpClient, "_rest_request", spy)
    server, tls = served
    with open_(server, tls) as bmc:
        assert bmc.power_state() is PowerState.on
    assert SYSTEM in asked
    assert len(asked) == len(server.requests)
    assert server.connections == 1  # kept alive
    assert server.sessions == {}


def test_a_write_that_broke_off_is_not_repeated(served: tuple[RedfishServer, Tls]) -> None:
    server, tls = served
    server.fault("POST", "/Actions/ComputerSystem.Reset", reset)
    with open_(server, tls, patience=20.0) as bmc, pytest.raises(BmcUnreachable):
        bmc.set_power(PowerAction.force_restart)
    assert [m for m, p in server.requests if "Reset" in p] == ["POST"]


def test_a_redirect_takes_the_token_nowhere(served: tuple[RedfishServer, Tls], tmp_path: Path) -> None:
    server, tls = served
    with RedfishServer(small_tree()) as stranger:
        server.fault("GET", SYSTEM, status(307, {"Location": f"http://127.0.0.1:{stranger.port}{SYSTEM}"}))
        with open_(server, tls) as bmc, pytest.raises(BmcRefused, match="not followed"):
            bmc.power_state()
        assert stranger.requests == []


def test_an_endless_answer_is_cut(served: tuple[RedfishServer, Tls]) -> None:
    server, tls = served
    server.fault("GET", SYSTEM, huge(64 << 20))
    with open_(server, tls) as bmc, pytest.raises(BmcBroken, match="larger than"):
        bmc.power_state()


def test_a_silent_bmc_costs_its_time_limit(served: tuple[RedfishServer, Tls]) -> None:
    server, tls = served
    server.fault("GET", SYSTEM, silent)
    began = time.monotonic()
    with open_(server, tls) as bmc, pytest.raises(BmcUnreachable):
        bmc.power_state()
    assert time.monotonic() - began < 10


def test_no_proxy_of_the_environment(served: tuple[RedfishServer, Tls], monkeypatch: pytest.MonkeyPatch) -> None:
    server, tls = served
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with open_(server, tls) as bmc:
        assert bmc.power_state() is PowerState.on


@pytest.mark.parametrize("tls", [Tls(fingerprint="0" * 64), Tls()])
def test_certificates_are_checked(served: tuple[RedfishServer, Tls], tls: Tls) -> None:
    server, _ = served
    with open_(server, tls) as bmc, pytest.raises(BmcCertificateError):
        bmc.power_state()
    assert server.requests == []


@pytest.mark.parametrize("path", recordings(), ids=lambda p: p.stem)
def test_recordings_read_the_same_through_both(path: Path, tmp_path: Path) -> None:
    context: ssl.SSLContext
    with certificate(tmp_path) as (context, _, pin), RedfishServer(recording(path), tls=context) as server:
        login = credentials.make(USER, PASSWORD)
        tls = Tls(fingerprint=pin)
        found = []
        for driver in (RedfishBmc, RawRedfishBmc):
            target = Address(bmc=server.address, tls=tls)
            with driver.open(target, credentials=login, mode="read-only", ledger=MemoryLedger()) as bmc:
                found.append(bmc.inventory())
        assert server.writes == []
    one, other = found
    for name in one.__struct_fields__:
        if name != "driver":
            assert getattr(one, name) == getattr(other, name), name
    assert (one.driver, other.driver) == ("redfish", "redfish-raw")
