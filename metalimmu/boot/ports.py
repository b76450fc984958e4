"""What the boot service needs from the rest: deployments, images, media and run-time config. `main` fits them in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

Secret = Literal["agent", "proof", "media", "chunk", "answers"]


class Receiver(Protocol):
    """A deployment of a server or of a switch."""

    @property
    def id(self) -> str: ...
    @property
    def host(self) -> str: ...


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
    def system(self) -> SystemReport | None: ...
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
    @property
    def kind(self) -> str: ...
    @property
    def intent(self) -> str: ...
    @property
    def fetched(self) -> dict[str, float]: ...
    @property
    def fetches(self) -> int: ...
    @property
    def finished(self) -> float | None: ...


@dataclass(frozen=True)
class Beat:
    """What one deployment's machine did since the last beat."""

    deployment: str
    seen: float | None = None  # seconds since 1970
    progress: Progress | None = None
    media_bytes: int = 0  # really sent since the last beat
    chunk_bytes: int = 0
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Netboot:
    """What one deployment's machine boots from the network."""

    kernel: str  # name of a file, below the deployment's own address
    initrds: tuple[str, ...]  # in order
    args: str  # kernel command line, without initrd=


@dataclass(frozen=True)
class Asked:
    """The machine of a deployment asked what to boot, at `at` seconds since 1970."""

    deployment: str
    host: str
    at: float
    line: str  # for the history


@dataclass(frozen=True)
class Sighting:
    """A machine that asked what to boot and has no deployment, since the last time."""

    mac: str
    uuid: str = ""
    serial: str = ""
    vendor: str = ""
    product: str = ""
    firmware: str = ""  # uefi | bios
    architecture: str = ""
    via: str = ""  # ipxe | grub
    address: str = ""
    why: str = ""
    last_seen: float = 0.0
    times: int = 1


class Offered(Protocol):
    """A deployment whose machine may boot from the network now; the store's OfferRecord fits."""

    @property
    def deployment(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def image(self) -> str: ...
    @property
    def nics(self) -> tuple[str, ...]: ...
    @property
    def uuid(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def asked(self) -> int: ...
    @property
    def offered(self) -> float: ...


class Deployments(Protocol):
    """The store. Blocking: the boot service calls it from threads of its own."""

    def find_deployment(self, secret: Secret, hashed: str) -> Deployment | None: ...

    def update_deployment(
        self, deployment: str, change: Callable[[Deployment], Mapping[str, Any]] | None = None, **fields: Any
    ) -> Deployment: ...

    def beat(self, beats: Iterable[Beat]) -> None: ...

    def deployment(self, deployment: str) -> Deployment: ...

    def offers(self) -> Sequence[Offered]: ...

    def sighted(self, sightings: Iterable[Sighting]) -> None: ...

    def asked(self, questions: Iterable[Asked]) -> None: ...


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


class Archive(Protocol):
    """Files of an old system that come in. Blocking; raises MetalimmuError."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """All of it is there: from now on it counts, in place of one of the same name."""
        ...

    def abandon(self) -> None: ...


class Content(Protocol):
    """What is made for one deployment. Blocking."""

    def media(self, deployment: Deployment) -> MediaFile:
        """The boot media, opened; closed when nobody has read it for a while. Raises MetalimmuError."""
        ...

    def netboot(self, deployment: Deployment) -> Netboot:
        """What its machine boots from the network. Raises MetalimmuError."""
        ...

    def netboot_file(self, deployment: Deployment, name: str) -> MediaFile:
        """One of the files that `netboot` names, opened as `media` is. Raises NotFound for any other name, MetalimmuError."""
        ...

    def config(self, deployment: Deployment) -> RunTimeConfig:
        """What goes on the seed, always the same for one deployment. Raises MetalimmuError."""
        ...

    def answer(self, deployment: Deployment, name: str) -> tuple[str, bool]:
        """A file that an installer asks for, and whether it is the one by which one begins. Raises NotFound, MetalimmuError."""
        ...

    def package(self, deployment: Deployment) -> ConfigPackage:
        """What the open push of this deployment brings, with its secrets. Raises MetalimmuError."""
        ...

    def withheld(self, deployment: Deployment) -> str:
        """Why the open push is not given to the machine now: a freeze, a run; empty: nothing forbids it."""
        ...

    def booted(self, deployment: Deployment) -> None:
        """Its system, which was proven, says that it runs since another boot."""
        ...

    def settled(self, deployment: Deployment) -> None:
        """Its push has ended: for the history."""
        ...

    def salvage(self, deployment: Deployment, name: str) -> Archive:
        """Where to put what is salvaged. Raises SalvageFailed when there is no room."""
        ...

    def rack(self, deployment: Receiver) -> str:
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
