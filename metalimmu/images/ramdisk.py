"""The ramdisk: what runs on a machine while it is being written. An ISO with kernel, initrd, squashfs and the agent.

Its largest part comes from Debian and is cached (`ramdisk_base`). The agent and its scripts travel in the initrd, so a
new version of metalimmu costs seconds. `boot/slot.cpio` in the ISO is 64 KiB of zeros that the boot service fills per
deployment while it serves the file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import metalimmu
from metalimmu import log, paths
from metalimmu.errors import ImageError, NotFound, ToolError, UsageError
from metalimmu.images import debian, iso, ramdisk_base, ramdisk_root
from metalimmu.images.ramdisk_debian import write_json
from metalimmu.wire import cpio

SLOT = "boot/slot.cpio"
PARTS = {"vmlinuz": "boot/vmlinuz", "initrd": "boot/initrd", "root": "live/root.squashfs"}
SLOT_SIZE = 64 << 10
ARCHITECTURES = ("x86_64",)
LAYER = "metalimmu-layer"  # in the initrd; its init copies it to LAYER_TARGET
LAYER_TARGET = "/usr/lib/metalimmu"

_LOG = log.get(__name__)


@dataclass(frozen=True)
class Ramdisk:
    """What is in ramdisk.json beside boot.iso. Sizes and offsets in bytes."""

    flavour: str
    label: str  # volume id of the ISO, by which the ramdisk finds its media
    architecture: str
    kernel: str
    backports: bool
    agent_version: str
    agent_digest: str  # of agent and scripts, see agent_digest()
    slot_offset: int
    slot_size: int
    sha256: str  # of boot.iso, with the slot empty
    sizes: dict[str, int]  # kernel, initrd, squashfs, iso
    mirror: str
    modules: int
    builtin: tuple[str, ...]  # modules asked for that are compiled into the kernel
    missing_modules: tuple[str, ...]  # wished for, not needed, and this kernel has none
    missing_firmware: tuple[str, ...]  # "path (module)"
    packages: tuple[str, ...]
    # Name in PARTS -> [first byte, size] in boot.iso: what a boot from the network is served from.
    parts: dict[str, list[int]] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def iso(self) -> Path:
        return self.folder / "boot.iso"

    @property
    def current(self) -> bool:
        """Does it carry the agent of the metalimmu that runs now?"""
        return self.agent_digest == agent_digest()


def build(
    flavour: str,
    out: Path,
    *,
    mirror: str | None = None,
    backports: bool = False,
    firmware_dir: Path | None = None,
    architecture: str = "x86_64",
    refresh: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Ramdisk:
    """Make `out`/boot.iso and `out`/ramdisk.json; the same inputs give the same bytes.

    Debian's part is taken from the cache when its inputs are the same; `refresh` asks the mirror again for newer
    packages. Raises UsageError for an unknown flavour or architecture, ToolError when a tool or the mirror fails.
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(
            f"no ramdisk for {architecture} yet", hint=f"the architectures that work: {', '.join(ARCHITECTURES)}"
        )
    if firmware_dir is not None and not firmware_dir.is_dir():
        raise UsageError(f"--firmware {firmware_dir} is not a folder", hint="name a folder laid out like /lib/firmware")
    if platform.machine() not in ARCHITECTURES:
        raise ToolError(
            f"a ramdisk is built by programs for x86_64, this machine is {platform.machine()}",
            hint="build on an x86_64 machine and copy the folder",
        )
    inputs = ramdisk_base.Inputs(ramdisk_base.flavour(flavour), debian.mirror(mirror), backports, firmware_dir)
    say = progress or _LOG.info
    with _files_can_be_written(), _locked(paths.cache() / "ramdisk", say):
        out.mkdir(parents=True, exist_ok=True)
        base = ramdisk_base.prepare(inputs, refresh=refresh, say=say)
        with tempfile.TemporaryDirectory(prefix="new-", dir=out) as work:
            result = _assemble(base, flavour, Path(work), backports=backports)
            (Path(work) / "boot.iso").replace(out / "boot.iso")
            (Path(work) / "ramdisk.json").replace(out / "ramdisk.json")
    say(f"{out / 'boot.iso'}: {result.sizes['iso'] >> 20} MiB")
    return load(out)


def load(folder: Path) -> Ramdisk:
    """Raises NotFound when there is none, ImageError when its two files do not belong together."""
    again = "`metalimmu ramdisk build`"
    try:
        raw = json.loads((folder / "ramdisk.json").read_text())
        size = (folder / "boot.iso").stat().st_size
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        found = Ramdisk(**values, folder=folder)
    except FileNotFoundError as exc:
        raise NotFound(f"no ramdisk in {folder}", hint=f"{again} makes one") from exc
    except (ValueError, TypeError, AttributeError) as exc:
        raise ImageError(f"{folder}/ramdisk.json is damaged or of another version: {exc}", hint=again) from exc
    if found.sizes["iso"] != size:
        raise ImageError(
            f"{folder}/boot.iso has {size} bytes, its ramdisk.json says {found.sizes['iso']}",
            hint=again,
        )
    return found


def list_built(folder: Path) -> list[Ramdisk]:
    """The ramdisks in the folders of `folder`, one per flavour."""
    return [load(p.parent) for p in sorted(folder.glob("*/ramdisk.json"))]


def _assemble(base: ramdisk_base.Base, flavour: str, work: Path, *, backports: bool) -> Ramdisk:
    layer = _layer(base, work)
    data = paths.data("pxe") / "ramdisk"
    initrd = work / "initrd"
    # Kernel documentation: archives may follow each other, compressed or not, padded with zeros to 4 bytes.
    # EFI's loader in the kernel puts files one after the other without that padding.
    whole = layer + base.file("initrd").read_bytes()
    initrd.write_bytes(whole + bytes(-len(whole) % 4))
    slot = work / "slot.cpio"
    slot.write_bytes(bytes(SLOT_SIZE))
    template = (data / "grub.cfg").read_text()
    files = {
        "boot/vmlinuz": base.file("vmlinuz"),
        "boot/initrd": initrd,
        SLOT: slot,
        "live/root.squashfs": base.file("root.squashfs"),
    }
    loaders = iso.Loaders(*(base.file(n) for n in ("shim.efi", "grub.efi", "eltorito.img", "hybrid.img")))
    label = _label(template, *files.values(), loaders.shim, loaders.grub, loaders.eltorito)
    marks = {"@LABEL@": label, "@VERSION@": metalimmu.__version__, "@FLAVOUR@": flavour}
    for mark, value in marks.items():
        template = template.replace(mark, value)
    target = work / "boot.iso"
    iso.write(target, files, template, loaders, label=label, epoch=base.facts["epoch"], tools=base.tools, work=work)
    slot_offset, slot_size = iso.offset(target, SLOT, base.tools)
    parts = {name: list(iso.offset(target, path, base.tools)) for name, path in PARTS.items()}
    facts = base.facts
    result = Ramdisk(
        flavour=flavour,
        label=label,
        architecture="x86_64",
        kernel=facts["kernel"],
        backports=backports,
        agent_version=metalimmu.__version__,
        agent_digest=agent_digest(),
        slot_offset=slot_offset,
        slot_size=slot_size,
        sha256=_sha256(target),
        sizes={
            "kernel": files["boot/vmlinuz"].stat().st_size,
            "initrd": initrd.stat().st_size,
            "squashfs": files["live/root.squashfs"].stat().st_size,
            "iso": target.stat().st_size,
        },
        parts=parts,
        mirror=facts["mirror"],
        modules=facts["modules"],
        builtin=tuple(facts["builtin"]),
        missing_modules=tuple(facts["missing_modules"]),
        missing_firmware=tuple(facts["missing_firmware"]),
        packages=tuple(facts["packages"]),
    )
    write_json(work / "ramdisk.json", {k: v for k, v in asdict(result).items() if k != "folder"})
    return result


def agent_digest() -> str:
    """SHA-256 over agent and scripts as they are now: a ramdisk with another one is out of date."""
    digest = hashlib.sha256()
    for path, source in sorted(_layer_files().items()):
        digest.update(f"{path}\0".encode() + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


def _layer_files() -> dict[str, Path]:
    """Path in the initrd -> file: the agent's package, the scripts, and the initrd's own first program."""
    package = Path(metalimmu.__file__).parent
    data = paths.data("pxe") / "ramdisk"
    sources = [
        package / "__init__.py",
        package / "errors.py",
        *package.glob("wire/**/*.py"),
        *package.glob("agent/**/*.py"),
    ]
    return {
        **{f"{LAYER}/metalimmu/{s.relative_to(package)}": s for s in sources},
        **{f"{LAYER}/{name}": data / name for name in ("init", "lease", "network.py")},
        "init": data / "initrd-init",
    }


def _layer(base: ramdisk_base.Base, work: Path) -> bytes:
    """Agent with byte code, and scripts: an uncompressed archive for the front of the initrd."""
    tree = work / "layer"
    for path, source in _layer_files().items():
        copy = tree / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
        copy.chmod(0o755 if source.suffix == "" else 0o644)  # Python by suffix, programs without
    (tree / LAYER / "version").write_text(f"{metalimmu.__version__}\n")
    # What comes through a BMC's virtual media is checked; the initrd came through the same, but GRUB reads it once.
    (tree / "squashfs.sha256").write_text(f"{_sha256(base.file('root.squashfs'))}\n")
    ramdisk_root.compile_python(base.tools, tree / LAYER / "metalimmu", tree / LAYER, as_root=LAYER_TARGET)
    # The kernel opens /dev/console before any of our programs runs; an initramfs brings its own.
    console = [cpio.directory("dev"), cpio.character_device("dev/console", 5, 1)]
    return cpio.pack([*console, *ramdisk_root.cpio_entries(tree)])


def _label(template: str, *files: Path) -> str:
    """Of everything on the media: two builds that differ never take each other's media for their own."""
    digest = hashlib.sha256(template.encode() + metalimmu.__version__.encode())
    for file in files:
        digest.update(_sha256(file).encode())
    return f"MI-{digest.hexdigest()[:8].upper()}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One build at a time for this user: they share downloads and caches. The lock ends with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of a ramdisk to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _files_can_be_written() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ToolError(
            f"cannot build the ramdisk: {exc.strerror or exc}: {exc.filename or 'a file of the build'}",
            hint=f"make room (1 GiB) and look at the permissions of the target and of {paths.cache()}",
        ) from exc
