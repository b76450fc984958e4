"""The controller is killed again and again during one reimage of a real machine. It finishes, and nothing is done twice."""

from __future__ import annotations

import signal
import time

import pytest
from e2e_rig import Command, Rig, failed

pytestmark = pytest.mark.e2e

NODE = "node-1"
ADDRESS = "10.0.2.77/24"


@pytest.fixture
def rig(up) -> Rig:
    """A machine with a clock that is wrong by decades, in a network without DHCP."""
    made = up()
    made.lab.fault(NODE, "clock", base="1999-12-31T23:00:00")
    made.host_document(network={"address": ADDRESS, "gateway": "10.0.2.2"})
    return made


def test_killed_at_insert_in_mid_write_before_go_and_before_the_report_and_interrupted(rig: Rig) -> None:
    # Insert: the request is on its way, the answer is not.
    rig.lab.fault(NODE, "slow", delay=3, path="InsertMedia", times=1)
    command = rig.start("reimage", NODE, "--yes")
    rig.until(lambda: rig.step() == "insert", "the insert")
    command.send(signal.SIGKILL)
    command.end(-signal.SIGKILL)
    run = rig.last_run()
    assert run is not None
    # The host is still this run's: a second person is refused, and told so.
    assert run.id in failed(rig("reimage", NODE, "--yes", status=1))

    # Mid-write.
    command = resumed(rig, run.id)
    rig.throttle(3)
    rig.until(lambda: rig.written() > 0.1, "a tenth of the write")
    command.send(signal.SIGKILL)
    command.end(-signal.SIGKILL)
    before = rig.deployed()
    share = rig.written()
    assert share < 0.7, "it was to be killed in mid-write"

    # Mid-write again: a person presses Ctrl-C.
    command = resumed(rig, run.id)
    rig.until(lambda: rig.written() > share + 0.1, "another tenth of the write")
    command.send(signal.SIGINT)
    said = command.end(130)
    assert f"`metalimmu run resume {run.id}` finishes it" in said
    assert "nothing was changed" not in said
    assert rig.store.run(run.id).status == "interrupted"
    assert rig.written() < 0.9, "it was to be interrupted in mid-write"
    rig.throttle(0)

    # Before go: all is written, the machine waits, the media go out.
    rig.lab.fault(NODE, "slow", delay=3, path="EjectMedia", times=1)
    command = resumed(rig, run.id)
    rig.until(lambda: rig.step() == "eject", "the eject")
    command.send(signal.SIGKILL)
    command.end(-signal.SIGKILL)
    assert rig.deployed().report is not None
    assert not rig.deployed().go

    # Before the system's report: nobody is there to hear it.
    command = resumed(rig, run.id)
    rig.until(lambda: rig.step() == "report", "the wait for the report")
    command.send(signal.SIGKILL)
    command.end(-signal.SIGKILL)
    assert not rig.deployed().system_ok
    rig.until(lambda: rig.boots()[1] == 1, "the new system")

    said = resumed(rig, run.id).end()
    assert "tiny@1: proven" in said

    host, deployment = rig.host(), rig.deployed()
    assert (host.state, host.proof, host.image) == ("active", "proven", "tiny@1")
    assert rig.store.run(run.id).status == "succeeded"
    assert rig.bmc() == ("On", "", "")
    assert rig.boots() == (1, 1), "two boots, not one more than without the crashes"
    the_write_went_on(rig, before.chunk_bytes)
    assert deployment.boot_ids == before.boot_ids
    assert [s.attempts for s in rig.store.steps(run.id) if s.name in ("insert", "eject", "report")] == [2, 2, 2]
    the_network_was_static(rig)
    the_clock_is_right(rig)


def resumed(rig: Rig, run: str) -> Command:
    return rig.start("run", "resume", run)


def the_write_went_on(rig: Rig, before: int) -> None:
    """The machine fetched each chunk once. What the controller sent is more by what was under way when it died."""
    deployment = rig.deployed()
    report = deployment.report
    assert report is not None
    chunks = {c for c in rig.chunks("tiny@1") if c}
    assert (report.fetched_chunks, report.fetched_bytes) == (len(chunks), rig.stored(chunks))
    under_way = deployment.assignment.parallel * max(rig.stored({c}) for c in chunks)
    assert 0 < before < deployment.chunk_bytes <= rig.stored(chunks) + 2 * under_way


def the_network_was_static(rig: Rig) -> None:
    said = rig.console()
    assert f"eth0: address {ADDRESS} gateway 10.0.2.2" in said
    assert f"tiny: eth0 has {ADDRESS}" in said
    assert "DHCP" not in said


def the_clock_is_right(rig: Rig) -> None:
    """The ramdisk began in 1999, with a controller's certificate of this year; then machine and hardware clock were set."""
    checked_in = rig.deployed().check_in
    assert checked_in is not None
    assert time.gmtime(checked_in.clock).tm_year < 2001
    with rig.qmp() as client:
        clock = client.execute("qom-get", path="/machine", property="rtc-time")
    assert clock["tm_year"] + 1900 == time.gmtime().tm_year
