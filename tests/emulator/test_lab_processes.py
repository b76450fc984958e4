"""Labs as processes and files: two at once, deaths of all kinds, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from emulator_rig import wait_until
from test_lab_redfish import Client

from metalimmu.errors import LabError, NotFound, ToolError, UsageError
from metalimmu_emulator import processes, requirements
from metalimmu_emulator.lab import Lab
from metalimmu_emulator.processes import ProcessId, alive, identify

pytestmark = pytest.mark.emulator


def power(lab: Lab, kind: str, number: int = 0) -> int:
    client = Client(lab)
    client.base = lab.status()[number].bmc.removeprefix("redfish+")
    path = f"/redfish/v1/Systems/{lab.spec.servers[number].uuid}/Actions/ComputerSystem.Reset"
    status = client("POST", path, {"ResetType": kind}).status_code
    client.http.close()
    return status


def processes_of(folder: Path) -> list[int]:
    """Every process that has the folder in its command line or as its working directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            place = str((entry / "cwd").readlink())
        except OSError:
            continue
        if identify(int(entry.name)) and (str(folder).encode() in words or place.startswith(str(folder))):
            found.append(int(entry.name))
    return found


@pytest.mark.e2e
def test_down_leaves_no_process_and_no_file(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up(servers=2)
    assert power(lab, "On", 0) == 204
    assert power(lab, "On", 1) == 204
    assert [s.power for s in lab.status()] == ["On", "On"]
    assert len(processes_of(lab.folder)) == 3, "a supervisor and two machines"
    ports = lab.spec.bmc_ports
    lab.down()
    assert processes_of(lab.folder) == []
    assert not lab.folder.exists()
    assert list(lab.folder.parent.iterdir()) == []
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
    with pytest.raises(NotFound, match="there is no lab"):
        Lab(lab.folder)


@pytest.mark.e2e
def test_two_labs_do_not_collide(lab_up: Callable[..., Lab]) -> None:
    one, two = lab_up("one", servers=2), lab_up("two")
    ports = [port for lab in (one, two) for port in (*lab.spec.bmc_ports, lab.spec.media_port, lab.spec.machines_port)]
    assert len(set(ports)) == len(ports) == 7
    servers = [*one.spec.servers, *two.spec.servers]
    for values in ([s.uuid for s in servers], [s.serial for s in servers], [s.mac for s in servers]):
        assert len(set(values)) == 3
    assert one.spec.password != two.spec.password
    assert power(one, "On") == 204
    assert power(two, "On") == 204
    one.down()
    assert two.status()[0].power == "On"
    assert power(two, "ForceOff") == 204


@pytest.mark.e2e
def test_a_killed_supervisor_takes_its_machines_along_and_down_cleans_up(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up()
    assert power(lab, "On") == 204
    state = lab._state("node-1").process
    supervisor = lab.supervisor()
    assert state
    assert supervisor
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not alive(state) and not lab.running(), 10, "QEMU's death with its supervisor")
    assert lab.status()[0].power == "Off"
    lab.down()
    assert processes_of(lab.folder) == []
    assert not lab.folder.exists()


@pytest.mark.e2e
def test_up_after_a_crash_is_the_same_lab(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up(servers=2)
    assert power(lab, "On") == 204
    role = lab.site / "roles" / "web.yaml"
    role.write_text("image: tiny@2\n")
    lab.disk("node-1").write_bytes(b"kept")
    supervisor = lab.supervisor()
    assert supervisor
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not lab.running(), 10, "the supervisor's death")
    again = lab_up(servers=2)
    assert again.running()
    assert again.spec == lab.spec, "ports and identities too"
    assert role.read_text() == "image: tiny@2\n", "the user's document"
    assert again.disk("node-1").read_bytes() == b"kept"
    assert again.status()[0].power == "Off"
    assert power(again, "On") == 204


def test_up_of_a_running_lab_changes_nothing(lab_up: Callable[..., Lab]) -> None:
    first = lab_up()
    before = first.supervisor()
    assert lab_up().supervisor() == before
    with pytest.raises(LabError, match="with other servers"):
        lab_up(servers=2)


def test_a_port_taken_meanwhile_is_replaced_in_the_site(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up()
    supervisor = lab.supervisor()
    assert supervisor
    processes.end(supervisor, grace=10)
    old = lab.spec.bmc_ports[0]
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", old))
        thief.listen()
        again = lab_up()
        new = again.spec.bmc_ports[0]
        assert new != old
        hosts = (again.site / "hosts" / "lab.yaml").read_text()
        assert f":{new}\n" in hosts
        assert f":{old}\n" not in hosts


@pytest.mark.e2e
def test_a_supervisor_whose_folder_is_gone_ends_by_itself(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up()
    assert power(lab, "On") == 204
    supervisor, machine = lab.supervisor(), lab._state("node-1").process
    (lab.folder / "lab.json").rename(lab.folder / "was.json")
    wait_until(lambda: not alive(supervisor) and not alive(machine), 15, "the end of all")


def test_a_folder_that_is_no_lab_is_not_touched(lab_up: Callable[..., Lab], tmp_path: Path) -> None:
    precious = tmp_path / "labs" / "lab" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("x")
    with pytest.raises(LabError, match="is not empty and is no lab"):
        lab_up()
    assert precious.read_text() == "x"


def test_a_supervisor_that_cannot_start_says_why(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up()
    supervisor = lab.supervisor()
    assert supervisor
    processes.end(supervisor, grace=10)
    (lab.folder / "bmc.pem").write_text("no certificate")
    with pytest.raises(LabError, match=r"supervisor ended at once: ssl\.SSLError"):
        lab.start(20)
    assert processes_of(lab.folder) == []


@pytest.mark.parametrize(
    "shape", [{"servers": 0}, {"disk": "tape"}, {"firmware": "coreboot"}, {"persona": "vendor"}, {"memory": 1}]
)
def test_a_lab_that_cannot_be_is_a_usage_error(lab_up: Callable[..., Lab], shape: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        lab_up(**shape)


def test_a_process_number_used_again_is_left_alone() -> None:
    me = identify(os.getpid())
    assert me
    assert alive(me)
    other = ProcessId(me.pid, me.started + 1)
    assert not alive(other)
    processes.end(other, grace=0.1)  # would end this test
    processes.end(ProcessId(2**22 + 1, 1), grace=0.1)


def test_what_is_missing_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(ToolError, match="qemu-system-x86, util-linux") as caught:
        requirements.check("bios")
    assert caught.value.hint.startswith("apt-get install --no-install-recommends qemu-system-x86")
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ToolError, match="sushy-tools") as caught:
        requirements.check("bios")
    assert caught.value.hint == "pip install 'metalimmu[lab]'"


def test_the_site_that_a_lab_writes_is_a_valid_site(lab_up: Callable[..., Lab]) -> None:
    from metalimmu.bmc import credentials
    from metalimmu.desired.load import load
    from metalimmu.desired.resolve import resolve

    lab = lab_up(servers=2)
    docs = load(lab.site)
    spec = resolve(docs, "node-2", root=lab.site)
    server = lab.spec.servers[1]
    assert spec.bmc == lab.status()[1].bmc
    assert (spec.serial, spec.nics, spec.image, spec.mode) == (server.serial, (server.mac,), "tiny@1", "read-write")
    assert spec.root_disk["serial"] == server.disks[0].serial
    assert (spec.firmware, spec.ramdisk) == ("bios", "lab")
    assert spec.credentials
    secret = credentials.read(spec.credentials, folder=lab.site)
    assert (secret.username, secret.password) == (lab.spec.user, lab.spec.password)
    assert docs.site.urls.machines == f"https://10.0.2.2:{lab.spec.machines_port}"
    assert docs.site.listen.machines == f"127.0.0.1:{lab.spec.machines_port}"
    with requests.Session() as http:
        http.trust_env = False
        answer = http.get(
            f"{lab.status()[1].bmc.removeprefix('redfish+')}/redfish/v1/Systems",
            auth=(secret.username, secret.password),
            verify=str(lab.folder / "bmc.pem"),
            timeout=10,
        )
    assert answer.json()["Members"] == [{"@odata.id": f"/redfish/v1/Systems/{server.uuid}"}]
