"""Images that are booted and not written to a disk: a vendor's ISO as it is, and media made of a kernel and its initrd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metalimmu.errors import ImageError, UsageError
from metalimmu.images import boot_media, eltorito
from metalimmu.images.add import Progress, store
from metalimmu.images.catalogue import Catalogue, Image, split
from metalimmu.images.chunks import Reader
from metalimmu.wire.manifest import Bootable, Manifest

ANSWERS = ("preseed", "kickstart", "autoinstall", "esxi")
SQUASHFS = "live/filesystem.squashfs"  # where live-boot looks for it
FIRMWARE = ("uefi", "bios")


def add_iso(
    catalogue: Catalogue,
    file: Path,
    ref: str,
    *,
    architecture: str = "x86_64",
    build_id: str = "",
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Image:
    """Add a bootable ISO as `ref` (NAME@VERSION): kept, and served, byte for byte.

    Raises ImageExists, ImageError (no ISO, cut short, not bootable).
    """
    split(ref)
    with _opened(file) as stream, catalogue.locked():
        chunks, size = store(stream, catalogue.chunks, progress=progress)
        facts = eltorito.read(Reader(chunks, size, catalogue.chunks).read, size)
        manifest = Manifest(
            kind="iso",
            architecture=architecture,
            size=size,
            chunks=chunks,
            firmware=facts.firmware,
            efi_loader="",
            build_id=build_id,
        )
        source = {"source": {"file": file.name, "format": "iso", "label": facts.label}}
        return catalogue.publish(ref, manifest, source | dict(provenance or {}), {})


def add_bootable(
    catalogue: Catalogue,
    kernel: Path,
    ref: str,
    *,
    kind: str,
    initrd: Path,
    squashfs: Path | None = None,
    place: str = SQUASHFS,
    arguments: str = "",
    answers: str = "",
    architecture: str = "x86_64",
    build_id: str = "",
    mirror: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    kit: boot_media.Kit | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Image:
    """Add what boots a kernel as `ref` (NAME@VERSION): an ISO that has it, its initrd and perhaps a squashfs.

    `kind`: installer or live. `arguments`: the kernel's, a template, see service.kinds.kernel_arguments. `answers`: one of
    ANSWERS; none for an installer that asks for nothing. `place`: of the squashfs in the ISO.
    Raises ImageExists, ImageError, UsageError, ToolError.
    """
    split(ref)
    _refuse(kind, answers, arguments, architecture, place)
    _is_kernel(kernel)
    with catalogue.locked(), catalogue.workspace() as work:
        target = work / "boot.iso"
        folder = work / "parts"
        folder.mkdir()
        made = kit or boot_media.kit(mirror, say)
        label, parts = boot_media.build(target, kernel, initrd, squashfs, place=place, kit=made, work=folder)
        with target.open("rb") as stream:
            chunks, size = store(stream, catalogue.chunks, progress=progress)
        manifest = Manifest(
            kind=kind,
            architecture=architecture,
            size=size,
            chunks=chunks,
            firmware=FIRMWARE,
            efi_loader="",
            build_id=build_id,
            boots=Bootable(parts, label, " ".join(arguments.split()), answers),
        )
        files = [f.name for f in (kernel, initrd, squashfs) if f]
        source = {"source": {"file": ", ".join(files), "format": "kernel and initrd"}}
        return catalogue.publish(ref, manifest, source | dict(provenance or {}), {})


def _refuse(kind: str, answers: str, arguments: str, architecture: str, place: str) -> None:
    if kind not in ("installer", "live"):
        raise UsageError(f"{kind} is no kind that has a kernel", hint="--kind installer or --kind live")
    if answers and answers not in ANSWERS:
        raise UsageError(f"no installer asks for {answers}", hint=f"one of {', '.join(ANSWERS)}")
    if answers and kind == "live":
        raise UsageError("a live system has no installer that asks for answers", hint="leave --answers out")
    if architecture != "x86_64":
        raise UsageError(f"media that boot {architecture} cannot be made yet", hint="add its ISO: --kind iso")
    if "'" in arguments or "\n" in arguments.strip():
        raise UsageError("kernel arguments are one line without single quotes", hint="--arguments 'a=b c=d'")
    if place.startswith(("/", "boot/", "EFI/")) or ".." in place.split("/"):
        raise UsageError(f"{place} is no place for a squashfs", hint=f"for example {SQUASHFS}")


def _is_kernel(file: Path) -> None:
    """Linux on x86: "HdrS" at 0x202 (Documentation/arch/x86/boot.rst). ESXi's and others' loaders are no such kernels."""
    with _opened(file) as stream:
        if stream.read(0x206)[0x202:] != b"HdrS":
            raise ImageError(f"{file} is no Linux kernel (bzImage)", hint="name the installer's linux or vmlinuz")


def _opened(file: Path) -> Any:
    try:
        return file.open("rb")
    except OSError as exc:
        raise ImageError(f"cannot read {file}: {exc.strerror}", hint="name a file") from exc
