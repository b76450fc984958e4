"""What the machine of a deployment boots when its image is not written to a disk: installers, live systems, ISOs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from metalimmu.boot import kernel_args
from metalimmu.boot.ports import MediaFile, Netboot
from metalimmu.desired import answers
from metalimmu.desired.render import Filler
from metalimmu.errors import ImageError, NotFound
from metalimmu.images.serve import ImageFile, PartFile

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.images.catalogue import Catalogue
    from metalimmu.plan.types import Plan
    from metalimmu.wire.manifest import Bootable, Manifest, Part

SLOT = "slot.cpio"
PARTS = {"vmlinuz": "kernel", "initrd": "initrd", "root.squashfs": "squashfs"}


@dataclass(frozen=True)
class Boots:
    """One deployment's media. `answers`: the address where its installer finds its files."""

    catalogue: Catalogue
    plan: Plan
    answers: str
    seed: dict[str, str]  # for a live system's initrd

    def media(self) -> MediaFile:
        """The image with its slots filled. A vendor's ISO goes out as it is. Raises MetalimmuError."""
        manifest = self._manifest()
        if manifest.boots is None:
            return ImageFile(manifest, self.catalogue.chunks)
        line = kernel_arguments(self.plan.spec, manifest.boots, answers_at=self.answers)
        rooms = [p for p in manifest.boots.parts if p.name == "boot.cfg"]
        if rooms:
            filled = {p.offset: kernel_args.esxi(line, p.length) for p in rooms}
            return ImageFile(manifest, self.catalogue.chunks, filled)
        config, initrd = self._slot("slot.cfg"), self._slot(SLOT)
        slots = {config.offset: kernel_args.grub(line, config.length, second=self._second)}
        if self._second:
            slots[initrd.offset] = self._initrd(initrd.length)
        return ImageFile(manifest, self.catalogue.chunks, slots)

    def netboot(self, base: str) -> Netboot:
        """`base`: address of the deployment's files. Raises ImageError for a kind that the network cannot boot."""
        manifest = self._manifest()
        if manifest.boots is None or manifest.boots.part("kernel") is None:
            raise ImageError(
                f"{self.plan.image.ref} is a vendor's ISO, which boots from virtual media only",
                hint="`boot: virtual-media` in the role; or add its kernel and initrd: --kind installer",
            )
        squashfs = f"{base.rstrip('/')}/root.squashfs" if manifest.boots.part("squashfs") else ""
        line = kernel_arguments(
            self.plan.spec, manifest.boots, answers_at=self.answers, squashfs=squashfs, network=True
        )
        return Netboot("vmlinuz", ("initrd", *((SLOT,) if self._second else ())), " ".join(line))

    def netboot_file(self, name: str) -> MediaFile:
        """Raises NotFound."""
        manifest = self._manifest()
        boots = manifest.boots
        if boots is not None and name == SLOT and self._second:
            slot = self._slot(SLOT)
            filled = {slot.offset: self._initrd(slot.length)}
            return PartFile(ImageFile(manifest, self.catalogue.chunks, filled), slot)
        part = boots.part(PARTS.get(name, "")) if boots else None
        if part is None:
            raise NotFound(f"{self.plan.image.ref} has no {name}")
        return PartFile(ImageFile(manifest, self.catalogue.chunks), part)

    @property
    def _second(self) -> bool:
        """Is there a second initrd?"""
        return bool(self.seed or answers.family(self.plan.image.answers).initrd)

    def _initrd(self, size: int) -> bytes:
        programs = answers.family(self.plan.image.answers).initrd
        return kernel_args.second_initrd(self.seed, {p: answers.shipped_text(f) for p, f in programs.items()}, size)

    def _slot(self, name: str) -> Part:
        boots = self._manifest().boots
        part = boots.part(name) if boots else None
        if part is None:
            raise ImageError(f"{self.plan.image.ref} has no {name}", hint="add the image again")
        return part

    def _manifest(self) -> Manifest:
        found = self.catalogue.by_digest(self.plan.image.digest)
        if found is None:
            raise ImageError(f"{self.plan.image.ref} is gone from the image store", hint="add it again")
        return found.manifest


def kernel_arguments(
    spec: HostSpec, boots: Bootable, *, answers_at: str, squashfs: str = "", network: bool = False
) -> tuple[str, ...]:
    """The image's own, those that make its installer ask for answers, and the role's. Each is a template, which sees what
    run-time config sees, and: answers (address of the files), label (of the media), squashfs (its address, booted from
    the network), network_boot, address, gateway, dns, mac (of its first NIC).

    Raises TemplateError, ImageError.
    """
    fill = Filler(
        spec,
        "kernel arguments",
        answers=answers_at,
        label=boots.label,
        squashfs=squashfs,
        network_boot=network,
        **_static(spec),
    )
    file = answers.family(boots.answers).arguments
    texts = (boots.arguments, answers.shipped_text(file) if file else "", spec.arguments)
    return kernel_args.words(*(fill(text) for text in texts))


def _static(spec: HostSpec) -> dict[str, str]:
    """The host's own address, in the words of kernels and installers; empty: DHCP."""
    net = spec.network
    if not net.address:
        return {"address": "", "gateway": "", "dns": "", "mac": ""}
    gateway = net.gateway or next((r.via for r in net.routes if r.to in ("default", "0.0.0.0/0", "::/0")), "")
    macs = net.nics or list(spec.nics)
    return {
        "address": net.address.partition("/")[0],
        "gateway": gateway,
        "dns": " ".join(net.dns),
        "mac": macs[0] if macs else "",
    }
