"""IPMI over LAN (version 2.0, RMCP+) through pyghmi, for reading.

Each call is one process, one session and one log-out (`ipmi_worker`), with a time limit that ends it whatever pyghmi is
waiting for. The session asks for the User privilege level and sends nothing but the read commands of `ipmi_guard`.
What IPMI cannot say is Unknown, not modelled. What would change the machine raises BmcUnsupported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

from metalimmu import log
from metalimmu.bmc import ipmi_facts
from metalimmu.bmc.answers import clean
from metalimmu.bmc.budget import Account, Budget
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import PROCESS, LoginLedger
from metalimmu.bmc.ports import Target, rack
from metalimmu.bmc.unknown import BmcTimeout, unknown
from metalimmu.errors import (
    BmcBroken,
    BmcBusy,
    BmcError,
    BmcLoginNotTried,
    BmcLoginRefused,
    BmcUnreachable,
    BmcUnsupported,
    UsageError,
)
from metalimmu.observed.types import (
    BootEnabled,
    BootMode,
    BootOverride,
    BootTarget,
    Inventory,
    MediaSlot,
    PowerAction,
    PowerState,
    Reason,
    SystemIdentity,
    Unknown,
    WriteRequest,
)

LOG = log.get("bmc.ipmi")

PORT = 623
SECONDS = 90.0
"""For one session; a Quanta D51 with 107 sensors takes about one second in the same rack."""
LONGEST_LINE = 4 << 20
QUICK = ("device", "guid", "fru")
ALL = ("device", "power", "guid", "bios", "clock", "fru", "sensors")


class IpmiBmc:
    """Nothing is sent before the first call, and nothing stays open after it."""

    driver = ipmi_facts.DRIVER

    def __init__(
        self,
        address: str,
        credentials: Credentials | None,
        *,
        ledger: LoginLedger | None = None,
        seconds: float = SECONDS,
        account: Account | None = None,
    ) -> None:
        self.host, self.port = parse(address)
        self.base = address.rstrip("/")
        self._credentials = credentials
        self._ledger = ledger or PROCESS
        self._seconds = seconds
        self._account = account

    @classmethod
    def open(
        cls,
        target: Target,
        *,
        credentials: Credentials | None,
        ledger: LoginLedger | None = None,
        seconds: float = SECONDS,
        budget: Budget | None = None,
    ) -> Self:
        """Raises UsageError; BmcUnsupported for a BMC behind a proxy."""
        if target.proxy:
            raise BmcUnsupported(
                f"{target.name}: IPMI is UDP, and does not go through the proxy {target.proxy}",
                hint="set `bmc_proxy: direct` on the host if its BMC can be reached from here, or use Redfish",
            )
        account = budget.account(target.bmc, rack(target)) if budget else None
        return cls(target.bmc, credentials, ledger=ledger, seconds=seconds, account=account)

    def read(self, *parts: str) -> dict[str, Any]:
        """The parts by name; one that cannot be read is an Unknown. Raises BmcError when there is no session."""
        return {name: self._part(name, line) for name, line in self._lines(parts).items()}

    def one(self, part: str) -> Any:
        """Raises BmcError."""
        found = self.read(part)[part]
        if isinstance(found, Unknown):
            kind = ipmi_facts.ERRORS.get(found.reason, BmcBroken)
            raise kind(f"{self.base}: {part}: {found.detail}")
        return found

    def _lines(self, parts: Iterable[str]) -> dict[str, dict[str, Any]]:
        credentials = self._allowed()
        job = {
            "address": self.host,
            "port": self.port,
            "username": credentials.username,
            "password": credentials.password,
            "parts": list(parts),
            "seconds": self._seconds,
        }
        with self._account.turn(self._seconds) if self._account else nullcontext():  # a session is one turn
            output, ended = _work(json.dumps(job), self._seconds + 2)
        lines = {line["part"]: line for line in map(_line, output.splitlines()) if line}
        self._logged_in(lines.pop("login", None), credentials, ended=ended)
        late = {"error": f"not read within {self._seconds:.0f} s", "reason": "timeout"}
        return {part: lines.get(part, late) for part in parts}

    def _allowed(self) -> Credentials:
        """Raises BmcLoginNotTried where there is nothing to log in with, or where this was refused before."""
        credentials = self._credentials
        if credentials is None:
            raise BmcLoginNotTried(
                f"{self.base} wants a login, and this host has no credentials",
                hint="set `credentials` of the host, or a `match` rule in site.yaml",
            )
        when = self._ledger.refused(self.base, credentials.version)
        if when is not None:
            raise BmcLoginNotTried(
                f"{self.base} refused user {credentials.username!r} with this password before ({when}); "
                "it is not tried again until they change"
            )
        return credentials

    def _logged_in(self, line: dict[str, Any] | None, credentials: Credentials, *, ended: str) -> None:
        if line is None:
            raise BmcTimeout(f"{self.base}: no IPMI session {ended}")
        reason, why = line.get("reason"), clean(str(line.get("error")), 200)
        if not reason:
            return
        if reason == "refused":
            self._ledger.record_refusal(self.base, credentials.version, time.time())
            raise BmcLoginRefused(f"{self.base} refused user {credentials.username!r}: {why}")
        if reason == "unsupported":
            raise BmcUnsupported(f"{self.base}: {why}", hint="IPMI 2.0 (lanplus) with cipher suite 3 or 17 is needed")
        if reason == "busy":
            raise BmcBusy(f"{self.base}: {why}", hint="close other IPMI sessions, or wait until they end by themselves")
        if reason == "unreachable":
            raise BmcUnreachable(
                f"{self.base}: no answer on UDP port {self.port}",
                hint="is IPMI over LAN switched on in the BMC? Is UDP let through? Is the address right?",
            )
        raise BmcBroken(f"{self.base}: {why}")

    def _part(self, name: str, line: dict[str, Any]) -> Any:
        if "data" in line:
            return line["data"]
        try:
            reason = Reason(line.get("reason", ""))
        except ValueError:
            reason = Reason.broken
        return Unknown(reason, clean(str(line.get("error", "")), 300), f"{self.base} {name}")

    # what can be read

    def power_state(self) -> PowerState:
        return PowerState.on if self.one("power")["on"] else PowerState.off

    def power_actions(self) -> frozenset[PowerAction]:
        """None: this driver reads."""
        return frozenset()

    def identity(self) -> SystemIdentity:
        return ipmi_facts.identity(self.read(*QUICK), self.base)

    def who(self) -> tuple[SystemIdentity, dict[str, str]]:
        """Identity and the BMC's own facts, in one session. Raises BmcError."""
        found = self.read(*QUICK)
        return ipmi_facts.identity(found, self.base), ipmi_facts.bmc(found["device"])

    def inventory(self) -> Inventory:
        try:
            found: dict[str, Any] = self.read(*ALL)
        except BmcError as exc:
            why = unknown(exc, self.base)
            found = dict.fromkeys(ALL, why)
        return ipmi_facts.inventory(found, self.base)

    # what cannot

    def boot_override(self) -> BootOverride:
        raise _beyond("the boot override needs Operator rights over IPMI, and reading takes none but User")

    def media(self) -> tuple[MediaSlot, ...]:
        raise _beyond("IPMI has no virtual media")

    def set_power(self, action: PowerAction) -> None:
        _refuse(f"power {action}")

    def set_boot_override(self, target: BootTarget, enabled: BootEnabled, mode: BootMode | None) -> None:
        _refuse(f"boot {target} {enabled} {mode or ''}".rstrip())

    def insert_media(self, slot: MediaSlot, url: str) -> None:  # noqa: ARG002
        _refuse(f"virtual media in {slot.id}")

    def eject_media(self, slot: MediaSlot) -> None:
        _refuse(f"virtual media in {slot.id}")

    def rehearse(self, act: Callable[[], None]) -> list[WriteRequest]:
        act()
        return []

    def sent(self) -> list[WriteRequest]:
        return []

    def close(self) -> None:
        """Every call has logged out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def parse(address: str) -> tuple[str, int]:
    """`ipmi://ADDRESS[:PORT]` -> (host, port). Raises UsageError."""
    hint = "write ipmi://ADDRESS[:PORT]"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise UsageError(f"{address!r} is no address of a BMC: {exc}", hint=hint) from exc
    if parts.scheme != "ipmi" or not host or parts.path.strip("/") or parts.query:
        raise UsageError(f"{address!r} is no address of a BMC", hint=hint)
    if parts.username or parts.password:
        raise UsageError(
            f"the address of {host} carries a login", hint="set `credentials:` instead; documents are read by many"
        )
    return host, port or PORT


def _work(job: str, seconds: float) -> tuple[bytes, str]:
    """The worker's output, also what it had said when its time was over. The password goes by standard input."""
    # -P: nothing is imported from the folder in which somebody happens to stand.
    command = [sys.executable, "-P", "-m", "metalimmu.bmc.ipmi_worker"]
    try:
        done = subprocess.run(command, input=job.encode(), capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as exc:
        return exc.stdout or b"", f"within {seconds:.0f} s"
    if done.returncode:
        LOG.debug("the IPMI reader ended with %s: %s", done.returncode, done.stderr[-2000:].decode(errors="replace"))
    return done.stdout, f"(its reader ended with {done.returncode})"


def _line(text: bytes) -> dict[str, Any] | None:
    """Pyghmi prints to standard output in places: what is no line of ours is passed over."""
    try:
        found = json.loads(text[:LONGEST_LINE])
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("part"), str) else None


def _beyond(what: str) -> BmcUnsupported:
    return BmcUnsupported(what, hint="give the host a redfish+https:// address if its BMC speaks Redfish")


def _refuse(what: str) -> NoReturn:
    raise BmcUnsupported(
        f"{what}: not sent; over IPMI metalimmu reads only",
        hint="give the host a redfish+https:// address if its BMC speaks Redfish",
    )
