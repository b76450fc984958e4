"""The ramdisk's root file system, unpacked from Debian's packages: Python, busybox, kmod and nothing that listens or logs in.

What package scripts would have done is done here: byte code, busybox's commands, a handful of files in /etc.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from metalimmu.images import debian
from metalimmu.images.ramdisk_debian import Tools, package_name, unpack
from metalimmu.wire import cpio

PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "python3-zstandard", "busybox-static", "kmod")
# Come as dependencies of these, for uses that the ramdisk has not: a shell user's terminal, package scripts, Kerberos.
UNUSED_PACKAGES = frozenset(
    (
        "debconf", "dpkg", "tar", "perl-base", "media-types", "readline-common", "libreadline8", "libsqlite3-0", "libdb5.3",
        "libgssapi-krb5-2", "libkrb5-3", "libkrb5support0", "libk5crypto3", "libkeyutils1", "libcom-err2", "libtirpc3",
        "libtirpc-common", "libnsl2", "python3", "python3-minimal", "python3.11", "libpython3-stdlib", "python3-cffi-backend",
        "libncursesw6", "gcc-12-base",
    )
)  # fmt: skip
UNUSED_PATHS = (
    "usr/share/", "usr/lib/x86_64-linux-gnu/gconv/", "usr/lib/systemd/", "usr/lib/udev/", "usr/lib/python3.11/test/",
    "usr/lib/python3.11/idlelib/", "usr/lib/python3.11/lib2to3/", "usr/lib/python3.11/pydoc_data/",
    "usr/lib/python3.11/distutils/", "usr/lib/python3.11/sqlite3/", "usr/lib/python3.11/curses/",
    "usr/lib/python3.11/tkinter/", "usr/lib/python3.11/wsgiref/", "usr/lib/python3.11/xmlrpc/", "usr/lib/python3.11/dbm/",
    "usr/lib/python3.11/unittest/", "usr/lib/python3.11/config-", "etc/", "var/", "usr/games/",
)  # fmt: skip


def make(debs: Sequence[Path], tree: Path, tools: Tools) -> list[Path]:
    """Unpack PACKAGES and what they need into `tree`; gives the packages that were really used."""
    used = [deb for deb in debs if package_name(deb) not in UNUSED_PACKAGES]
    unpack(used, tree, lambda path: not path.startswith(UNUSED_PATHS))
    finish(tree, tools)
    return used


def finish(root: Path, tools: Tools) -> None:
    """What package scripts would have done: byte code, busybox's commands, the few files of /etc."""
    _link_applets(root / "usr/bin", {p.name for d in ("bin", "sbin") for p in (root / "usr" / d).iterdir()})
    (root / "usr/bin/python3").symlink_to("python3.11")
    for name in ("etc", "proc", "sys", "dev", "run", "tmp", "root", "var", "mnt"):
        (root / name).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:*:0:0:root:/root:/usr/sbin/nologin\n")
    (root / "etc/group").write_text("root:*:0:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/os-release").write_text('ID=metalimmu-ramdisk\nNAME="metalimmu ramdisk"\n')
    compile_python(tools, root / "usr/lib/python3.11", root)
    compile_python(tools, root / "usr/lib/python3", root)


def add_busybox(folder: Path, busybox: Path) -> None:
    """The program into `folder`, with a symlink for each of its commands."""
    folder.mkdir(parents=True)
    shutil.copy(busybox, folder / "busybox")
    _link_applets(folder, {"busybox"})


def _link_applets(folder: Path, taken: set[str]) -> None:
    for applet in debian.run_tool([folder / "busybox", "--list"]).stdout.decode().split():
        if applet not in taken:
            (folder / applet).symlink_to("busybox")


def compile_python(tools: Tools, folder: Path, root: Path, *, as_root: str = "/") -> None:
    """Byte code that does not look at its source's time: it would be wrong after unpacking, and then be made at each boot."""
    tools.python(
        "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", "-s", root, "-p", as_root, folder
    )  # fmt: skip


def squash(tools: Tools, tree: Path, target: Path, epoch: int) -> None:
    """A squashfs whose bytes depend on the tree's content only. Level 19 would take 2.5 times as long for 1 % less."""
    tools.run(
        "usr/bin/mksquashfs", tree, target, "-noappend", "-no-progress", "-quiet", "-all-root", "-no-xattrs", "-comp", "zstd",
        "-Xcompression-level", "15", "-b", "131072", "-mkfs-time", str(epoch), "-all-time", str(epoch),
        timeout=1800,
    )  # fmt: skip


def cpio_entries(tree: Path) -> list[cpio.Entry]:
    entries = []
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            entries.append(cpio.symlink(name, str(path.readlink())))
        elif path.is_dir():
            entries.append(cpio.directory(name))
        else:
            entries.append(cpio.file(name, path.read_bytes(), 0o755 if path.stat().st_mode & 0o111 else 0o644))
    return entries
