"""What a lab's switches are made of: a disk with ONIE on it as a factory delivers it, and installers of a small NOS.

Debian's kernel, busybox and dropbear; the programs that make one ONIE and the other a NOS come from the lab
(`files`, see metalimmu_emulator.switch). A minute to make, so it is kept until something that goes into it changes.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metalimmu import log, paths
from metalimmu.images import debian, disk, layout
from metalimmu.images.debian import run_tool
from metalimmu.images.recipes import cpio, tiny
from metalimmu.images.recipes.release import Laid
from metalimmu.images.tree import Stage, Tree, read_tar, tree_file
from metalimmu.wire.manifest import Extent

VERSIONS = ("1", "2")
PLATFORMS = "x86_64-kvm_x86_64-r*"
ONIE_BOOT = "7412f7d5-a156-4b13-81dc-867174929325"  # GPT type of ONIE's partition
DISK_SIZE = 512 * disk.MIB
ONIE_SIZE = 64 * disk.MIB
SUITE = "bookworm"
PACKAGES = (
    *("base-files", "busybox-static", "kmod", "dropbear-bin"),
    *("grub-pc-bin", "grub-common", tiny.KERNELS["cloud"]),
)
PROGRAMS = ("usr/sbin/dropbear", "usr/bin/dropbearkey")
LIBRARIES = (
    *("libtomcrypt.so.1", "libtommath.so.1", "libz.so.1", "libcrypt.so.1", "libgmp.so.10"),
    *("libc.so.6", "ld-linux-x86-64.so.2"),
)
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "virtio_net", "virtio_rng", "button", "evdev")
GRUB_MODULES = "biosdisk part_gpt ext2 normal configfile linux echo test serial terminal loadenv regexp minicmd"
WORK = "boot/.metalimmu"

_LOG = log.get(__name__)


@dataclass(frozen=True)
class SwitchParts:
    """In one folder: the factory's disk, raw and sparse; an ONIE installer for each version of the NOS."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "onie.raw"

    def installer(self, version: str) -> Path:
        return self.folder / f"lab-nos-{version}.bin"


@dataclass(frozen=True)
class _Debian:
    """What the packages gave."""

    kernel: bytes
    base: bytes  # an initrd without an /init of its own: gzip over cpio
    boot: bytes
    core: bytes
    os_release: str
    epoch: int


def build(
    files: Path, out: Path, *, mirror: str | None = None, say: Callable[[str], None] | None = None
) -> SwitchParts:
    """Make what is missing or out of date in `out`. Raises ToolError, ImageError."""
    parts = SwitchParts(out)
    key = _key(files)
    stamp = out / "switch.json"
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        if not (stamp.is_file() and json.loads(stamp.read_text()).get("key") == key):
            (say or _LOG.info)("building ONIE and a NOS for switches …")
            debian.need("mmdebstrap", "sfdisk", "mke2fs")
            _build(files, out, mirror)
            stamp.write_text(json.dumps({"key": key}))
    return parts


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Who comes second finds it built."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _build(files: Path, out: Path, mirror: str | None) -> None:
    scratch = paths.cache() / "build"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        work = Path(folder)
        found = _debian(work, files, debian.mirror(mirror))
        new = SwitchParts(work / "new")
        new.folder.mkdir()
        _factory_disk(new.disk, found, files, work)
        for version in VERSIONS:
            new.installer(version).write_bytes(_installer(found, files, version))
        for file in new.folder.iterdir():
            target = out / f".{file.name}"
            # `cp` knows holes; the rename makes each file whole or not there
            run_tool(["cp", "--sparse=always", file, target])
            target.rename(out / file.name)


def _key(files: Path) -> str:
    """Of all that goes in but Debian's packages themselves."""
    sources = [Path(__file__), Path(tiny.__file__), *(p for p in sorted(files.rglob("*")) if p.is_file())]
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _debian(work: Path, files: Path, mirror: str) -> _Debian:
    """Kernel, tools and GRUB from Debian's packages."""
    stage = Stage(work / "stage")
    root = work / "root.tar"
    epoch = debian.release_date(mirror, SUITE)
    mmdebstrap_hooks = [
        f'mkdir -p "$1"/{WORK}',
        'chroot "$1" depmod -a "$(ls "$1"/lib/modules)"',
        f'chroot "$1" grub-mkimage -O i386-pc -p "(,gpt2)/grub" -c /{WORK}/early.cfg -o /{WORK}/core.img {GRUB_MODULES}',
        f'cp "$1"/usr/lib/grub/i386-pc/boot.img "$1"/{WORK}/',
    ]
    early = f'printf "configfile (hd0,gpt2)/grub/boot.cfg\\n" > "$1"/{WORK}/early.cfg'
    debian.mmdebstrap(
        root,
        SUITE,
        debian.sources(mirror, SUITE),
        variant="extract",
        include=PACKAGES,
        epoch=epoch,
        extract=[mmdebstrap_hooks[0], early, *mmdebstrap_hooks[1:]],
        cache="switch",
    )
    tree = read_tar(root, stage)
    root.unlink()

    def data(path: str) -> bytes:
        return stage.path(tree_file(tree, path).sha256).read_bytes()

    tools = {**_tools(tree, stage), **_folder(files / "common")}
    return _Debian(
        kernel=data(tiny.find(tree, r"boot/vmlinuz-.*")),
        base=_gz(cpio.archive(tools, epoch)),
        boot=data(f"{WORK}/boot.img"),
        core=data(f"{WORK}/core.img"),
        os_release=data("usr/lib/os-release").decode(),
        epoch=epoch,
    )


def _tools(tree: Tree, stage: Stage) -> dict[str, Laid]:
    def laid(path: str) -> Laid:
        return Laid(stage.path(tree_file(tree, path).sha256).read_bytes(), 0o755)

    found = {
        "init": Laid(link="/bin/busybox"),
        "bin/busybox": laid("bin/busybox"),
        "bin/sh": Laid(link="busybox"),
        "lib64/ld-linux-x86-64.so.2": Laid(link="/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        **{path: laid(path) for path in PROGRAMS},
    }
    for name in LIBRARIES:
        # libz.so.1 is a link to libz.so.1.2.13; the file gets the name that programs ask for
        path = tiny.find(tree, rf"(usr/)?lib/x86_64-linux-gnu/{re.escape(name)}(\.[0-9.]+)?")
        found[f"lib/x86_64-linux-gnu/{name}"] = laid(path)
    return found | tiny.modules(tree, stage, MODULES)


def _folder(root: Path) -> dict[str, Laid]:
    """Programs by their first line: a wheel does not keep modes."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found[str(path.relative_to(root))] = Laid(data, 0o755 if data.startswith(b"#!") else 0o644)
    return found


def _gz(data: bytes) -> bytes:
    """Padded to 4 bytes, so that another archive may follow (Documentation/driver-api/early-userspace/buffer-format)."""
    packed = gzip.compress(data, compresslevel=6, mtime=0)
    return packed.ljust(-(-len(packed) // 4) * 4, b"\0")


def _factory_disk(image: Path, found: _Debian, files: Path, work: Path) -> None:
    """GPT with GRUB's core, ONIE-BOOT, and room for a NOS that is not there yet."""
    bios = Extent(disk.MIB, disk.MIB)
    onie = Extent(2 * disk.MIB, ONIE_SIZE)
    nos = Extent(onie.offset + ONIE_SIZE, DISK_SIZE - onie.offset - ONIE_SIZE - disk.MIB)
    with image.open("wb") as file:
        file.truncate(DISK_SIZE)
    lines = ["label: gpt", "unit: sectors", "first-lba: 2048"]
    for extent, kind, name in (
        (bios, layout.BIOS_BOOT, "GRUB-BOOT"),
        (onie, ONIE_BOOT, "ONIE-BOOT"),
        (nos, layout.BASIC_DATA, "NOS"),
    ):
        lines.append(f'start={extent.offset // 512}, size={extent.length // 512}, type={kind}, name="{name}"')
    run_tool(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image], stdin="\n".join([*lines, ""]).encode())
    plan = disk.Plan(root_size=0)
    disk.write_bios_boot(image, plan, found.boot, found.core)
    tree = work / "onie-boot"
    tools = _folder(files / "onie-boot")
    own = {**_folder(files / "onie"), **{f"usr/bin/{Path(p).name}": laid for p, laid in tools.items()}}
    contents = {
        **tools,
        "onie/vmlinuz": Laid(found.kernel),
        "onie/initrd": Laid(found.base + _gz(cpio.archive(own, found.epoch))),
        "grub/boot.cfg": Laid((files / "grub" / "boot.cfg").read_bytes()),
        "grub/onie.cfg": Laid((files / "grub" / "onie.cfg").read_bytes()),
        "grub/grubenv": Laid(b"# GRUB Environment Block\n".ljust(1024, b"#")),
    }
    for path, laid in contents.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(laid.data)
        target.chmod(laid.mode)
    part = work / "onie-boot.ext2"
    with part.open("wb") as file:
        file.truncate(onie.length)
    # ext2 and no journal: GRUB writes its environment block in place
    run_tool(["mke2fs", "-q", "-t", "ext2", "-b", "1024", "-L", "ONIE-BOOT", "-E", "root_owner=0:0", "-d", tree, part])
    run_tool(["dd", f"if={part}", f"of={image}", "bs=1M", f"seek={onie.offset // disk.MIB}", "conv=notrunc,sparse"])


def _installer(found: _Debian, files: Path, version: str) -> bytes:
    """A shell script that a tar follows."""
    build_id = hashlib.sha256(found.base + version.encode()).hexdigest()[:16]
    release = (
        f'PRETTY_NAME="lab-nos {version}"\nNAME="lab-nos"\nID=lab-nos\nVERSION_ID={version}\nBUILD_ID={build_id}\n'
        f'IMAGE_ID="lab-nos"\nIMAGE_VERSION="{version}"\n'
    )
    own = {**_folder(files / "nos"), "etc/os-release": Laid(release.encode())}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in {
            "vmlinuz": found.kernel,
            "initrd": found.base + _gz(cpio.archive(own, found.epoch)),
            "grub.cfg": (files / "grub" / "nos.cfg").read_bytes(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), found.epoch
            archive.addfile(member, io.BytesIO(data))
    payload = out.getvalue()
    head = (files / "installer.sh").read_text()
    marks = {
        "@VERSION@": f"LAB-OS-{version}",
        "@SHA1@": hashlib.sha1(payload, usedforsecurity=False).hexdigest(),  # as SONiC's installers have it
        "@PLATFORMS@": PLATFORMS,
        "@BYTES@": str(len(payload)),
    }
    for mark, value in marks.items():
        head = head.replace(mark, value)
    return head.encode() + payload
