"""Real QEMU with media of a few bytes: what does the machine boot, and when? No operating system."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_media
from emulator_rig import MediaServer, wait_until

from metalimmu_emulator import faults
from metalimmu_emulator.faults import Faults
from metalimmu_emulator.machine import DiskSpec, ServerSpec
from metalimmu_emulator.media import Media
from metalimmu_emulator.processes import alive
from metalimmu_emulator.qemu import Override, Spawner, Vm, WrongState
from metalimmu_emulator.remote import MediaRefused

pytestmark = pytest.mark.e2e

CD, DISK = b"CD\r\n", b"DISK\r\n"
SECONDS = 60  # OVMF needs 4 s on an idle machine without KVM


@dataclass
class Bench:
    vm: Vm
    media: Media
    folder: Path
    firmware: str

    def said(self, word: bytes) -> int:
        path = self.folder / "console.log"
        return path.read_bytes().count(word) if path.exists() else 0

    def await_said(self, word: bytes, times: int) -> None:
        wait_until(lambda: self.said(word) >= times, SECONDS, f"{word!r} for the {times}. time")

    def override(self, enabled: str, target: str = "Cd", **more: Any) -> None:
        self.vm.set_override(Override(enabled, target, self.vm.state.override.mode, **more))


@pytest.fixture
def bench(tmp_path: Path, media_server: MediaServer) -> Iterator[Callable[..., Bench]]:
    vms: list[Vm] = []
    spawner = Spawner()

    def make(firmware: str = "bios", bus: str = "virtio", cd: str = "virtio", **more: Any) -> Bench:
        folder, work = tmp_path / "node-1", tmp_path / "cd"
        folder.mkdir()
        work.mkdir()
        write_disk = tiny_media.bios_disk if firmware == "bios" else tiny_media.uefi_disk
        write_disk(folder / "disk0.raw", "DISK")
        write_cd = tiny_media.bios_cd if firmware == "bios" else tiny_media.uefi_cd
        write_cd(media_server.folder / "cd.iso", work, "CD")
        spec = ServerSpec(
            name="node-1",
            uuid="11111111-2222-4333-8444-555555555555",
            serial="LAB0001",
            mac="52:54:00:00:00:01",
            disks=(DiskSpec(1 << 21, "DISK0", bus),),
            firmware=firmware,
            memory=256,
            cd=cd,
            **more,
        )
        vms.append(Vm(spec, folder, spawner, Faults(folder).active))
        return Bench(vms[-1], Media(f"{media_server.url}/cd.iso"), folder, firmware)

    yield make
    for vm in vms:
        vm.close()
    spawner.close()


@pytest.mark.parametrize(("bus", "cd"), [("virtio", "virtio"), ("ahci", "ahci"), ("scsi", "virtio"), ("nvme", "ahci")])
def test_once_boots_the_cd_once_and_the_guests_own_reboot_lands_on_the_disk(
    bench: Callable[..., Bench], bus: str, cd: str
) -> None:
    b = bench("bios", bus, cd)
    b.vm.insert(b.media)
    b.override("Once")
    b.vm.power("On")
    assert b.vm.state.override.enabled == "Disabled", "Once is used up when the boot has begun"
    b.await_said(CD, 1)  # this CD resets the machine by itself
    b.await_said(DISK, 1)
    b.override("Once")
    b.vm.power("ForceRestart")
    assert b.vm.state.override.enabled == "Disabled"
    b.await_said(DISK, 2)
    assert b.said(CD) == 2
    b.vm.power("ForceRestart")
    b.await_said(DISK, 3)
    assert b.said(CD) == 2, "without an override the disk boots although the medium is still in"


def test_once_under_uefi(bench: Callable[..., Bench]) -> None:
    b = bench("uefi")
    b.vm.insert(b.media)
    b.override("Once")
    b.vm.power("On")
    assert b.vm.state.override.enabled == "Disabled"
    b.override("Once")  # while it runs: for the reset that this CD makes by itself
    b.await_said(CD, 2)
    b.await_said(DISK, 1)
    assert b.said(CD) == 2
    assert b.vm.state.override.enabled == "Disabled"
    b.override("Once")
    b.vm.power("ForceRestart")
    assert b.vm.state.override.enabled == "Disabled"
    b.await_said(DISK, 2)
    assert b.said(CD) == 3


def test_once_set_while_the_guest_runs_holds_for_its_own_next_reboot(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.vm.insert(b.media)
    b.override("Continuous")
    b.vm.power("On")
    b.await_said(CD, 2)  # it resets itself again and again
    assert b.vm.state.override.enabled == "Continuous"
    b.override("Once")
    seen = b.said(CD)
    b.await_said(DISK, 1)
    # One boot may have been under way when the override was changed.
    assert seen + 1 <= b.said(CD) <= seen + 2
    assert b.vm.state.override.enabled == "Disabled"


def test_an_override_that_is_ignored_boots_the_disk(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.vm.insert(b.media)
    b.override("Once", honoured=False)
    b.vm.power("On")
    b.await_said(DISK, 1)
    assert b.said(CD) == 0


def test_media_that_are_never_attached_boot_nothing(bench: Callable[..., Bench], media_server: MediaServer) -> None:
    b = bench()
    b.vm.insert(Media(b.media.url, attach=False))
    b.override("Once")
    b.vm.power("On")
    b.await_said(DISK, 1)
    assert b.said(CD) == 0
    assert media_server.sent == 0
    assert b.vm.state.media is not None, "and the BMC says that they are in"


def test_media_are_read_lazily(bench: Callable[..., Bench], media_server: MediaServer) -> None:
    b = bench()
    iso = media_server.folder / "cd.iso"
    with iso.open("ab") as file:
        file.truncate(64 << 20)
    b.vm.insert(b.media)
    assert media_server.heads >= 1
    assert media_server.sent == 0, "an insert copies nothing"
    b.override("Once")
    b.vm.power("On")
    b.await_said(CD, 1)
    assert 0 < media_server.sent < 16 << 20
    assert not [p for p in b.folder.iterdir() if p.stat().st_blocks * 512 > 8 << 20], "and nothing is kept"


def test_insert_and_eject_while_on(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.vm.power("On")
    b.await_said(DISK, 1)
    b.vm.insert(b.media)
    with pytest.raises(WrongState, match="is inserted already"):
        b.vm.insert(b.media)
    b.override("Once")
    b.vm.power("ForceRestart")
    b.await_said(CD, 1)
    b.await_said(DISK, 2)
    b.vm.eject()
    assert b.vm.state.media is None
    b.vm.eject()  # an empty drive is no error
    b.override("Once")
    b.vm.power("ForceRestart")
    b.await_said(DISK, 3)
    assert b.said(CD) == 1, "an ejected medium does not boot"


def test_eject_while_on_empties_the_drive(bench: Callable[..., Bench]) -> None:
    b = bench(cd="ahci")
    b.vm.insert(b.media)
    b.vm.power("On")
    b.await_said(DISK, 1)
    running = b.vm._running
    assert running is not None
    assert _inserted(running.client)
    b.vm.eject()
    assert not _inserted(running.client)


def _inserted(client: Any) -> bool:
    drive = next(d for d in client.execute("query-block") if d.get("qdev", "").endswith("cd0"))
    return "inserted" in drive


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("/none.iso", (400, "answers 404")),
        (None, (502, "cannot be read")),
        ("file", (400, "only http:")),
    ],
)
def test_media_that_cannot_be_read_are_refused_at_insert(
    bench: Callable[..., Bench], media_server: MediaServer, on: bool, path: str | None, refusal: tuple[int, str]
) -> None:
    b = bench()
    if on:
        b.vm.power("On")
    url = {None: "http://127.0.0.1:1/cd.iso", "file": "file:///etc/passwd"}.get(path) or f"{media_server.url}{path}"
    with pytest.raises(MediaRefused, match=refusal[1]) as caught:
        b.vm.insert(Media(url))
    assert caught.value.status == refusal[0]
    assert b.vm.state.media is None


def test_a_media_server_without_ranges_is_refused(bench: Callable[..., Bench], media_server: MediaServer) -> None:
    b = bench()
    media_server.ranges = False
    with pytest.raises(MediaRefused, match="byte ranges"):
        b.vm.insert(b.media)


def test_a_medium_whose_server_has_gone_does_not_keep_the_machine_off(
    bench: Callable[..., Bench], media_server: MediaServer
) -> None:
    b = bench()
    b.vm.insert(b.media)
    (media_server.folder / "cd.iso").unlink()
    b.override("Once")
    b.vm.power("On")
    b.await_said(DISK, 1)
    assert b.vm.state.media is not None


def test_power(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.vm.state.power == "Off"
    b.vm.power("ForceOff")
    b.vm.power("GracefulShutdown")
    for action in ("ForceRestart", "GracefulRestart", "PowerCycle", "Nmi"):
        with pytest.raises(WrongState, match="is off"):
            b.vm.power(action)
    b.vm.power("On")
    first = b.vm.state.process
    b.vm.power("On")
    assert b.vm.state.process == first, "On while on does nothing"
    b.vm.power("GracefulShutdown")  # nobody listens to ACPI here
    b.vm.power("Nmi")
    b.vm.power("PowerCycle")
    assert b.vm.state.process != first
    assert not alive(first)
    b.vm.power("ForceOff")
    assert b.vm.state.power == "Off"
    assert b.vm.state.process is None


def test_a_machine_whose_process_dies_is_off(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.vm.power("On")
    running = b.vm._running
    assert running is not None
    running.process.kill()
    wait_until(lambda: b.vm.state.power == "Off", 10, "Off")
    b.vm.power("On")
    b.await_said(DISK, 1)


def test_a_graceful_restart_starts_again_when_the_guest_has_ended(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.vm.power("On")
    before = b.vm.state.process
    b.vm.power("GracefulRestart")
    running = b.vm._running
    assert running is not None
    running.client.execute("quit")  # what a guest does that heard the ACPI event
    wait_until(lambda: b.vm.state.starts == 2 and b.vm.state.power == "On", 20, "the second start")
    assert b.vm.state.process != before


def test_the_boot_mode_chooses_the_firmware(bench: Callable[..., Bench]) -> None:
    b = bench("uefi")
    tiny_media.bios_disk(b.folder / "disk0.raw", "DISK")
    b.vm.power("On")
    b.vm.set_override(Override("Disabled", "None", "Legacy"))
    b.vm.power("ForceRestart")
    b.await_said(DISK, 1)
    assert b"SeaBIOS" in (b.folder / "console.log").read_bytes()


def test_secure_boot_refuses_what_is_not_signed(bench: Callable[..., Bench]) -> None:
    b = bench("secure")
    b.vm.power("On")
    b.await_said(b"Access Denied", 1)
    assert b.said(DISK) == 0


def test_faults_give_another_machine_and_a_wrong_clock_from_the_next_power_on(bench: Callable[..., Bench]) -> None:
    b = bench()
    faults.set_fault(b.folder, "other-machine", serial="OTHER77", uuid="99999999-0000-4000-8000-000000000000")
    faults.set_fault(b.folder, "clock", base="1999-12-31T23:00:00")
    b.vm.power("On")
    assert b.vm.state.process is not None
    line = Path(f"/proc/{b.vm.state.process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    assert "serial=OTHER77,uuid=99999999-" in line
    assert re.search(r"-rtc base=1999-12-31T23:00:00 ", line)
    b.await_said(DISK, 1)
    assert b.said(b"99999999-0000-4000-8000-000000000000") == 1, "SeaBIOS prints the UUID that the machine has"


def test_a_machine_that_cannot_start_says_why(bench: Callable[..., Bench]) -> None:
    b = bench(nic="virtio")
    faults.set_fault(b.folder, "clock", base="yesterday")
    with pytest.raises(Exception, match=r"did not start: .*invalid datetime format"):
        b.vm.power("On")
    assert b.vm.state.power == "Off"
