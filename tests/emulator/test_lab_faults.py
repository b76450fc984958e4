"""Faults of a lab's BMC, each seen through HTTP as a driver sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import requests
from emulator_rig import MediaServer, wait_until
from test_lab_redfish import SESSIONS, Client

from metalimmu.errors import LabError, NotFound
from metalimmu_emulator.lab import Lab

pytestmark = pytest.mark.emulator


@pytest.fixture
def lab(lab_up: Callable[..., Lab]) -> Lab:
    return lab_up()


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    made = Client(lab)
    yield made
    made.http.close()


def test_errors_for_a_while(lab: Lab, client: Client) -> None:
    lab.fault("node-1", "error", status=503, path="/Systems/", method="GET", times=2)
    assert [client("GET", client.system).status_code for _ in range(3)] == [503, 503, 200]
    lab.fault("node-1", "error", status=500, seconds=0.5)
    assert client("GET", client.system).status_code == 500
    wait_until(lambda: client("GET", client.system).status_code == 200, 10, "the fault's end")
    lab.fault("node-1", "error")
    assert client("GET", client.system).status_code == 500
    lab.clear_fault("node-1", "error")
    assert client("GET", client.system).status_code == 200


def test_silence(lab: Lab, client: Client) -> None:
    lab.fault("node-1", "silent", times=1)
    with pytest.raises(requests.exceptions.ReadTimeout):
        client("GET", client.system, timeout=0.5)
    assert client("GET", client.system).status_code == 200
    lab.clear_fault("node-1")


def test_slowness(lab: Lab, client: Client) -> None:
    lab.fault("node-1", "slow", delay=0.7, times=1)
    started = time.monotonic()
    assert client("GET", client.system).status_code == 200
    assert time.monotonic() - started >= 0.7


@pytest.mark.parametrize("lose_media", [False, True])
def test_a_reboot_cuts_connections_and_forgets_sessions(
    lab: Lab, client: Client, media_server: MediaServer, lose_media: bool
) -> None:
    (media_server.folder / "cd.iso").write_bytes(bytes(4096))
    insert = f"{client.system}/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia"
    assert client("POST", insert, {"Image": f"{media_server.url}/cd.iso"}).status_code == 204
    user, password = client.auth
    token = client("POST", SESSIONS, {"UserName": user, "Password": password}, auth=None).headers["X-Auth-Token"]
    assert client("GET", client.system, auth=None, headers={"X-Auth-Token": token}).status_code == 200
    lab.fault("node-1", "reboot", seconds=1.0, lose_media=lose_media)
    with pytest.raises(requests.exceptions.ConnectionError):
        client("GET", client.system)

    def back() -> bool:
        try:
            return client("GET", "/redfish/v1/", auth=None).status_code == 200
        except requests.exceptions.ConnectionError:
            return False

    wait_until(back, 10, "the BMC's return")
    assert client("GET", client.system, auth=None, headers={"X-Auth-Token": token}).status_code == 401
    assert client.get(f"{client.system}/VirtualMedia/Cd")["Inserted"] is not lose_media


def test_a_reboot_that_nobody_saw_forgets_sessions_too(lab: Lab, client: Client) -> None:
    user, password = client.auth
    token = client("POST", SESSIONS, {"UserName": user, "Password": password}, auth=None).headers["X-Auth-Token"]
    lab.fault("node-1", "reboot", seconds=0.01)

    def status() -> int:
        try:
            return client("GET", client.system, auth=None, headers={"X-Auth-Token": token}).status_code
        except requests.exceptions.ConnectionError:
            return 0

    wait_until(lambda: status() == 401, 10, "401")


def test_media_refused(lab: Lab, client: Client, media_server: MediaServer) -> None:
    (media_server.folder / "cd.iso").write_bytes(bytes(4096))
    insert = f"{client.system}/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia"
    body = {"Image": f"{media_server.url}/cd.iso"}
    lab.fault("node-1", "refuse-media", times=1)
    assert client("POST", insert, body).status_code == 400
    assert client.get(f"{client.system}/VirtualMedia/Cd")["Inserted"] is False
    assert client("POST", insert, body).status_code == 204


def test_media_accepted_and_never_shown(lab: Lab, client: Client, media_server: MediaServer) -> None:
    (media_server.folder / "cd.iso").write_bytes(bytes(4096))
    lab.fault("node-1", "media-not-read")
    insert = f"{client.system}/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia"
    assert client("POST", insert, {"Image": f"{media_server.url}/cd.iso"}).status_code == 204
    shown = client.get(f"{client.system}/VirtualMedia/Cd")
    assert shown["Inserted"] is True
    assert shown["Image"].endswith("/cd.iso")
    assert media_server.sent == 0


def reset(client: Client, kind: str) -> int:
    return client("POST", f"{client.system}/Actions/ComputerSystem.Reset", {"ResetType": kind}).status_code


@pytest.mark.e2e
def test_a_power_request_without_effect(lab: Lab, client: Client) -> None:
    lab.fault("node-1", "no-power-effect", action="^On$", times=1)
    assert reset(client, "On") == 204
    assert client.get(client.system)["PowerState"] == "Off"
    assert reset(client, "On") == 204
    assert client.get(client.system)["PowerState"] == "On"
    lab.fault("node-1", "no-power-effect", action="ForceOff")
    assert reset(client, "ForceOff") == 204
    assert client.get(client.system)["PowerState"] == "On"


@pytest.mark.parametrize("visible", [False, True])
def test_an_override_ignored(lab: Lab, client: Client, visible: bool) -> None:
    lab.fault("node-1", "override-ignored", visible=visible)
    once = {"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once"}}
    assert client("PATCH", client.system, once).status_code == 204
    assert client.get(client.system)["Boot"]["BootSourceOverrideEnabled"] == ("Once" if visible else "Disabled")


def test_the_bmc_of_another_machine(lab: Lab, client: Client) -> None:
    lab.fault("node-1", "wrong-serial", serial="ELSEWHERE1", uuid="99999999-0000-4000-8000-000000000000")
    shown = client.get(client.system)
    assert (shown["SerialNumber"], shown["UUID"]) == ("ELSEWHERE1", "99999999-0000-4000-8000-000000000000")
    lab.clear_fault("node-1")
    assert client.get(client.system)["SerialNumber"] == lab.spec.servers[0].serial


@pytest.mark.e2e
def test_the_network_cable_can_be_pulled(lab_up: Callable[..., Lab]) -> None:
    """iPXE, started by the override Pxe, says what it sees of the link (of e1000's, not of virtio's)."""
    lab = lab_up("cable", nic="e1000")
    client = Client(lab)
    pxe = {"Boot": {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Continuous"}}
    assert client("PATCH", client.system, pxe).status_code == 204
    assert reset(client, "On") == 204

    def said(word: bytes) -> int:
        return lab.console("node-1").read_bytes().count(word)

    wait_until(lambda: said(b"[Link:up"), 60, "a network with its cable")
    assert not said(b"[Link:down")
    lab.link("node-1", up=False)
    assert reset(client, "ForceRestart") == 204
    wait_until(lambda: said(b"[Link:down"), 60, "a network without")
    lab.link("node-1", up=True)
    ups = said(b"[Link:up")
    assert reset(client, "ForceRestart") == 204
    wait_until(lambda: said(b"[Link:up") > ups, 60, "the cable again")
    client.http.close()


def test_mistakes_are_said() -> None:
    from pathlib import Path

    from metalimmu_emulator.faults import set_fault

    with pytest.raises(LabError, match="unknown fault fire"):
        set_fault(Path(), "fire")
    with pytest.raises(LabError, match="has no sttaus"):
        set_fault(Path(), "error", sttaus=500)


def test_an_unknown_server(lab: Lab) -> None:
    with pytest.raises(NotFound, match="no server node-9"):
        lab.fault("node-9", "error")
