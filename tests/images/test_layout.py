from __future__ import annotations

import struct
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

from metalimmu.images import disk, layout
from metalimmu.images.layout import detect
from metalimmu.wire.manifest import Extent

MIB = 1 << 20


def _layout(data: bytes) -> layout.Layout:
    return detect(lambda offset, length: data[offset : offset + length], len(data))


def _gpt(sector: int, parts: list[tuple[str, int, int, str]], size: int = 16 * MIB) -> bytearray:
    """A primary GPT only, which is all that is read. Parts: type, first and last sector, name."""
    data = bytearray(size)
    table = bytearray(128 * 128)
    for i, (kind, first, last, name) in enumerate(parts):
        entry = uuid.UUID(kind).bytes_le + uuid.uuid5(uuid.NAMESPACE_DNS, str(i)).bytes_le
        entry += struct.pack("<QQQ", first, last, 0) + name.encode("utf-16-le").ljust(72, b"\0")
        table[i * 128 : (i + 1) * 128] = entry
    header = bytearray(
        b"EFI PART"
        + struct.pack("<IIII", 0x10000, 92, 0, 0)
        + bytes(48)
        + struct.pack("<QIII", 2, 128, 128, zlib.crc32(table))
    )
    struct.pack_into("<I", header, 16, zlib.crc32(header))
    data[sector : sector + 92] = header
    data[2 * sector : 2 * sector + len(table)] = table
    data[510:512] = b"\x55\xaa"
    data[446 + 4] = 0xEE
    struct.pack_into("<II", data, 446 + 8, 1, size // sector - 1)
    return data


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt_of_either_sector_size(sector: int) -> None:
    first = MIB // sector
    data = _gpt(
        sector, [(layout.ESP, first, 2 * first - 1, "esp"), (layout.BASIC_DATA, 2 * first, 4 * first - 1, "CIDATA")]
    )
    found = _layout(bytes(data))
    assert (found.partition_table, found.sector_size, found.firmware) == ("gpt", sector, ("uefi",))
    assert found.seed == Extent(2 * MIB, 2 * MIB)
    data[:8] = b"\xeb\x63\x90GRUB "
    assert _layout(bytes(data)).firmware == ("uefi", "bios")


def test_a_damaged_gpt_is_none() -> None:
    data = _gpt(512, [(layout.ESP, 2048, 4095, "esp")])
    data[2 * 512 + 3] ^= 1
    # The protective entry of the MBR is left, and it says nothing of use.
    assert _layout(bytes(data)).firmware == ()


def test_a_partition_outside_of_the_image_is_left_out() -> None:
    data = _gpt(512, [(layout.ESP, 2048, 4095, "esp"), (layout.LINUX_ROOT, 4096, 1 << 40, "root")])
    assert [p.name for p in _layout(bytes(data)).partitions] == ["esp"]


def test_mbr(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    with file.open("wb") as out:
        out.truncate(64 * MIB)
    script = (
        "label: dos\nstart=2048, size=20480, type=ef\nstart=22528, size=20480, type=c\nstart=43008, type=83, bootable\n"
    )
    subprocess.run(["sfdisk", "-q", file], input=script.encode(), check=True)
    data = bytearray(file.read_bytes())
    found = _layout(bytes(data))
    assert (found.partition_table, found.firmware, found.seed) == ("mbr", ("uefi",), None)
    fat = tmp_path / "fat"
    with fat.open("wb") as out:
        out.truncate(20480 * 512)
    subprocess.run(["mkfs.fat", "-n", "CIDATA", fat], check=True, capture_output=True)
    data[22528 * 512 : 22528 * 512 + 20480 * 512] = fat.read_bytes()
    assert _layout(bytes(data)).seed == Extent(22528 * 512, 20480 * 512)


@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_a_bare_fat_has_no_partitions_and_a_seed_inside_one_is_found(tmp_path: Path, bits: str) -> None:
    fat = tmp_path / "fat"
    with fat.open("wb") as out:
        out.truncate(MIB if bits == "12" else 40 * MIB)
    subprocess.run(
        ["mkfs.fat", "-F", bits, *(["-s", "1"] if bits == "32" else []), "-n", "cidata", fat],
        check=True,
        capture_output=True,
    )
    bare = fat.read_bytes()
    assert _layout(bare).partition_table == "none"
    data = _gpt(512, [(layout.BASIC_DATA, 2048, 2047 + len(bare) // 512, "")], len(bare) + 2 * MIB)
    data[MIB : MIB + len(bare)] = bare
    assert _layout(bytes(data)).seed == Extent(MIB, len(bare))


@pytest.mark.parametrize("size", [512, 513, 1000, 4096, 5000, MIB])
def test_nothing_at_all(size: int) -> None:
    assert _layout(bytes(size)) == layout.Layout("none", 512, (), (), None, None)
    assert _layout(b"\xff" * size).partition_table == "none"


@pytest.mark.parametrize(
    ("name", "architecture"), [(b"BOOTX64 EFI", "x86_64"), (b"BOOTAA64EFI", "aarch64"), (b"OTHER   EFI", None)]
)
def test_the_loader_says_the_architecture(name: bytes, architecture: str | None) -> None:
    data = _gpt(512, [(layout.ESP, 2048, 8191, "esp")])
    data[2 * MIB + 4096 : 2 * MIB + 4096 + 11] = name
    assert _layout(bytes(data)).architecture == architecture


# --- the disks that we make ourselves

PLAN = disk.Plan(root_size=8 * MIB)


def test_our_own_partitions(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    disk.partition(image, PLAN, disk.Identity("web"))
    found = _layout(image.read_bytes())
    assert [(p.name, p.offset, p.length) for p in found.partitions] == [
        ("bios", PLAN.bios.offset, PLAN.bios.length),
        ("esp", PLAN.esp.offset, PLAN.esp.length),
        ("cidata", PLAN.seed.offset, PLAN.seed.length),
        ("root", PLAN.root.offset, PLAN.root.length),
    ]
    assert found.seed == PLAN.seed
    assert all(p.offset % MIB == 0 and p.length % MIB == 0 for p in found.partitions)
    assert image.stat().st_size == PLAN.size


def test_identifiers_come_from_the_name_alone(tmp_path: Path) -> None:
    for name in ("web", "web2", "db"):
        disk.partition(tmp_path / name, PLAN, disk.Identity(name[:3].rstrip("2")))
    web, again, other = ((tmp_path / n).read_bytes() for n in ("web", "web2", "db"))
    assert web == again
    assert not {p.identity for p in _layout(web).partitions} & {p.identity for p in _layout(other).partitions}


def test_bios_boot_code_knows_where_the_rest_is(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    disk.partition(image, PLAN, disk.Identity("web"))
    table = image.read_bytes()[440:512]
    disk.write_bios_boot(image, PLAN, bytes(range(256)) * 2, b"\xaa" * 3000)
    data = image.read_bytes()
    assert struct.unpack_from("<Q", data, 0x5C)[0] == 2048
    assert data[0x64:0x68] == b"\xff\x65\x90\x90"
    assert data[440:512] == table
    assert struct.unpack_from("<QHH", data, MIB + 0x1F4) == (2049, 5, 0x820)
    assert data[MIB + 512 : MIB + 3000] == b"\xaa" * (3000 - 512)
    assert _layout(data).firmware == ("uefi", "bios")
    with pytest.raises(Exception, match=r"boot\.img"):
        disk.write_bios_boot(image, PLAN, b"", b"")


def _files(image: Path, tmp_path: Path) -> dict[str, bytes]:
    esp = tmp_path / "esp"
    esp.write_bytes(image.read_bytes()[PLAN.esp.offset : PLAN.esp.offset + PLAN.esp.length])
    subprocess.run(["fsck.fat", "-n", esp], check=True, capture_output=True)
    listed = subprocess.run(
        ["mdir", "-i", esp, "-b", "-/", "::"], check=True, capture_output=True, text=True
    ).stdout.split()
    return {
        p.removeprefix("::/"): subprocess.run(["mtype", "-i", esp, p], check=True, capture_output=True).stdout
        for p in listed
        if not p.endswith("/")
    }


def test_the_esp_holds_what_it_should(tmp_path: Path) -> None:
    image, contents = tmp_path / "disk", {"one": b"1" * 100_000, "two": b"2" * 5000, "three": b"3"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    disk.partition(image, PLAN, disk.Identity("web"))

    def write(old: dict[str, str], new: dict[str, str]) -> bytes:
        disk.write_esp(
            image, PLAN, disk.Identity("web"), old=old, new=new, source=lambda n: tmp_path / n, epoch=1_700_000_000
        )
        return image.read_bytes()

    first = {"EFI/BOOT/BOOTX64.EFI": "one", "EFI/debian/grub.cfg": "two"}
    before = write({}, first)
    assert _files(image, tmp_path) == {"EFI/BOOT/BOOTX64.EFI": contents["one"], "EFI/debian/grub.cfg": contents["two"]}
    volume = subprocess.run(
        ["blkid", "-p", "-o", "value", "-s", "UUID", tmp_path / "esp"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert volume.replace("-", "") == disk.Identity("web").volume
    # Nothing to do: nothing is written.
    assert write(first, first) == before
    second = {"EFI/BOOT/BOOTX64.EFI": "one", "EFI/debian/grub.cfg": "three", "new/folder/file": "two"}
    after = write(first, second)
    assert _files(image, tmp_path) == {
        "EFI/BOOT/BOOTX64.EFI": contents["one"],
        "EFI/debian/grub.cfg": contents["three"],
        "new/folder/file": contents["two"],
    }
    changed = sum(before[i : i + MIB] != after[i : i + MIB] for i in range(0, len(after), MIB))
    assert changed <= 2
    # The same again from nothing, later: the same bytes.
    other = tmp_path / "other"
    disk.partition(other, PLAN, disk.Identity("web"))
    disk.write_esp(
        other, PLAN, disk.Identity("web"), old={}, new=first, source=lambda n: tmp_path / n, epoch=1_700_000_000
    )
    assert other.read_bytes() == before
