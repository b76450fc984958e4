"""What an installer asks for: a family of answer files for each make, and the templates that ship for them.

A role's `config:` may name a template of the site for any of them; what it does not name comes from pxe/install.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from msgspec.structs import replace

from metalimmu import paths
from metalimmu.desired.types import HostSpec

COMMON = {
    "begin": "begin.sh",
    "root-disk": "root-disk.sh",
    "finish": "finish.sh",
    "phone-home": "phone-home.sh",
}
"""Programs of the installer: name -> file in pxe/install."""


@dataclass(frozen=True)
class Family:
    main: str = ""  # the file by which an installer begins; empty: it asks for none
    files: dict[str, str] = field(default_factory=dict)  # name -> file in pxe/install
    arguments: str = ""  # file in pxe/install: the kernel's arguments that make it ask
    initrd: dict[str, str] = field(
        default_factory=dict
    )  # path -> file in pxe/install: programs beside the installer's own


FAMILIES = {
    "": Family(files=COMMON),
    "preseed": Family(  # Debian's installer
        "preseed.cfg",
        {"preseed.cfg": "preseed/preseed.cfg", **COMMON},
        "preseed/arguments",
        {"lib/debian-installer-startup.d/S31metalimmu": "preseed/startup.sh"},
    ),
    "kickstart": Family("ks.cfg", {"ks.cfg": "kickstart/ks.cfg", **COMMON}, "kickstart/arguments"),  # Anaconda
    "autoinstall": Family(
        "user-data", {"user-data": "autoinstall/user-data", **COMMON}, "autoinstall/arguments"
    ),  # Ubuntu's subiquity
    "esxi": Family("ks.cfg", {"ks.cfg": "esxi/ks.cfg"}, "esxi/arguments"),
}


def family(answers: str) -> Family:
    return FAMILIES.get(answers, FAMILIES[""])


def with_answers(spec: HostSpec, answers: str) -> HostSpec:
    """With the templates that ship, where the role names none."""
    shipped = {n: f for n, f in family(answers).files.items() if n not in spec.templates}
    return replace(
        spec,
        templates={**{n: shipped_text(f) for n, f in shipped.items()}, **spec.templates},
        template_files={**{n: f"pxe/install/{f}" for n, f in shipped.items()}, **spec.template_files},
    )


@cache
def shipped_text(file: str) -> str:
    return (paths.data("pxe") / "install" / file).read_text()
