"""What an image is built from: a recipe, by the name of a built-in one or as a YAML file.

.. code:: yaml

    # web.yaml
    name: web
    version: "2026.11.3"      # quoted: YAML reads 2.10 as 2.1
    recipe: debian            # what it is made of: debian or tiny
    packages: [nginx-light, "openssl=3.0.15-1~deb12u1"]
    files: web-files          # a folder, copied over the root file system; its files become root's
    customize:                # shell lines run inside the new system, as its root
      - systemctl enable nginx

A built-in recipe has no name and version of its own: `image build debian --as web@2026.11.3`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from metalimmu import structs
from metalimmu.errors import ImageError, NotFound
from metalimmu.images.tree import Stage, Tree

Package = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+|/[a-z-]+)?$",
        description="name, name=version or name/suite",
    ),
]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    recipe: Literal["debian", "tiny"] = "debian"
    name: str | None = None
    version: str | None = None
    suite: Literal["bookworm"] = "bookworm"
    components: tuple[Literal["main", "contrib", "non-free", "non-free-firmware"], ...] = ("main",)
    kernel: Literal["cloud", "generic"] = "cloud"  # cloud: virtio and little else; generic: every driver
    packages: list[Package] = []
    files: str | None = None  # folder, relative to the recipe
    size: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?\s*[MG]i?B$")] | None = None  # of the whole disk image
    hostname: str | None = None  # until cloud-init knows a better one; default: the image's name
    customize: list[str] = []


BUILT_IN = {"debian": Recipe(recipe="debian"), "tiny": Recipe(recipe="tiny")}


@dataclass(frozen=True)
class Order:
    """One build: everything that its bytes depend on, but for what the mirror then has."""

    recipe: Recipe
    name: str
    version: str
    folder: Path  # that `files` is relative to
    mirror: str
    sources: tuple[str, ...]
    epoch: int  # SOURCE_DATE_EPOCH
    identity: str  # name that all UUIDs come from: the base's, if there is one


@dataclass(frozen=True)
class Parts:
    """What a recipe makes of an order."""

    root: Tree | None  # None: all is on the ESP
    esp: dict[str, str]  # path -> SHA-256 of the staged content
    boot: bytes  # GRUB's boot.img
    core: bytes  # and core.img
    packages: dict[str, str]  # name -> version
    efi_loader: str | None = None


Builder = Callable[[Order, Path, Stage, Callable[[dict[str, str]], str]], Parts]
"""(order, work folder, stage, build id from packages) -> parts"""


def load(name: str) -> tuple[Recipe, Path]:
    """The recipe and the folder it lies in. Raises NotFound, ImageError."""
    if name in BUILT_IN:
        return BUILT_IN[name], Path.cwd()
    path = Path(name)
    if not path.is_file():
        raise NotFound(f"no recipe {name}", hint="built in are: debian, tiny; or name a YAML file")
    import yaml

    try:
        found = structs.convert(yaml.safe_load(path.read_bytes()), Recipe)
    except yaml.YAMLError as exc:
        raise ImageError(f"{path}: not YAML: {exc}", hint="mend the recipe") from exc
    except msgspec.ValidationError as exc:
        hint = (
            "quote it: YAML reads 2.10 as a number"
            if "got `float`" in str(exc) or "got `int`" in str(exc)
            else "mend the recipe"
        )
        raise ImageError(f"{path}: {exc}", hint=hint) from exc
    return found, path.parent


def builder(recipe: Recipe) -> Builder:
    if recipe.recipe == "tiny":
        from metalimmu.images.recipes import tiny

        return tiny.make
    from metalimmu.images.recipes import debian

    return debian.make


def size_bytes(text: str) -> int:
    """`2GiB` and the like, in bytes, rounded up to whole MiB."""
    number, unit = text.rstrip("iB").rstrip("MG"), text.replace("i", "").rstrip("B")[-1]
    base = 1024 if "i" in text else 1000
    size = int(float(number) * base ** {"M": 2, "G": 3}[unit])
    return -(-size // (1 << 20)) * (1 << 20)
