"""From a host to a connected driver, by the scheme of its BMC's address. Nothing is sent before the first call.

==========================  ================================================================
``redfish+https://``        the sushy driver; TLS by the host's CA, fingerprint, or unverified
``redfish+http://``         the same in the clear: a lab, or a network of its own
``fake://``                 `metalimmu.bmc.fake`
``redfish-raw+https://``    the same over DMTF's client library
``ipmi://``                 pyghmi; power, boot device and inventory, no media
==========================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from metalimmu.bmc import credentials
from metalimmu.bmc.budget import Budget
from metalimmu.bmc.ledger import LoginLedger
from metalimmu.bmc.ports import Bmc, Target
from metalimmu.desired.types import Mode, Tls
from metalimmu.errors import BmcUnsupported, UsageError

SCHEMES = frozenset({"redfish+https", "redfish+http", "redfish-raw+https", "ipmi", "fake"})


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A Target without a host document: for discovery and tests."""

    bmc: str
    name: str = "bmc"
    system: str | None = None
    credentials: str | None = None
    tls: Tls = Tls()
    proxy: str | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    mode: Mode = "read-only"


def connect(
    target: Target,
    *,
    folder: Path | None = None,
    ledger: LoginLedger | None = None,
    before_write: Callable[[], None] | None = None,
    mode: Mode | None = None,
    patience: float = 20.0,
    budget: Budget | None = None,
) -> Bmc:
    """A driver for `target`, to be closed. Raises SecretError, BmcUnsupported, UsageError.

    `folder` is where relative `file:` references begin (the site's). `ledger` remembers refused logins, this
    process alone if there is none. `before_write` runs before each write and stops it by raising (fencing).
    `mode` overrides the target's. `patience` is for how many seconds reads are repeated while the BMC is busy or
    away; a workflow that waits for longer asks again itself. `budget` is the site's, shared by all its processes.
    """
    scheme, found, _rest = target.bmc.partition("://")
    if scheme == "ssh":
        raise BmcUnsupported(
            f"{target.name} is a switch without a BMC", hint=f"`metalimmu switch show {target.name}` asks its NOS"
        )
    if not found or scheme not in SCHEMES:
        raise UsageError(
            f"{target.name}: {target.bmc!r} is no address of a BMC",
            hint="write redfish+https://ADDRESS[:PORT] or ipmi://ADDRESS",
        )
    login = credentials.read(target.credentials, folder=folder) if target.credentials else None
    if scheme == "fake":
        from metalimmu.bmc.fake import FakeBmc

        return FakeBmc(
            target.bmc, credentials=login, mode=mode or target.mode, before_write=before_write, ledger=ledger
        )
    if scheme == "ipmi":
        from metalimmu.bmc.ipmi import IpmiBmc

        return IpmiBmc.open(
            target,
            credentials=login,
            mode=mode or target.mode,
            before_write=before_write,
            ledger=ledger,
            budget=budget,
        )
    from metalimmu.bmc.redfish import RedfishBmc

    driver = RedfishBmc
    if scheme == "redfish-raw+https":
        from metalimmu.bmc.redfish_raw import RawRedfishBmc

        driver = RawRedfishBmc
    return driver.open(
        target,
        credentials=login,
        mode=mode or target.mode,
        before_write=before_write,
        ledger=ledger,
        patience=patience,
        budget=budget,
    )
