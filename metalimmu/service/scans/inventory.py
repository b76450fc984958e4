"""A scan without a site: a list of BMCs, like machines grouped, outliers reported. Keeps nothing when it is over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from metalimmu.desired.inventory import Listed, parse
from metalimmu.desired.types import Mode, Tls
from metalimmu.errors import UsageError
from metalimmu.plan.waivers import Waivers
from metalimmu.service.brownfield.many import MAX_REFUSED
from metalimmu.service.scans.drivers import reading
from metalimmu.service.scans.judge import Judge
from metalimmu.service.scans.outliers import outliers
from metalimmu.service.scans.record import Progress, Recorder
from metalimmu.service.scans.result import ScanResult
from metalimmu.service.scans.scan import through

if TYPE_CHECKING:
    from metalimmu.plan.outliers import GroupReport
    from metalimmu.service.scans.reading import ReadMany
    from metalimmu.store.sqlite import SqliteStore

LARGEST = 64 << 20


class Bare(msgspec.Struct, frozen=True, kw_only=True):
    """A BMC without a host document: a ScanTarget."""

    name: str
    bmc: str
    system: str | None = None
    credentials: str | None = None
    tls: Tls = Tls()
    proxy: str | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    mode: Mode = "read-only"
    labels: dict[str, str] = {}


def listed(file: Path) -> list[Listed]:
    """Raises UsageError, SiteError."""
    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} is larger than {LARGEST >> 20} MiB", hint="split it")
        return parse(file.read_text(encoding="utf-8"), file.name)
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{file} cannot be read: {why}", hint="a text file with one BMC per line, or CSV") from exc


class InventoryScan:
    """Of one list; its results are there until the context ends."""

    def __init__(self, hosts: Sequence[Bare], store: SqliteStore, folder: Path, file: str) -> None:
        self._hosts = hosts
        self._store = store
        self._folder = folder
        self._file = file

    def run(
        self,
        *,
        progress: Callable[[Progress], None] | None = None,
        everything: bool = False,
        retry_login: bool = False,
        max_refused: int | None = None,
        read: ReadMany | None = None,
    ) -> ScanResult:
        """`retry_login`: credentials that were refused before are tried once more. After `max_refused` refused logins
        (None: 3) nobody is logged in any more.
        """
        from metalimmu.bmc import ledger_file
        from metalimmu.bmc.ledger import forget

        ledger = ledger_file.of_user()
        if retry_login:
            for host in self._hosts:
                forget(ledger, host.bmc)
        store, names = self._store, [h.name for h in self._hosts]
        record = store.begin_scan({"inventory": self._file}, trigger="cli", hosts=names)
        recorder = Recorder(store, record.id, total=len(names), progress=progress)
        most = max_refused or MAX_REFUSED
        drivers = read or reading(self._folder, ledger=ledger, budget=None, max_refused=most)
        through(store, self._hosts, Judge({}), recorder, drivers, everything=everything)
        return ScanResult(store, store.finish_scan(record.id, {}), names, Waivers(()))

    def groups(self) -> list[GroupReport]:
        return outliers(self._store)


@contextmanager
def scan_inventory(
    file: Path, credentials: str | None = None, *, tls: Tls | None = None, proxy: str | None = None
) -> Iterator[InventoryScan]:
    """A scan of what `file` lists. `credentials` is a reference for those that name none; files of references
    are relative to the site that `file` belongs to, or to the current folder, as on the command line. Raises UsageError, SiteError, SecretError before the first packet.
    """
    from metalimmu.store.sqlite import SqliteStore

    hosts = [_bare(one, credentials, tls or Tls(), proxy) for one in listed(file)]
    base = next((f for f in file.absolute().parents if (f / "site.yaml").is_file()), Path.cwd())
    _readable(hosts, base)
    with tempfile.TemporaryDirectory(prefix="metalimmu-scan-") as folder:
        store = SqliteStore(Path(folder) / "store.sqlite")
        try:
            yield InventoryScan(hosts, store, base, str(file))
        finally:
            store.close()


def _bare(one: Listed, credentials: str | None, tls: Tls, proxy: str | None) -> Bare:
    return Bare(
        name=one.name,
        bmc=one.bmc,
        system=one.system,
        credentials=one.credentials or credentials,
        tls=one.tls or tls,
        proxy=proxy,
        labels={"name": one.name, **({"rack": one.rack} if one.rack else {})},
    )


def _readable(hosts: Sequence[Bare], folder: Path) -> None:
    """A reference that cannot be read fails before the first packet. Raises SecretError."""
    from metalimmu.bmc import credentials

    for ref in sorted({h.credentials for h in hosts if h.credentials}):
        credentials.read(ref, folder=folder)
