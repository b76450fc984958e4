"""A lab's BMC over HTTPS: who may speak to it, what it shows, and the sushy library driving it."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sushy
import tiny_media
from emulator_rig import MediaServer, wait_until
from sushy import exceptions

from metalimmu_emulator.lab import Lab

pytestmark = pytest.mark.emulator

SESSIONS = "/redfish/v1/SessionService/Sessions"


class Client:
    """One kept-alive connection that trusts the lab's certificate only."""

    def __init__(self, lab: Lab) -> None:
        self.base = lab.status()[0].bmc.removeprefix("redfish+")
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = str(lab.folder / "bmc.pem")
        self.auth = (lab.spec.user, lab.spec.password)
        self.system = f"/redfish/v1/Systems/{lab.spec.servers[0].uuid}"

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        more = {"auth": self.auth, "timeout": 30} | more
        return self.http.request(method, self.base + path, json=body, **more)

    def get(self, path: str) -> Any:
        answer = self("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def lab(lab_up: Callable[..., Lab]) -> Lab:
    return lab_up()


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    made = Client(lab)
    yield made
    made.http.close()


@pytest.fixture
def root(lab: Lab) -> Iterator[sushy.Sushy]:
    base = lab.status()[0].bmc.removeprefix("redfish+")
    connected = sushy.Sushy(base, lab.spec.user, lab.spec.password, verify=str(lab.folder / "bmc.pem"))
    yield connected
    connected._auth.close()
    connected._conn.close()


def test_only_the_service_root_is_open(client: Client) -> None:
    assert client("GET", "/redfish/v1/", auth=None).status_code == 200
    for path in ("/redfish/v1/Systems", client.system, SESSIONS):
        refused = client("GET", path, auth=None)
        assert refused.status_code == 401
        assert "Basic" in refused.headers["WWW-Authenticate"]
    assert client("GET", client.system, auth=("admin", "wrong")).status_code == 401
    assert client("GET", client.system, auth=None, headers={"X-Auth-Token": "guessed"}).status_code == 401
    assert client("GET", client.system, auth=None, headers={"Authorization": "Basic !!"}).status_code == 401
    assert client("GET", client.system).status_code == 200


def test_the_certificate_is_the_labs_own_and_pinned_in_its_site(lab: Lab) -> None:
    port = lab.spec.bmc_ports[0]
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    context.load_verify_locations(lab.folder / "bmc.pem")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    pin = hashlib.sha256(der).hexdigest()
    assert pin == lab.fingerprint()
    assert pin in (lab.site / "hosts" / "lab.yaml").read_text()
    assert (lab.folder / "bmc.key").stat().st_mode & 0o077 == 0


def test_a_silent_client_holds_up_nobody(lab: Lab, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", lab.spec.bmc_ports[0]), timeout=10):
        assert client("GET", client.system, timeout=5).status_code == 200


def test_sessions_are_few_and_end(client: Client) -> None:
    user, password = client.auth
    body = {"UserName": user, "Password": password}
    wrong = client("POST", SESSIONS, {"UserName": user, "Password": "wrong"}, auth=None)
    assert wrong.status_code == 401
    made = [client("POST", SESSIONS, body, auth=None) for _ in range(8)]
    assert {m.status_code for m in made} == {201}
    assert client("POST", SESSIONS, body, auth=None).status_code == 503
    token, place = made[0].headers["X-Auth-Token"], made[0].headers["Location"]
    by_token = {"auth": None, "headers": {"X-Auth-Token": token}}
    assert client("GET", client.system, **by_token).status_code == 200
    assert client("GET", SESSIONS, **by_token).json()["Members@odata.count"] == 8
    assert client("DELETE", place, **by_token).status_code == 204
    assert client("GET", client.system, **by_token).status_code == 401
    assert client("POST", SESSIONS, body, auth=None).status_code == 201


def test_what_the_bmc_shows(lab: Lab, client: Client) -> None:
    spec = lab.spec.servers[0]
    system = client.get(client.system)
    assert (system["SerialNumber"], system["UUID"]) == (spec.serial, spec.uuid)
    assert (system["Manufacturer"], system["Model"]) == ("metalimmu", "lab")
    assert system["MemorySummary"]["TotalSystemMemoryGiB"] == spec.memory / 1024
    assert system["Boot"]["BootSourceOverrideMode"] == "Legacy"
    assert "Once" in system["Boot"]["BootSourceOverrideEnabled@Redfish.AllowableValues"]
    assert "ForceRestart" in system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"]
    nics = client.get(system["EthernetInterfaces"]["@odata.id"])["Members"]
    assert [client.get(n["@odata.id"])["MACAddress"] for n in nics] == [spec.mac]
    storage = client.get(client.get(system["Storage"]["@odata.id"])["Members"][0]["@odata.id"])
    drives = [client.get(d["@odata.id"]) for d in storage["Drives"]]
    assert [(d["SerialNumber"], d["CapacityBytes"]) for d in drives] == [(spec.disks[0].serial, spec.disks[0].size)]
    (cpu,) = client.get(system["Processors"]["@odata.id"])["Members"]
    assert client.get(cpu["@odata.id"])["TotalCores"] == 1
    items = client.get("/redfish/v1/UpdateService/FirmwareInventory")["Members"]
    assert [client.get(i["@odata.id"])["Name"] for i in items] == ["BIOS", "BMC"]


def test_every_link_of_the_service_answers(client: Client) -> None:
    """But those of sushy-tools that it links and has not."""
    known_gaps = {"/redfish/v1/UpdateService/SoftwareInventory", "/redfish/v1/CertificateService/CertificateLocations"}
    todo, seen, broken = ["/redfish/v1/"], set(), []
    while todo:
        path = todo.pop().split("#")[0]
        if (
            path in seen
            or path in known_gaps
            or path.endswith("/Processors/CPU")
            or not path.startswith("/redfish/v1/")
        ):
            continue
        seen.add(path)
        answer = client("GET", path)
        if answer.status_code != 200:
            broken.append((path, answer.status_code))
            continue
        todo += _links(answer.json())
    assert broken == []
    assert len(seen) > 20


def _links(value: Any) -> list[str]:
    if isinstance(value, list):
        return [link for v in value for link in _links(v)]
    if isinstance(value, dict):
        own = [value["@odata.id"]] if isinstance(value.get("@odata.id"), str) else []
        return own + [link for k, v in value.items() if k != "Actions" for link in _links(v)]
    return []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/Actions/ComputerSystem.Reset", {"ResetType": "Explode"}, 400),
        ("POST", "/Actions/ComputerSystem.Reset", {"ResetType": "ForceRestart"}, 409),
        ("PATCH", "", {"Boot": {"BootSourceOverrideTarget": "Floppy"}}, 400),
        ("PATCH", "", {"Boot": {"BootSourceOverrideEnabled": "Twice"}}, 400),
        ("PATCH", "", {"AssetTag": "x"}, 400),
        ("PATCH", "", ["Boot"], 400),
        ("POST", "/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", {}, 400),
        ("POST", "/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", {"Image": "ftp://x/y.iso"}, 400),
        ("POST", "/VirtualMedia/Usb/Actions/VirtualMedia.InsertMedia", {"Image": "http://x/y.iso"}, 404),
    ],
)
def test_what_a_bmc_refuses(client: Client, method: str, path: str, body: Any, status: int) -> None:
    answer = client(method, client.system + path, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_another_system_is_not_here(client: Client) -> None:
    assert client("GET", "/redfish/v1/Systems/11111111-2222-4333-8444-555555555555").status_code == 404


def test_an_override_can_be_set_and_cleared(client: Client) -> None:
    def patch(**boot: str) -> dict[str, Any]:
        changes = {f"BootSourceOverride{k}": v for k, v in boot.items()}
        assert client("PATCH", client.system, {"Boot": changes}).status_code == 204
        boot_now = client.get(client.system)["Boot"]
        return {k: boot_now[f"BootSourceOverride{k}"] for k in ("Enabled", "Target", "Mode")}

    assert patch(Target="Cd", Enabled="Once") == {"Enabled": "Once", "Target": "Cd", "Mode": "Legacy"}
    assert patch(Enabled="Continuous", Mode="UEFI") == {"Enabled": "Continuous", "Target": "Cd", "Mode": "UEFI"}
    assert patch(Enabled="Disabled") == {"Enabled": "Disabled", "Target": "None", "Mode": "UEFI"}
    assert patch(Target="Hdd")["Enabled"] == "Once"
    assert patch(Target="None")["Enabled"] == "Disabled"


def test_a_bmc_that_knows_continuous_only(lab_up: Callable[..., Lab]) -> None:
    client = Client(lab_up("continuous", persona="continuous-only"))
    boot = client.get(client.system)["Boot"]
    assert boot["BootSourceOverrideEnabled@Redfish.AllowableValues"] == ["Disabled", "Continuous"]
    once = {"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once"}}
    assert client("PATCH", client.system, once).status_code == 400
    client.http.close()


@pytest.mark.e2e
def test_sushy_drives_it(root: sushy.Sushy, lab: Lab, media_server: MediaServer, tmp_path: Path) -> None:
    work = tmp_path / "cd"
    work.mkdir()
    tiny_media.bios_cd(media_server.folder / "cd.iso", work, "CD")
    tiny_media.bios_disk(lab.disk("node-1"), "DISK")
    system = root.get_system()
    assert system.power_state == sushy.PowerState.OFF
    (drive,) = system.virtual_media.get_members()
    with pytest.raises(exceptions.BadRequestError, match="answers 404"):
        drive.insert_media(f"{media_server.url}/none.iso")
    drive.insert_media(f"{media_server.url}/cd.iso")
    drive.refresh()
    assert (drive.inserted, drive.image) == (True, f"{media_server.url}/cd.iso")
    with pytest.raises(exceptions.HTTPError) as caught:
        drive.insert_media(f"{media_server.url}/cd.iso")
    assert caught.value.status_code == 409
    system.set_system_boot_options(target=sushy.BOOT_SOURCE_TARGET_CD, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE)
    system.refresh(force=True)
    assert system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_ONCE
    system.reset_system(sushy.RESET_TYPE_ON)
    system.refresh(force=True)
    assert system.power_state == sushy.PowerState.ON
    assert system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_DISABLED
    wait_until(lambda: b"DISK\r\n" in lab.console("node-1").read_bytes(), 60, "the disk's boot")
    assert lab.console("node-1").read_bytes().count(b"CD\r\n") == 1
    drive.eject_media()
    drive.refresh()
    assert not drive.inserted
    assert lab.status()[0].power == "On"
    system.reset_system(sushy.RESET_TYPE_FORCE_OFF)
    system.refresh(force=True)
    assert system.power_state == sushy.PowerState.OFF
    writes = [(r["method"], r["path"].rpartition("/")[2]) for r in lab.requests("node-1") if r["method"] != "GET"]
    assert writes == [
        ("POST", "Sessions"),
        *[("POST", "VirtualMedia.InsertMedia")] * 3,
        ("PATCH", lab.spec.servers[0].uuid),
        ("POST", "ComputerSystem.Reset"),
        ("POST", "VirtualMedia.EjectMedia"),
        ("POST", "ComputerSystem.Reset"),
    ]


def test_requests_are_kept_without_the_password(lab: Lab, client: Client) -> None:
    user, password = client.auth
    client("POST", SESSIONS, {"UserName": user, "Password": password}, auth=None)
    client("GET", client.system, auth=None)
    kept = lab.requests("node-1")
    assert [(r["method"], r["status"], r["login"]) for r in kept] == [("POST", 201, "none"), ("GET", 401, "refused")]
    assert kept[0]["body"] == {"UserName": user, "Password": "***"}
    assert password not in json.dumps(kept)
    assert password not in (lab.folder / "supervisor.log").read_text()
