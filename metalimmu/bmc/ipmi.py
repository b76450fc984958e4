"""IPMI over LAN (version 2.0, RMCP+) through pyghmi.

Beside each driver runs one process (`ipmi_worker`) with at most one session, and it logs out when the driver is closed, when
nothing was asked for a while, or when we die. Its gate (`ipmi_guard`) lets out nothing but read commands in read-only mode, and
a few writes in read-write mode. The session has User rights. Operator rights are asked for by writes, and by looking at the
boot override if the BMC refuses that to a User, as the specification has it.

What IPMI cannot say is Unknown, not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

from metalimmu.bmc import ipmi_boot, ipmi_facts
from metalimmu.bmc.answers import clean
from metalimmu.bmc.budget import Account, Budget
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ipmi_process import IpmiProcess, allowed, logged_in, who
from metalimmu.bmc.ledger import PROCESS, LoginLedger
from metalimmu.bmc.ports import Target, rack
from metalimmu.bmc.unknown import BmcTimeout, unknown
from metalimmu.desired.types import Mode
from metalimmu.errors import (
    BmcBroken,
    BmcBusy,
    BmcError,
    BmcNotPermitted,
    BmcReadOnly,
    BmcRefused,
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

PORT = 623
SECONDS = 90.0
"""For one job; a Quanta D51 with 107 sensors takes about one second in the same rack."""
QUICK = ("device", "guid", "fru")
ALL = ("device", "power", "guid", "bios", "clock", "fru", "sensors")
USER, OPERATOR = 2, 3


class IpmiBmc:
    """Nothing is sent before the first call. To be closed; `mode` is that of `connect`."""

    driver = ipmi_facts.DRIVER
    idle = 20.0
    """Seconds without a call after which the session is closed; BMCs forget one after 60 (6.12.15)."""

    def __init__(
        self,
        address: str,
        credentials: Credentials | None,
        *,
        mode: Mode = "read-only",
        before_write: Callable[[], None] | None = None,
        ledger: LoginLedger | None = None,
        seconds: float = SECONDS,
        account: Account | None = None,
    ) -> None:
        self.host, self.port = parse(address)
        self.base = address.rstrip("/")
        self._credentials = credentials
        self._mode = mode
        self._before_write = before_write
        self._ledger = ledger or PROCESS
        self._seconds = seconds
        self._account = account
        self._process: IpmiProcess | None = None
        self._known = False  # has this BMC taken these credentials?
        self._sent: list[WriteRequest] = []
        self._rehearsal: list[WriteRequest] | None = None

    @classmethod
    def open(
        cls,
        target: Target,
        *,
        credentials: Credentials | None,
        mode: Mode = "read-only",
        before_write: Callable[[], None] | None = None,
        ledger: LoginLedger | None = None,
        seconds: float = SECONDS,
        budget: Budget | None = None,
    ) -> Self:
        """Raises UsageError; BmcUnsupported for a BMC behind a proxy."""
        reachable(target)
        account = budget.account(target.bmc, rack(target)) if budget else None
        return cls(
            target.bmc,
            credentials,
            mode=mode,
            before_write=before_write,
            ledger=ledger,
            seconds=seconds,
            account=account,
        )

    # asking

    def read(self, *parts: str) -> dict[str, Any]:
        """The parts by name; one that cannot be read is an Unknown. Raises BmcError when there is no session."""
        return {name: self._part(name, line) for name, line in self._lines(parts).items()}

    def one(self, part: str, rights: int = USER) -> Any:
        """Raises BmcError."""
        line = self._lines((part,), rights)[part]
        if "data" not in line:
            raise self._error(part, line)
        return line["data"]

    def _lines(self, parts: Iterable[str], rights: int = USER, act: Any = None) -> dict[str, dict[str, Any]]:
        credentials = allowed(self.base, self._credentials, self._ledger)
        names = [*parts, *([act[0]] if act else [])]
        job = {"parts": list(parts), "act": act, "rights": rights, "seconds": self._seconds}
        with self._account.turn(self._seconds) if self._account else nullcontext():
            lines, ended = self._started(credentials).ask(job, self._seconds + 2)
        login = lines.pop("login", None)
        if login is not None:
            self._login(login, credentials, rights)
        elif ended and not lines:
            raise BmcTimeout(f"{self.base}: no IPMI session {ended}")
        late = {"error": f"not done within {self._seconds:.0f} s", "reason": "timeout"}
        return {name: lines.get(name, late) for name in names}

    def _started(self, credentials: Credentials) -> IpmiProcess:
        if self._process is None:
            first = who((self.host, self.port), credentials)
            first |= {"write": self._mode == "read-write", "idle": self.idle}
            self._process = IpmiProcess("metalimmu.bmc.ipmi_worker", first)
        return self._process

    def _login(self, line: dict[str, Any], credentials: Credentials, rights: int) -> None:
        """A BMC that took the password for User rights, and not for Operator rights, has refused the rights."""
        if line.get("reason") == "refused" and rights > USER and self._known:
            line = line | {"reason": "no rights"}
        logged_in(self.base, line, credentials, self._ledger)
        self._known = True

    def _part(self, name: str, line: dict[str, Any]) -> Any:
        if "data" in line:
            return line["data"]
        try:
            reason = Reason(line.get("reason", ""))
        except ValueError:
            reason = Reason.broken
        return Unknown(reason, clean(str(line.get("error", "")), 300), f"{self.base} {name}")

    def _error(self, name: str, line: dict[str, Any], *, writing: bool = False) -> BmcError:
        reason, text = line.get("reason"), f"{self.base}: {name}: {clean(str(line.get('error', '')), 300)}"
        if reason == "not permitted":
            return BmcNotPermitted(text, hint="this needs Operator rights; `metalimmu bmc roles ipmi` says how")
        if reason == "not allowed":
            return BmcReadOnly(text)
        if reason == "not modelled" and writing and line.get("code") != 0xC1:  # it knows the command, and says no
            return BmcRefused(text)
        kinds: dict[Any, type[BmcError]] = {
            "timeout": BmcTimeout,
            "busy": BmcBusy,
            "not modelled": BmcUnsupported,
        }
        return kinds.get(reason, BmcBroken)(text)

    # what can be read

    def power_state(self) -> PowerState:
        return PowerState.on if self.one("power")["on"] else PowerState.off

    def power_actions(self) -> frozenset[PowerAction]:
        """All that IPMI has; a BMC does not say which of them it follows."""
        return frozenset(ipmi_boot.CONTROLS)

    def boot_override(self) -> BootOverride:
        """The flags as the BMC has them now. Asked as a User first: some BMCs allow it."""
        try:
            found = self.one("boot")
        except BmcNotPermitted:
            found = self.one("boot", OPERATOR)
        return ipmi_boot.override(found)

    def identity(self) -> SystemIdentity:
        return ipmi_facts.identity(self.read(*QUICK), self.base)

    def who(self) -> tuple[SystemIdentity, dict[str, str]]:
        """Identity and the BMC's own facts, at once. Raises BmcError."""
        found = self.read(*QUICK)
        return ipmi_facts.identity(found, self.base), ipmi_facts.bmc(found["device"])

    def sensors(self) -> list[dict[str, Any]]:
        """name, type, value (or None), units, health (OK, Warning, Critical), states; those that can be read."""
        found: list[dict[str, Any]] = self.one("sensors")
        return found

    def events(self) -> list[dict[str, Any]]:
        """The system event log, oldest first: id, at (seconds since 1970 by the BMC's clock, or None), component, event, severity."""
        found: list[dict[str, Any]] = self.one("events")
        return found

    def frus(self) -> list[dict[str, Any]]:
        """Field-replaceable units: id, name, and info (a text for each field) or error."""
        found: list[dict[str, Any]] = self.one("fru")
        return found

    def inventory(self) -> Inventory:
        try:
            found: dict[str, Any] = self.read(*ALL)
        except BmcError as exc:
            found = dict.fromkeys((*ALL, "boot"), unknown(exc, self.base))
        if "boot" not in found:
            try:
                found["boot"] = self.boot_override()
            except BmcError as exc:
                found["boot"] = unknown(exc, f"{self.base} boot")
        return ipmi_facts.inventory(found, self.base)

    # what can be written

    def set_power(self, action: PowerAction) -> None:
        number = ipmi_boot.control(action)
        self._write(WriteRequest("IPMI", "chassis/power", {"action": action.value}), "power", {"control": number})

    def set_boot_override(
        self,
        target: BootTarget,
        enabled: BootEnabled,
        mode: BootMode | None,
        *,
        uri: str = "",  # noqa: ARG002
    ) -> None:
        """Pxe is the network, by whichever protocol the firmware tries."""
        if mode is None:
            mode = self.boot_override().mode or BootMode.legacy
        first, device = ipmi_boot.flags(target, enabled, mode)
        body: dict[str, object] = {"device": target.value, "enabled": enabled.value, "mode": mode.value}
        self._write(WriteRequest("IPMI", "chassis/boot", body), "boot", {"flags": first, "device": device})

    def set_identify(self, on: bool) -> None:
        """The light by which people find the machine."""
        self._write(WriteRequest("IPMI", "chassis/identify", {"on": on}), "identify", {"on": on})

    def _write(self, request: WriteRequest, name: str, arguments: dict[str, Any]) -> None:
        if self._rehearsal is not None:
            self._rehearsal.append(request)
            return
        if self._mode == "read-only":
            raise BmcReadOnly(f"{request.method} {request.path} was not sent: the mode is read-only")
        self._lines((), OPERATOR)  # a login may take its time, and the fence is for the moment of the write
        if self._before_write:
            self._before_write()
        line = self._lines((), OPERATOR, act=(name, arguments))[name]
        if "data" in line or line.get("reason") == "timeout":  # unanswered: it may have been carried out
            self._sent.append(request)
        if "data" not in line:
            raise self._error(request.path, line, writing=True)

    # what IPMI does not have

    def media(self) -> tuple[MediaSlot, ...]:
        _beyond("IPMI has no virtual media")

    def insert_media(self, slot: MediaSlot, url: str) -> None:  # noqa: ARG002
        _beyond(f"{slot.id}: IPMI has no virtual media")

    def eject_media(self, slot: MediaSlot) -> None:
        _beyond(f"{slot.id}: IPMI has no virtual media")

    # the driver itself

    def rehearse(self, act: Callable[[], None]) -> list[WriteRequest]:
        self._rehearsal = []
        try:
            act()
            return self._rehearsal
        finally:
            self._rehearsal = None

    def sent(self) -> list[WriteRequest]:
        return list(self._sent)

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

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


def reachable(target: Target) -> None:
    """Raises BmcUnsupported."""
    if target.proxy:
        raise BmcUnsupported(
            f"{target.name}: IPMI is UDP, and does not go through the proxy {target.proxy}",
            hint="set `bmc_proxy: direct` on the host if its BMC can be reached from here, or use Redfish",
        )


def _beyond(what: str) -> NoReturn:
    raise BmcUnsupported(
        what, hint="boot this host by PXE, or give it a redfish+https:// address if its BMC speaks Redfish"
    )
