"""The recipe `debian`: Debian 12 for amd64, bootable by UEFI (signed, so with secure boot) and by BIOS.

systemd, networkd through netplan, cloud-init with the NoCloud data source only, sshd, the units that prove the system and
fetch its run-time config. No password and no key until the seed brings one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from metalimmu import paths
from metalimmu.images.debian import mmdebstrap
from metalimmu.images.disk import Identity
from metalimmu.images.recipes import Order, Parts, release
from metalimmu.images.recipes.release import Laid
from metalimmu.images.tree import Entry, Stage, Tree, read_tar, tree_file

PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "dbus", "udev", "kmod"),
    *("initramfs-tools", "zstd", "netplan.io", "iproute2", "iputils-ping", "openssh-server"),
    *(
        "cloud-init",
        "cloud-guest-utils",
        "fdisk",
        "e2fsprogs",
        "python3",
        "ca-certificates",
        "openssl",
        "procps",
        "less",
        "sudo",
    ),
    *("shim-signed", "grub-efi-amd64-signed", "grub-pc-bin"),
)
KERNELS = {"cloud": "linux-image-cloud-amd64", "generic": "linux-image-amd64"}
# What nobody reads on a server, and the unsigned twins of GRUB. Licences stay.
LEFT_OUT = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/lib/grub/x86_64-efi/*",
)
GRUB_MODULES = (
    "biosdisk part_gpt ext2 normal configfile linux search search_fs_uuid echo test serial terminal minicmd sleep"
)
PROGRAMS = ("metalimmu-proof.py", "metalimmu-config.py")
UNITS = ("metalimmu-proof.service", "metalimmu-config.service", "metalimmu-config.path")
WORK = "boot/.metalimmu"  # taken out of the tree again
# Made by the build and different each time, or of the building machine.
DROPPED = (
    "etc/ssh/ssh_host_",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dpkg/status-old",
    "var/cache/apt/archives/lock",
    "var/lib/apt/lists/lock",
    "var/cache/ldconfig/aux-cache",
)
EFI_LOADER = "\\EFI\\debian\\shimx64.efi"


def make(order: Order, work: Path, stage: Stage, build_id: Callable[[dict[str, str]], str]) -> Parts:
    """Raises ToolError, ImageError."""
    ids = Identity(order.identity)
    overlay = work / "overlay.tar"
    overlay.write_bytes(release.tar(_overlay(order, ids), order.epoch))
    early = work / "early.tar"
    early.write_bytes(release.tar({"etc/fstab": _fstab(ids)}, order.epoch))
    root = work / "root.tar"
    mmdebstrap(
        root,
        order.recipe.suite,
        order.sources,
        include=[*PACKAGES, KERNELS[order.recipe.kernel], *order.recipe.packages],
        epoch=order.epoch,
        # The initrd is made while the kernel is installed, and takes fsck along only for what fstab has by then.
        essential=[f"tar-in {shlex.quote(str(early))} /"],
        customize=_hooks(order, overlay),
        dpkg_options=LEFT_OUT,
        cache="debian",
    )
    tree = read_tar(root, stage)
    root.unlink()
    packages = release.packages(_text(tree, stage, "var/lib/dpkg/status"))
    boot, core = (stage.path(tree_file(tree, f"{WORK}/{n}").sha256).read_bytes() for n in ("boot.img", "core.img"))
    esp = _esp(tree, stage, ids)
    tree = _finish(tree, stage, order, build_id(packages))
    return Parts(tree, esp, boot, core, packages, EFI_LOADER)


def _hooks(order: Order, overlay: Path) -> list[str]:
    enabled = (
        "systemd-networkd.service systemd-resolved.service systemd-timesyncd.service ssh.service "
        "metalimmu-proof.service metalimmu-config.path"
    )
    return [
        f"tar-in {shlex.quote(str(overlay))} /",
        f'chroot "$1" systemctl --quiet enable {enabled}',
        f'chroot "$1" grub-mkimage -O i386-pc -p "(,gpt4)/boot/grub" -o /{WORK}/core.img {GRUB_MODULES}',
        f'cp "$1"/usr/lib/grub/i386-pc/boot.img "$1"/{WORK}/',
        *(f'chroot "$1" sh -ec {shlex.quote(line)}' for line in order.recipe.customize),
        # The initrd was made before our files were there.
        *(['chroot "$1" update-initramfs -u -k all'] if _touches_initrd(order) else []),
    ]


def _touches_initrd(order: Order) -> bool:
    if not order.recipe.files:
        return False
    paths_of = release.folder(order.folder / order.recipe.files)
    return any(p.startswith(("etc/initramfs-tools/", "etc/modprobe.d/", "etc/modules", "etc/udev/")) for p in paths_of)


def _fstab(ids: Identity) -> Laid:
    volume = f"{ids.volume[:4]}-{ids.volume[4:]}"
    return Laid(release.filled("debian-fstab", {"@UUID@": ids.uuid("root-fs"), "@VOLUME@": volume}))


def _overlay(order: Order, ids: Identity) -> dict[str, Laid]:
    values = {"@UUID@": ids.uuid("root-fs"), "@NAME@": order.name}
    proof = paths.data("pxe") / "proof"
    files = {
        "boot/grub/grub.cfg": Laid(release.filled("debian-grub.cfg", values)),
        "etc/fstab": _fstab(ids),
        "etc/hostname": Laid(f"{order.recipe.hostname or order.name}\n".encode()),
        "etc/hosts": Laid(b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
        "etc/apt/sources.list": Laid(
            release.filled(
                "debian-sources.list",
                {"@SUITE@": order.recipe.suite, "@COMPONENTS@": " ".join(order.recipe.components)},
            )
        ),
        "etc/cloud/cloud.cfg.d/90-metalimmu.cfg": Laid(release.filled("debian-cloud.cfg", {})),
        # Also without a seed there must be keys to start with; cloud-init makes new ones before sshd starts.
        "etc/systemd/system/ssh.service.d/keys.conf": Laid(
            b"[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"
        ),
        **{f"usr/lib/metalimmu/{name}": Laid(release.shipped(proof / name), 0o755) for name in PROGRAMS},
        **{f"usr/lib/systemd/system/{name}": Laid(release.shipped(proof / name)) for name in UNITS},
        "etc/default/locale": Laid(b"LANG=C.UTF-8\n"),
        # An image is changed by its next version, not by timers.
        "etc/systemd/system/apt-daily.timer": Laid(link="/dev/null"),
        "etc/systemd/system/apt-daily-upgrade.timer": Laid(link="/dev/null"),
        f"{WORK}/README": Laid(b"what the build needs on the way\n"),
        "boot/efi/.keep": Laid(),
    }
    if order.recipe.files:
        files |= release.folder(order.folder / order.recipe.files)
    return files


def _esp(tree: Tree, stage: Stage, ids: Identity) -> dict[str, str]:
    shim = tree_file(tree, "usr/lib/shim/shimx64.efi.signed").sha256
    grub = tree_file(tree, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed").sha256
    manager = tree_file(tree, "usr/lib/shim/mmx64.efi.signed").sha256
    config = stage.keep(release.filled("debian-esp-grub.cfg", {"@UUID@": ids.uuid("root-fs")}))
    return {
        "EFI/BOOT/BOOTX64.EFI": shim,
        "EFI/BOOT/grubx64.efi": grub,
        "EFI/BOOT/mmx64.efi": manager,
        "EFI/debian/shimx64.efi": shim,
        "EFI/debian/grubx64.efi": grub,
        "EFI/debian/mmx64.efi": manager,
        "EFI/debian/grub.cfg": config,
    }


def _finish(tree: Tree, stage: Stage, order: Order, build_id: str) -> Tree:
    """Without traces of the build, and with its name in os-release."""
    kept = {
        path: entry
        for path, entry in tree.items()
        if not path.startswith(DROPPED)
        and path != WORK
        and not path.startswith(f"{WORK}/")
        and not (path.startswith(("dev/", "run/", "tmp/", "var/tmp/")))
        and not (path.startswith("var/log/") and entry.kind == "file")
    }
    kept.pop("boot/efi/.keep", None)
    text = _text(tree, stage, "usr/lib/os-release")
    named = release.os_release(text, name=order.name, version=order.version, build_id=build_id)
    kept["usr/lib/os-release"] = stage.file(named.encode(), mtime=order.epoch)
    # Empty: systemd makes one at the first boot, each machine its own.
    kept["etc/machine-id"] = stage.file(b"", mode=0o444, mtime=order.epoch)
    kept["etc/resolv.conf"] = Entry(
        "symlink", 0o777, mtime=order.epoch, target="../run/systemd/resolve/stub-resolv.conf"
    )
    kept.pop("var/lib/dbus/machine-id", None)
    return dict(sorted(kept.items()))


def _text(tree: Tree, stage: Stage, path: str) -> str:
    return stage.path(tree_file(tree, path).sha256).read_text()
