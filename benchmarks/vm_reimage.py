"""A whole reimage in the lab against a bare script that does the same, in the same virtual machine.

Ours is `metalimmu reimage`: the machine boots the ramdisk from virtual media, checks in, writes, reads back, writes its
run-time config, waits for go, restarts, and the new system reports. The bare script is what a person who needs it once
would write (benchmarks/bare-init): boot a CD with the same kernel, `curl | zstd -dc | dd oflag=direct`, read back with
`dd iflag=direct | openssl dgst -sha256`, compare, write the same kind of seed, restart; two boots as well. Its media are
inserted, its boot override set and its machine started through the same Redfish BMC; nothing checks in and nothing is
ejected. It gets its image from a server with sendfile in a process of its own, and its initramfs has nothing but what it
needs. vm_rig.py says what both have in common and what the clock is.

The bare script is not handicapped by what it leaves out: no identity check, no proof to anybody, no resume, no log.
"""

from __future__ import annotations

from benchmarks import vm_images, vm_rig
from benchmarks.options import options
from benchmarks.result import Result, at_most
from metalimmu.wire.manifest import CHUNK

LIMIT = 1.3
ROUNDS = {"tiny@1": 5, "full@1": 3}  # a small image's time is mostly firmware's, which a busy machine disturbs most


def run() -> list[Result]:
    with vm_rig.up() as rig:
        return [_one(rig, ref) for ref in ROUNDS if ref == "tiny@1" or not options().quick]


def _one(rig: vm_rig.Rig, ref: str) -> Result:
    pairs = vm_rig.pairs(rig, ref, options().repeat(ROUNDS[ref]))
    mib = vm_images.image(ref).manifest.size // CHUNK
    return at_most(
        f"whole reimage, {ref.partition('@')[0]} image of {mib} MiB",
        [ours.whole for ours, _ in pairs],
        [bare.whole for _, bare in pairs],
        LIMIT,
        unit="s",
        rival="bare script",
        equal=all(ours.equal and bare.equal for ours, bare in pairs),
        command=[ours.details["command"] for ours, _ in pairs],
        check_in=[round(ours.to_write, 1) for ours, _ in pairs],
        ours_details=[{k: v for k, v in ours.details.items() if k != "console"} for ours, _ in pairs],
        consoles={"ours": pairs[-1][0].details["console"], "bare": pairs[-1][1].details["console"]},
    )
