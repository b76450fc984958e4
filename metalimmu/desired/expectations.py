"""One profile document as a flat list: each thing that it says, under the setting's name of observed.snapshot. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from metalimmu.desired import units
from metalimmu.desired.problems import Path
from metalimmu.desired.profile import (
    Account,
    BmcExpected,
    Certificate,
    Expectation,
    Hardware,
    Op,
    Parts,
    Profile,
    Scalar,
    Servers,
    Setting,
    Severity,
    Version,
)

NEUTRAL = "neutral."  # before the key of a vendor-neutral BIOS setting


class Said(NamedTuple):
    """`expectation` None: null, what an extended profile says under this key is taken out. Severity and owner are the
    setting's own, and the profile's are not yet in the expectation.
    """

    key: tuple[str, ...]
    expectation: Expectation | None
    path: Path
    severity: Severity | None = None
    owner: str | None = None


def said(profile: Profile) -> Iterator[Said]:
    for key, wanted in profile.bios.items():
        yield _scalar(NEUTRAL + key, wanted, ("bios", key))
    for name, wanted in profile.bios_raw.items():
        yield _scalar(f"bios.{name}", wanted, ("bios_raw", name))
    for component, version in profile.firmware.items():
        yield _firmware(component, version)
    if profile.boot_order is not None:
        yield _boot_order(profile.boot_order)
    if profile.boot_mode is not None:
        yield _scalar("boot.mode", profile.boot_mode, ("boot_mode",))
    if profile.secure_boot is not None:
        yield _scalar("secure_boot.enabled", profile.secure_boot, ("secure_boot",))
    if profile.bmc is not None:
        yield from _bmc(profile.bmc)
    if profile.hardware is not None:
        yield from _hardware(profile.hardware)


def _scalar(setting: str, wanted: Scalar | Setting, path: Path) -> Said:
    """Null takes out; a list is any of its values."""
    if wanted is None:
        return Said((setting,), None, path)
    if not isinstance(wanted, Setting):
        return Said((setting,), Expectation(setting=setting, op="equals", value=wanted), path)
    value = wanted.value
    one_of = isinstance(value, list)
    expectation = Expectation(
        setting=setting,
        op="one_of" if one_of else "equals",
        value=tuple(value) if isinstance(value, list) else value,
        because=wanted.because,
    )
    return Said((setting,), expectation, path, wanted.severity, wanted.owner)


def _firmware(component: str, version: Version | None) -> Said:
    setting, path = f"firmware.{component}", ("firmware", component)
    if version is None:
        return Said((setting,), None, path)
    op, value = _version(version)
    expectation = Expectation(setting=setting, op=op, value=value, component=version.component, because=version.because)
    return Said((setting,), expectation, path, version.severity, version.owner)


def _version(version: Version) -> tuple[Op, str | tuple[str, str]]:
    if version.exact is not None:
        return "equals", version.exact
    if version.at_least is not None:
        return "at_least", version.at_least
    if version.range is not None:
        return "range", (version.range.at_least, version.range.below)
    return "pattern", version.pattern or ".*"


def _boot_order(wanted: list[str] | Setting) -> Said:
    setting = wanted if isinstance(wanted, Setting) else Setting(value=list(wanted))
    value = setting.value if isinstance(setting.value, list) else [setting.value]
    expectation = Expectation(setting="boot.order", op="starts_with", value=tuple(value), because=setting.because)
    return Said(("boot.order",), expectation, ("boot_order",), setting.severity, setting.owner)


def _bmc(bmc: BmcExpected) -> Iterator[Said]:
    yield from _servers("ntp", bmc.ntp, "same_members")
    yield from _servers("dns", bmc.dns, "equals")  # the first that answers is used: the order says something
    yield from _servers("syslog", bmc.syslog, "same_members")
    if bmc.accounts is not None:
        for i, account in enumerate(bmc.accounts.present):
            for one in _account(account, ("bmc", "accounts", "present", i)):
                yield one._replace(severity=bmc.accounts.severity, owner=bmc.accounts.owner)
        for i, name in enumerate(bmc.accounts.absent):
            gone = Expectation(setting="bmc.accounts", op="lacks", value=name)
            path = ("bmc", "accounts", "absent", i)
            yield Said(("bmc.accounts", name), gone, path, bmc.accounts.severity, bmc.accounts.owner)
            yield Said(("bmc.accounts", name, "role"), None, path)
    if bmc.certificate is not None:
        yield from _certificate(bmc.certificate)
    if bmc.lockdown is not None:
        lockdown = bmc.lockdown if isinstance(bmc.lockdown, Setting) else Setting(value=bmc.lockdown)
        word = "Enabled" if lockdown.value else "Disabled"
        expectation = Expectation(setting="bmc.lockdown", op="equals", value=word, because=lockdown.because)
        yield Said(("bmc.lockdown",), expectation, ("bmc", "lockdown"), lockdown.severity, lockdown.owner)
    for name, wanted in bmc.protocols.items():
        yield _scalar(f"bmc.protocol.{name}", wanted, ("bmc", "protocols", name))


def _certificate(wanted: Certificate) -> Iterator[Said]:
    given: list[tuple[str, Scalar, Expectation]] = [
        (
            "days_left",
            wanted.days_left,
            Expectation(setting="bmc.certificate.not_after", op="days_left", value=wanted.days_left),
        ),
        ("issuer", wanted.issuer, Expectation(setting="bmc.certificate.issuer", op="glob", value=wanted.issuer)),
    ]
    for field, value, expectation in given:
        if value is not None:
            path = ("bmc", "certificate", field)
            yield Said((expectation.setting,), expectation, path, wanted.severity, wanted.owner)


def _account(account: str | Account, path: Path) -> Iterator[Said]:
    name = account if isinstance(account, str) else account.name
    yield Said(("bmc.accounts", name), Expectation(setting="bmc.accounts", op="contains", value=name), path)
    role = None if isinstance(account, str) else account.role
    if role is not None:
        wanted = Expectation(setting=f"bmc.account.{name}.role", op="equals", value=role)
        yield Said(("bmc.accounts", name, "role"), wanted, path)


def _servers(name: str, wanted: Servers | None, op: Op) -> Iterator[Said]:
    if wanted is None:
        return
    given: list[tuple[str, Op, Scalar | tuple[Scalar, ...]]] = []
    if wanted.enabled is not None:
        given.append(("enabled", "equals", wanted.enabled))
    if wanted.servers is not None:
        given.append(("servers", op, tuple(wanted.servers)))
    for field, how, value in given:
        setting = f"bmc.{name}.{field}"
        expectation = Expectation(setting=setting, op=how, value=value)
        yield Said((setting,), expectation, ("bmc", name, field), wanted.severity, wanted.owner)


# By kind of part: field -> (end of the setting's name, op). What is not here a BMC does not say of that kind.
PARTS: dict[str, dict[str, tuple[str, Op]]] = {
    "processors": {"count": ("count", "equals"), "at_least": ("count", "at_least"), "model": ("models", "each_glob")},
    "memory": {
        "count": ("count", "equals"),
        "at_least": ("count", "at_least"),
        "size": ("sizes", "each_equals"),
        "total": ("total", "equals"),
    },
    "disks": {
        "count": ("count", "equals"),
        "at_least": ("count", "at_least"),
        "size": ("sizes", "each_about"),
        "model": ("models", "each_glob"),
    },
    "nics": {"count": ("count", "equals"), "at_least": ("count", "at_least")},
    "power_supplies": {"count": ("count", "equals"), "at_least": ("count", "at_least")},
}


def _hardware(hardware: Hardware) -> Iterator[Said]:
    for kind, fields in PARTS.items():
        parts: Parts | None = getattr(hardware, kind)
        if parts is None:
            continue
        for field, (end, op) in fields.items():
            value = getattr(parts, field)
            if value is not None:
                setting = f"hardware.{kind}.{end}"
                value = units.size_bytes(value) if field in {"size", "total"} else value
                expectation = Expectation(setting=setting, op=op, value=value)
                yield Said((setting,), expectation, ("hardware", kind, field), parts.severity, parts.owner)
    for port, wanted in hardware.cabling.items():
        yield _scalar(f"cabling.{port}", wanted, ("hardware", "cabling", port))
