"""The competitor's boot media: the ramdisk's own kernel and boot loaders, and an initramfs with busybox, curl, zstd,
openssl and GNU dd, as Debian ships them. Nothing else is in it and nothing else runs: no squashfs to copy into memory,
no interpreter to start.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from metalimmu import paths
from metalimmu.images import debian, iso, ramdisk_base, ramdisk_debian
from metalimmu.images.ramdisk_base import Base, Inputs
from metalimmu.images.ramdisk_debian import LOADER, Apt, unpack
from metalimmu.images.recipes import release
from metalimmu.wire import cpio

PACKAGES = ("curl", "zstd", "openssl", "coreutils", "busybox-static")
PROGRAMS = ("curl", "zstd", "openssl", "dd")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
MODULES = ("virtio_pci", "virtio_blk", "virtio_net")
GRUB = """\
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=0
set default=0
linux /boot/vmlinuz console=ttyS0,115200 loglevel=4 panic=30 net.ifnames=0 @JOB@
initrd /boot/initrd
boot
"""


def make(target: Path, *, ramdisk: str, job: dict[str, str]) -> None:
    """The ISO at `target`, beside the ramdisk of that flavour in everything that is not the job itself."""
    inputs = Inputs(ramdisk_base.flavour(ramdisk), debian.mirror(None))
    base = ramdisk_base.prepare(inputs, refresh=False, say=lambda _: None)
    initrd = _initrd(base, inputs.mirror)
    loaders = iso.Loaders(*(base.file(n) for n in ("shim.efi", "grub.efi", "eltorito.img", "hybrid.img")))
    words = " ".join(f"bench.{k}={v}" for k, v in job.items())
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        iso.write(
            target,
            {"boot/vmlinuz": base.file("vmlinuz"), "boot/initrd": initrd},
            GRUB.replace("@JOB@", words),
            loaders,
            label="BARE",
            epoch=base.facts["epoch"],
            tools=base.tools,
            work=Path(work),
        )


def _initrd(base: Base, mirror: str) -> Path:
    """In the cache, by what it is made of."""
    import zstandard

    init = Path(__file__).with_name("bare-init").read_bytes()
    key = hashlib.sha256(init + Path(__file__).read_bytes() + base.folder.name.encode()).hexdigest()[:12]
    made = paths.cache() / "bench" / f"bare-{key}.initrd"
    if made.exists():
        return made
    home = paths.cache() / "bench" / "apt"
    apt = Apt(home, ramdisk_debian.source_lines(mirror, backports=False))
    apt.update()
    with tempfile.TemporaryDirectory(dir=home) as folder:
        work = Path(folder)
        unpack(apt.fetch(*PACKAGES, dependencies=True), work / "debian", lambda p: not p.startswith("usr/share/"))
        root = work / "root"
        _programs(work / "debian", root)
        _modules(base, work, root)
        (root / "init").write_bytes(init)
        (root / "etc/udhcpc.script").write_bytes(release.filled("tiny-udhcpc", {}))
        for script in (root / "init", root / "etc/udhcpc.script"):
            script.chmod(0o755)
        # The kernel opens /dev/console before any of our programs runs.
        console = [cpio.directory("dev"), cpio.character_device("dev/console", 5, 1)]
        packed = zstandard.ZstdCompressor(level=19).compress(cpio.pack([*console, *_entries(root)]))
        part = made.with_suffix(".part")
        part.write_bytes(packed)
        part.rename(made)
    return made


def _programs(debs: Path, root: Path) -> None:
    """The programs, each with the libraries that its loader asks for, where it looks for them."""
    loader = debs / LOADER
    (root / "bin").mkdir(parents=True)
    (root / LIBRARIES).mkdir(parents=True)
    (root / "lib64").mkdir()
    shutil.copy(debs / "usr/bin/busybox", root / "bin/busybox")
    shutil.copy(loader, root / "lib64" / loader.name)
    (root / "lib").symlink_to("usr/lib")
    for program in PROGRAMS:
        shutil.copy(debs / "usr/bin" / program, root / "bin" / program)
        listed = debian.run_tool([loader, "--library-path", debs / LIBRARIES, "--list", debs / "usr/bin" / program])
        for name in re.findall(r"^\s*([^/\s]+) => /", listed.stdout.decode(), re.MULTILINE):
            shutil.copy(debs / LIBRARIES / name, root / LIBRARIES / name)
    (root / "usr/lib/ssl").mkdir(parents=True)
    (root / "usr/lib/ssl/openssl.cnf").touch()


def _modules(base: Base, work: Path, root: Path) -> None:
    """Drivers of disk and network out of the ramdisk's own squashfs: the same kernel, the same files."""
    tree = work / "squash"
    base.tools.run(
        "usr/bin/unsquashfs", "-q", "-n", "-no-xattrs", "-d", tree, base.file("root.squashfs"), "usr/lib/modules"
    )
    index = next((tree / "usr/lib/modules").glob("*/modules.dep"))
    needs = dict(line.partition(":")[::2] for line in index.read_text().splitlines())
    by_name = {Path(p).name.removesuffix(".ko").replace("-", "_"): p for p in needs}
    order: list[str] = []
    for name in MODULES:
        if path := by_name.get(name):  # else it is compiled in
            order += [p for p in (*reversed(needs[path].split()), path) if p not in order]
    (root / "lib/modules").mkdir(parents=True)
    (root / "etc").mkdir()
    for path in order:
        shutil.copy(index.parent / path, root / "lib/modules" / Path(path).name)
    (root / "etc/modules").write_text("".join(f"/lib/modules/{Path(p).name}\n" for p in order))


def _entries(root: Path) -> list[cpio.Entry]:
    from metalimmu.images.ramdisk_root import cpio_entries

    return cpio_entries(root)
