"""BMC, network and power fail in the middle of one reimage, one after the other. It waits, goes on, and is proven."""

from __future__ import annotations

import time

import pytest
from e2e_rig import Rig

pytestmark = pytest.mark.e2e

NODE = "node-1"


@pytest.fixture
def rig(up) -> Rig:
    made = up()
    made.limits(stall="40s")  # half of it is how long a silent machine is let alone
    return made


def test_what_passes_is_waited_for_and_no_write_starts_over(rig: Rig) -> None:
    chunks = {c for c in rig.chunks("tiny@1") if c}
    everything = rig.stored(chunks)
    rig.lab.fault(NODE, "error", status=503, method="POST", path="InsertMedia", times=2)
    command = rig.start("reimage", NODE, "--yes")

    # The BMC reboots while the machine reads its media, and has forgotten them when it is back.
    rig.until(lambda: rig.step() == "check-in", "the machine's start")
    rig.lab.fault(NODE, "reboot", seconds=4, lose_media=True)
    rig.until(lambda: rig.lab._state(NODE).starts == 2, "the second start")
    assert [text for kind, text in rig.events() if kind == "boot-again" and "media lost" in text]
    rig.throttle(3)

    # The network cable is pulled in mid-write.
    rig.until(lambda: rig.written() > 0.1, "a tenth of the write")
    rig.lab.link(NODE, up=False)
    share, moved = stands_still(rig)
    assert moved < 0.8 * everything, "it was to be pulled in mid-write"
    rig.lab.link(NODE, up=True)

    # Somebody switches the machine off.
    rig.until(lambda: rig.written() > share + 0.2, "more of the write")
    assert rig.written() < 1, "it was to be switched off in mid-write"
    rig.reset_by_hand("ForceOff")

    said = command.end()
    assert "tiny@1: proven" in said
    host, deployment = rig.host(), rig.deployed()
    assert (host.state, host.proof, host.image, host.quarantine) == ("active", "proven", "tiny@1", None)
    assert rig.bmc() == ("On", "", "")
    refused = [r for r in rig.lab.requests(NODE) if r["status"] == 503]
    assert len(refused) == 2
    assert len(deployment.boot_ids) == 2, "before and after the power cut"
    report = deployment.report
    assert report is not None
    assert report.kept_chunks > 0.2 * len(chunks), report
    assert report.resumed >= 1
    assert deployment.chunk_bytes <= 1.25 * everything, "what was under way came twice, no more"


def stands_still(rig: Rig) -> tuple[float, int]:
    """Share and bytes of the write when nothing has moved for three seconds: the cable is really out."""
    last, since = (rig.written(), rig.deployed().chunk_bytes), time.monotonic()

    def still() -> bool:
        nonlocal last, since
        now = (rig.written(), rig.deployed().chunk_bytes)
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 3

    rig.until(still, "a network without its cable", seconds=60)
    return last
