"""The recipe `tiny`: Debian's kernel, busybox and openssl, all on the ESP; a minute to build, seconds to boot. For tests.

Two initrds, so that a new version that changes nothing but its name moves three chunks: the tools, and what the image is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from metalimmu import paths
from metalimmu.errors import ImageError, UsageError
from metalimmu.images.debian import mmdebstrap
from metalimmu.images.disk import Identity
from metalimmu.images.recipes import Order, Parts, cpio, release
from metalimmu.images.recipes.release import Laid
from metalimmu.images.tree import Stage, Tree, read_tar, tree_file

KERNELS = {"cloud": "linux-image-cloud-amd64", "generic": "linux-image-amd64"}
PACKAGES = (
    "base-files",
    "busybox-static",
    "openssl",
    "kmod",
    "shim-signed",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "grub-common",
)
LIBRARIES = ("libssl.so.3", "libcrypto.so.3", "libc.so.6", "ld-linux-x86-64.so.2")
# What the kernel has of these: the cloud kernel has neither ahci nor e1000.
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "sd_mod", "ahci", "ata_piix", "nvme", "megaraid_sas"),
    *(
        "e1000",
        "e1000e",
        "igb",
        "ixgbe",
        "vfat",
        "nls_cp437",
        "nls_ascii",
        "nls_iso8859-1",
        "nls_utf8",
        "button",
        "evdev",
    ),
)
GRUB_MODULES = "biosdisk part_gpt fat normal configfile linux echo test serial terminal minicmd sleep"
WORK = "boot/.metalimmu"


def make(order: Order, work: Path, stage: Stage, build_id: Callable[[dict[str, str]], str]) -> Parts:
    """Raises ToolError, ImageError, UsageError."""
    if order.recipe.packages or order.recipe.customize or order.recipe.hostname:
        raise UsageError("tiny has no packages, customize or hostname", hint="use the recipe debian")
    kernel = KERNELS[order.recipe.kernel]
    root = work / "root.tar"
    mmdebstrap(
        root,
        order.recipe.suite,
        order.sources,
        variant="extract",
        include=[*PACKAGES, kernel],
        epoch=order.epoch,
        extract=_hooks([*PACKAGES, kernel, "libssl3", "libc6"]),
        cache="tiny",
    )
    tree = read_tar(root, stage)
    root.unlink()

    def data(path: str) -> bytes:
        return stage.path(tree_file(tree, path).sha256).read_bytes()

    packages = release.packages(data(f"{WORK}/packages").decode())
    config = {"@VOLUME@": _volume(Identity(order.identity))}
    esp = {
        "EFI/BOOT/BOOTX64.EFI": data("usr/lib/shim/shimx64.efi.signed"),
        "EFI/BOOT/grubx64.efi": data("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
        "EFI/debian/grub.cfg": release.filled("tiny-grub.cfg", config),
        "tiny/vmlinuz": data(find(tree, r"boot/vmlinuz-.*")),
        "tiny/tools.cpio": cpio.archive(_tools(tree, stage), order.epoch),
        "tiny/image.cpio": cpio.archive(_image(order, build_id(packages), data("usr/lib/os-release")), order.epoch),
    }
    staged = {path: stage.keep(content) for path, content in esp.items()}
    return Parts(None, staged, data(f"{WORK}/boot.img"), data(f"{WORK}/core.img"), packages)


def _hooks(packages: list[str]) -> list[str]:
    show = " ".join(map(shlex.quote, packages))
    return [
        f'mkdir -p "$1"/{WORK}',
        'chroot "$1" depmod -a "$(ls "$1"/lib/modules)"',
        f'chroot "$1" grub-mkimage -O i386-pc -p "(,gpt2)/EFI/debian" -o /{WORK}/core.img {GRUB_MODULES}',
        f'cp "$1"/usr/lib/grub/i386-pc/boot.img "$1"/{WORK}/',
        f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-cache show --no-all-versions {show} > "$1"/{WORK}/packages',
    ]


def _volume(ids: Identity) -> str:
    return f"{ids.volume[:4]}-{ids.volume[4:]}"


def find(tree: Tree, pattern: str) -> str:
    """The one path that matches, through its last link. Raises ImageError."""
    found = [p for p in tree if re.fullmatch(pattern, p) and tree[p].kind == "file"]
    if len(found) != 1:
        raise ImageError(f"the packages brought {len(found)} of {pattern}", hint="is the mirror whole?")
    return found[0]


def _tools(tree: Tree, stage: Stage) -> dict[str, Laid]:
    def laid(path: str, mode: int = 0o644) -> Laid:
        return Laid(stage.path(tree_file(tree, path).sha256).read_bytes(), mode)

    files = {
        "bin/busybox": laid("bin/busybox", 0o755),
        "bin/openssl": laid("usr/bin/openssl", 0o755),
        "lib64/ld-linux-x86-64.so.2": Laid(link="/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        "etc/passwd": Laid(b"root:*:0:0:root:/:/bin/sh\n"),
        "usr/lib/ssl/openssl.cnf": Laid(b""),
        "etc/udhcpc.script": Laid(release.filled("tiny-udhcpc", {}), 0o755),
        "init": Laid(release.filled("tiny-init", {}), 0o755),
    }
    for name in LIBRARIES:
        files[f"lib/x86_64-linux-gnu/{name}"] = laid(
            find(tree, rf"(usr/)?lib/x86_64-linux-gnu/{re.escape(name)}"), 0o755
        )
    return files | modules(tree, stage)


def modules(tree: Tree, stage: Stage, names: Sequence[str] = MODULES) -> dict[str, Laid]:
    """The modules and all that they need, in an order in which insmod can load them (modules.dep of depmod)."""
    index = find(tree, r"(usr/)?lib/modules/[^/]+/modules\.dep")
    base = index.removesuffix("modules.dep")
    needs: dict[str, list[str]] = {}
    for line in stage.path(tree[index].sha256).read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(p).name.removesuffix(".ko").replace("-", "_"): p for p in needs}
    order: list[str] = []
    for name in names:
        module = by_name.get(name.replace("-", "_"))
        if module:
            # depmod lists what a module needs with the deepest need last.
            order += [p for p in (*reversed(needs[module]), module) if p not in order]
    files = {f"lib/modules/{Path(p).name}": Laid(stage.path(tree[base + p].sha256).read_bytes()) for p in order}
    return {**files, "etc/modules": Laid("".join(f"/lib/modules/{Path(p).name}\n" for p in order).encode())}


def _image(order: Order, build_id: str, text: bytes) -> dict[str, Laid]:
    named = release.os_release(text.decode(), name=order.name, version=order.version, build_id=build_id)
    files = release.folder(order.folder / order.recipe.files) if order.recipe.files else {}
    proof = paths.data("pxe") / "proof" / "metalimmu-proof.sh"
    return {**files, "etc/os-release": Laid(named.encode()), "bin/metalimmu-proof": Laid(release.shipped(proof), 0o755)}
