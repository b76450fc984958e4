"""What each NOS is asked, as data: adapters.yaml."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

import msgspec

from metalimmu import structs
from metalimmu.errors import BmcUnsupported

# os-release, SONiC's own file, and what ONIE has where a NOS has none of these.
DETECT = (
    "cat /etc/os-release 2>/dev/null; echo; echo ---; cat /etc/sonic/sonic_version.yml 2>/dev/null; echo; echo ---; "
    "cat /etc/machine.conf 2>/dev/null; true"
)


class Onie(msgspec.Struct, frozen=True):
    at: str  # where its partition is mounted
    tools: str


class Adapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    detect: dict[str, str]  # fields of os-release, or `sonic_version`: a field that its file must have
    root: str  # before what needs root
    version: str  # the field that has the version
    onie: Onie
    facts: dict[str, str]
    pair: str = ""  # which reader
    select: str = ""  # beside ONIE's own variable
    drain: str = ""
    undrain: str = ""
    fetch: str = ""  # of an image; without it there are no two slots
    keep: str = ""  # where it is fetched to
    mgmt: str = "eth0"

    def onie_mode(self, mode: str) -> str:
        """Set it, and say it."""
        tool = f"{self.root}{self.onie.tools}/onie-boot-mode"
        more = f"{self.root}{self.select}; " if self.select and mode == "install" else ""
        entry = f"{self.root}grub-reboot ONIE 2>/dev/null; " if mode == "install" else ""
        return f"{self.mounted}; {more}{entry}{tool} -o {mode} && {tool} -l"

    @property
    def mounted(self) -> str:
        at = self.onie.at
        mount = f"{self.root}mkdir -p {at}; {self.root}mount LABEL=ONIE-BOOT {at}"
        return f"mountpoint -q {at} || {{ {mount}; }} 2>/dev/null"

    @property
    def questions(self) -> dict[str, str]:
        """All facts by name."""
        tools = self.onie.tools
        return {
            **self.facts,
            "onie_mode": f"{self.mounted}; {self.root}{tools}/onie-boot-mode -l",
            "nos_mode": f"{self.root}{tools}/onie-nos-mode -g",
        }

    def fetched(self, url: str) -> str:
        self._slots()
        return self.root + self.fetch.format(file=shlex.quote(self.keep), url=shlex.quote(url))

    def installer(self, words: str) -> str:
        """A command of sonic-installer."""
        self._slots()
        return f"{self.root}sonic-installer {words}"

    def _slots(self) -> None:
        if not self.fetch:
            raise BmcUnsupported("this NOS has no second slot", hint="set boot: onie in the role")


@cache
def adapters() -> dict[str, Adapter]:
    import yaml

    read = yaml.load(Path(__file__).with_name("adapters.yaml").read_bytes(), Loader=yaml.CSafeLoader)
    read.pop("onie")
    found: dict[str, Adapter] = structs.convert(read, dict[str, Adapter])
    return found


def fitting(os_release: dict[str, str], sonic_version: dict[str, str]) -> str:
    """The adapter's name; empty: none knows this system."""
    for name, adapter in adapters().items():
        wanted = dict(adapter.detect)
        sonic = wanted.pop("sonic_version", None)
        if sonic and sonic not in sonic_version:
            continue
        if all(os_release.get(k) == v for k, v in wanted.items()):
            return name
    return ""
