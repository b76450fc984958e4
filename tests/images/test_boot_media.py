"""Media that are made with real tools: the same bytes each time, parts where they are said to be; ESXi's ISO with room in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from metalimmu.errors import ImageError
from metalimmu.images import boot_media, eltorito, kinds
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.chunks import reassemble
from metalimmu.images.esxi import ROOM, add_esxi
from metalimmu.images.serve import ImageFile, PartFile

pytestmark = pytest.mark.e2e

KERNEL = bytes(0x202) + b"HdrS" + b"K" * 100_001


@pytest.fixture(scope="module")
def kit() -> boot_media.Kit:
    return boot_media.kit()


def test_media_of_a_kernel_an_initrd_and_a_squashfs(kit: boot_media.Kit, tmp_path: Path) -> None:
    contents = {"kernel": KERNEL, "initrd": b"I" * 50_003, "squashfs": b"S" * 200_000}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    digests = set()
    for number in range(2):
        catalogue = Catalogue(tmp_path / f"store{number}")
        made = kinds.add_bootable(
            catalogue,
            tmp_path / "kernel",
            "rescue@1",
            kind="live",
            initrd=tmp_path / "initrd",
            squashfs=tmp_path / "squashfs",
            place="casper/filesystem.squashfs",
            kit=kit,
        )
        digests.add(made.digest)
    assert len(digests) == 1
    boots = made.manifest.boots
    assert boots is not None
    file = ImageFile(made.manifest, catalogue.chunks)
    facts = eltorito.read(file.pread, file.size)
    assert (facts.label, facts.firmware) == (boots.label, ("uefi", "bios"))
    for name, content in contents.items():
        part = boots.part(name)
        assert part is not None
        assert PartFile(file, part).pread(0, part.length) == content.ljust(-(-len(content) // 4) * 4 if name == "initrd" else 0, b"\0")  # fmt: skip
    for name, size in boot_media.SLOTS.items():
        part = boots.part(name)
        assert part is not None
        assert part.length == size
        assert set(PartFile(file, part).pread(0, size)) == {10 if name == "slot.cfg" else 0}


CFG = b"bootstate=0\ntitle=Loading ESXi installer\nkernel=/b.b00\nkernelopt=cdromBoot runweasel\nmodules=/jumpstrt.gz --- /useropts.gz\n"


def esxi_iso(kit: boot_media.Kit, folder: Path, configs: tuple[str, ...]) -> Path:
    """As VMware's: two boot.cfg, and El Torito images for BIOS and UEFI."""
    tree = folder / "tree"
    tree.mkdir()
    for name in configs:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(CFG)
    (tree / "isolinux.bin").write_bytes(b"\xeb" + bytes(4095))
    (tree / "efiboot.img").write_bytes(b"E" * 8192)
    (tree / "s.v00").write_bytes(b"V" * 300_000)
    kit.tools.run(
        "usr/bin/xorriso", "-no_rc", "-as", "mkisofs", "-quiet", "-V", "ESXI-8.0", "-o", folder / "esxi.iso",
        "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
        "-eltorito-alt-boot", "-e", "efiboot.img", "-no-emul-boot", tree,
    )  # fmt: skip
    return folder / "esxi.iso"


def test_esxis_iso_gets_room_for_its_options_and_stays_what_it_is(kit: boot_media.Kit, tmp_path: Path) -> None:
    source = esxi_iso(kit, tmp_path, ("BOOT.CFG", "EFI/BOOT/BOOT.CFG"))
    catalogue = Catalogue(tmp_path / "store")
    made = add_esxi(catalogue, source, "esxi@8", made=kit)
    boots = made.manifest.boots
    assert boots is not None
    assert (boots.arguments, boots.answers, boots.from_media, boots.label) == ("runweasel", "esxi", True, "ESXI-8.0")
    assert made.manifest.firmware == ("uefi", "bios")
    assert [(p.name, p.length) for p in boots.parts] == [("boot.cfg", ROOM)] * 2

    line = b"kernelopt=runweasel ks=http://10.0.0.5/i/x/ks.cfg\n"
    slots = {p.offset: line.ljust(ROOM, b"\n") for p in boots.parts}
    served = tmp_path / "served.iso"
    file = ImageFile(made.manifest, catalogue.chunks, slots)
    served.write_bytes(file.pread(0, file.size))
    for number, path in enumerate(("/BOOT.CFG", "/EFI/BOOT/BOOT.CFG", "/s.v00")):
        out = tmp_path / f"out{number}"
        kit.tools.run("usr/bin/xorriso", "-no_rc", "-osirrox", "on", "-indev", served, "-extract", path, out)
        if path.endswith("CFG"):
            lines = [one for one in out.read_bytes().splitlines() if one]
            assert lines == [*(one for one in CFG.splitlines() if b"kernelopt" not in one), line.strip()]
        else:
            assert out.read_bytes() == b"V" * 300_000
    reassemble(made.manifest, catalogue.chunks, tmp_path / "again.iso")
    assert eltorito.read(lambda o, n: served.read_bytes()[o : o + n], file.size).firmware == ("uefi", "bios")


def test_another_iso_is_not_esxis(kit: boot_media.Kit, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not ESXi's installer"):
        add_esxi(Catalogue(tmp_path / "store"), esxi_iso(kit, tmp_path, ()), "esxi@8", made=kit)
