"""What does it cost to record a scan in which nothing changed, and how large does the store become in a year?

10,000 hosts x 280 settings and 60 findings each are recorded again and again; the CPU is held against that of reading and
judging emulated BMCs of all makes over TLS (without recording them), measured by turns. Claimed: at most a quarter of it.

The size is measured on a simulated month of hourly scans in which 0.1 % of all values change, on some hosts, and told for
10,000 hosts and a year.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.options import options
from benchmarks.result import Result, at_most, told
from metalimmu.bmc.collect import collecting
from metalimmu.observed.snapshot import Snapshot, Value
from metalimmu.observed.types import PowerState, SystemIdentity
from metalimmu.plan.types import Finding, Word
from metalimmu.service.scans.judge import Judge, about
from metalimmu.service.scans.reading import Reader
from metalimmu.service.scans.registries import Registries
from metalimmu.service.site import OpenSite
from metalimmu.store.scan_records import Scanned
from metalimmu.store.sqlite import SqliteStore
from metalimmu_emulator.fleet import Fleet

LIMIT = 0.25
SETTINGS, FINDINGS = 280, 60
HOURS = 30 * 24
CHANGING = 0.001  # of all values, per scan
YEAR = 365 * 24
FLEET = 10_000
BATCH = 200
MAKES = ("dell", "hpe", "lenovo", "supermicro", "openbmc")
PROFILE = "bios_raw: {" + ", ".join(f"Attribute{i:03}Name: Enabled" for i in range(FINDINGS)) + "}\n"
_VALUES: tuple[Value, ...] = ("Enabled", "Disabled", "Auto", 5, True)


def run() -> list[Result]:
    quick = options().quick
    hosts, bmcs = (300, 10) if quick else (FLEET, 200)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SqliteStore(folder / "store.sqlite")
        names = [f"r{i // 40}-u{i % 40:02}" for i in range(hosts)]
        machines = {h: settings(i) for i, h in enumerate(names)}
        first = recorded(store, machines, 0)
        storing: list[float] = []
        scanning: list[float] = []
        with Fleet([MAKES[i % len(MAKES)] for i in range(bmcs)], folder=folder / "fleet", processes=1) as fleet:
            reading(fleet)  # paths and registries are learnt once
            for i in range(options().repeat(5)):
                storing.append(recorded(store, machines, i + 1) / hosts * 1000)
                scanning.append(reading(fleet) / bmcs * 1000)
        equal = all(store.values(h) == machines[h] for h in names[:: max(1, hosts // 100)])
        equal = equal and not list(store.changes(0)) and all(c.finished for c in store.scans(100))
        store.close()
    return [
        at_most(
            f"record {hosts:,} unchanged hosts, CPU per host",
            storing,
            scanning,
            LIMIT,
            unit="ms",
            rival="reading and judging a BMC",
            equal=equal,
        ),
        told("record a host for the first time, CPU", [first / hosts * 1000], unit="ms"),
        *month(20 if quick else 200, 24 if quick else HOURS),
    ]


def settings(i: int) -> dict[str, Value]:
    """Like machines, nearly."""
    chance = random.Random(i)
    found: dict[str, Value] = {
        f"bios.Attribute{j:03}Name": chance.choice(_VALUES) if chance.random() < 0.02 else _VALUES[j % 5]
        for j in range(SETTINGS - 30)
    }
    found |= {f"firmware.component {j} in Slot {j}": f"1.{j}.3" for j in range(22)}
    return found | {
        "boot.order": ("Hdd", "Pxe", "Cd"),
        "boot.mode": "UEFI",
        "secure_boot.enabled": True,
        "bmc.ntp.servers": ("10.0.0.1", "10.0.0.2"),
        "bmc.accounts": ("ops", "root"),
        "bmc.lockdown": "Disabled",
        "hardware.memory.total": 2**38 + i,
        "bmc.protocol.ssh": False,
    }


def scanned(host: str, at: float, values: dict[str, Value]) -> Scanned:
    snapshot = Snapshot(
        host=host,
        at=at,
        identity=SystemIdentity("1", "/redfish/v1/Systems/1", "Acme", "A1", host),
        bmc={"model": "BMC", "firmware": "1"},
        power=PowerState.on,
        settings=values,
    )
    names = [f"bios.Attribute{j:03}Name" for j in range(FINDINGS)]
    findings = tuple(
        Finding(
            setting=n,
            word=Word.match,
            expected=str(values[n]),
            actual=str(values[n]),
            source="/redfish/v1/Systems/1/Bios",
            at=at,
            host=host,
            severity="warning",
            profile="acme",
        )
        for n in names
    )
    return Scanned(host=host, at=at, snapshot=snapshot, findings=findings, about=about(snapshot, "acme"))


def recorded(store: SqliteStore, machines: dict[str, dict[str, Value]], turn: int) -> float:
    """CPU seconds of one whole scan in the store, from begin to finish; making the readings does not count."""
    cpu = 0.0
    at = 1_700_000_000.0 + turn * 3600
    began = time.process_time()
    scan = store.begin_scan({}, trigger="benchmark", hosts=list(machines)).id
    cpu += time.process_time() - began
    for batch in _batches(machines, at):
        began = time.process_time()
        store.record_scanned(scan, batch)
        cpu += time.process_time() - began
    began = time.process_time()
    store.finish_scan(scan, {})
    return cpu + time.process_time() - began


def _batches(machines: dict[str, dict[str, Value]], at: float) -> Iterator[list[Scanned]]:
    hosts = list(machines.items())
    for i in range(0, len(hosts), BATCH):
        yield [scanned(h, at + j / 1000, v) for j, (h, v) in enumerate(hosts[i : i + BATCH], i)]


def reading(fleet: Fleet) -> float:
    """CPU seconds of reading and judging every BMC of the fleet, as a scan does, with nothing recorded."""
    site = OpenSite(Path(fleet.site))
    try:
        (site.folder / "profiles").mkdir(exist_ok=True)
        for make in ("dell", "hpe", "lenovo", "supermicro", "nvidia"):
            (site.folder / f"profiles/{make}.yaml").write_text(f"match: {{vendor: {make}}}\n{PROFILE}")
        judge = Judge(site.docs.profiles)
        registries = Registries(site.store)
        reader = Reader(site.store, judge, registries)
        specs = [site.spec(bmc.name) for bmc in fleet]
        began = time.process_time()
        count = 0
        for found in collecting(specs, reader.walk, ledger=site.ledger, budget=site.budget, folder=site.folder):
            count += reader.judged(found).read
        spent = time.process_time() - began
        reader.save()
        if count != len(specs):
            raise RuntimeError(f"{count} of {len(specs)} emulated BMCs were read")
        return spent
    finally:
        site.close()


def month(hosts: int, hours: int) -> list[Result]:
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SqliteStore(folder / "store.sqlite")
        machines = {f"h{i}": settings(i) for i in range(hosts)}
        recorded(store, machines, 0)
        base = _size(store, folder)
        changed = 0
        for hour in range(1, hours + 1):
            for _ in range(max(1, round(hosts * SETTINGS * CHANGING))):
                values = machines[chance.choice(list(machines))]
                values[f"bios.Attribute{chance.randrange(SETTINGS - 30):03}Name"] = chance.choice(_VALUES)
            recorded(store, machines, hour)
        changed = sum(1 for _ in store.changes(0))
        grown = _size(store, folder) - base
        equal = all(store.values(h) == v for h, v in machines.items())
        store.close()
    per_change = grown / changed
    year = FLEET * base / hosts + FLEET * SETTINGS * CHANGING * YEAR * per_change
    return [
        told(f"a host in the store, {SETTINGS} settings and {FINDINGS} findings", [base / hosts / 1000], unit="kB"),
        told("a changed value in the store", [per_change], unit="bytes", changes=changed, hours=hours, equal=equal),
        told(f"a year of hourly scans of {FLEET:,} hosts, {CHANGING:.1%} of all values changing each time", [year / 1e9], unit="GB"),
    ]  # fmt: skip


def _size(store: SqliteStore, folder: Path) -> int:
    """With the log written back."""
    with store._db.write() as conn:  # noqa: SLF001
        conn.execute("SELECT 1")
    store._db._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # noqa: SLF001
    return (folder / "store.sqlite").stat().st_size
