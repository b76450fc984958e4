"""Servers without virtual media: reimaged by PXE, by UEFI HTTP boot, and by IPMI with PXE; each proven, with two boots.

On a real segment (a bridge of this host, dnsmasq as the only DHCP server); and without root, where QEMU answers DHCP.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import Any

import pytest
from e2e_rig import Rig, plain

pytestmark = pytest.mark.e2e

NODE = "node-1"


@pytest.fixture(scope="module")
def rack(up_for_all) -> Rig:
    made = up_for_all("uefi", firmware="uefi", disk_size=1 << 30, network=True)
    made.limits(report_again="5s")
    return made


def reimaged(rig: Rig, image: str, method: str) -> dict[str, Any]:
    """The plan, after its run: the host is proven by it."""
    (plan,) = rig.json("plan", NODE)
    systems = rig.boots()
    said = rig("reimage", NODE, "--yes")
    assert f"{image}: proven" in said
    host, d = rig.host(), rig.deployed()
    assert (host.state, host.proof, host.image, host.quarantine) == ("active", "proven", image, None)
    assert (plan["method"], d.method, d.offered) == (method, method, None)
    assert rig.bmc() == ("On", "", "")
    assert [now - before for now, before in zip(rig.boots(), systems, strict=True)] == [1, 1]
    assert d.asked == 1  # once for the ramdisk; its own disk it finds by itself
    assert d.media_bytes > 20 << 20  # kernel, initrd and squashfs
    assert d.read_back_ok is True
    return plan


def test_a_uefi_server_by_pxe(rack: Rig) -> None:
    rack.role(boot="pxe")
    asked, boots = len(rack.lab.requests(NODE)), rack.starts_and_resets()
    plan = reimaged(rack, "tiny@1", "pxe")
    assert rack.starts_and_resets() - boots == 2  # as QEMU counts them; SeaBIOS resets more often than UEFI
    names = [s["name"] for s in plan["steps"]]
    assert names[2:5] == ["offer", "pxe", "power"]
    assert "withdraw" in names
    assert not {"insert", "override", "eject"} & set(names)
    will = [(r["method"], r["path"], plain(r["body"])) for s in plan["steps"] for r in s["requests"]]
    assert rack.writes(since=asked) == will
    assert len(will) == 2  # override and power: this BMC clears a one-time override itself
    check_in = rack.deployed().check_in
    assert check_in is not None
    assert check_in.firmware == "uefi"


def test_it_boots_its_disk_when_nobody_deploys_it(rack: Rig) -> None:
    """Firmware that tries the network first, after its deployment: it is told to boot its disk, and does."""
    systems, said = rack.boots(), len(rack.console(NODE))
    serving = rack.start("serve")
    rack.until(lambda: answers(rack), "the boot service")
    with rack.qmp(NODE) as client:
        client.execute("qom-set", path="/machine/peripheral/disk0", property="bootindex", value=1)
        client.execute("qom-set", path="/machine/peripheral/nic0", property="bootindex", value=0)
        client.execute("system_reset")
    rack.until(lambda: rack.boots()[1] == systems[1] + 1, "the system from the disk, by way of the network")
    assert rack.boots()[0] == systems[0]
    assert "nothing to do here, booting from disk" in rack.console(NODE)[said:]
    serving.send(signal.SIGINT)
    serving.end()


def answers(rig: Rig) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection((rig.lab.spec.segment.address, rig.lab.spec.media_port), 1),
    ):
        return True
    return False


def test_by_uefi_http_boot(rack: Rig) -> None:
    rack.role(image="tiny@2", boot="uefi-http")
    said = len(rack.console(NODE))
    reimaged(rack, "tiny@2", "uefi-http")
    booted = rack.console(NODE)[said:]
    assert "HTTP Boot" in booted
    assert "Start PXE" not in booted


def test_an_ipmi_server_by_pxe_without_being_told(up) -> None:
    """IPMI has no virtual media, and the site answers DHCP: `auto` is PXE. The machine boots by BIOS."""
    rig = up("ipmi", protocol="ipmi", network=True)
    plan = reimaged(rig, "tiny@1", "pxe")
    assert "IPMI has no virtual media" in plan["method_why"]
    sent = [(r["path"], r["body"]) for s in plan["steps"] for r in s["requests"]]
    assert sent == [
        ("chassis/boot", {"device": "Pxe", "enabled": "Once", "mode": "Legacy"}),
        ("chassis/power", {"action": "On"}),
    ]


def test_a_bios_server_by_pxe_without_root(up) -> None:
    """QEMU's own network: it answers DHCP and names our boot service, as somebody else's DHCP server would."""
    rig = up("user")
    rig.role(boot="pxe")
    reimaged(rig, "tiny@1", "pxe")
