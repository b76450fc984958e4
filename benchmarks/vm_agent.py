"""Only the writing, inside of the virtual machine: the agent against `curl | zstd -dc | dd` with a read-back.

The times are the machines' own: the agent's report (zeroing, write, and read-back), and what the bare script prints of
its two pipelines (vm_reimage.py says what it does; the runs are the same ones). Both write with O_DIRECT and read back
past the page cache, both hash all that they read back with OpenSSL's SHA-256 (the agent compares zeros instead of hashing
them), one processor, same disk, same network. The pipeline writes zeros too: `dd conv=sparse` would leave on a used disk
what was there before, and a discard promises nothing.

The third number is about a new version: how many bytes the agent fetches to go from full@1 to full@2, which is built on
it, against the compressed size of the chunks that differ: what cannot be avoided when chunks are the unit.
"""

from __future__ import annotations

import sys

from benchmarks import vm_images, vm_rig
from benchmarks.options import options
from benchmarks.result import Result, as_fast, at_most

FULL, SPARSE, UPDATE = 1.0, 3.0, 1.2


def run() -> list[Result]:
    with vm_rig.up() as rig:
        if options().quick:
            return [_writing(rig, "tiny@1", FULL)]
        return [_writing(rig, "full@1", FULL), _writing(rig, "sparse@1", SPARSE), *_update(rig)]


def _writing(rig: vm_rig.Rig, ref: str, least: float) -> Result:
    pairs = vm_rig.pairs(rig, ref, options().repeat(3))
    return as_fast(
        f"write and read-back, {vm_images.zeros(vm_images.image(ref)):.0%} zeros",
        [ours.phases for ours, _ in pairs],
        [bare.phases for _, bare in pairs],
        least,
        unit="s",
        rival="pipeline",
        equal=all(ours.equal and bare.equal for ours, bare in pairs),
        write=[(ours.write, bare.write) for ours, bare in pairs],
        read_back=[(ours.read_back, bare.read_back) for ours, bare in pairs],
        config=[ours.details["config"] for ours, _ in pairs],
    )


def _update(rig: vm_rig.Rig) -> list[Result]:
    updates = []
    for number in range(options().repeat(2)):
        before = rig.ours("full@1")
        after = rig.ours("full@2", fresh=False)
        print(
            f"  full@1 to full@2 round {number + 1}: {after.fetched} bytes, {after.phases:.1f} s after {before.phases:.1f} s, "
            f"equal {after.equal}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        updates.append((before, after))
    changed = _changed()
    equal = all(before.equal and after.equal for before, after in updates)
    return [
        at_most(
            "full@1 to full@2: bytes fetched",
            [float(after.fetched) for _, after in updates],
            [float(changed)] * len(updates),
            UPDATE,
            unit="bytes",
            rival="changed chunks",
            equal=equal,
            served=[after.details["chunk_bytes"] for _, after in updates],
            kept_chunks=[after.details["kept_chunks"] for _, after in updates],
            seconds=[after.phases for _, after in updates],
            seconds_of_the_whole_image=[before.phases for before, _ in updates],
        )
    ]


def _changed() -> int:
    """Compressed bytes of the chunks of full@2 that full@1 has not at the same place."""
    old, new = (vm_images.image(ref).manifest.chunks for ref in ("full@1", "full@2"))
    store = vm_images.catalogue().chunks
    return sum(store.size(c) for c in {c for a, c in zip(old, new, strict=True) if c and c != a})
