"""Every fault, as a client meets it, and that it is gone when healed."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_rig import ROOT, Client, client

from metalimmu.errors import UsageError
from metalimmu_emulator.fleet import Bmc, Fleet
from metalimmu_emulator.fleet.faults import NAMES, Fault

INVENTORY = f"{ROOT}/UpdateService/FirmwareInventory"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(["clean", "supermicro"]) as running:
        yield running


@pytest.fixture
def bmc(fleet: Fleet) -> Iterator[Bmc]:
    yield fleet[0]
    fleet[0].heal()
    assert fleet[0].faults() == []


@pytest.fixture
def web(fleet: Fleet, bmc: Bmc) -> Iterator[Client]:
    found = client(fleet, 0, timeout=0.5)
    yield found
    found.close()
    bmc.restart_bmc()


def test_slow(web: Client, bmc: Bmc) -> None:
    bmc.fault("slow", delay=0.2, path="/Systems$")
    begun = time.monotonic()
    web.read(f"{ROOT}/Systems")
    assert 0.2 <= time.monotonic() - begun < 0.45
    begun = time.monotonic()
    web.read(f"{ROOT}/Chassis")
    assert time.monotonic() - begun < 0.15


def test_silent(web: Client, bmc: Bmc) -> None:
    bmc.fault("silent", times=1)
    with pytest.raises(TimeoutError):
        web.get(f"{ROOT}/Systems")
    web.close()
    assert web.get(f"{ROOT}/Systems").status == 200


def test_reset_in_the_middle_and_refused_before(web: Client, bmc: Bmc) -> None:
    bmc.fault("reset", times=1)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead, ssl.SSLError)):
        web.get(f"{ROOT}/Systems")
    web.close()
    bmc.fault("refuse", times=1)
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected, ssl.SSLError)):
        web.get(f"{ROOT}/Systems")
    web.close()
    assert web.get(f"{ROOT}/Systems").status == 200


@pytest.mark.parametrize("kind", ["garbage", "close", "other"])
def test_tls_is_broken(fleet: Fleet, bmc: Bmc, kind: str) -> None:
    bmc.fault("tls", kind=kind)
    stranger = Client(bmc, str(fleet.ca))
    expected = ssl.SSLCertVerificationError if kind == "other" else (ssl.SSLError, ConnectionError)
    with pytest.raises(expected):
        stranger.get(ROOT)
    stranger.close()
    bmc.heal("tls")
    assert stranger.get(ROOT).status == 200
    stranger.close()


def test_the_session_expires_again_and_again(web: Client, bmc: Bmc) -> None:
    bmc.fault("expire", after=3)
    for _ in range(2):
        assert [web.get(f"{ROOT}/Systems").status for _ in range(5)] == [200, 200, 200, 401, 401]
        assert web.log_in().status == 201


def test_no_login_is_good_or_all_sessions_are_taken(fleet: Fleet, bmc: Bmc) -> None:
    web = Client(bmc, str(fleet.ca))
    bmc.fault("login")
    assert web.log_in().status == 401
    web.basic()
    assert web.get(f"{ROOT}/Systems").status == 401
    bmc.heal()
    bmc.fault("sessions")
    assert (web.log_in().status, web.log_in().message) == (503, "SessionLimitExceeded")
    assert web.get(f"{ROOT}/Systems").status == 200  # by Basic
    web.close()


def test_busy_with_retry_after(web: Client, bmc: Bmc) -> None:
    bmc.fault("busy", retry_after=3, times=2)
    reply = web.get(f"{ROOT}/Systems")
    assert (reply.status, reply.headers["retry-after"]) == (503, "3")
    assert [web.get(f"{ROOT}/Systems").status for _ in range(2)] == [503, 200]


def test_truncated_json(web: Client, bmc: Bmc) -> None:
    bmc.fault("truncated", path="Inventory$")
    reply = web.get(INVENTORY)
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)


def test_drip(web: Client, bmc: Bmc) -> None:
    bmc.fault("drip", every=0.02)
    begun, received = time.monotonic(), b""
    web.http.request("GET", f"{ROOT}/Systems", headers=web.headers)
    while time.monotonic() - begun < 0.4:
        received += web.http.sock.recv(100)
    assert 5 < len(received) < 25
    web.close()


def test_null_members(web: Client, bmc: Bmc) -> None:
    bmc.fault("null-members", path="/Memory$")
    found = web.read(f"{ROOT}/Systems/1/Memory")
    assert (found["Members"], found["Members@odata.count"]) == (None, 8)
    assert web.read(INVENTORY)["Members"]


def test_dead_links(web: Client, bmc: Bmc) -> None:
    bmc.fault("dead-links")
    members = web.read(INVENTORY)["Members"]
    statuses = [web.get(m["@odata.id"]).status for m in members]
    assert set(statuses) == {200, 404}
    assert [web.get(m["@odata.id"]).status for m in members] == statuses
    assert web.get(f"{ROOT}/Systems/1").status == 200


def test_the_clock_is_wrong(web: Client, bmc: Bmc) -> None:
    bmc.fault("clock", seconds=-10 * 365 * 86400)
    reply = web.get(f"{ROOT}/Managers/BMC")
    assert reply.json["DateTime"][:4] == str(time.gmtime().tm_year - 10)
    assert str(time.gmtime().tm_year - 10) in reply.headers["date"]


def test_etags_are_never_right(web: Client, bmc: Bmc) -> None:
    bmc.fault("etag")
    first, second = (web.get(f"{ROOT}/Systems/1").headers["etag"] for _ in range(2))
    assert first != second
    assert web.patch(f"{ROOT}/Systems/1", {"AssetTag": "x"}).status == 412


def test_expand_is_wrong(web: Client, bmc: Bmc) -> None:
    right = web.read(f"{INVENTORY}?$expand=.")["Members"]
    bmc.fault("expand")
    wrong = web.read(f"{INVENTORY}?$expand=.")["Members"]
    assert wrong != right
    assert len(wrong) < len(right) or any("Version" not in m for m in wrong)


def test_current_values_that_lie(web: Client, bmc: Bmc) -> None:
    bmc.fault("lying-current")
    bmc.stage_bios({"Turbo": "Disabled"})
    assert web.read(f"{ROOT}/Systems/1/Bios")["Attributes"]["Turbo"] == "Disabled"
    assert bmc.bios()["Turbo"] == "Enabled"
    bmc.heal()
    assert web.read(f"{ROOT}/Systems/1/Bios")["Attributes"]["Turbo"] == "Enabled"
    bmc.reset()


def test_writes_that_do_nothing(web: Client, bmc: Bmc) -> None:
    bmc.fault("lying-write")
    assert web.patch(f"{ROOT}/Systems/1", {"AssetTag": "never"}).status == 200
    assert web.read(f"{ROOT}/Systems/1")["AssetTag"] != "never"


def test_not_permitted(web: Client, bmc: Bmc) -> None:
    bmc.fault("not-permitted", path="/AccountService")
    assert web.get(f"{ROOT}/AccountService/Accounts").status == 403
    assert web.get(f"{ROOT}/Systems").status == 200


def test_every_fault_is_tested_here_and_wrong_ones_are_refused() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [n for n in NAMES if f'fault("{n}"' not in source] == []
    for name, parameters in {"nosuch": {}, "slow": {"speed": 3}, "busy": {"status": "high"}}.items():
        with pytest.raises(UsageError):
            Fault.of(name, parameters)
    with pytest.raises(UsageError):
        Fault.of("slow", {"path": "("})
