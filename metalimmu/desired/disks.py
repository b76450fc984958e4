"""What is done with the disks of a machine beside writing the image: kept, mirrored, erased, salvaged, tested."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from metalimmu.desired.base import Document, Duration

Size = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,15}(\.[0-9]{1,9})?\s*(B|[KMGT]i?B)$",
        description="a size with its unit",
        examples=["100GB", "1TiB"],
    ),
]
Throughput = Annotated[
    str,
    Meta(
        pattern=r"^(?![0.]+[^0-9.])[0-9]{1,9}(\.[0-9]{1,3})?\s*(B|[KMGT]i?B)/s$",
        description="bytes per second, above 0",
        examples=["100MB/s"],
    ),
]
SalvagePath = Annotated[
    str,
    Meta(
        pattern=r"^/[^\x00]{0,1000}$",
        description="an absolute path on the old system; * and ? stand for characters within a name",
        examples=["/var/log", "/var/crash/*"],
    ),
]


class RootDiskHints(Document, frozen=True, kw_only=True):
    serial: str | None = None
    wwn: str | None = None
    model: str | None = None
    min_size: Size | None = None
    max_size: Size | None = None
    rotational: bool | None = None
    by_path: str | None = None


class EraseRule(Document, frozen=True, kw_only=True):
    """All of one disk, whatever the image covers of it. `auto` is what the disk does best by itself (NVMe format or
    sanitize, ATA secure erase), else zeros by its own command.
    """

    disk: Literal["root"] | RootDiskHints  # root (with its mirror), or hints that fit exactly one other disk
    how: Literal["auto", "nvme-format", "nvme-sanitize", "ata", "zero", "overwrite"] = "auto"
    when: Literal["before", "after"] = "before"  # before the image is written, or after it was read back


class SalvageRule(Document, frozen=True, kw_only=True):
    """Files of the old system (ext4, XFS), copied to the controller before anything is written."""

    paths: list[SalvagePath]  # folders with all that is below them
    limit: Size = "1GiB"  # of file content; what does not fit is left out, and said
    required: bool = False  # when they cannot be had, nothing is written


class BurnInRule(Document, frozen=True, kw_only=True):
    """Short tests in the ramdisk; the first one that fails leaves the disks as they were."""

    cpu: Duration = "30s"  # how long; 0s: not at all
    memory: Duration = "30s"
    disk: Duration = "15s"  # reads of the root disk
    network: Duration = "10s"  # chunks from the controller
    min_cpu: Throughput | None = None  # SHA-256 of one CPU
    min_memory: Throughput | None = None  # copying
    min_disk: Throughput | None = None  # sequential
    min_network: Throughput | None = None
    min_size: Size | None = None  # of memory
    min_cpus: Annotated[int, Meta(ge=1, le=65536)] | None = None
    max_corrected: Annotated[int, Meta(ge=0)] = 0  # memory errors that ECC corrected during the tests
    max_nic_errors: Annotated[int, Meta(ge=0)] = 0
    when: Literal["new", "always"] = "new"  # new: hosts that are not active and proven
