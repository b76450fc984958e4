"""What the boot service needs from the rest: deployments, images, media and run-time config. `main` fits them in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from metalimmu.plan.push import Push
from metalimmu.wire.manifest import Manifest
from metalimmu.wire.messages import (
    Assignment,
    CheckIn,
    ConfigPackage,
    Failure,
    Progress,
    Report,
    RunTimeConfig,
    SystemReport,
)

Secret = Literal["agent", "proof", "media", "chunk"]


class Deployment(Protocol):
    """One machine being made into one image; the store's DeploymentRecord fits."""

    @property
    def id(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def assignment(self) -> Assignment: ...
    @property
    def digest(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def stage(self) -> str: ...
    @property
    def go(self) -> bool: ...
    @property
    def stop(self) -> str: ...
    @property
    def config_digest(self) -> str: ...
    @property
    def proof_by(self) -> str: ...
    @property
    def went(self) -> float | None: ...
    @property
    def check_in(self) -> CheckIn | None: ...
    @property
    def boot_ids(self) -> tuple[str, ...]: ...
    @property
    def progress(self) -> Progress | None: ...
    @property
    def report(self) -> Report | None: ...
    @property
    def failure(self) -> Failure | None: ...
    @property
    def system_ok(self) -> bool: ...
    @property
    def ended(self) -> float | None: ...
    @property
    def host_key(self) -> str: ...
    @property
    def push(self) -> Push | None: ...
    @property
    def queued(self) -> float | None: ...


@dataclass(frozen=True)
class Beat:
    """What one deployment's machine did since the last beat."""

    deployment: str
    seen: float | None = None  # seconds since 1970
    progress: Progress | None = None
    media_bytes: int = 0  # really sent since the last beat
    chunk_bytes: int = 0
    log: tuple[str, ...] = ()


class Deployments(Protocol):
    """The store. Blocking: the boot service calls it from threads of its own."""

    def find_deployment(self, secret: Secret, hashed: str) -> Deployment | None: ...

    def update_deployment(
        self, deployment: str, change: Callable[[Deployment], Mapping[str, Any]] | None = None, **fields: Any
    ) -> Deployment: ...

    def beat(self, beats: Iterable[Beat]) -> None: ...


class Image(Protocol):
    @property
    def manifest(self) -> Manifest: ...


class Images(Protocol):
    """images.Catalogue fits."""

    def by_digest(self, digest: str) -> Image | None: ...

    def chunk_path(self, sha: str) -> Path: ...


class MediaFile(Protocol):
    """SplicedIso fits."""

    @property
    def size(self) -> int: ...

    def pread(self, offset: int, length: int) -> bytes: ...

    def close(self) -> None: ...


class Content(Protocol):
    """What is made for one deployment. Blocking."""

    def media(self, deployment: Deployment) -> MediaFile:
        """The boot media, opened; closed when nobody has read it for a while. Raises MetalimmuError."""
        ...

    def config(self, deployment: Deployment) -> RunTimeConfig:
        """What goes on the seed, always the same for one deployment. Raises MetalimmuError."""
        ...

    def package(self, deployment: Deployment) -> ConfigPackage:
        """What the open push of this deployment brings, with its secrets. Raises MetalimmuError."""
        ...

    def withheld(self, deployment: Deployment) -> str:
        """Why the open push is not given to the machine now: a freeze, a run; empty: nothing forbids it."""
        ...

    def settled(self, deployment: Deployment) -> None:
        """Its push has ended: for the history."""
        ...

    def rack(self, deployment: Deployment) -> str:
        """Of the deployment's host; empty: it says none."""
        ...

    def controller(self) -> dict[str, Any]:
        """Which controller of its site this is, for another one: JSON."""
        ...

    def unknown(self, deployment: str, said: SystemReport | CheckIn | None) -> str:
        """A machine has shown that it belongs to a deployment of this site which the store does not know. Keeps what it
        said; returns what it is told.
        """
        ...
