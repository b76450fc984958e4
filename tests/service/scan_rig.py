"""A site whose BMCs are dictionaries: what a scan does with readings, without a socket."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metalimmu.bmc.collect.types import Collected
from metalimmu.bmc.logs import Found
from metalimmu.errors import BmcUnreachable, MetalimmuError
from metalimmu.observed.log_entry import LogEntry
from metalimmu.observed.snapshot import Job, Snapshot, Value
from metalimmu.observed.types import PowerState, Reason, SystemIdentity, Unknown
from metalimmu.service.scans.registries import key_of
from metalimmu.service.site import OpenSite

SITE = """\
name: t
urls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}
"""
PROFILE = """\
match: {vendor: "Acme*"}
owner: platform
bios_raw: {Sriov: Enabled, Turbo: {value: "On", severity: critical}}
"""
GOOD: dict[str, Value] = {"bios.Sriov": "Enabled", "bios.Turbo": "On", "bios.Free": 7, "boot.mode": "UEFI"}


@dataclass
class Machine:
    settings: dict[str, Value] = field(default_factory=lambda: dict(GOOD))
    unknown: dict[str, Unknown] = field(default_factory=dict)
    failure: MetalimmuError | None = None
    manufacturer: str = "Acme Inc."
    model: str = "A1"
    bmc_model: str = "BMC 1"
    logs: tuple[LogEntry, ...] = ()
    jobs: tuple[Job, ...] = ()
    waiting: tuple[str, ...] = ()
    staged: dict[str, Value] = field(default_factory=dict)
    reads: int = 0
    log_reads: int = 0


@dataclass
class Rig:
    folder: Path
    machines: dict[str, Machine]
    before_each: Callable[[str], None] = lambda _name: None  # may raise: the scan breaks off
    clock: Callable[[], float] = time.time
    opened: list[OpenSite] = field(default_factory=list)

    def site(self) -> OpenSite:
        """Opened anew: documents are read again."""
        self.opened.append(OpenSite(self.folder))
        return self.opened[-1]

    def close(self) -> None:
        for site in self.opened:
            site.close()

    def read(self, hosts: Any, reader: Any) -> Any:
        """A ReadMany."""
        for host in hosts:
            machine = self.machines[host.name]
            if reader.__module__.endswith("scans.blame"):
                machine.log_reads += 1
                yield self._result(host, Found(entries=machine.logs, complete=True), machine.failure)
                continue
            self.before_each(host.name)
            machine.reads += 1
            snapshot = None if machine.failure else self.snapshot(host.name)
            key = key_of(snapshot) if snapshot is not None else None
            registries = reader.__self__._registries
            if key is not None and registries.claim(key):  # as the walk does
                registries.put(key, Unknown(Reason.not_modelled))
            yield self._result(host, snapshot, machine.failure)

    def _result(self, host: Any, value: Any, failure: MetalimmuError | None) -> Collected[Any]:
        return Collected(target=host, at=self.clock(), value=value, failure=failure, requests=3, seconds=0.1)

    def snapshot(self, name: str) -> Snapshot:
        m = self.machines[name]
        return Snapshot(
            host=name,
            at=self.clock(),
            identity=SystemIdentity("1", "/redfish/v1/Systems/1", m.manufacturer, m.model, f"SN-{name}"),
            bmc={"model": m.bmc_model, "firmware": "1.0"},
            power=PowerState.on,
            settings=dict(m.settings),
            unknown=dict(m.unknown),
            jobs=m.jobs,
            waiting=m.waiting,
            staged=dict(m.staged),
            sources={"bios": "/redfish/v1/Systems/1/Bios", "pending": "/redfish/v1/Systems/1/Bios/Settings"},
        )


def rig(folder: Path, *names: str, profile: str = PROFILE, **rest: Any) -> Rig:
    """A site with these hosts, all good."""
    for name in ("hosts", "profiles"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(SITE)
    if profile:
        (folder / "profiles/acme.yaml").write_text(profile)
    lines = [
        f'- {{name: {n}, bmc: "redfish+https://10.9.{i >> 8}.{i & 255}", labels: {{row: r{i % 2}}}}}'
        for i, n in enumerate(names)
    ]
    (folder / "hosts/all.yaml").write_text("\n".join(lines) + "\n")
    return Rig(folder, {n: Machine() for n in names}, **rest)


def away(name: str = "it") -> BmcUnreachable:
    return BmcUnreachable(f"https://{name}: no TCP connection: timed out")
