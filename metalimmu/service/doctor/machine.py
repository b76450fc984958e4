"""The controller's own machine: clock, disks, programs, certificates, permissions."""

from __future__ import annotations

import datetime as dt
import stat
import statistics
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from metalimmu.service.doctor.check import Check, fail, few, ok, span, unknown, warn
from metalimmu.service.doctor.probes import Probes

GIB = 1 << 30
_DAY = 86400.0
_SKEW = 120.0  # seconds between us and most BMCs

PROGRAMS: dict[str, tuple[str, str]] = {
    "qemu-img": ("qemu-utils", "add images from qcow2, vmdk and other formats"),
    "mmdebstrap": ("mmdebstrap", "build Debian images and ramdisks"),
    "mke2fs": ("e2fsprogs", "build images"),
    "mkfs.vfat": ("dosfstools", "build images"),
    "mcopy": ("mtools", "build images and boot media"),
    "sfdisk": ("fdisk", "build images"),
    "xorriso": ("xorriso", "build boot media"),
    "mksquashfs": ("squashfs-tools", "build ramdisks"),
    "cpio": ("cpio", "build ramdisks"),
    "grub-mkimage": ("grub-common", "build boot media"),
}
"""Program -> Debian package, what is not possible without it."""


def clock(probes: Probes, *, newest_event: float | None, ahead: Collection[float]) -> Iterator[Check]:
    """`newest_event`: time of the store's newest record. `ahead`: seconds by which BMCs were ahead of us when last read."""
    found = probes.clock()
    if found.synchronized is None:
        yield unknown("clock", f"whether it is synchronized is not known: {found.why}")
    elif not found.synchronized:
        yield warn(
            "clock",
            "the kernel says that it is not synchronized",
            "install and start systemd-timesyncd or chrony (`timedatectl set-ntp true`): schedules, windows and logs depend on it",
        )
    else:
        yield ok("clock", f"synchronized, at most {found.error:.3f} s wrong")
    if newest_event is not None and newest_event > probes.now() + 60:
        yield fail(
            "clock and store",
            f"the store has records of {span(newest_event - probes.now())} in the future: the clock was, or is, wrong",
            "set the clock right; wait, or restore a backup, if it was wrong before",
        )
    if len(ahead) >= 3:
        skew = statistics.median(ahead)
        if abs(skew) > _SKEW:
            word = "ahead of" if skew > 0 else "behind"
            yield warn(
                "clock and BMCs",
                f"most of {len(ahead)} BMCs are {span(abs(skew))} {word} this machine",
                "either they have no NTP server, or this machine's clock is wrong: compare with a third one",
            )
        else:
            yield ok("clock and BMCs", f"most of {len(ahead)} BMCs agree within {_SKEW:.0f} s")


def disks(probes: Probes, places: Mapping[str, tuple[Path, int, int]]) -> Iterator[Check]:
    """`places`: name -> folder, bytes below which it fails, and below which it warns."""
    for name, (path, least, wanted) in places.items():
        free, total, inodes = probes.free(path)
        what = f"{free / GIB:.1f} GiB of {total / GIB:.0f} free in {path}"
        if free < least or inodes < 1000:
            yield fail(
                f"disk: {name}",
                what if free < least else f"{inodes} inodes free in {path}",
                "make room: `metalimmu image rm`, then `metalimmu image gc`; a full disk stops every run",
            )
        elif free < wanted:
            yield warn(f"disk: {name}", what, f"{wanted / GIB:.0f} GiB or more are comfortable")
        else:
            yield ok(f"disk: {name}", what)


def programs(probes: Probes, used: Mapping[str, tuple[str, str]]) -> Iterator[Check]:
    """`used`: programs that this site's documents cannot do without -> Debian package, for what."""
    missing = {n: v for n, v in used.items() if probes.program(n) is None}
    for name, (package, purpose) in missing.items():
        yield fail(f"program: {name}", f"not installed, needed to {purpose}", f"apt-get install {package}")
    absent = {n: v for n, v in PROGRAMS.items() if n not in used and probes.program(n) is None}
    for name, (package, purpose) in absent.items():
        yield warn(f"program: {name}", f"not installed: this machine cannot {purpose}", f"apt-get install {package}")
    if not missing and not absent:
        yield ok("programs", f"all {len(PROGRAMS) + len(used)} are installed")


def certificates(files: Mapping[Path, str], now: float) -> Iterator[Check]:
    """`files`: PEM -> what it is for. Every certificate in each is looked at."""
    from cryptography import x509

    for path, purpose in files.items():
        try:
            found = x509.load_pem_x509_certificates(path.read_bytes())
        except OSError as exc:
            yield fail(f"certificate: {path.name}", f"{path} ({purpose}): {exc.strerror}", "put the file there")
            continue
        except ValueError as exc:
            yield fail(
                f"certificate: {path.name}", f"{path} ({purpose}) is no PEM certificate: {exc}", "put a PEM file there"
            )
            continue
        first = min(found, key=lambda c: c.not_valid_after_utc)
        left = first.not_valid_after_utc.timestamp() - now
        begins = max(c.not_valid_before_utc.timestamp() for c in found)
        end = first.not_valid_after_utc.astimezone(dt.UTC).strftime("%Y-%m-%d")
        if left <= 0:
            yield fail(
                f"certificate: {path.name}", f"{path} ({purpose}) has ended on {end}", "replace it with the new one"
            )
        elif begins > now:
            yield fail(f"certificate: {path.name}", f"{path} ({purpose}) is not valid yet", "is the clock right?")
        elif left < 30 * _DAY:
            yield warn(f"certificate: {path.name}", f"{path} ({purpose}) ends on {end}", "get the new one in time")
        else:
            yield ok(f"certificate: {path.name}", f"{purpose}: until {end}")


def permissions(folder: Path, uid: int) -> Iterator[Check]:
    """State holds keys and evidence: ours alone."""
    if not folder.exists():
        yield ok("permissions", f"{folder} is not made yet")
        return
    private = [folder, *(folder / n for n in ("store.sqlite", "engine.sqlite", "tls"))]
    private += [p for p in (folder / "tls").glob("*") if p.suffix == ".key"]
    open_ones, foreign = [], []
    for path in private:
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and path != folder / "tls":
            open_ones.append(str(path))
        if found.st_uid != uid:
            foreign.append(str(path))
    if open_ones:
        yield fail("permissions", f"others can read {few(open_ones)}", f"chmod -R go= {folder}")
    if foreign:
        yield fail(
            "permissions",
            f"{few(foreign)} belongs to another user than the one who asks",
            f"run metalimmu as that user, or `chown -R` {folder}",
        )
    if not open_ones and not foreign:
        yield ok("permissions", f"{folder} is readable by its owner only")
