"""Disks of this machine, from /sys/block alone (the ramdisk has no udev), and the choice of one.

Device names swap between boots and a BMC's virtual media look like disks, so a disk is chosen by what it is; when
that is not exactly one, nothing is written.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from metalimmu.agent.signatures import Signature, scan
from metalimmu.agent.sysfs import number, text
from metalimmu.errors import DiskSelectionError, DiskUnsuitable
from metalimmu.wire.messages import Disk, RootDisk

# Not disks of the machine at all: not even listed.
_NO_DISK = re.compile(r"(loop|ram|zram|dm-|md|nbd|mtdblock|drbd|zd|fd)[0-9]")

# What BMCs show to the host: model (or vendor and model) -> whose it is. All lower case.
BMC_VIRTUAL = {
    "virtual floppy": "AMI, Dell and Supermicro BMCs",
    "virtual hdisk": "AMI MegaRAC",
    "virtual hdd": "AMI MegaRAC",
    "virtual cdrom": "AMI MegaRAC, Dell",
    "virtual cd": "Dell iDRAC",
    "virtual media": "several",
    "virtual disk sd": "Huawei iBMC",
    "ami virtual": "AMI MegaRAC",
    "idrac": "Dell iDRAC (LCDRIVE, MAS022, vFlash)",
    "lcdrive": "Dell iDRAC",
    "vflash": "Dell iDRAC",
    "ipmi virtual": "Supermicro",
    "ilo ": "HPE iLO",
    "hp ilo": "HPE iLO",
    "hpe ilo": "HPE iLO",
    "internal sd": "HPE iLO internal SD card",
    "imm virtual": "Lenovo IMM",
    "xcc virtual": "Lenovo XCC",
    "lenovo virtual": "Lenovo XCC",
    "openbmc": "OpenBMC virtual media",
    "cisco vkvm": "Cisco CIMC",
    "cimc-mapped": "Cisco CIMC",
    "kvm-mapped": "Cisco CIMC",
}


def list_disks(root: Path, open_read: Callable[[str], Callable[[int, int], bytes]] | None = None) -> tuple[Disk, ...]:
    """Every disk with what is on it and, where it can never be chosen, why. Paths are devices under `root`."""
    block = root / "sys/block"
    found = [
        describe(root, path)
        for path in sorted(block.iterdir(), key=_natural)
        if not _NO_DISK.match(path.name) and text(path / "hidden") != "1"  # nvme0c0n1: a path of nvme0n1
    ]
    one_per_wwn = _multipath(found)
    return tuple(_with_signatures(d, open_read or reader) for d in one_per_wwn)


def settled(
    root: Path, known: tuple[Disk, ...], *, looks: int = 1, every: float = 1.0, limit: float = 60.0
) -> tuple[Disk, ...]:
    """The list once it was the same for `looks` looks, one `every` so many seconds: controllers show their disks one after the other, seconds
    after boot (mpt3sas and megaraid_sas up to half a minute), and the only disk so far need not be the only one.
    """
    deadline = time.monotonic() + limit
    same = 0
    while True:
        now = list_disks(root)
        same = same + 1 if [d.path for d in now] == [d.path for d in known] else 0
        if same >= looks or time.monotonic() > deadline:
            return now
        known = now
        time.sleep(every)


def patience(hints: RootDisk) -> int:
    """Looks until a list is believed: one where the hints name a single disk, more where any disk may be the one."""
    return 1 if hints.serial or hints.wwn or hints.by_path else 10


def describe(root: Path, path: Path) -> Disk:
    """One entry of /sys/block."""
    device = path / "device"
    real = os.path.realpath(path)
    transport = _transport(path.name, real)
    model = " ".join(f"{_vendor(device)} {text(device / 'model')}".split())
    disk = Disk(
        path=str(root / "dev" / path.name.replace("!", "/")),
        size=number(path / "size") * 512,  # always in 512, whatever the sector size
        logical_sector=number(path / "queue/logical_block_size") or 512,
        physical_sector=number(path / "queue/physical_block_size") or 512,
        model=model,
        serial=_serial(path),
        wwn=_wwn(path),
        transport=transport,
        rotational=text(path / "queue/rotational") == "1",
        removable=text(path / "removable") == "1",
        read_only=text(path / "ro") == "1",
        virtual=_bmc_virtual(model),
        by_path=by_path(real),
    )
    return replace(disk, unusable=_unusable(disk, path))


def _unusable(disk: Disk, path: Path) -> str:
    name = path.name
    kind = text(path / "device/type")  # SCSI peripheral device type, SPC-5: 0 disk, 5 CD/DVD, 14 simplified disk
    reasons = (
        (re.match(r"sr[0-9]", name) or kind == "5", "CD or DVD drive"),
        (re.match(r"mmcblk[0-9]+(boot|rpmb)", name), "boot area of an eMMC"),
        (disk.virtual, "virtual media of a BMC"),
        (disk.transport == "usb", "USB"),
        (disk.removable, "removable"),
        (disk.read_only, "read-only"),
        (disk.size == 0, "no medium: its size is zero"),
        (kind not in ("", "0", "14"), f"no disk: SCSI device type {kind}"),
    )
    return next((reason for true, reason in reasons if true), "")


def _multipath(found: list[Disk]) -> list[Disk]:
    """Paths with one WWN are one disk. Cheap disks share a WWN, so serial and size must agree too."""
    first: dict[tuple[str, str, int], Disk] = {}
    result = []
    for disk in found:
        key = (plain_wwn(disk.wwn), disk.serial, disk.size)
        usable = not disk.unusable and key[0].strip("0")
        other = first.setdefault(key, disk) if usable else disk
        result.append(disk if other is disk else replace(disk, unusable=f"another path to {other.path}"))
    return result


def choose(disks: Sequence[Disk], hints: RootDisk) -> Disk:
    """The one disk that fits all hints. Raises DiskSelectionError with everything that was seen."""
    verdicts = [(d, d.unusable or mismatch(d, hints)) for d in disks]
    fitting = [d for d, why_not in verdicts if not why_not]
    if len(fitting) == 1:
        return fitting[0]
    asked = _asked(hints)
    seen = "; ".join(f"{describe_line(d)}: {why_not or 'fits'}" for d, why_not in verdicts) or "no disk at all"
    what = "no disk" if not fitting else f"{len(fitting)} disks"
    hint = "" if disks else "RAID volumes must exist before; a controller may also lack its driver in the ramdisk"
    raise DiskSelectionError(f"{what} of {len(disks)} fit {asked}. Seen: {seen}", hint=hint)


def describe_line(d: Disk) -> str:
    words = [d.path, f"{d.size / 1e9:.1f} GB", d.transport, d.model, f"serial {d.serial}" if d.serial else ""]
    return " ".join(w for w in (*words, f"wwn {d.wwn}" if d.wwn else "") if w)


def _asked(hints: RootDisk) -> str:
    given = {k: v for k, v in vars(hints).items() if v is not None}
    return "root_disk " + ", ".join(f"{k}={v}" for k, v in given.items()) if given else "(root_disk has no hints)"


def mismatch(d: Disk, hints: RootDisk) -> str:
    """Why the disk does not fit; empty when it does. Text compares without case and doubled blanks."""
    checks: Iterable[tuple[bool, str]] = (
        (hints.serial is None or _same(d.serial, hints.serial), f"serial {d.serial or 'unknown'}"),
        (hints.wwn is None or (bool(d.wwn) and plain_wwn(d.wwn) == plain_wwn(hints.wwn)), f"wwn {d.wwn or 'unknown'}"),
        (hints.model is None or _same_model(d.model, hints.model), f"model {d.model or 'unknown'}"),
        (hints.min_size is None or d.size >= hints.min_size, f"{d.size} bytes are too few"),
        (hints.max_size is None or d.size <= hints.max_size, f"{d.size} bytes are too many"),
        (
            hints.rotational is None or d.rotational == hints.rotational,
            "rotational" if d.rotational else "not rotational",
        ),
        (hints.by_path is None or d.by_path == Path(hints.by_path).name, f"by_path {d.by_path or 'unknown'}"),
    )
    return ", ".join(why for fits, why in checks if not fits)


def _same(a: str, b: str) -> bool:
    return bool(a) and " ".join(a.split()).casefold() == " ".join(b.split()).casefold()


def _same_model(have: str, want: str) -> bool:
    """With or without the vendor before it: sysfs says `ATA`, a BMC names the maker or nobody."""
    return _same(have, want) or _same(have.partition(" ")[2], want)


def plain_wwn(value: str) -> str:
    """Redfish says 5000C500A1, udev 0x5000c500a1, the kernel naa.5000c500a1."""
    return re.sub(r"^(0x|naa\.|eui\.|uuid\.|wwn-0x|nvme-eui\.)|[:\-\s]", "", value.strip().lower())


def _vendor(device: Path) -> str:
    """SCSI's only: virtio and NVMe have PCI numbers in this file."""
    value = text(device / "vendor")
    return "" if value.startswith("0x") else value


def _bmc_virtual(model: str) -> bool:
    return any(name in f"{model.lower()} " for name in BMC_VIRTUAL)


def _transport(name: str, real: str) -> str:
    marks = (("/usb", "usb"), ("/nvme", "nvme"), ("/virtio", "virtio"), ("/ata", "sata"), ("/end_device-", "sas"),
             ("/rport-", "fc"), ("/session", "iscsi"), ("/mmc", "mmc"), ("/host", "scsi"))  # fmt: skip
    return next((word for mark, word in marks if mark in real), "nvme" if name.startswith("nvme") else "")


def _serial(path: Path) -> str:
    """virtio: serial; NVMe and MMC: device/serial; SCSI and SATA: VPD page 80h (SPC-5), four bytes and the text."""
    plain = text(path / "serial") or text(path / "device/serial")
    if plain:
        return plain
    try:
        page = (path / "device/vpd_pg80").read_bytes()
    except OSError:
        return ""
    return page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("ascii", "replace").strip(" \0")


def _wwn(path: Path) -> str:
    """A world wide name, or nothing: `t10.` names are only vendor, model and serial again."""
    value = text(path / "wwid") or text(path / "device/wwid")
    return value if re.match(r"(naa|eui|uuid)\.[0-9a-fA-F-]+\Z", value) else ""


def by_path(real: str) -> str:
    """As in /dev/disk/by-path, for PCI devices (systemd's udev-builtin-path_id.c)."""
    address = re.findall(r"/([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?=/)", real)
    if not address:
        return ""
    base = f"pci-{address[-1]}"
    if match := re.search(r"/nvme/nvme[0-9]+/nvme[0-9]+n([0-9]+)", real):
        return f"{base}-nvme-{match[1]}"
    if re.search(r"/virtio[0-9]+/block/", real):
        return base
    if match := re.search(r"/ata([0-9]+)/", real):
        return f"{base}-ata-{match[1]}"
    if match := re.search(r"/host[0-9]+/(?:.*/)?[0-9]+:([0-9]+):([0-9]+):([0-9]+)/block/", real):
        return f"{base}-scsi-0:{match[1]}:{match[2]}:{match[3]}"
    return ""


def reader(path: str) -> Callable[[int, int], bytes]:
    """Reads of a closed device: opened for each, so that nothing stays open when the writer wants it for itself."""

    def read(offset: int, length: int) -> bytes:
        if offset < 0:
            return b""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - no pathlib on the writer's way
            return os.pread(file.fileno(), length, offset)

    return read


def signatures(disk: Disk, read: Callable[[int, int], bytes]) -> list[Signature]:
    """Raises DiskUnsuitable when the disk cannot be read."""
    try:
        return scan(read, disk.size, disk.logical_sector)
    except OSError as exc:
        raise DiskUnsuitable(f"{disk.path} cannot be read: {exc.strerror}") from exc


def _with_signatures(disk: Disk, open_read: Callable[[str], Callable[[int, int], bytes]]) -> Disk:
    """A disk that cannot even be read is no candidate: one dead disk must not stop the others."""
    if disk.unusable:
        return disk
    try:
        return replace(
            disk, signatures=tuple(str(s) for s in signatures(disk, open_read(disk.path)) if s.type != "partition")
        )
    except DiskUnsuitable as exc:
        return replace(disk, unusable=exc.message)


def _natural(path: Path) -> tuple[int, str]:
    """By length first: sda before sdaa, nvme0n1 before nvme10n1."""
    return len(path.name), path.name
