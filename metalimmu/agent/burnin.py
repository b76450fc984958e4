"""A short burn-in: does the machine calculate, remember, read and hear right, and as fast as it should?

Not a stress test of days: minutes that find the broken DIMM, the disk that reads at a tenth of its speed, the cable with
errors, before the machine is trusted. Only reads touch the disks.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from metalimmu.agent import identify
from metalimmu.agent.block import MIB, Buffer, open_disk
from metalimmu.agent.fetch import Source
from metalimmu.agent.link import Link
from metalimmu.agent.sysfs import number
from metalimmu.errors import BurnInFailed
from metalimmu.wire.manifest import Manifest
from metalimmu.wire.messages import BurnIn, Disk

_SHARE = 0.6  # of the memory that is free: the ramdisk lives in the rest
_PATTERNS = (0x55, 0xAA, 0x00, 0xFF)
_PIECE = 16 * MIB
_PIECES = 4096  # at most: Linux gives a process 65,530 mappings
_STRETCH = 64 * MIB

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
_libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.memcmp.restype = ctypes.c_int


@dataclass
class BurnInTest:
    """`root` carries /sys and /proc. `measured` is what the report says; `wrong` all that failed."""

    root: Path
    wanted: BurnIn
    link: Link
    measured: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def run(self, disk: Disk, manifest: Manifest, source: Callable[[threading.Event], Source]) -> dict[str, float]:
        """Raises BurnInFailed with everything that is wrong, Stopped, Lost."""
        w = self.wanted
        self.link.phase("burn-in")
        ecc, nics = ecc_errors(self.root), nic_errors(self.root)
        self._sizes()
        for name, seconds, test in (
            ("cpu", w.cpu, self._cpu),
            ("memory", w.memory, self._memory),
            ("disk", w.disk, lambda s: self._disk(s, disk)),
            ("network", w.network, lambda s: self._network(s, manifest, source)),
        ):
            if seconds:
                self.link.check()
                self.link.log(f"burn-in: {name}, {seconds:g} s")
                test(seconds)
        self._counters(ecc, nics)
        self.link.log("burn-in: " + ", ".join(f"{k} {v:g}" for k, v in self.measured.items()))
        if self.wrong:
            raise BurnInFailed(f"burn-in: {'; '.join(self.wrong)}")
        return self.measured

    def _sizes(self) -> None:
        memory, cpus = identify.memory(self.root), os.cpu_count() or 1
        self.measured.update({"memory_bytes": float(memory), "cpus": float(cpus)})
        # The kernel and the firmware keep some for themselves: a sixteenth is no missing DIMM.
        if memory < self.wanted.min_bytes * 15 / 16:
            self.wrong.append(f"{memory / 1e9:.1f} GB of memory, {self.wanted.min_bytes / 1e9:.1f} GB wanted")
        if cpus < self.wanted.min_cpus:
            self.wrong.append(f"{cpus} CPUs, {self.wanted.min_cpus} wanted")

    def _cpu(self, seconds: float) -> None:
        """Every CPU computes the same SHA-256 over and over: one that ever gets another one is broken."""
        block = bytes(range(256)) * (MIB // 256)
        right = hashlib.sha256(block).digest()
        over = time.monotonic() + seconds
        counts, bad = [0] * (os.cpu_count() or 1), [0] * (os.cpu_count() or 1)

        def work(i: int) -> None:
            while time.monotonic() < over and not self.link.stop.is_set():
                bad[i] += hashlib.sha256(block).digest() != right
                counts[i] += 1
                self.link.advance(MIB)

        began = time.monotonic()
        _all([threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(counts))])
        self.link.check()
        self.measured["cpu_errors"] = float(sum(bad))
        if sum(bad):
            self.wrong.append(f"{sum(bad)} of {sum(counts)} calculations on the CPUs were wrong")
        self._rate("cpu", sum(counts) / len(counts) * MIB / (time.monotonic() - began), self.wanted.min_cpu)

    def _memory(self, seconds: float) -> None:
        """Fill what is free with patterns, let it stand while the rest is filled, and compare. As much as the time allows:
        terabytes take minutes.
        """
        free = int(available(self.root) * _SHARE)
        size = max(_PIECE, free // _PIECES // MIB * MIB)
        pieces = [mmap.mmap(-1, size) for _ in range(max(1, free // size))]
        bases = [ctypes.addressof(ctypes.c_char.from_buffer(p)) for p in pieces]
        model = Buffer()
        began = time.monotonic()
        over, moved, most, errors, rounds = began + seconds, 0, 0, 0, 0
        while (rounds == 0 or time.monotonic() < over) and not self.link.stop.is_set():
            _fill(model, rounds)
            half, filled = time.monotonic() + (over - time.monotonic()) / 2, 0
            for base in bases:
                _copy_all(base, model, size)
                filled += 1
                self.link.advance(size)
                if time.monotonic() > half:
                    break
            errors += sum(_differing(base, model, size) for base in bases[:filled])
            moved, most, rounds = moved + filled * size, max(most, filled * size), rounds + 1
        self.link.check()
        self.measured.update({"memory_tested": float(most), "memory_errors": float(errors)})
        if errors:
            self.wrong.append(f"memory: {errors} MiB did not keep what was written to them")
        self._rate("memory", moved / (time.monotonic() - began), self.wanted.min_memory)

    def _disk(self, seconds: float, disk: Disk) -> None:
        """Stretches of 64 MiB at random places of the disk, past the page cache."""
        rng, buffer = random.Random(disk.serial), Buffer()  # noqa: S311 - not a secret
        over, began, done, at = time.monotonic() + seconds, time.monotonic(), 0, 0
        fd = -1
        try:
            fd, _ = open_disk(disk.path, os.O_RDONLY | os.O_CLOEXEC)
            while (done == 0 or time.monotonic() < over) and not self.link.stop.is_set():
                start = rng.randrange(max(1, disk.size // MIB)) * MIB
                for at in range(start, min(start + _STRETCH, disk.size // MIB * MIB), MIB):
                    done += os.preadv(fd, [buffer.view], at)
                    self.link.advance(MIB)
        except OSError as exc:
            self.wrong.append(f"{disk.path} cannot be read at byte {at}: {exc.strerror}")
        finally:
            if fd >= 0:
                os.close(fd)
        self.link.check()
        self._rate("disk", done / (time.monotonic() - began), self.wanted.min_disk)

    def _network(self, seconds: float, manifest: Manifest, source: Callable[[threading.Event], Source]) -> None:
        """Chunks of the image, over and over: each is checked as it arrives."""
        chunks = [(c, manifest.chunk_extent(i).length) for i, c in enumerate(manifest.chunks) if c]
        if not chunks:
            return
        one, buffer, done = source(self.link.stop), Buffer(), 0
        over, began = time.monotonic() + seconds, time.monotonic()
        try:
            for sha, length in _forever(chunks):
                if done and time.monotonic() >= over:
                    break
                size = one.fetch(sha, length, buffer)
                if size < 0:
                    break
                done += size
                self.link.advance(0, size)
        finally:
            one.close()
        self.link.check()
        self._rate("network", done / (time.monotonic() - began), self.wanted.min_network)

    def _counters(self, ecc: tuple[int, int], nics: int) -> None:
        corrected, fatal = (now - then for now, then in zip(ecc_errors(self.root), ecc, strict=True))
        seen = nic_errors(self.root) - nics
        self.measured.update({"ecc_corrected": corrected, "ecc_uncorrected": fatal, "nic_errors": seen})
        if fatal:
            self.wrong.append(f"{fatal} memory errors that ECC could not correct")
        if corrected > self.wanted.max_corrected:
            self.wrong.append(f"{corrected} corrected memory errors, {self.wanted.max_corrected} are allowed")
        if seen > self.wanted.max_nic_errors:
            self.wrong.append(f"{seen} errors of the NICs, {self.wanted.max_nic_errors} are allowed")

    def _rate(self, what: str, seen: float, least: float) -> None:
        self.measured[what] = round(seen)
        if seen < least:
            self.wrong.append(f"{what} {seen / 1e6:.1f} MB/s, {least / 1e6:.1f} MB/s wanted")


def ecc_errors(root: Path) -> tuple[int, int]:
    """Corrected and uncorrected, of all memory controllers that the kernel watches (EDAC)."""
    found = list((root / "sys/devices/system/edac/mc").glob("mc[0-9]*"))
    return sum(number(m / "ce_count") for m in found), sum(number(m / "ue_count") for m in found)


def nic_errors(root: Path) -> int:
    """Of physical NICs: frames that came broken, or could not be sent."""
    names = ("rx_errors", "tx_errors", "rx_crc_errors")
    nics = [n for n in (root / "sys/class/net").glob("*") if (n / "device").exists()]
    return sum(number(n / "statistics" / name) for n in nics for name in names)


def available(root: Path) -> int:
    """Bytes of memory that can be had without swapping."""
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0


def _all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _forever(items: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    while True:
        yield from items


def _fill(model: Buffer, turn: int) -> None:
    if turn % 5 == 4:
        model.view[:] = random.randbytes(len(model.view))  # noqa: S311 - not a secret
    else:
        _libc.memset(model.address, _PATTERNS[turn % 5], len(model.view))


def _copy_all(base: int, model: Buffer, size: int) -> None:
    for at in range(0, size, MIB):
        _libc.memcpy(base + at, model.address, MIB)


def _differing(base: int, model: Buffer, size: int) -> int:
    return sum(_libc.memcmp(base + at, model.address, MIB) != 0 for at in range(0, size, MIB))
