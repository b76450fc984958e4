"""A whole reimage by the network against one by virtual media, of the same virtual machine, by turns.

The machine hangs on a bridge of this host. By PXE its firmware asks DHCP, fetches iPXE by TFTP, which asks DHCP again and
fetches kernel, initrd and squashfs by HTTP; by virtual media it reads the same from a drive of its BMC. All after that is
the same. The clock is vm_rig's: from the BMC's answer to the power-on request to the new system's acknowledged report.
"""

from __future__ import annotations

from benchmarks import vm_rig
from benchmarks.options import options
from benchmarks.result import Result, at_most

LIMITS = {"pxe": 1.4, "uefi-http": 1.4}
IMAGE = "tiny@1"
ROUNDS = 3


def run() -> list[Result]:
    with vm_rig.up_on_a_segment() as rig:
        rounds = [_round(rig) for _ in range(options().repeat(ROUNDS))]
    return [_one(method, limit, rounds) for method, limit in LIMITS.items()]


def _round(rig: vm_rig.Rig) -> dict[str, vm_rig.Run]:
    return {method: rig.ours(IMAGE, "--method", method) for method in ("virtual-media", *LIMITS)}


def _one(method: str, limit: float, rounds: list[dict[str, vm_rig.Run]]) -> Result:
    ours, media = [r[method] for r in rounds], [r["virtual-media"] for r in rounds]
    return at_most(
        f"whole reimage by {method}",
        [r.whole for r in ours],
        [r.whole for r in media],
        limit,
        unit="s",
        rival="virtual media",
        equal=all(r.equal for r in (*ours, *media)),
        check_in=[round(r.to_write, 1) for r in ours],
        check_in_by_media=[round(r.to_write, 1) for r in media],
        media_bytes=[r.details["media_bytes"] for r in ours],
        consoles={"ours": ours[-1].details["console"], "media": media[-1].details["console"]},
    )
