"""How much longer than the bare parse of their documents does a saved plan for 10,000 hosts take?

Ours is the whole of `metalimmu plan -l role=web --from-memory --out FILE`, from the documents to the file on disk: load and
check, select, resolve, render each host's run-time config, read what the store knows of each host and what its BMC said
last, plan, ask the guards, put them in waves, print the table, encode, digest, write and sync. No BMC is asked: looking at
10,000 BMCs is the scan's benchmark, bounded by the BMC budget and not by us.

The competitor: three times PyYAML's C loader on the same documents, and one read of the same rows of the store with nothing
but sqlite3. CPU of the calls, by turns, each in a process of its own. Claimed: at most as much.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.options import options
from benchmarks.processes import alternate
from benchmarks.processes import run as start
from benchmarks.result import Result, at_most
from benchmarks.site_load import hosts

FACTOR = 3.0
STEPS = ("preflight", "media", "insert", "override", "power", "check-in", "write", "verify", "config", "eject", "boot", "report", "prove")  # fmt: skip
SITE = """\
name: bench
mode: read-write
urls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}
credentials: [{ref: "env:BMC"}]
guards: {max_hosts: 20000, failure_domain: [rack]}
vars: {ntp: [10.0.0.1], ssh_authorized_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBF9eeYKFxzJ06tLVwhrPiqJW5jTxbLQSpBTx0kfwyGT ops@example.org"]}
"""


def run() -> list[Result]:
    count = 200 if options().quick else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, count)
        bare, read, ours = alternate(
            options().repeat(5),
            lambda: alone("bare", folder),
            lambda: alone("read", folder),
            lambda: alone("ours", folder),
        )
        allowed = tuple(FACTOR * b + r for b, r in zip(bare, read, strict=True))
        size = (folder / "fleet.plan").stat().st_size
        equal = same(folder, count)
    return [
        at_most(
            f"plan {count:,} hosts, from memory, saved, CPU",
            ours,
            allowed,
            1.0,
            unit="s",
            rival=f"{FACTOR:g} x CSafeLoader + one read of the store",
            equal=equal,
            bare=bare,
            read=read,
            file_bytes=size,
        )
    ]


def prepare(folder: Path, count: int) -> None:
    """A site whose hosts were all reimaged once and looked at for a plan."""
    for sub in ("hosts", "roles", "pools"):
        (folder / sub).mkdir()
    rows = hosts(count + 1)
    (folder / "site.yaml").write_text(SITE)
    (folder / "roles/web.yaml").write_text("image: web@2\nnetwork: {dns: [10.0.0.2]}\n")
    (folder / "pools/web-ams.yaml").write_text(f"min_active: {count // 2}\nmax_unavailable: 5%\nbatch: 2%\n")
    (folder / "hosts/all.yaml").write_text(yaml.dump(rows, Dumper=yaml.CSafeDumper, sort_keys=False))
    _images(folder)
    _remember(folder, [str(r["name"]) for r in rows], {str(r["name"]): r for r in rows})


def _images(folder: Path) -> None:
    from metalimmu.images.catalogue import Catalogue
    from metalimmu.images.ramdisk import Ramdisk
    from metalimmu.wire.manifest import CHUNK, Manifest

    catalogue = Catalogue(folder / ".metalimmu/images")
    for version in ("1", "2"):
        chunks = tuple(f"{version if i % 20 == 0 else 'c'}{i:063x}" for i in range(500))
        made = Manifest(kind="disk", architecture="x86_64", size=500 * CHUNK, chunks=chunks, build_id=f"b{version}")
        catalogue.publish(f"web@{version}", made, {}, {})
    ramdisk = folder / ".metalimmu/ramdisk/generic"
    ramdisk.mkdir(parents=True)
    (ramdisk / "boot.iso").write_bytes(b"x")
    empty: dict[str, Any] = {"str": "", "bool": False, "int": 0, "tuple[str, ...]": (), "dict[str, int]": {"iso": 1}}
    record = {f.name: empty.get(str(f.type), ()) for f in dataclasses.fields(Ramdisk) if f.name != "folder"}
    (ramdisk / "ramdisk.json").write_text(json.dumps(record))


def _remember(folder: Path, names: list[str], rows: dict[str, dict[str, Any]]) -> None:
    from metalimmu.images.catalogue import Catalogue
    from metalimmu.store.sqlite import SqliteStore

    old = Catalogue(folder / ".metalimmu/images").get("web@1")
    store = SqliteStore(folder / ".metalimmu/store.sqlite")
    now = time.time()
    with store._db.write(durable=False) as conn:  # noqa: SLF001 - 10,000 synced transactions would take minutes
        for name in names:
            run = f"r-{name}"
            conn.execute(
                "INSERT INTO hosts (name, state, proof, proof_evidence, image, digest, previous_image, power, efi_entries, updated) "
                "VALUES (?, 'active', 'proven', '{}', 'web@1', ?, 'web@0', 'On', '[]', ?)",
                (name, old.digest, now),
            )
            conn.execute(
                "INSERT INTO observations (host, kind, data, at, seen) VALUES (?, 'look', ?, ?, ?)",
                (name, msgspec.json.encode(_look(name, rows[name])).decode(), now, now),
            )
            conn.execute(
                "INSERT INTO runs (id, verb, host, plan, options, status, created, worker, cancel_requested) "
                "VALUES (?, 'reimage', ?, ?, '{}', 'succeeded', ?, '', 0)",
                (run, name, json.dumps({"padding": "x" * 6000}), now),
            )
            conn.executemany(
                "INSERT INTO steps (run, seq, name, attempts, started, finished, outcome, summary, evidence, bytes, earlier) "
                "VALUES (?, ?, ?, 1, ?, ?, 'done', '', '{}', 0, '[]')",
                [(run, i, step, now, now + i + len(name)) for i, step in enumerate(STEPS)],
            )
    store.close()


def _look(name: str, row: dict[str, Any]) -> Any:
    from metalimmu.observed.types import (
        BootEnabled,
        BootMode,
        BootOverride,
        MediaSlot,
        PowerState,
        SystemIdentity,
        WriteRequest,
    )
    from metalimmu.plan.reimage import MEDIA_URL, Requests, Seen
    from metalimmu.service.looking import Look

    base = "/redfish/v1/Managers/iDRAC.Embedded.1/VirtualMedia"
    slots = tuple(MediaSlot(i, f"{base}/{i}", ("CD", "DVD"), False, None, True, True) for i in ("1", "2"))
    system = "/redfish/v1/Systems/System.Embedded.1"

    def post(path: str, **body: object) -> tuple[WriteRequest, ...]:
        return (WriteRequest("POST", path, body),)

    def override(target: str, enabled: str) -> tuple[WriteRequest, ...]:
        boot = {"BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": enabled}
        return (WriteRequest("PATCH", system, {"Boot": boot}),)

    clear = override("None", "Disabled")
    url = f"http://10.0.0.5:8080/m/{MEDIA_URL}/boot.iso"
    return Look(
        seen=Seen(
            identity=SystemIdentity(
                "System.Embedded.1",
                system,
                "Dell Inc.",
                "PowerEdge R750",
                str(row["serial"]),
                uuid=name,
                nics=tuple(row["nics"]),
            ),
            power=PowerState.on,
            boot=BootOverride(BootEnabled.disabled, "None", BootMode.uefi),
            media=slots,
        ),
        slot=slots[0],
        requests=Requests(
            will={
                "insert": post(
                    f"{base}/1/Actions/VirtualMedia.InsertMedia", Image=url, Inserted=True, WriteProtected=True
                ),
                "override": override("Cd", "Once"),
                "power": post(f"{system}/Actions/ComputerSystem.Reset", ResetType="ForceRestart"),
                "eject": post(f"{base}/1/Actions/VirtualMedia.EjectMedia"),
            },
            may={"eject": clear},
        ),
        bmc=str(row["bmc"]),
        firmware="uefi",
        media="http://10.0.0.5:8080",
    )


def alone(what: str, folder: Path) -> float:
    """CPU seconds of one call in a process of its own."""
    return float(start([sys.executable, "-m", "benchmarks.plan_many", what, str(folder)]).output.splitlines()[-1])


def bare(folder: Path) -> None:
    for file in ("hosts/all.yaml", "site.yaml", "roles/web.yaml", "pools/web-ams.yaml"):
        yaml.load((folder / file).read_bytes(), yaml.CSafeLoader)


def read(folder: Path) -> None:
    """The rows that planning needs, and nothing done with them."""
    from metalimmu.store import plans

    conn = sqlite3.connect(folder / ".metalimmu/store.sqlite")
    conn.execute("BEGIN")
    for sql, parameters in ((plans.HOSTS, ()), (plans.LOOKS, ("look",)), (plans.SECONDS, ())):
        conn.execute(sql, parameters).fetchall()
    conn.close()


def ours(folder: Path) -> None:
    from metalimmu.main import run as metalimmu

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        status = metalimmu(
            ["plan", "--site", str(folder), "-l", "role=web", "--from-memory", "--out", str(folder / "fleet.plan")]
        )
    if status:
        raise SystemExit(status)


def same(folder: Path, count: int) -> bool:
    """The file reads back, with every host of the documents, each with the requests that its BMC was seen to need."""
    from metalimmu.service.saved_plans.make import load

    documents = {row["name"]: row for row in yaml.load((folder / "hosts/all.yaml").read_bytes(), yaml.CSafeLoader)}
    planned = {h.host: h.plan for h in load(folder / "fleet.plan").content.hosts}
    return len(planned) == count and all(
        planned[name].spec.serial == row["serial"]
        and planned[name].spec.bmc == row["bmc"]
        and planned[name].identity.nics == tuple(row["nics"])
        and planned[name].previous == "web@1"
        and sum(len(s.requests) for s in planned[name].steps) == 4
        for name, row in documents.items()
    )


if __name__ == "__main__":
    act = {"bare": bare, "read": read, "ours": ours}[sys.argv[1]]
    begun = time.process_time()
    act(Path(sys.argv[2]))
    print(time.process_time() - begun)
