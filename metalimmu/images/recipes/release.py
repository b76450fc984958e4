"""What an image says of itself: os-release(5), the files laid over every root file system, the packages inside."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metalimmu.errors import ImageError

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Laid:
    """A file or link that a recipe lays over the tree; root's."""

    data: bytes = b""
    mode: int = 0o644
    link: str = ""


def os_release(text: str, *, name: str, version: str, build_id: str) -> str:
    """The distribution's os-release with our three fields. Versions and names have no character that needs more than quotes."""
    kept = [line for line in text.splitlines() if not re.match(r"(IMAGE_ID|IMAGE_VERSION|BUILD_ID)=", line)]
    return "\n".join([*kept, f'IMAGE_ID="{name}"', f'IMAGE_VERSION="{version}"', f'BUILD_ID="{build_id}"', ""])


def filled(name: str, values: dict[str, str]) -> bytes:
    """A file that ships beside the recipes, its @WORDS@ replaced."""
    text = (FILES / name).read_text()
    for key, value in values.items():
        text = text.replace(key, value)
    return text.encode()


def shipped(path: Path) -> bytes:
    """A file of metalimmu's own data. Raises ImageError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} is missing", hint="metalimmu is not installed whole: install it again") from None


def folder(root: Path) -> dict[str, Laid]:
    """A folder of the recipe's. Modes are 0755 or 0644 as in git, so that two checkouts give one image."""
    if not root.is_dir():
        raise ImageError(f"{root} is no folder", hint="`files` of a recipe names a folder beside it")
    return {str(path.relative_to(root)): _read(path) for path in _walk(root)}


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _read(path: Path) -> Laid:
    if path.is_symlink():
        return Laid(link=str(path.readlink()))
    if not path.is_file():
        raise ImageError(f"{path} is neither file nor link", hint="leave it out of the recipe's `files`")
    return Laid(path.read_bytes(), 0o755 if path.stat().st_mode & 0o111 else 0o644)


def tar(files: dict[str, Laid], epoch: int) -> bytes:
    """A tar without folders of its own: those of the tree stay as they are, also where they are links (/lib)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, laid in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.mode, member.mtime, member.uname, member.gname = laid.mode, epoch, "root", "root"
            if laid.link:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, laid.link, 0o777
            else:
                member.size = len(laid.data)
            archive.addfile(member, io.BytesIO(laid.data))
    return out.getvalue()


def packages(status: str) -> dict[str, str]:
    """Name -> version of what is installed, from dpkg's status (or what `apt-cache show` prints)."""
    found = {}
    for stanza in re.split(r"\n\s*\n", status):
        fields = dict(re.findall(r"^(Package|Version|Status): (.+)$", stanza, re.MULTILINE))
        if (
            "Package" in fields
            and "Version" in fields
            and fields.get("Status", "ok installed").endswith("ok installed")
        ):
            found[fields["Package"]] = fields["Version"]
    return dict(sorted(found.items()))
