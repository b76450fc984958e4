"""A small image, a controller that serves it, a machine to write it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_rig import (
    MIB,
    Certificate,
    FakeController,
    FakeRoot,
    Image,
    RunningAgent,
    as_image,
    assignment,
    fill,
    make_certificate,
    partitioned,
)

from metalimmu.agent import link

FULL = [2, 3, 5, 8, 9, 10, 11, 17, 18, 22]  # chunks with content, of 24


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """24 MiB and one sector: the last chunk is short."""
    data = fill(partitioned(tmp_path_factory.mktemp("image"), 24 * MIB + 512), FULL)
    data[9 * MIB : 10 * MIB] = data[8 * MIB : 9 * MIB]  # two equal chunks
    return as_image(bytes(data))


@pytest.fixture(scope="session")
def image2(image: Image) -> Image:
    """The next version: chunks 3 and 17 differ, 5 became zeros, 14 has content."""
    data = fill(bytearray(image.data), [3, 14, 17], salt=1)
    data[5 * MIB : 6 * MIB] = bytes(MIB)
    return as_image(bytes(data))


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told twenty times a second instead of once."""
    monkeypatch.setattr(link, "INTERVAL", 0.05)


@pytest.fixture
def fake(certificate: Certificate, image: Image) -> Iterator[FakeController]:
    controller = FakeController(certificate, image, assignment(image)).start()
    yield controller
    controller.stop()


@pytest.fixture
def root(tmp_path: Path) -> FakeRoot:
    return FakeRoot(tmp_path / "root")


@pytest.fixture
def disk(root: FakeRoot) -> Path:
    """64 MiB full of an older system's bytes, so that nothing is zero by chance."""
    return root.disk("vda", 64 * MIB, content=b"old system! " * (64 * MIB // 12), serial="disk-1")


@pytest.fixture
def start(root: FakeRoot) -> Iterator[Callable[..., RunningAgent]]:
    agents: list[RunningAgent] = []

    def make(fake: FakeController, **more) -> RunningAgent:
        agents.append(RunningAgent(fake, root, **more).start())
        return agents[-1]

    yield make
    for agent in agents:
        agent.end()
