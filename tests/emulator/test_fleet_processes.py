"""A fleet of many in processes of its own: shares, control from outside, numbers, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from emulator_rig import wait_until
from fleet_rig import ROOT, client

from metalimmu.cli import cli
from metalimmu.errors import LabError, UsageError
from metalimmu_emulator.fleet import Fleet, Member
from metalimmu_emulator.fleet.server import listen
from metalimmu_emulator.fleet.spec import address, mixed

METALIMMU = [sys.executable, "-m", "metalimmu"]


def workers(folder: Path) -> list[int]:
    """Processes that serve from this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"metalimmu_emulator.fleet.worker" in command and str(folder).encode() in command:
                found.append(int(entry.name))
    return found


def memory(pid: int) -> int:
    """Resident, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1]) // 1024


def test_a_thousand_in_two_processes(tmp_path: Path) -> None:
    members = mixed(1000, "dell=40,hpe=30,lenovo=15,supermicro=10,openbmc=5", "", [])
    with Fleet(members, folder=tmp_path, processes=2) as fleet:
        pids = workers(tmp_path)
        assert len(pids) == 2
        assert [b.make for b in fleet].count("dell") == 400
        for index in (0, 499, 500, 999):
            http = client(fleet, index)
            assert http.read(f"{ROOT}/Managers")["Members"]
            assert fleet[index].counters().logins == 1
            fleet[index].fault("busy", status=500)
            assert http.get(f"{ROOT}/Managers").status == 500
            http.close()
        assert fleet.counters().requests == 4 * 3
        assert max(memory(p) for p in pids) < 150
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection((address("127.80.0.0", 1000), fleet.port), 2),
        ):
            pass  # an address without a BMC answers nobody
    assert workers(tmp_path) == []
    assert not (tmp_path / "running.json").exists()


def test_a_request_costs_little(tmp_path: Path) -> None:
    """CPU of the emulator for a TLS request: 0.09 ms when measured alone on 2 cores at 10,000 BMCs; the limit is loose."""
    with Fleet(["dell"], folder=tmp_path, processes=1) as fleet:
        http = client(fleet)
        [pid] = workers(tmp_path)
        before = cpu(pid)
        for _ in range(2000):
            assert http.get(f"{ROOT}/Systems").status == 200
        assert (cpu(pid) - before) / 2000 < 0.0005
        http.close()


def cpu(pid: int) -> float:
    """Seconds, of user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_another_process_attaches(tmp_path: Path) -> None:
    with Fleet(["dell", "hpe"], folder=tmp_path, processes=2, tls=False) as fleet:
        other = Fleet.attach(tmp_path)
        other["hpe-000002"].set_bios({"Sriov": "Disabled"})
        assert fleet["hpe-000002"].bios()["Sriov"] == "Disabled"
        with pytest.raises(UsageError, match="warp"):
            other[0].set_firmware("warp", "9")
    with pytest.raises(LabError):
        Fleet.attach(tmp_path)


def test_workers_end_with_the_one_who_started_them(tmp_path: Path) -> None:
    command = [*METALIMMU, "lab", "fleet", "--bmcs", "4", "--site", str(tmp_path), "--processes", "2", "--http"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as starter:
        assert starter.stdout
        assert b"4 BMCs answer" in starter.stdout.readline()
        assert len(workers(tmp_path)) == 2
        starter.kill()
    wait_until(lambda: not workers(tmp_path), 10, "the workers are gone")


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    command = [*METALIMMU, "lab", "fleet", "--bmcs", "3", "--site", str(tmp_path), "--processes", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as starter:
        assert starter.stdout
        assert b"3 BMCs answer" in starter.stdout.readline()
        os.killpg(starter.pid, signal.SIGINT)
        assert starter.wait(20) == 0
    assert workers(tmp_path) == []


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["lab", "fleet", *arguments, "--site", str(tmp_path)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def test_detached_and_stopped(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    started = run("--bmcs", "5", "--mix", "clean=1", "--faults", "busy=20%:status=500", "--detach", "--processes", "2")
    assert "5 BMCs answer at 127.80.0.1 to 127.80.0.5" in started[1]
    try:
        fleet = Fleet.attach(tmp_path)
        assert sorted(f for b in fleet for f in b.faults()) == ["busy"]
        http = client(fleet, next(b.index for b in fleet if not b.faults()))
        http.read(f"{ROOT}/Systems")
        http.close()
        assert '"requests": 2' in run("--status", "-o", "json")[1]
        with pytest.raises(LabError, match="a fleet runs"):
            run("--bmcs", "1")
        table = (tmp_path / "hosts.csv").read_text().splitlines()
        assert table[0] == "name,bmc,location.rack,labels.make"
        assert table[1] == f"clean-000001,redfish+https://127.80.0.1:{fleet.port},r001,clean"
        assert len(table) == 6
    finally:
        assert run("--stop") == (0, "5 BMCs are gone\n")
    assert workers(tmp_path) == []


def test_the_site_that_is_written_is_a_good_one(tmp_path: Path) -> None:
    from metalimmu.desired.load import load

    with Fleet([Member("dell", count=2)], folder=tmp_path) as fleet:
        docs = load(fleet.site)
    assert docs.site.mode == "read-only"
    assert set(docs.hosts) == {"dell-000001", "dell-000002"}


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with listen("127.80.0.2", 0) as taken:
        port = taken.getsockname()[1]
        for processes in (0, 1):
            with pytest.raises(LabError, match="is taken"):
                Fleet(["clean", "clean"], port=port, folder=tmp_path, processes=processes, tls=False).start()
    assert workers(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["--mix", "dell"],
        ["--mix", "cisco=3"],
        ["--mix", "dell=0"],
        ["--faults", "gremlins=3%"],
        ["--faults", "slow=3%:speed=1"],
        ["--latency", "soon"],
        ["--recording", "/nowhere/at/all"],
        ["--bmcs", "0"],
    ],
)
def test_wrong_options_are_refused(run: Callable[..., tuple[int, str]], wrong: list[str]) -> None:
    with pytest.raises(UsageError):
        run(*wrong)


def test_faults_are_listed(run: Callable[..., tuple[int, str]]) -> None:
    assert "truncated" in run("--list-faults")[1]


def test_mix_is_even_along_the_addresses() -> None:
    makes = [m.make for m in mixed(100, "dell=3,hpe=1", "slow=10%:delay=2", []) if isinstance(m, Member)]
    for start in range(0, 100, 20):
        assert makes[start : start + 20].count("dell") == 15
    faulty = [m for m in mixed(100, "", "slow=10%:delay=2", []) if isinstance(m, Member) and m.faults]
    assert len(faulty) == 10
    assert faulty[0].faults == {"slow": {"delay": 2}}
