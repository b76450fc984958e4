"""What goes wrong between us and a BMC: each a clear error with a hint, and nothing done twice."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redfish_server as rs
from redfish_server import RedfishServer, small_tree

from metalimmu.bmc import connector
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.errors import (
    BmcBroken,
    BmcBusy,
    BmcError,
    BmcLoginRefused,
    BmcNotPermitted,
    BmcRefused,
    BmcUnreachable,
    BmcUnsupported,
)
from metalimmu.observed.types import BootEnabled, BootTarget, PowerAction, PowerState, Reason, Unknown

Open = Callable[..., RedfishBmc]


def test_connection_refused(connect_to: Open, clock: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        bmc = connect_to(f"redfish+http://127.0.0.1:{nobody.getsockname()[1]}", patience=10)
        with pytest.raises(BmcUnreachable, match="refused") as caught:
            bmc.power_state()
    assert caught.value.retry
    assert caught.value.hint
    assert len(clock.slept) >= 2
    assert sum(clock.slept) <= 10
    assert clock.slept == sorted(clock.slept)  # ever more patient


def test_unreachable_address(connect_to: Open) -> None:
    """A listener whose queue is full drops our SYN, like a host that is not there."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        bmc = connect_to(f"redfish+http://127.0.0.1:{full.getsockname()[1]}", connect_timeout=0.2, patience=0)
        with pytest.raises(BmcUnreachable, match="no TCP connection in time"):
            bmc.power_state()


def test_silent_bmc(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "", rs.silent)
    bmc = connect_to(server, read_timeout=0.2, patience=0)
    with pytest.raises(BmcTimeout, match="no answer in time"):
        bmc.power_state()


def test_an_inventory_of_a_silent_bmc_gives_up_early(server: RedfishServer, connect_to: Open) -> None:
    bmc = connect_to(server, read_timeout=0.2, patience=0)
    assert bmc.power_state() is PowerState.on
    server.fault("GET", "", rs.silent)
    found = bmc.inventory()
    assert isinstance(found.power, Unknown)
    assert found.power.reason is Reason.timeout
    assert found.requests <= 4


def test_a_bmc_that_drips(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Systems/1", rs.drip)
    bmc = connect_to(server, read_timeout=0.2, patience=0)
    with pytest.raises(BmcTimeout, match="not complete"):
        bmc.power_state()


def test_a_bmc_that_drips_headers(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Systems/1", rs.drip_headers)
    bmc = connect_to(server, read_timeout=0.2, connect_timeout=0.2, patience=0)
    with pytest.raises(BmcTimeout, match="not complete"):
        bmc.power_state()


def test_a_truncated_answer_is_asked_for_again(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Systems/1", rs.truncated, times=1)
    assert connect_to(server).power_state() is PowerState.on


def test_a_chunked_answer(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Systems/1", rs.chunked, times=1)
    bmc = connect_to(server)
    assert bmc.power_state() is PowerState.on
    bmc.power_state()
    assert server.connections == 1


def test_a_compressed_answer_where_the_bmc_insists(server: RedfishServer, connect_to: Open) -> None:
    """HPE Gen10 Plus: 406 for what it has only compressed."""
    server.fault("GET", "Systems/1", rs.gzipped)
    assert connect_to(server).power_state() is PowerState.on


def test_a_compressed_bomb_is_not_unpacked(server: RedfishServer, connect_to: Open) -> None:
    server.tree["/redfish/v1/systems/1"] = b" " * (200 << 20)
    server.fault("GET", "Systems/1", rs.gzipped)
    with pytest.raises(BmcBroken, match="larger than 32 MiB"):
        connect_to(server).power_state()


def test_a_silent_bmc_does_not_hold_up_the_end(
    server: RedfishServer, connect_to: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from time import monotonic

    assert connector.LAST_WORDS <= 5
    monkeypatch.setattr(connector, "LAST_WORDS", 0.2)
    bmc = connect_to(server, read_timeout=60)
    bmc.power_state()
    server.fault("DELETE", "Sessions", rs.silent)
    before = monotonic()
    bmc.close()
    assert monotonic() - before < 4
    assert bmc.power_state() is PowerState.on  # anew, with the usual patience
    assert len(server.logins) == 2


def test_a_bmc_that_is_busy_when_we_log_in(server: RedfishServer, connect_to: Open, clock: Any) -> None:
    server.fault("GET", "/redfish/v1/", rs.status(503), times=2)
    server.fault("POST", "Sessions", rs.status(503), times=1)
    bmc = connect_to(server)
    bmc.connector.request("PATCH", "/redfish/v1/Systems/1", {"AssetTag": "x"})
    assert len(server.writes) == len(bmc.sent()) == 1
    assert len(clock.slept) == 3


@pytest.mark.parametrize(
    "link", ["/redfish/v1/Systems/\ud800", "/a\r\nX-Evil: 1", "http://[", "//[", "x" * 5000, "", " "]
)
def test_links_that_are_no_uris(server: RedfishServer, connect_to: Open, link: str) -> None:
    server.doc("/redfish/v1/Systems")["Members"] = [{"@odata.id": link}]
    with pytest.raises(BmcError):
        connect_to(server).power_state()


def test_a_huge_answer_is_not_read_to_the_end(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Systems/1", rs.huge(200 << 20))
    with pytest.raises(BmcBroken, match="larger than 32 MiB"):
        connect_to(server).power_state()


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
def test_an_error_for_a_while_is_waited_out(server: RedfishServer, connect_to: Open, code: int, clock: Any) -> None:
    server.fault("GET", "Systems/1", rs.status(code), times=2)
    assert connect_to(server).power_state() is PowerState.on
    assert len(clock.slept) == 2


def test_numeric_retry_after_is_obeyed(server: RedfishServer, connect_to: Open, clock: Any) -> None:
    server.fault("GET", "Systems/1", rs.status(503, {"Retry-After": "7"}), times=1)
    assert connect_to(server).power_state() is PowerState.on
    assert clock.slept == [7.0]


def test_patience_ends(server: RedfishServer, connect_to: Open, clock: Any) -> None:
    server.fault("GET", "Systems/1", rs.status(503))
    with pytest.raises(BmcBusy, match="HTTP 503: fault") as caught:
        connect_to(server, patience=30).power_state()
    assert caught.value.retry
    assert 10 < sum(clock.slept) <= 30


def test_a_resource_that_is_always_500_costs_three_requests(server: RedfishServer, connect_to: Open) -> None:
    """sushy-tools' Storage, for one."""
    server.fault("GET", "Systems/1", rs.status(500))
    with pytest.raises(BmcBusy):
        connect_to(server, patience=600).power_state()
    assert server.requests.count(("GET", "/redfish/v1/Systems/1")) == 3


@pytest.mark.parametrize("fault", [rs.status(503), rs.status(500), rs.reset, rs.silent])
def test_a_write_is_never_sent_twice(server: RedfishServer, connect_to: Open, fault: rs.Fault) -> None:
    server.fault("POST", "Reset", fault)
    bmc = connect_to(server, read_timeout=0.3)
    with pytest.raises((BmcBusy, BmcUnreachable)):
        bmc.set_power(PowerAction.force_restart)
    assert [p for m, p in server.requests if m == "POST" and "Reset" in p] == [
        "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"
    ]
    assert len(bmc.sent()) == 1  # it may have arrived


def test_a_write_that_was_not_sent_is_repeated(connect_to: Open, clock: Any) -> None:
    """Connection refused: not a byte has left us."""
    with RedfishServer(small_tree()) as first:
        bmc = connect_to(first, patience=30)
        slot = bmc.media()[0]
        port = first.port
        bmc.connector._exchange.transport.drop()
    revived: list[RedfishServer] = []
    sleep = clock.sleep

    def revive(seconds: float) -> None:
        sleep(seconds)
        if len(clock.slept) == 2:
            again = RedfishServer(small_tree(), login="none")
            again.http.server_close()
            again.http = rs._Http(("127.0.0.1", port), rs.Handler)
            again.http.service = again
            again.thread = rs.threading.Thread(target=again.http.serve_forever, args=(0.02,), daemon=True)
            revived.append(again.__enter__())

    bmc.connector.timing = type(bmc.connector.timing)(now=clock.now, sleep=revive, jitter=lambda: 0.5)
    bmc.connector.request("POST", f"{slot.uri}/Actions/VirtualMedia.InsertMedia", {"Image": "http://x/y.iso"})
    assert len(revived[0].writes) == 1
    assert len(bmc.sent()) == 1
    revived[0].__exit__()


def test_the_bmc_restarts_in_the_middle(server: RedfishServer, connect_to: Open) -> None:
    """The connection breaks, then it is busy, then it has forgotten our session."""
    bmc = connect_to(server)
    assert bmc.power_state() is PowerState.on
    server.fault("GET", "Systems/1", rs.then(RedfishServer.restart_bmc), times=1)
    server.fault("GET", "Systems/1", rs.reset, times=1)
    server.fault("GET", "Systems/1", rs.status(503), times=1)
    assert bmc.power_state() is PowerState.on
    assert len(server.logins) == 2
    bmc.close()
    assert server.sessions == {}


def test_a_lost_session_in_a_write_is_made_anew_and_the_write_sent_once(
    server: RedfishServer, connect_to: Open
) -> None:
    bmc = connect_to(server)
    slot = next(s for s in bmc.media() if s.takes_cd)
    server.restart_bmc()
    bmc.insert_media(slot, "http://10.0.0.5/m/1/boot.iso")
    assert len(server.writes) == 1
    assert len(bmc.sent()) == 1
    assert len(server.logins) == 2


def test_a_password_changed_under_us(server: RedfishServer, connect_to: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bmc = connect_to(server)
    bmc.power_state()
    server.restart_bmc()
    monkeypatch.setattr(rs, "PASSWORD", "changed")
    for _ in range(3):
        with pytest.raises(BmcLoginRefused):
            bmc.power_state()
    assert len(server.logins) == 2


@pytest.mark.parametrize("login", ["session", "basic"])
def test_wrong_password_is_tried_once_by_all_connections(connect_to: Open, login: str) -> None:
    ledger = MemoryLedger()
    with RedfishServer(small_tree(), login=login) as server:
        for _ in range(3):
            bmc = connect_to(server, password="guessed", ledger=ledger)
            with pytest.raises(BmcLoginRefused, match="operator") as caught:
                bmc.power_state()
            assert "guessed" not in str(caught.value)
        assert len(server.logins) == 1
        assert connect_to(server, ledger=ledger).power_state() is PowerState.on  # other credentials: tried
        ledger.clear(bmc.connector.base)
        with pytest.raises(BmcLoginRefused):
            connect_to(server, password="guessed", ledger=ledger).power_state()
        assert sum(password == "guessed" for _, password in server.logins) == 2


def test_401_for_one_resource_is_no_wrong_password(server: RedfishServer, connect_to: Open) -> None:
    """The session was made: the login is good, and must not be remembered as refused. No session is left behind."""
    ledger = MemoryLedger()
    server.fault("GET", "Bios", rs.status(401))
    bmc = connect_to(server, ledger=ledger)
    found = bmc.inventory()
    assert isinstance(found.bios, Unknown)
    assert found.bios.reason is Reason.not_permitted
    assert not isinstance(found.bmc, Unknown)  # read after the Bios
    assert connect_to(server, ledger=ledger).power_state() is PowerState.on
    assert len(server.sessions) == 2
    bmc.close()
    assert len(server.sessions) == 1


def test_ilo_refuses_a_login_with_400(server: RedfishServer, connect_to: Open) -> None:
    body = {"error": {"@Message.ExtendedInfo": [{"MessageId": "iLO.2.14.UnauthorizedLoginAttempt"}]}}
    server.fault("POST", "Sessions", rs.status(400, document=body))
    bmc = connect_to(server)
    for _ in range(2):
        with pytest.raises(BmcLoginRefused):
            bmc.power_state()
    assert sum(m == "POST" for m, _ in server.requests) == 1


def test_no_session_left_means_basic(server: RedfishServer, connect_to: Open) -> None:
    full = rs.refusal(400, "Base.1.8.SessionLimitExceeded", "too many sessions")[2]
    server.fault("POST", "Sessions", rs.status(400, document=full))
    assert connect_to(server).power_state() is PowerState.on
    assert any("Authorization" in h for h in server.headers)


def test_no_credentials_where_some_are_wanted(server: RedfishServer, connect_to: Open) -> None:
    with pytest.raises(BmcLoginRefused, match="no credentials") as caught:
        connect_to(server, login=False).power_state()
    assert "credentials" in caught.value.hint


def test_403_is_not_permitted(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Bios", rs.status(403))
    server.fault("POST", "Reset", rs.status(403))
    bmc = connect_to(server)
    found = bmc.inventory()
    assert isinstance(found.bios, Unknown)
    assert found.bios.reason is Reason.not_permitted
    with pytest.raises(BmcNotPermitted) as caught:
        bmc.set_power(PowerAction.force_restart)
    assert "role" in caught.value.hint
    assert len(server.logins) == 1


def test_a_bmc_that_refuses_the_media_says_why(server: RedfishServer, connect_to: Open) -> None:
    why = rs.refusal(400, "Base.1.8.PropertyValueFormatError", "the URL \x1b[31mis not to my taste\n" + "x" * 5000)
    server.fault("POST", "InsertMedia", rs.status(400, document=why[2]))
    bmc = connect_to(server)
    with pytest.raises(BmcRefused, match="not to my taste") as caught:
        bmc.insert_media(bmc.media()[1], "http://10.0.0.5/m/1/boot.iso")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert bmc.sent() == []


def test_a_transfer_protocol_is_sent_when_the_bmc_asks_for_it(server: RedfishServer, connect_to: Open) -> None:
    def picky(handler: rs.Handler) -> bool:
        if "TransferProtocolType" in handler.body:
            return False
        info = {"MessageId": "Base.1.8.ActionParameterMissing", "RelatedProperties": ["#/TransferProtocolType"]}
        body = {"error": {"code": "Base.1.8.ActionParameterMissing", "@Message.ExtendedInfo": [info]}}
        return rs.status(400, document=body)(handler)

    server.fault("POST", "InsertMedia", picky)
    bmc = connect_to(server)
    slot = next(s for s in bmc.media() if s.takes_cd)
    bmc.insert_media(slot, "http://10.0.0.5/m/1/boot.iso")
    assert server.writes[-1][2] == {"Image": "http://10.0.0.5/m/1/boot.iso", "TransferProtocolType": "HTTP"}
    assert len(bmc.sent()) == 1


def test_parameters_that_action_info_requires_are_sent_at_once(server: RedfishServer, connect_to: Open) -> None:
    uri = "/redfish/v1/Managers/BMC/VirtualMedia/CD1"
    server.doc(uri)["Actions"]["#VirtualMedia.InsertMedia"]["@Redfish.ActionInfo"] = f"{uri}/InsertInfo"
    parameters = [{"Name": n, "Required": n != "UserName"} for n in ("Image", "TransferProtocolType", "UserName")]
    server.tree[rs.key(f"{uri}/InsertInfo")] = {"Parameters": parameters}
    bmc = connect_to(server)
    bmc.insert_media(next(s for s in bmc.media() if s.takes_cd), "https://10.0.0.5/m/1/boot.iso")
    assert server.writes == [
        (
            "POST",
            f"{uri}/Actions/VirtualMedia.InsertMedia",
            {"Image": "https://10.0.0.5/m/1/boot.iso", "TransferProtocolType": "HTTPS"},
        )
    ]


@pytest.mark.parametrize(("code", "error"), [(403, BmcNotPermitted), (500, BmcBusy), (409, BmcRefused)])
def test_a_refused_eject_is_an_error(
    server: RedfishServer, connect_to: Open, code: int, error: type[Exception]
) -> None:
    """sushy's own eject takes it for success."""
    bmc = connect_to(server)
    slot = next(s for s in bmc.media() if s.takes_cd)
    bmc.insert_media(slot, "http://10.0.0.5/m/1/boot.iso")
    server.fault("POST", "EjectMedia", rs.status(code))
    with pytest.raises(error):
        bmc.eject_media(slot)
    assert [p for m, p in server.requests if "EjectMedia" in p] == [f"{slot.uri}/Actions/VirtualMedia.EjectMedia"]


def test_an_eject_that_was_done_and_answered_with_500(server: RedfishServer, connect_to: Open) -> None:
    bmc = connect_to(server)
    slot = next(s for s in bmc.media() if s.takes_cd)
    bmc.insert_media(slot, "http://10.0.0.5/m/1/boot.iso")

    def done(handler: rs.Handler) -> bool:
        server.doc(slot.uri).update(Image=None, Inserted=False)
        return rs.status(500)(handler)

    server.fault("POST", "EjectMedia", done)
    bmc.eject_media(slot)


def test_virtual_media_that_do_not_exist(server: RedfishServer, connect_to: Open) -> None:
    del server.doc("/redfish/v1/Managers/BMC")["VirtualMedia"]
    bmc = connect_to(server)
    with pytest.raises(BmcUnsupported, match="virtual media"):
        bmc.media()
    found = bmc.inventory()
    assert isinstance(found.media, Unknown)
    assert found.media.reason is Reason.not_modelled


def test_a_slot_without_actions_that_takes_no_patch_either(server: RedfishServer, connect_to: Open) -> None:
    server.doc("/redfish/v1/Managers/BMC/VirtualMedia/CD1").pop("Actions")
    server.fault("PATCH", "CD1", rs.status(405))
    bmc = connect_to(server)
    with pytest.raises(BmcUnsupported, match="405"):
        bmc.insert_media(next(s for s in bmc.media() if s.takes_cd), "http://10.0.0.5/m/1/boot.iso")


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:1/redfish/v1/Systems/1", "//evil.example/redfish", "https://127.0.0.1/redfish/v1"]
)
def test_a_redirect_elsewhere_is_not_followed(server: RedfishServer, connect_to: Open, where: str) -> None:
    server.fault("GET", "Systems/1", rs.status(302, {"Location": where}))
    with pytest.raises(BmcRefused, match="not followed"):
        connect_to(server).power_state()


def test_a_redirect_on_the_same_bmc_is_followed_for_reads(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Systems/1", rs.status(308, {"Location": "/redfish/v1/systems/1/"}), times=1)
    assert connect_to(server).power_state() is PowerState.on


def test_a_circle_of_redirects_ends(server: RedfishServer, connect_to: Open) -> None:
    server.fault("GET", "Systems/1", rs.status(302, {"Location": "/redfish/v1/Systems/1"}))
    with pytest.raises(BmcRefused, match="redirects"):
        connect_to(server).power_state()


def test_a_link_to_another_host_is_read_from_the_bmc_itself(server: RedfishServer, connect_to: Open) -> None:
    """Behind NAT a BMC links to its own idea of its address; a hostile one to where it wants our password."""
    members = [{"@odata.id": "https://evil.example/redfish/v1/Systems/1"}]
    server.doc("/redfish/v1/Systems")["Members"] = members
    assert connect_to(server).power_state() is PowerState.on


@pytest.mark.parametrize(
    "body", [b"<html>no</html>", b'{"PowerState": "On"', b"", b"\x00\xff", b"[1]", b'"On"', b"null"]
)
def test_garbage_is_named(server: RedfishServer, connect_to: Open, body: bytes) -> None:
    bmc = connect_to(server)
    bmc.power_state()
    server.tree["/redfish/v1/systems/1"] = body
    with pytest.raises(BmcBroken, match="Systems/1"):
        bmc.power_state()


@pytest.mark.parametrize("odd", [5, True, ["On"], {"a": 1}, "Melted", "On\x00"])
def test_a_power_state_of_no_known_kind_is_broken(server: RedfishServer, connect_to: Open, odd: object) -> None:
    server.doc("/redfish/v1/Systems/1")["PowerState"] = odd
    bmc = connect_to(server)
    if odd == "On\x00":  # cleaned
        assert bmc.power_state() is PowerState.on
        return
    with pytest.raises(BmcBroken, match="PowerState is"):
        bmc.power_state()
    found = bmc.inventory()
    assert isinstance(found.power, Unknown)
    assert found.power.reason is Reason.broken


def test_bios_attributes_of_a_host_that_is_off_are_unknown(server: RedfishServer, connect_to: Open) -> None:
    server.doc("/redfish/v1/Systems/1/Bios")["Attributes"] = {}
    bmc = connect_to(server)
    assert bmc.inventory().bios.reason is Reason.broken
    server.doc("/redfish/v1/Systems/1")["PowerState"] = "Off"
    assert bmc.inventory().bios.reason is Reason.off


def test_a_reset_that_is_not_allowed_lists_what_is(server: RedfishServer, connect_to: Open) -> None:
    action = server.doc("/redfish/v1/Systems/1")["Actions"]["#ComputerSystem.Reset"]
    action["ResetType@Redfish.AllowableValues"] = ["On", "ForceOff", "PowerCycle"]
    bmc = connect_to(server)
    bmc.set_power(PowerAction.force_restart)
    assert server.writes[-1][2] == {"ResetType": "PowerCycle"}
    with pytest.raises(BmcUnsupported, match="ForceOff, On, PowerCycle"):
        bmc.set_power(PowerAction.graceful_shutdown)


def test_a_bmc_without_once(server: RedfishServer, connect_to: Open) -> None:
    boot = server.doc("/redfish/v1/Systems/1")["Boot"]
    boot["BootSourceOverrideEnabled@Redfish.AllowableValues"] = ["Disabled", "Continuous"]
    bmc = connect_to(server)
    assert not bmc.boot_override().once_allowed
    with pytest.raises(BmcUnsupported, match="takes no override Once; it takes Disabled, Continuous"):
        bmc.set_boot_override(BootTarget.cd, BootEnabled.once, None)
    bmc.set_boot_override(BootTarget.cd, BootEnabled.continuous, None)
    assert bmc.boot_override().effective is BootTarget.cd
    with pytest.raises(BmcUnsupported, match="cannot boot from BiosSetup"):
        bmc.set_boot_override(BootTarget.bios_setup, BootEnabled.continuous, None)


def test_the_session_ends_when_nobody_closes(server: RedfishServer) -> None:
    """A forgotten driver at the end of a program, which dies of an exception."""
    program = f"""
import sys
from metalimmu.bmc.connect import Address, connect
bmc = connect(Address(bmc={server.address!r}, credentials="env:T"))
print(bmc.power_state())
raise SystemExit(3) if len(sys.argv) > 1 else ZeroDivisionError
"""
    for arguments in ([], ["exit"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={"T_USERNAME": rs.USER, "T_PASSWORD": rs.PASSWORD, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "On\n", done.stderr
        assert done.returncode == (3 if arguments else 1)
    assert len(server.logins) == 2
    assert server.sessions == {}


def test_a_collected_driver_logs_out(server: RedfishServer, connect_to: Open) -> None:
    import gc

    from metalimmu.bmc.connect import Address
    from metalimmu.bmc.credentials import make

    bmc = RedfishBmc.open(Address(bmc=server.address), credentials=make(rs.USER, rs.PASSWORD), mode="read-only")
    bmc.power_state()
    assert len(server.sessions) == 1
    del bmc
    gc.collect()
    assert server.sessions == {}


def test_a_logout_that_fails_is_no_error(server: RedfishServer, connect_to: Open) -> None:
    bmc = connect_to(server)
    bmc.power_state()
    server.fault("DELETE", "Sessions", rs.reset)
    bmc.close()


def test_read_only_is_enforced_below_the_driver(server: RedfishServer, connect_to: Open) -> None:
    from metalimmu.errors import BmcReadOnly

    bmc = connect_to(server, mode="read-only")
    for method in ("POST", "PATCH", "PUT", "DELETE", "post"):
        with pytest.raises(BmcReadOnly):
            bmc.connector.request(method, "/redfish/v1/Systems/1", {"AssetTag": "x"})
    with pytest.raises(BmcReadOnly):  # not even another session: that is the connector's own business
        bmc.connector.request("POST", "/redfish/v1/SessionService/Sessions", {})
    assert server.requests == []
    bmc.power_state()
    assert {m for m, _ in server.requests} == {"GET", "POST"}
    assert server.writes == []


def test_one_connection_for_everything(server: RedfishServer, connect_to: Open) -> None:
    bmc = connect_to(server)
    bmc.inventory()
    bmc.set_power(PowerAction.force_restart)
    bmc.close()
    assert server.connections == 1
    assert len(server.requests) > 15
    assert not any(h.get("Connection") == "close" for h in server.headers)


def test_one_request_in_flight(server: RedfishServer, connect_to: Open) -> None:
    now, most = 0, 0

    def enter(handler: rs.Handler) -> bool:
        nonlocal now, most
        with server.lock:
            now += 1
            most = max(most, now)
        handler.service.release.wait(0.01)
        with server.lock:
            now -= 1
        return False

    server.fault("GET", "", enter)
    bmc = connect_to(server)
    threads = [threading.Thread(target=bmc.inventory) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
    assert len(server.logins) == 1
    assert server.connections == 1
