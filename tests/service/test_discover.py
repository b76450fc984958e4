"""`discover` over local BMCs: what it names, how often it logs in, what it writes for review."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))
sys.path.insert(0, str(Path(__file__).parent.parent / "bmc"))

from ipmi_rig import PASSWORD as IPMI_PASSWORD
from ipmi_rig import USER as IPMI_USER
from ipmi_rig import Tap, ipmi_sim
from redfish_server import PASSWORD, USER, RedfishServer, certificate, link, silent, small_tree, status

from metalimmu.bmc.discovery import Sweep
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.errors import ScanStopped, SecretError
from metalimmu.service.brownfield import discover as service
from metalimmu.service.brownfield.discover import Discovery, discover, write
from metalimmu.service.brownfield.found import candidate, unauthenticated

QUICK = Sweep(rate=1000, connect=1.0, answer=2.0, ipmi=0.3)
MAY_BE_SENT = {"GET", "HEAD", "POST", "DELETE"}


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[ssl.SSLContext, str]]:
    with certificate(tmp_path) as (context, _, pin):
        yield context, pin


@pytest.fixture(autouse=True)
def _logins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, user, password in (
        ("GOOD", USER, PASSWORD),
        ("WRONG", USER, "guessed"),
        ("IPMI", IPMI_USER, IPMI_PASSWORD),
    ):
        monkeypatch.setenv(f"{name}_USERNAME", user)
        monkeypatch.setenv(f"{name}_PASSWORD", password)


def machine(serial: str) -> dict[str, object]:
    tree = small_tree()
    tree["/redfish/v1/systems/1"]["SerialNumber"] = serial
    return tree


def run(*items: str, credentials: str | None = None, **more: object) -> Discovery:
    more.setdefault("ledger", MemoryLedger())
    return discover(items, credentials=credentials, sweep=QUICK, **more)  # type: ignore[arg-type]


def only_reads(server: RedfishServer) -> None:
    """The session's POST and DELETE are the only other requests."""
    others = [(m, p) for m, p in server.requests if m not in ("GET", "HEAD")]
    assert all("SessionService/Sessions" in p and m in ("POST", "DELETE") for m, p in others), others
    assert server.writes == []
    assert server.sessions == {}


def test_without_credentials_nobody_logs_in(tls: tuple[ssl.SSLContext, str]) -> None:
    context, pin = tls
    with RedfishServer(machine("S1"), tls=context) as server:
        result = run(f"127.0.0.1:{server.port}")
        assert server.requests == [("GET", "/redfish/v1/")]
    (found,) = result.found
    assert (found.by, found.make, found.serial, found.fingerprint) == ("root", "contoso", "", pin)
    assert (result.looked_at, result.refused, result.stopped) == (1, 0, False)


def test_with_credentials_one_login_and_who_it_is(tls: tuple[ssl.SSLContext, str]) -> None:
    context, _ = tls
    with RedfishServer(machine("S1"), tls=context) as server:
        result = run(f"127.0.0.1:{server.port}", credentials="env:GOOD")
        only_reads(server)
        assert len(server.logins) == 1
        assert len(server.requests) < 12
    (found,) = result.found
    assert (found.by, found.model, found.serial, found.bmc_firmware, found.bios) == (
        "login",
        "Server 3000",
        "S1",
        "1.0",
        "1.2.3",
    )


def test_the_login_goes_to_the_certificate_that_was_seen(tls: tuple[ssl.SSLContext, str], tmp_path: Path) -> None:
    """A BMC whose certificate changes between the look and the login is given no password."""
    context, _ = tls
    other = tmp_path / "other"
    other.mkdir()
    with certificate(other) as (second, _, _), RedfishServer(machine("S1"), tls=context) as server:

        def swap(_handler: object) -> bool:
            server.tls = second
            return False

        server.fault("GET", "/redfish/v1/", swap, times=1)
        result = run(f"127.0.0.1:{server.port}", credentials="env:GOOD")
        assert server.logins == []
    assert "certificate" in result.found[0].note
    assert result.found[0].by == "root"


def test_three_wrong_passwords_stop_the_run(tls: tuple[ssl.SSLContext, str]) -> None:
    context, _ = tls
    with ExitStack() as stack:
        servers = [stack.enter_context(RedfishServer(machine(f"S{i}"), tls=context)) for i in range(8)]
        ledger = MemoryLedger()
        items = [f"127.0.0.1:{s.port}" for s in servers]
        result = run(*items, credentials="env:WRONG", ledger=ledger)
        assert sum(len(s.logins) for s in servers) == 3
        assert max(len(s.logins) for s in servers) == 1
        assert len(result.found) == 8  # what everybody is told is kept
        assert result.stopped
        with pytest.raises(ScanStopped, match="3 refused"):
            service.check(result)
        # Again, with the same ledger: the three are not asked a second time; three others are, and then it stops.
        run(*items, credentials="env:WRONG", ledger=ledger, max_refused=100)
        assert [len(s.logins) for s in servers] == [1] * 8
        run(*items, credentials="env:WRONG", ledger=ledger, max_refused=100)
        assert [len(s.logins) for s in servers] == [1] * 8


def test_a_reference_that_cannot_be_read_sends_nothing() -> None:
    with RedfishServer(machine("S1")) as server, pytest.raises(SecretError):
        run(f"redfish+http://127.0.0.1:{server.port}", credentials="env:NOBODY")
    assert server.requests == []


def test_silent_and_broken_bmcs_cost_their_own_time_only(tls: tuple[ssl.SSLContext, str]) -> None:
    context, _ = tls
    with ExitStack() as stack:
        good = stack.enter_context(RedfishServer(machine("S1"), tls=context))
        mute = stack.enter_context(RedfishServer(machine("S2"), tls=context))
        mute.fault("GET", "/", silent)
        odd = stack.enter_context(RedfishServer(machine("S3"), tls=context))
        odd.fault("GET", "/Systems", status(500))
        result = run(*(f"127.0.0.1:{s.port}" for s in (good, mute, odd)), credentials="env:GOOD")
    assert {f.serial for f in result.found} == {"S1", ""}
    assert len(result.troubles) == 1
    assert "did not answer" in result.troubles[0]


def test_several_systems_and_no_way_to_tell(tls: tuple[ssl.SSLContext, str]) -> None:
    context, _ = tls
    tree = machine("S1")
    tree["/redfish/v1/systems"]["Members"] = [link("Systems", "1"), link("Systems", "2")]  # type: ignore[index]
    tree["/redfish/v1/systems/2"] = dict(tree["/redfish/v1/systems/1"], Id="2")  # type: ignore[call-overload]
    with RedfishServer(tree, tls=context) as server:
        (found,) = run(f"127.0.0.1:{server.port}", credentials="env:GOOD").found
    assert found.by == "login"
    assert found.bmc_firmware == "1.0"
    assert "several systems" in found.note


def test_ipmi_only(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path) as port, Tap(port) as tap:
        (plain,) = run(f"ipmi://127.0.0.1:{tap.port}").found
        assert (plain.by, plain.bmc) == ("ping", f"ipmi://127.0.0.1:{tap.port}")
        assert tap.payloads() == []  # no session
        (found,) = run(f"ipmi://127.0.0.1:{tap.port}", credentials="env:IPMI").found
        assert (found.by, found.make, found.bmc_firmware) == ("login", "dell", "2.30")
        assert tap.payloads().count(0x12) == 1


def test_two_addresses_of_one_machine_are_said(tls: tuple[ssl.SSLContext, str]) -> None:
    context, _ = tls
    with RedfishServer(machine("S1"), tls=context) as one, RedfishServer(machine("S1"), tls=context) as two:
        result = run(f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}", credentials="env:GOOD")
    assert len(result.duplicates) == 1
    assert "S1" in result.duplicates[0]


def test_written_for_review_and_found_again(tls: tuple[ssl.SSLContext, str], tmp_path: Path) -> None:
    """First without credentials, then with: the serial number comes into the same document."""
    context, pin = tls
    with RedfishServer(machine("S1"), tls=context) as server:
        address = f"127.0.0.1:{server.port}"
        first = write(run(address), tmp_path, "found.yaml", day="2026-11-20")
        assert [c.kind for c in first.changes] == ["new"]
        (host,) = yaml.safe_load((tmp_path / "found.yaml").read_text())
        assert host["tls"] == {"fingerprint": pin}
        assert "serial" not in host
        second = write(run(address, credentials="env:GOOD"), tmp_path, "found.yaml", credentials="env:GOOD")
        filled = {c.field for c in second.changes if c.kind == "filled"}
        assert {"serial", "credentials"} <= filled
        differs = {c.field for c in second.changes if c.kind == "differs"}
        assert differs == {"model"}  # the root names the BMC's product, the system its own
        third = write(run(address, credentials="env:GOOD"), tmp_path, "found.yaml", credentials="env:GOOD")
        assert third.files == {}


def test_pins_can_be_left_out(tls: tuple[ssl.SSLContext, str]) -> None:
    context, _ = tls
    with RedfishServer(machine("S1"), tls=context) as server:
        (found,) = run(f"127.0.0.1:{server.port}").found
    assert "tls" in candidate(found).fields
    assert "tls" not in candidate(found, pin=False).fields


def test_a_sighting_by_ping_alone_has_no_make() -> None:
    from metalimmu.bmc.discovery import Sighting
    from metalimmu.bmc.presence import IpmiSeen
    from metalimmu.bmc.spots import Spot

    found = unauthenticated(
        Sighting(spot=Spot("10.0.0.1"), ipmi=IpmiSeen(623, anonymous=True), trouble="port 443: HTTP 404")
    )
    assert (found.bmc, found.by, found.make) == ("ipmi://10.0.0.1", "ping", "")
    assert "without name and password" in found.note
    assert "HTTP 404" in found.note
