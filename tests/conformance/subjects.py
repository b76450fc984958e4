"""What the conformance suite runs against."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.ports import Bmc
from metalimmu.desired.types import Tls


@dataclass
class Subject:
    """One driver against one BMC. `writes` counts what the BMC really received; `sessions` what it holds open."""

    address: str
    login: str | None
    writes: Callable[[], int] | None = None
    sessions: Callable[[], int] | None = None
    logins: Callable[[], int] | None = None
    url: str = "http://127.0.0.1:8080/m/0123456789abcdef/boot.iso"
    boots_for_real: bool = True  # does a boot use up Once? is it Once at all?
    tls: Tls = field(default_factory=Tls)
    patient: float = 5.0  # seconds in which a power change shows

    def open(self, **more: Any) -> Bmc:
        mode = more.pop("mode", "read-write")
        login = more.pop("credentials", self.login)
        ledger = more.pop("ledger", None) or MemoryLedger()
        target = Address(bmc=self.address, credentials=login, mode=mode, tls=self.tls)
        return connect(target, ledger=ledger, patience=5.0, **more)

    def wait(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.patient
        while not what():
            assert time.monotonic() < deadline, f"not so after {self.patient} s"
            time.sleep(0.02 if self.patient < 10 else 0.2)


def recordings() -> list[Path]:
    """Named by METALIMMU_RECORDINGS; the project has no copy. In CI they must be there."""
    folder = os.environ.get("METALIMMU_RECORDINGS")
    found = sorted(Path(folder).glob("*.zip")) if folder else []
    if not found and os.environ.get("CI"):
        raise pytest.UsageError("METALIMMU_RECORDINGS names no folder with recordings, and CI must have them")
    return found


def named(found: Mapping[str, Path], name: str) -> Path:
    """One recording. Skips where there are none at all, which CI refuses; one that is missing among others is a failure."""
    if not found:
        pytest.skip("METALIMMU_RECORDINGS is not set: recordings of real machines are not read")
    if name not in found:
        pytest.fail(f"METALIMMU_RECORDINGS has no {name}.zip")
    return found[name]
