"""Images that take minutes to build: made once, kept in the cache until anything that they are made from changes."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import lzma
import random
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from metalimmu import paths
from metalimmu.errors import NotFound
from metalimmu.images import debian, ramdisk_debian
from metalimmu.images.build import build
from metalimmu.images.catalogue import Catalogue, Image

INSTALLER = "debian-installer-12-netboot-amd64"  # only Debian 12 itself has it among its packages
SOURCES = ("add", "build", "chunks", "debian", "disk", "ext4", "layout", "tree")
CONTENT = 6 << 20  # bytes that differ from version to version: a write of some length
RC_LOCAL = "#!/bin/sh\nhttpd -h /srv/www\n"
WEB = {"1": "ok 1", "2": "ok 2", "3": "out of order"}  # version of `web` -> what its web server says of itself
# Small ones that security updates touch often; the first that has two versions right now is the one that is updated.
CANDIDATES = ("sudo", "openssh-server", "libexpat1", "tzdata", "ca-certificates", "iputils-ping", "less")


@functools.cache  # once: whoever edits a recipe while the tests run gets a new store with the next run
def _key() -> str:
    import metalimmu.images

    folder = Path(metalimmu.images.__file__).parent
    files = [folder / f"{name}.py" for name in SOURCES]
    files += sorted(p for p in (folder / "recipes").rglob("*") if p.suffix != ".pyc" and p.is_file())
    files += sorted(p for p in (paths.data("pxe") / "proof").glob("*") if p.is_file())
    files.append(Path(__file__))
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()[:16]


def catalogue() -> Catalogue:
    """The store of these images; those of other versions of the code are removed when a day old."""
    parent = paths.cache() / "test-images"
    mine = parent / _key()
    mine.mkdir(parents=True, exist_ok=True)
    mine.touch()
    for other in parent.iterdir():
        if time.time() - other.stat().st_mtime > 86400:
            shutil.rmtree(other, ignore_errors=True)
    return Catalogue(mine)


def image(
    ref: str, recipe: str, *, base: str | None = None, packages: tuple[str, ...] = (), files: Path | None = None
) -> tuple[Catalogue, Image]:
    """Built, or found in the cache. Two test runs at once build it once."""
    store = catalogue()
    with (store.root / f"{ref}.building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return store, store.get(ref)
        except NotFound:
            return store, build(recipe, ref, store, base=base, packages=packages, files=files)


def web() -> Catalogue:
    """web@1, web@2 and web@3: a web server that says how it is. The third is a bad one."""
    for version, words in WEB.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "etc").mkdir()
            (root / "etc/rc.local").write_text(RC_LOCAL)
            (root / "etc/rc.local").chmod(0o755)
            (root / "srv/www").mkdir(parents=True)
            (root / "srv/www/healthz").write_text(f"{words}\n")
            (root / "srv/www/content").write_bytes(random.Random(version).randbytes(CONTENT))
            image(f"web@{version}", "tiny", base=None if version == "1" else "web@1", files=root)
    return catalogue()


def installer() -> Path:
    """Debian 12's own installer: the folder with its `linux` and `initrd.gz`."""
    home = paths.cache() / "test-installer"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "tree").exists():
            apt = ramdisk_debian.Apt(home / "apt", debian.sources(debian.mirror(), "bookworm", "main"))
            apt.update()
            shutil.rmtree(home / "new", ignore_errors=True)
            ramdisk_debian.unpack(apt.fetch(INSTALLER), home / "new")
            (home / "new").rename(home / "tree")
    return home / "tree/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"


@functools.cache
def older_package() -> tuple[str, str]:
    """(package, version): one of our packages at the older of the two versions that Debian serves of it today.

    After a point release the security archive may have the older one.
    """
    archive = debian.mirror()
    security = debian.security_mirror(archive, "bookworm")
    point = _versions(f"{archive}/dists/bookworm/main/binary-amd64/Packages.xz")
    fixed = _versions(f"{security}/dists/bookworm-security/main/binary-amd64/Packages.xz")
    for name in CANDIDATES:
        a, b = point.get(name), fixed.get(name)
        if a and b and a != b:
            first = subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False).returncode == 0
            return name, a if first else b
    raise AssertionError(f"none of {CANDIDATES} has two versions today: add one that has")


def _versions(url: str) -> dict[str, str]:
    with urllib.request.urlopen(url, timeout=120) as answer:
        text = lzma.decompress(answer.read()).decode()
    return dict(re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", text, re.MULTILINE | re.DOTALL))


def main() -> None:
    """Build all of them now, so that the tests find them: `python tests/images/image_builds.py`."""
    package, version = older_package()
    image("tiny@1", "tiny")
    image("tiny@2", "tiny", base="tiny@1")
    web()
    image("debian@1", "debian", packages=(f"{package}={version}",))
    image("debian@2", "debian", base="debian@1")
    installer()


if __name__ == "__main__":
    main()
