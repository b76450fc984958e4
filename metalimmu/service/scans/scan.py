"""The verb `scan`: read every BMC, compare, record. The order of things; each part has its own module.

A scan is no workflow of the durable engine. All that it must remember is which hosts are done, and each result is written
under (scan, host) in one transaction with that mark: after kill -9 `resume` reads exactly the hosts that are left, and
none twice. So nothing is written per host but its result, and nothing about it can be half done.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from metalimmu import log
from metalimmu.desired.resolve import resolve_all
from metalimmu.desired.selector import select
from metalimmu.desired.switch import no_bmc
from metalimmu.desired.types import HostSpec
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import MetalimmuError, NotFound, StoreError, UsageError
from metalimmu.plan.waivers import Waivers
from metalimmu.service.configs import Configs
from metalimmu.service.scans import blame
from metalimmu.service.scans.drivers import of_site
from metalimmu.service.scans.judge import Judge, failed
from metalimmu.service.scans.reading import Host, Reader, Reading, ReadMany
from metalimmu.service.scans.record import Progress, Recorder
from metalimmu.service.scans.registries import Registries, Waiting
from metalimmu.service.scans.result import ScanResult, states
from metalimmu.store.scan_records import ScanRecord

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_protocol import ScanStore

LAST = "last"
logger = log.get("scan")


def scan(
    site: OpenSite,
    *,
    hosts: Sequence[str] | None = None,
    selector: str | None = None,
    trigger: str = "cli",
    progress: Callable[[Progress], None] | None = None,
    resume: str | None = None,
    everything: bool = False,
    max_refused: int | None = None,
    read: ReadMany | None = None,
) -> ScanResult:
    """Scan the named hosts, those of the selector, or all; or go on with a scan that broke off (`resume`: its id, or LAST).

    `everything` reads hardware and cabling also where no profile asks for them. After `max_refused` refused logins nobody
    is logged in any more; None: what the site says. Blocks. Raises NotFound, UsageError,
    SiteError, StoreError; what a single BMC does is in the result.
    """
    specs = resolve_all(site.docs, root=site.folder)
    if resume:
        record = _unfinished(site, resume)
    else:
        names = chosen(site, specs, hosts, selector)
        scope = {"hosts": list(hosts) if hosts else None, "selector": selector, "everything": everything}
        record = site.store.begin_scan(scope, trigger=trigger, hosts=names)
    with _alone(site.state, record):
        record = _run(site, record, specs, progress, read or of_site(site, max_refused))
        return ScanResult(site.store, record, site.store.scanned_hosts(record.id), Waivers(site.docs.waivers))


def chosen(site: OpenSite, specs: dict[str, HostSpec], hosts: Sequence[str] | None, selector: str | None) -> list[str]:
    """Names of hosts, in the order of the documents. Raises NotFound, UsageError."""
    if hosts and selector:
        raise UsageError("hosts by name and by selector at once", hint="name the hosts, or use -l")
    if hosts:
        for name in hosts:
            site.spec(name)
        wanted = set(hosts)
        return [name for name in specs if name in wanted]
    found = select(specs.values(), selector, more=_more(site)) if selector else list(specs.values())
    if not found:
        raise UsageError(
            f"no host fits {selector!r}" if selector else "this site has no hosts",
            hint=f"hosts have {', '.join(_keys(specs))}; `metalimmu host list -o json` shows them with their values"
            if selector
            else "write hosts/*.yaml, or `metalimmu discover`",
        )
    asked = [spec for spec in found if not no_bmc(spec.bmc)]  # a switch without a BMC has nothing to scan
    return [spec.name for spec in asked or found]


def _keys(specs: dict[str, HostSpec]) -> list[str]:
    return sorted({key for spec in specs.values() for key in spec.labels} | {"image", "state", "proof"})[:30]


def _more(site: OpenSite) -> dict[str, dict[str, str]]:
    """Labels that only the store knows."""
    known = site.store.hosts().items()
    return {
        name: {k: str(v) for k, v in (("image", h.image), ("state", h.state), ("proof", h.proof)) if v}
        for name, h in known
    }


def _unfinished(site: OpenSite, resume: str) -> ScanRecord:
    if resume != LAST:
        record = site.store.scan(resume)
        if not record.unfinished:
            raise UsageError(f"scan {resume} has ended: there is nothing to resume", hint="`metalimmu scan` begins one")
        return record
    found = site.store.unfinished_scans()
    if not found:
        raise UsageError("no scan broke off: there is nothing to resume", hint="`metalimmu scan` begins one")
    return found[0]


@contextmanager
def _alone(state: Path, record: ScanRecord) -> Iterator[None]:
    """One process per scan; the kernel frees the lock of a killed one."""
    path = state / "scans" / f"{record.id}.lock"
    lock = WorkerLock(path)
    if not lock.take():
        raise UsageError(
            f"scan {record.id} is under way ({lock.holder()})",
            hint="wait for it, or begin another with `metalimmu scan`",
        )
    try:
        yield
        path.unlink(missing_ok=True)
    finally:
        lock.release()


def _run(
    site: OpenSite,
    record: ScanRecord,
    specs: dict[str, HostSpec],
    progress: Callable[[Progress], None] | None,
    read: ReadMany,
) -> ScanRecord:
    store = site.store
    pending = store.pending_hosts(record.id)
    recorder = Recorder(store, record.id, total=record.hosts, done=record.hosts - len(pending), progress=progress)
    for name in pending:
        if name not in specs:
            gone = NotFound(f"{name} is no longer in the site", hint="`metalimmu host list` shows what is")
            recorder.add(failed(name, gone, at=time.time()))
    judge = Judge(site.docs.profiles, more=Configs(site).scanned)
    left = [specs[name] for name in pending if name in specs]
    through(store, left, judge, recorder, read, everything=bool(record.scope.get("everything")))
    _blame(store, record, specs, read)
    found = Counter(states(store, store.scanned_hosts(record.id), Waivers(site.docs.waivers)).values())
    return store.finish_scan(record.id, {"by": _by(), "states": dict(found)})


def _blame(store: ScanStore, record: ScanRecord, specs: dict[str, HostSpec], read: ReadMany) -> None:
    """All hosts are read by now: that nobody could be asked who did it (the schedule's window has closed) loses none of them."""
    try:
        blame.blame(store, record, specs, read)
    except StoreError:
        raise
    except MetalimmuError as exc:
        logger.warning("scan %s: the logs were not asked who made its changes: %s", record.id, exc.message)


def through(
    store: ScanStore,
    hosts: Collection[Host],
    judge: Judge,
    recorder: Recorder,
    read: ReadMany,
    *,
    everything: bool = False,
) -> None:
    """Read, judge and record these hosts. What is done is written also when it breaks off in the middle."""
    registries = Registries(store)
    waiting: Waiting[Reading] = Waiting(registries)
    reader = Reader(store, judge, registries, everything=everything)
    try:
        with closing(read(hosts, reader.walk)) as readings:
            for reading in readings:
                if (key := reader.waits_for(reading)) is not None:
                    waiting.hold(key, reading)
                else:
                    recorder.add(reader.judged(reading), left_out=judge.left_out)
                for held in waiting.ready():
                    recorder.add(reader.judged(held), left_out=judge.left_out)
        for held in waiting.rest():
            recorder.add(reader.judged(held), left_out=judge.left_out)
    finally:
        recorder.flush(left_out=judge.left_out)
        reader.save()


def _by() -> str:
    from metalimmu.service.runs import who

    return who()
