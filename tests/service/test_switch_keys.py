"""Which SSH host key of a switch is right, and from when on."""

from __future__ import annotations

from pathlib import Path

from switches import PLATFORM, SwitchRack

from metalimmu.service import switches
from metalimmu.service.site import OpenSite
from metalimmu.store.switch_records import SwitchRecord

OLD, NEW = "ssh-ed25519 AAAAold", "ssh-ed25519 AAAAnew"


def test_a_key_that_ztp_reported_stays_right_after_the_run(tmp_path: Path) -> None:
    """Also where the report came before the first connection: then SSH is strict from the start, and learns nothing."""
    site = OpenSite(SwitchRack(tmp_path).site)
    spec = site.spec("leaf-1")
    site.store.observe("leaf-1", switches.KEYS, {"keys": [OLD], "run": "r1"})
    site.store.switches.add(
        SwitchRecord(
            id="r2",
            run="r2",
            host="leaf-1",
            secret_hash="h",
            method="onie",
            image="lab-nos@2",
            digest="d",
            size=1,
            serial="LAB1",
            base_mac="52:54:00:10:00:01",
            mgmt_mac="52:54:00:10:00:02",
            platform=PLATFORM,
            fence=1,
            installs=2,
            delivered=1,
            reported={"host_keys": [NEW]},
        )
    )
    assert switches.known_keys(site, spec, "") == (OLD,)
    assert switches.known_keys(site, spec, "r2") == (NEW,)
    assert switches.known_keys(site, spec, "") == (NEW,)
    assert len([e for e in site.store.history("leaf-1", limit=9) if e.kind == "ssh-key"]) == 1
    switches.known_keys(site, spec, "r2")
    assert len([e for e in site.store.history("leaf-1", limit=9) if e.kind == "ssh-key"]) == 1  # said once
    site.close()
