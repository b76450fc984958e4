"""A rack whose hosts have a template of their own, and a secret; pushes to its simulated machines."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from drive import reimage
from rack import Rack

from metalimmu.plan.types import Word
from metalimmu.service import pushes
from metalimmu.service.configs import Configs
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import RunStatus
from metalimmu_emulator.simulated import SimulatedMachine

LIMITS = {
    **dict.fromkeys(("power", "media", "check_in", "stall", "phone_home", "bmc"), "40s"),
    "report_again": "1s",
    "apply": "10s",
}
USER = "#cloud-config\nntp: {servers: [{{ vars.ntp }}]}\n"
SECRET, NEWER = "Hunter2-planted-secret", "Hunter3-planted-secret"


class Site:
    """A rack whose hosts have a template of their own."""

    def __init__(
        self, folder: Path, hosts: int = 1, *, template: str = USER, role: dict[str, Any] | None = None
    ) -> None:
        self.rack = Rack(folder, hosts, limits=LIMITS)
        (self.rack.site / "templates").mkdir()
        self.role(**(role or {}))
        self.template(template)
        self.secret(SECRET)

    def template(self, text: str) -> None:
        (self.rack.site / "templates/user.j2").write_text(text)

    def role(self, **more: Any) -> None:
        role = {"image": "web@1", "ramdisk": "fake", "config": {"user-data": "user.j2"}, "vars": {"ntp": "ntp1"}}
        self.rack.write("roles/web.yaml", role | more)

    def secret(self, value: str) -> None:
        path = self.rack.site / "db-password"
        path.write_text(value)
        path.chmod(0o600)

    def change(self, file: str, host: str, **more: Any) -> None:
        known = yaml.safe_load((self.rack.site / file).read_text())
        self.rack.write(file, [h | more if h["name"] == host else h for h in known])

    def open(self) -> OpenSite:
        return OpenSite(self.rack.site)

    def word(self, host: str = "node-1") -> tuple[Word, str]:
        site = self.open()
        try:
            found = Configs(site).finding(site.spec(host))
            return found.word, found.reason
        finally:
            site.close()


def deployed(site: Site, stack: ExitStack, **faults: Any) -> SimulatedMachine:
    machine = site.rack.power_up(stack, pace=0.2, faults={"node-1": faults})["node-1"]
    assert reimage(site.rack.site).status is RunStatus.succeeded
    return machine


def push(site: Site, *hosts: str, until: float = 30, **more: Any) -> list[pushes.Ended]:
    opened = site.open()
    worker = Worker(opened, runs=False)
    try:
        return list(pushes.roll(opened, hosts or ["node-1"], listening=worker.try_start, **more))
    finally:
        worker.stop()
        opened.close()


def listening(site: Site, seconds: float) -> None:
    opened = site.open()
    worker = Worker(opened, runs=False)
    try:
        worker.try_start()
        time.sleep(seconds)
    finally:
        worker.stop()
        opened.close()


def record(site: Site, host: str = "node-1") -> Any:
    opened = site.open()
    try:
        return Configs(opened).deployment(host)
    finally:
        opened.close()
