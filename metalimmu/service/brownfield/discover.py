"""Find BMCs on networks: who answers, and who they are. Reads only; without credentials it logs in nowhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from metalimmu.bmc import discovery, ledger_file, spots
from metalimmu.bmc.connect import Address
from metalimmu.bmc.discovery import Sighting, Sweep
from metalimmu.bmc.identify import Identified
from metalimmu.bmc.ledger import forget
from metalimmu.desired.merge import Merged
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcLoginNotTried, BmcLoginRefused, MetalimmuError, ScanStopped
from metalimmu.service.brownfield.found import Found, candidate, duplicates, shared, unauthenticated, with_login
from metalimmu.service.brownfield.many import Logins, each

if TYPE_CHECKING:
    from metalimmu.bmc.budget import Budget
    from metalimmu.bmc.ledger import LoginLedger

PATIENCE = 5.0
READ_TIMEOUT = 20.0
TOTAL = 120.0


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    found: tuple[Found, ...]
    looked_at: int
    troubles: tuple[str, ...]  # addresses that answered and are no BMC that we can read
    duplicates: tuple[str, ...]  # one serial number, several addresses
    shared: tuple[str, ...] = ()  # one certificate, several BMCs: its key is no secret
    refused: int = 0
    stopped: bool = False  # too many refused logins: the rest was not logged in
    seconds: float = 0.0


def discover(
    items: Iterable[str],
    *,
    credentials: str | None = None,
    folder: Path | None = None,
    ledger: LoginLedger | None = None,
    budget: Budget | None = None,
    sweep: Sweep | None = None,
    large: bool = False,
    max_refused: int = 3,
    retry_login: bool = False,
    ports: Sequence[int] = (),
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Discovery:
    """Look at all addresses of `items` (see `bmc.spots`, also of `ports`). `credentials` is a reference: one login per BMC that speaks Redfish,
    or IPMI where it does not; not those that were refused before, unless `retry_login`. `ledger`: of the user where there is
    none. `progress` gets (looked at, of so many). Raises UsageError, SecretError, ProxyUnusable.
    """
    settings = sweep or Sweep()
    wanted = spots.parse(items, ports=ports, large=large)
    if credentials:
        from metalimmu.bmc import credentials as secrets

        secrets.read(credentials, folder=folder)  # a reference that cannot be read fails before the first packet
    began = time.monotonic()
    sightings = asyncio.run(_swept(wanted, settings, progress))
    seen = [s for s in sightings if s.found]
    found, refused = {s.spot: unauthenticated(s) for s in seen}, 0
    if credentials:
        ledger = ledger or ledger_file.of_user()
        if retry_login:
            for one in found.values():
                forget(ledger, one.bmc)
        found, refused = _logged_in(found, credentials, _With(folder, ledger, budget, settings.proxy), max_refused)
    listed = sorted(found.values(), key=lambda f: spots.order(f.address))
    return Discovery(
        found=tuple(listed),
        looked_at=len(wanted),
        troubles=tuple(sorted(f"{s.spot}: {s.trouble}" for s in sightings if s.trouble and not s.found)),
        duplicates=duplicates(listed),
        shared=shared(listed),
        refused=refused,
        stopped=refused >= max_refused,
        seconds=time.monotonic() - began,
    )


async def _swept(wanted: spots.Spots, settings: Sweep, progress: Callable[[int, int], None]) -> list[Sighting]:
    count = 0

    def looked_at() -> None:
        nonlocal count
        count += 1
        progress(count, len(wanted))

    return [s async for s in discovery.sweep(wanted, settings, looked_at=looked_at)]


class _With(NamedTuple):
    """What logins go with: where relative references begin, who was refused before, what may be asked of BMCs."""

    folder: Path | None
    ledger: LoginLedger | None
    budget: Budget | None
    proxy: str | None


class _Named(Address, frozen=True, kw_only=True):
    """A ScanTarget: an address that the collector can have; in no rack."""

    spot: spots.Spot
    labels: dict[str, str] = {}


def _logged_in(
    plain: dict[spots.Spot, Found], credentials: str, with_: _With, max_refused: int
) -> tuple[dict[spots.Spot, Found], int]:
    """What each says to those who log in, and how many logins were refused. Redfish first, IPMI with what is left to refuse."""
    targets = [_target(spot, found, credentials, with_.proxy) for spot, found in plain.items()]
    redfish = [t for t in targets if not t.bmc.startswith("ipmi://")]
    ipmi = [t for t in targets if t.bmc.startswith("ipmi://")]
    found, refused = dict(plain), 0
    for target, who, failure in _by_redfish(redfish, with_, max_refused):
        refused += isinstance(failure, BmcLoginRefused) and not isinstance(failure, BmcLoginNotTried)
        found[target.spot] = with_login(plain[target.spot], who, failure)
    logins = Logins(max_refused - refused)
    for target, result in each(ipmi, lambda t: _by_ipmi(t, with_, logins)):
        failure = result if isinstance(result, MetalimmuError) else None
        found[target.spot] = with_login(
            plain[target.spot], None if isinstance(result, MetalimmuError) else result, failure
        )
    return found, refused + logins.refused


def _target(spot: spots.Spot, found: Found, credentials: str, proxy: str | None) -> _Named:
    return _Named(
        spot=spot,
        bmc=found.bmc,
        name=found.address,
        credentials=credentials,
        proxy=proxy,
        tls=Tls(fingerprint=found.fingerprint or None),  # whoever has another certificate now is told no password
        read_timeout=READ_TIMEOUT,
    )


def _by_redfish(
    targets: list[_Named], with_: _With, max_refused: int
) -> Iterator[tuple[_Named, Identified | None, MetalimmuError | None]]:
    from metalimmu.bmc.collect import CollectSettings, collecting
    from metalimmu.bmc.identify import identify
    from metalimmu.bmc.redfish_service import Service
    from metalimmu.bmc.tree import Tree

    settings = CollectSettings(max_refused=max_refused, patience=PATIENCE, total=TOTAL)
    read = collecting(
        targets,
        lambda t: identify(Service(t.bmc, None), Tree()),
        settings=settings,
        ledger=with_.ledger,
        budget=with_.budget,
        folder=with_.folder,
    )
    for one in read if targets else ():
        target = one.target
        if isinstance(target, _Named):
            yield target, one.value, one.failure


def _by_ipmi(target: _Named, with_: _With, logins: Logins) -> Identified:
    """Raises BmcError."""
    from metalimmu.bmc import credentials
    from metalimmu.bmc.ipmi import IpmiBmc

    login = credentials.read(target.credentials, folder=with_.folder) if target.credentials else None
    with logins.one(), IpmiBmc.open(target, credentials=login, ledger=with_.ledger, budget=with_.budget) as bmc:
        who, facts = bmc.who()
    return Identified(
        vendor=who.manufacturer,
        model=who.model,
        serial=who.serial,
        uuid=who.uuid,
        bios=who.bios_version,
        bmc_firmware=facts.get("firmware", ""),
    )


def write(
    result: Discovery, folder: Path, target: str, *, credentials: str | None = None, pin: bool = True, day: str = ""
) -> Merged:
    """Merge into `target` (see `desired.merge`). `pin` records the certificates that were seen. Raises SiteError, UsageError."""
    from metalimmu.desired.review import review

    return review(folder, target, [candidate(f, credentials=credentials, pin=pin, day=day) for f in result.found])


def to_name(site: Path | None, credentials: str | None) -> str | None:
    """The reference that the documents of new hosts must name: none where a rule of the site has it."""
    if site is None or credentials is None:
        return credentials
    from metalimmu.desired.load import load

    rules = load(site).site.credentials
    return None if any(r.ref == credentials for r in rules) else credentials


def pins(site: Path | None) -> bool:
    """Whether certificates are to be pinned: not where the site knows BMCs by a CA, or by one pin of its own."""
    if site is None:
        return True
    from metalimmu.desired.load import load

    tls = load(site).site.tls
    return not (tls.ca or tls.fingerprint)


def check(result: Discovery) -> None:
    """Raises ScanStopped when the run was stopped by refused logins: what was found is good all the same."""
    if result.stopped:
        raise ScanStopped(
            f"stopped logging in after {result.refused} refused logins; the others were not tried",
            hint="correct the credentials and run again; the refused ones are not tried again with the same password",
        )
