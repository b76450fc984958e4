"""The boot service and a simulated machine, end to end over real sockets."""

from __future__ import annotations

import dataclasses

import pytest
from boot_rig import until

from metalimmu.observed.types import BootEnabled, BootMode, BootTarget, PowerAction
from metalimmu_emulator.simulated import SimulatedMachine, inject
from metalimmu_emulator.simulated_state import FileState


def test_a_machine_is_written_and_proves_itself(rig):
    digest = rig.images.add("web", "1")
    rig.deploy("n1", digest)
    state, machine = rig.machine("n1")

    until(lambda: rig.store.deployment("n1").report is not None, what=machine.log)
    d = rig.store.deployment("n1")
    assert d.read_back_ok is True
    assert d.stage == "wait"
    assert d.check_in.identity.serial == "SN-n1"
    assert d.boot_ids == (d.report.boot_id,)
    assert state.read().booted_from == "cd"

    rig.store.update_deployment("n1", go=True)
    until(lambda: rig.store.deployment("n1").system_ok, what=machine.log)
    d = rig.store.deployment("n1")
    assert (d.system.image_id, d.system.image_version, d.system.build_id) == ("web", "1", "build-1-1")
    assert d.system.boot_id not in d.boot_ids
    assert d.went is not None
    until(lambda: machine.log[-1] == "acknowledged", what=machine.log)
    assert state.read().booted_from == "disk"
    until(lambda: rig.store.deployment("n1").chunk_bytes == d.report.fetched_bytes)
    assert rig.store.deployment("n1").media_bytes > 6144


def test_a_second_version_fetches_only_what_differs(rig):
    first = rig.images.add("web", "1", chunks=9)
    rig.deploy("n1", first)
    state, machine = rig.machine("n1")
    until(lambda: rig.store.deployment("n1").report is not None)
    assert rig.store.deployment("n1").report.fetched_chunks == 6

    manifest = rig.images.by_digest(first).manifest
    chunks = list(manifest.chunks)
    chunks[1], chunks[2] = chunks[0], chunks[1]
    second = dataclasses.replace(manifest, chunks=tuple(chunks))
    rig.images.images[second.digest] = type("Image", (), {"manifest": second})
    rig.deploy("n1b", second.digest, expected={"serial": "SN-n1"})
    state.update(lambda m: m.with_media("Cd", rig.service.media_url("n1b")))
    state.update(lambda m: m.overridden(BootTarget.cd, BootEnabled.once, BootMode.uefi))
    state.update(lambda m: m.powered(PowerAction.force_restart))
    until(lambda: rig.store.deployment("n1b").report is not None, what=machine.log)
    report = rig.store.deployment("n1b").report
    assert (report.fetched_chunks, report.kept_chunks) == (2, 5)
    assert rig.store.deployment("n1b").read_back_ok


def test_media_that_is_never_read_leaves_no_bytes(rig):
    rig.deploy("n1", rig.images.add("web", "1"))
    state, machine = rig.machine("n1", start=False)
    inject(state, "unread")
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    until(lambda: machine.log == ["the firmware does not read the media"])
    assert rig.store.deployment("n1").media_bytes == 0
    assert rig.store.deployment("n1").check_in is None


def test_an_agent_that_never_speaks_leaves_bytes_and_no_check_in(rig):
    rig.deploy("n1", rig.images.add("web", "1"))
    state, machine = rig.machine("n1", start=False)
    inject(state, "no-check-in")
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    until(lambda: rig.store.deployment("n1").media_bytes > 0)
    assert machine.log == ["the ramdisk hangs"]
    assert rig.store.deployment("n1").check_in is None


def test_another_machine_is_refused_and_never_writes(rig):
    rig.deploy("n1", rig.images.add("web", "1"))
    _, machine = rig.machine("n1", serial="SN-wrong")
    until(lambda: rig.store.deployment("n1").refusal is not None)
    refusal = rig.store.deployment("n1").refusal
    assert refusal.code == "IdentityMismatch"
    assert (refusal.evidence["serial"], refusal.evidence["expected_serial"]) == ("SN-wrong", "SN-n1")
    assert machine.disk.chunks == {}
    assert rig.store.deployment("n1").check_in is None


def test_a_swapped_machine_that_is_put_right_goes_on(rig):
    rig.deploy("n1", rig.images.add("web", "1"))
    state, machine = rig.machine("n1", start=False)
    inject(state, "wrong-serial", "SN-other")
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    until(lambda: rig.store.deployment("n1").report is not None, what=machine.log)
    assert rig.store.deployment("n1").refusal is None


def test_a_failure_of_the_agent_is_reported(rig):
    rig.deploy("n1", rig.images.add("web", "1"))
    state, machine = rig.machine("n1", start=False)
    inject(state, "write-fails", "DiskUnsuitable")
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    until(lambda: rig.store.deployment("n1").failure is not None)
    assert rig.store.deployment("n1").failure.code == "DiskUnsuitable"
    assert rig.store.deployment("n1").report is None
    assert machine.disk.complete == ""
    seen = rig.store.deployment("n1").last_seen
    until(lambda: rig.store.deployment("n1").last_seen > seen + 1)
    assert rig.store.deployment("n1").report is None, "it must not try again by itself"
    rig.store.update_deployment("n1", failure=None, fence=2)
    until(lambda: rig.store.deployment("n1").report is not None, what=machine.log)


def test_a_disk_that_returns_something_else_is_found(rig):
    rig.deploy("n1", rig.images.add("web", "1"))
    state, machine = rig.machine("n1", start=False)
    inject(state, "read-back-differs")
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    until(lambda: rig.store.deployment("n1").read_back_ok is False)
    d = rig.store.deployment("n1")
    assert d.failure.code == "ReadBackDiffers"
    assert d.stop
    rig.store.update_deployment("n1", go=True)
    before = state.read().generation
    until(lambda: rig.store.deployment("n1").last_seen > d.last_seen + 0.5)
    assert state.read().generation == before, "a stopped agent must not reboot"


@pytest.mark.parametrize("fault", ["network-cut", "crash"])
def test_a_write_that_breaks_goes_on_where_it_was(rig, fault):
    digest = rig.images.add("web", "1", chunks=30)
    rig.deploy("n1", digest)
    state, machine = rig.machine("n1", start=False)
    inject(state, fault, "1" if fault == "network-cut" else "")
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    if fault == "crash":  # the firmware boots from disk after Once: the workflow sets the override again
        until(lambda: "crashed, restarting" in machine.log)
        state.update(lambda m: m.overridden(BootTarget.cd, BootEnabled.once, BootMode.uefi))
        state.update(lambda m: m.powered(PowerAction.force_restart))
    until(lambda: rig.store.deployment("n1").report is not None, what=machine.log)
    d = rig.store.deployment("n1")
    assert d.read_back_ok
    assert d.report.fetched_chunks + d.report.kept_chunks == 20
    assert (d.report.kept_chunks > 0) == (fault == "crash")
    assert len(d.boot_ids) == (2 if fault == "crash" else 1)


def test_a_controller_that_restarts_in_mid_write_is_found_again(rig):
    digest = rig.images.add("web", "1", chunks=60)
    rig.deploy("n1", digest)
    _, machine = rig.machine("n1")
    until(lambda: len(machine.disk.chunks) > 3)
    rig.service.stop()
    written = len(machine.disk.chunks)
    assert written < 40
    assert rig.store.deployment("n1").report is None
    rig.service = rig.new_service()
    rig.service.start()
    until(lambda: rig.store.deployment("n1").report is not None, what=machine.log)
    d = rig.store.deployment("n1")
    assert d.read_back_ok
    assert d.report.fetched_chunks == 40, "nothing was fetched twice"
    assert len(d.boot_ids) == 1


def test_a_power_cut_ends_what_ran(rig):
    rig.deploy("n1", rig.images.add("web", "1", chunks=60))
    state, machine = rig.machine("n1")
    until(lambda: len(machine.disk.chunks) > 3)
    state.update(lambda m: m.powered(PowerAction.force_off))
    until(lambda: machine._running[0] == "Off")
    written = len(machine.disk.chunks)
    assert written < 40
    state.update(lambda m: m.overridden(BootTarget.cd, BootEnabled.once, BootMode.uefi))
    state.update(lambda m: m.powered(PowerAction.on))
    until(lambda: rig.store.deployment("n1").report is not None, what=machine.log)
    report = rig.store.deployment("n1").report
    assert report.kept_chunks >= written
    assert report.fetched_chunks + report.kept_chunks == 40


@pytest.mark.parametrize(("fault", "detail"), [("no-report", ""), ("wrong-version", "0")])
def test_a_system_that_does_not_prove_itself(rig, fault, detail):
    rig.deploy("n1", rig.images.add("web", "1"), go=True)
    state, machine = rig.machine("n1", start=False)
    inject(state, fault, detail, times=None)
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    if fault == "no-report":
        until(lambda: machine.log[-1:] == ["the system does not report"])
        assert rig.store.deployment("n1").system is None
    else:
        until(lambda: rig.store.deployment("n1").system is not None)
        assert rig.store.deployment("n1").system_why == "it is web@0, expected web@1"
        assert "acknowledged" not in machine.log
    assert rig.store.deployment("n1").system_ok is False


def test_a_clock_that_is_wrong_by_years_does_not_matter(rig):
    rig.deploy("n1", rig.images.add("web", "1"))
    state, machine = rig.machine("n1", start=False)
    inject(state, "clock", str(-20 * 365 * 86400.0))
    machine.start()
    state.update(lambda m: m.powered(PowerAction.on))
    until(lambda: rig.store.deployment("n1").report is not None)
    assert rig.store.deployment("n1").check_in.clock < 1_400_000_000


def test_a_machine_with_its_state_in_a_file(rig, tmp_path):
    rig.deploy("file-1", rig.images.add("web", "1"), go=True)
    rig.machine("file-1", start=False)
    path = tmp_path / "file-1.json"
    with SimulatedMachine(path, pace=0.05) as machine:
        FileState(path).update(lambda m: m.powered(PowerAction.on))
        until(lambda: rig.store.deployment("file-1").system_ok, what=machine.log)
        until(lambda: machine.log[-1:] == ["acknowledged"])
    assert FileState(path).read().booted_from == "disk"


def test_thirty_machines_at_once(rig):
    digest = rig.images.add("web", "1", chunks=12)
    names = [f"n{i}" for i in range(30)]
    for name in names:
        rig.deploy(name, digest, go=True)
        rig.machine(name, pace=0.2)
    until(lambda: all(rig.store.deployment(n).system_ok for n in names), 60)
    size = sum(rig.images.chunk_path(c).stat().st_size for c in rig.images.by_digest(digest).manifest.chunks if c)
    until(lambda: all(rig.store.deployment(n).chunk_bytes == size for n in names), 10)
    assert all(rig.store.deployment(n).read_back_ok for n in names)
