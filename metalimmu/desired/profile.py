"""Profiles: what a machine's firmware and settings must be. Documents as structs, and the flat form that is compared."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from metalimmu.desired.types import Document, Match, Size

Scalar = str | int | float | bool | None
Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")  # rising


class Setting(Document, frozen=True, kw_only=True):
    """A value with what goes with it. In a document a bare value may stand for it: `sriov: enabled`."""

    value: Scalar | list[Scalar]
    severity: Severity | None = None
    owner: str | None = None
    because: str = ""


class Version(Document, frozen=True, kw_only=True):
    """Exactly one of exact, at_least, range, pattern; separate fields, never a mini-language in a string."""

    exact: str | None = None
    at_least: str | None = None
    range: VersionRange | None = None
    pattern: str | None = None  # a regular expression that the whole version must match
    component: ComponentMatch | None = None  # which items this is for; default: the key under which it stands
    severity: Severity | None = None
    owner: str | None = None
    because: str = ""


class VersionRange(Document, frozen=True, kw_only=True):
    at_least: str
    below: str


class ComponentMatch(Document, frozen=True, kw_only=True):
    """Globs on what identifies a component; all that are given must fit. Several items may: each is compared."""

    name: str | None = None
    model: str | None = None
    manufacturer: str | None = None
    device: str | None = None  # slot or related item
    software_id: str | None = None


class Account(Document, frozen=True, kw_only=True):
    name: str
    role: str | None = None


class Accounts(Document, frozen=True, kw_only=True):
    present: list[str | Account] = []
    absent: list[str] = []
    severity: Severity | None = None
    owner: str | None = None


class Servers(Document, frozen=True, kw_only=True):
    enabled: bool | None = None
    servers: list[str] | None = None
    severity: Severity | None = None
    owner: str | None = None


class Certificate(Document, frozen=True, kw_only=True):
    """`days_left`: at least so many until it ends, counted at the time of the scan."""

    days_left: Annotated[int, Meta(ge=0)] | None = None
    issuer: str | None = None  # glob
    severity: Severity | None = None
    owner: str | None = None


class BmcExpected(Document, frozen=True, kw_only=True):
    ntp: Servers | None = None
    dns: Servers | None = None
    syslog: Servers | None = None
    accounts: Accounts | None = None
    certificate: Certificate | None = None
    lockdown: bool | Setting | None = None
    protocols: dict[str, bool | Setting | None] = {}  # ssh: false


class Parts(Document, frozen=True, kw_only=True):
    """What must be fitted. `size` and `model` hold for each of them; counts are exact. Memory has size and total (in GiB,
    exact), disks size (within 1 %) and model, processors model; NICs and power supplies only counts.
    """

    count: int | None = None
    at_least: int | None = None
    size: Size | None = None
    total: Size | None = None
    model: str | None = None  # glob
    severity: Severity | None = None
    owner: str | None = None


class Hardware(Document, frozen=True, kw_only=True):
    processors: Parts | None = None
    memory: Parts | None = None
    disks: Parts | None = None
    nics: Parts | None = None
    power_supplies: Parts | None = None
    cabling: dict[str, str | Setting | None] = {}  # port -> "SWITCH PORT", by LLDP


class Profile(Document, frozen=True, kw_only=True):
    """profiles/NAME.yaml. Fields of `extends` come first, later ones win, setting by setting. `match` is not inherited.

    null takes an inherited setting out: in bios, bios_raw, firmware, protocols and cabling.
    """

    # Not `Name | list[Name]`: msgspec 0.22.0 frees such a type wrongly (a constrained str beside a list) and crashes.
    extends: str | list[str] | None = None
    match: Match | None = None  # hosts without a role's profile get the most specific one that fits
    description: str = ""
    severity: Severity | None = None  # of settings that name none; default warning
    owner: str | None = None
    bios: dict[str, Scalar | Setting] = {}  # vendor-neutral keys: those of neutral.yaml
    bios_raw: dict[str, Scalar | Setting] = {}  # attributes under the BMC's own names
    firmware: dict[str, Version | None] = {}
    boot_order: list[str] | Setting | None = None  # what is tried first, as globs; what comes after them is free
    secure_boot: bool | Setting | None = None
    boot_mode: Literal["UEFI", "Legacy"] | None = None
    bmc: BmcExpected | None = None
    hardware: Hardware | None = None


Op = Literal[
    "equals",
    "one_of",
    "same_members",  # of a list, in whatever order: NTP servers
    "starts_with",  # globs for the first entries of a list: boot order
    "at_least",  # a number, or a version
    "range",  # (at least, below): versions
    "pattern",  # a regular expression for the whole text
    "glob",
    "contains",
    "lacks",
    "days_left",
    "each_equals",
    "each_about",  # within 1 %: a disk of 480GB has 480.1e9 bytes
    "each_glob",
]


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must be so: the flat form of a profile, and the only input of the comparison.

    `setting` is a name of observed.snapshot, or ``neutral.KEY`` for a vendor-neutral BIOS key, which the comparison maps
    by the machine's make.
    """

    setting: str
    op: Op
    value: Scalar | tuple[Scalar, ...]
    component: ComponentMatch | None = None
    severity: Severity = "warning"
    owner: str = ""
    because: str = ""
    profile: str = ""  # where it was written: the name of the profile in the chain
    line: int = 0


class ResolvedProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile with all that it extends: `chain` from the base to itself."""

    name: str
    chain: tuple[str, ...]
    expectations: tuple[Expectation, ...]
