"""Real virtual machines behind the lab's BMCs, driven as a person drives them."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "images")]  # e2e_rig.py; image_builds.py

import e2e_rig  # noqa: E402
import image_builds  # noqa: E402

from metalimmu import paths  # noqa: E402
from metalimmu.cli.lab import artifacts, ensure_artifacts, ensure_ramdisk  # noqa: E402
from metalimmu_emulator.lab import Lab  # noqa: E402

MIB = 1 << 20


@dataclass(frozen=True)
class Artefacts:
    images: Path
    ramdisks: Path


@pytest.fixture(scope="session")
def artefacts() -> Artefacts:
    """tiny@1, tiny@2 built on it, and the lab's ramdisk: made once, and again when what they are made from changes."""
    store, _ = image_builds.image("tiny@1", "tiny")
    image_builds.image("tiny@2", "tiny", base="tiny@1")
    found = Artefacts(store.root, artifacts()[1])
    with building():
        ensure_artifacts(found.images, found.ramdisks, "lab", None)
    return found


@pytest.fixture(scope="session")
def generic_ramdisk(artefacts: Artefacts) -> None:
    with building():
        ensure_ramdisk(artefacts.ramdisks, "generic", None)


@contextmanager
def building() -> Iterator[None]:
    """Test processes that run side by side build a ramdisk once."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    with (paths.cache() / "e2e-building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


Up = Callable[..., e2e_rig.Rig]


def _up(stack: ExitStack, artefacts: Artefacts, folder: Path) -> Up:
    def up(name: str = "lab", **shape: Any) -> e2e_rig.Rig:
        wanted = {"firmware": "bios", "disk_size": 256 * MIB, "memory": 512} | shape
        lab = Lab.up(folder / name, images=artefacts.images, ramdisks=artefacts.ramdisks, **wanted)
        return stack.enter_context(e2e_rig.rig(lab))

    return up


@pytest.fixture
def up(artefacts: Artefacts, tmp_path: Path) -> Iterator[Up]:
    """A lab for one test: `up(servers=3, …)`, see Lab.up. Down afterwards, also when the test failed."""
    with ExitStack() as stack:
        yield _up(stack, artefacts, tmp_path)


@pytest.fixture(scope="module")
def up_for_all(artefacts: Artefacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A lab for all tests of a module."""
    with ExitStack() as stack:
        yield _up(stack, artefacts, tmp_path_factory.mktemp("labs"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """What the machines said last, beside what failed."""
    report = yield
    if report.failed and call.when != "teardown":
        for rig in e2e_rig.ACTIVE:
            for server in rig.lab.spec.servers:
                name = f"console of {rig.lab.folder.name}/{server.name}"
                report.sections.append((name, rig.tail(server.name)))
    return report
