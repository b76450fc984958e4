"""A site for tests of schedules, and a reading of BMCs that needs none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from pathlib import Path
from typing import Any

import yaml

from metalimmu.bmc.collect.types import Collected
from metalimmu.errors import BmcUnreachable
from metalimmu.observed.snapshot import Snapshot
from metalimmu.observed.types import PowerState, SystemIdentity

URLS = {"bmc": "http://127.0.0.1:18080", "machines": "https://127.0.0.1:18443"}


def write_site(folder: Path, schedules: dict[str, Any], *, hosts: int = 4, **site: Any) -> Path:
    (folder / "hosts").mkdir(parents=True, exist_ok=True)
    document = {"name": "ams1", "urls": URLS, "schedules": schedules, **site}
    (folder / "site.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    listed = [{"name": f"n{i}", "bmc": f"redfish+https://10.0.0.{i}", "labels": {"half": str(i % 2)}} for i in range(1, hosts + 1)]  # fmt: skip
    (folder / "hosts/h.yaml").write_text(yaml.safe_dump(listed))
    return folder


class Clock:
    """Waiting takes no time."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Reading:
    """Stands for the collector: each BMC takes `seconds`, and says nothing new. `stop_after` so many, it is interrupted."""

    def __init__(self, clock: Clock, *, seconds: float = 1.0, stop_after: int | None = None) -> None:
        self.clock = clock
        self.seconds = seconds
        self.stop_after = stop_after
        self.read: list[tuple[str, float]] = []  # host, when
        self.groups: list[list[str]] = []
        self.closed = 0
        self.silent: set[str] = set()

    def __call__(self, hosts: Collection[Any], _reader: Callable[[Any], Any]) -> Generator[Collected[Any], None, None]:
        self.groups.append([h.name for h in hosts])
        try:
            for host in hosts:
                if self.stop_after is not None and len(self.read) >= self.stop_after:
                    raise KeyboardInterrupt
                self.read.append((host.name, self.clock.now))
                self.clock.now += self.seconds
                yield self._result(host)
        finally:
            self.closed += 1

    def _result(self, host: Any) -> Collected[Any]:
        at = self.clock.now
        if host.name in self.silent:
            return Collected(target=host, at=at, value=None, failure=BmcUnreachable("silent"), requests=1, seconds=1.0)
        snapshot = Snapshot(
            host=host.name,
            at=at,
            identity=SystemIdentity("1", "/redfish/v1/Systems/1", serial=host.name),
            bmc={"firmware": "1", "model": "m"},
            power=PowerState.on,
            settings={"bios.A": "1"},
        )
        return Collected(target=host, at=at, value=snapshot, failure=None, requests=3, seconds=1.0)
