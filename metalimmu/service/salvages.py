"""Files of old systems: how they come in, where they lie, how they are looked at and taken out.

::

    STATE/salvage/RUN/NAME.tar.zst      one archive per file system, 0600: logs have secrets
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from metalimmu.errors import NotFound, SalvageFailed, ToolError, UsageError
from metalimmu.service.site import OpenSite, private_folder
from metalimmu.store.salvages import SalvageRecord

if TYPE_CHECKING:
    from metalimmu.boot.ports import Deployment

_SPARE = 1 << 30  # bytes of the controller's disk that are never taken


def folder(site: OpenSite) -> Path:
    return private_folder(site.state) / "salvage"


def path(site: OpenSite, record: SalvageRecord) -> Path:
    return folder(site) / record.run / f"{record.name}.tar.zst"


class Incoming:
    """One archive that comes in; fits boot.ports.Archive. Raises SalvageFailed when the controller has no room."""

    def __init__(self, site: OpenSite, deployment: Deployment, name: str) -> None:
        self._site = site
        self._record = SalvageRecord(
            host=deployment.host,
            run=deployment.id,
            name=name,
            image=site.store.host(deployment.host).image or "",
        )
        self._target = path(site, self._record)
        self._target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        room = shutil.disk_usage(self._target.parent).free - _SPARE
        wanted = deployment.assignment.salvage
        if room < min(wanted.limit if wanted else 0, _SPARE):
            raise SalvageFailed(
                f"the controller's disk has {room >> 20} MiB to spare for salvaged files",
                hint=f"make room in {folder(site)}: `metalimmu salvage rm`",
            )
        self._new = self._target.with_suffix(".new")
        self._hash = hashlib.sha256()
        self._file = os.fdopen(os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def write(self, data: bytes) -> None:
        """Raises ToolError when the disk is full or broken: it may be mended while the machine waits."""
        self._hash.update(data)
        try:
            self._file.write(data)
        except OSError as exc:
            raise ToolError(f"{self._new}: {exc.strerror}", hint=f"make room in {folder(self._site)}") from exc

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._new.replace(self._target)
        done = {"bytes": size, "sha256": self._hash.hexdigest(), "at": time.time()}
        record = SalvageRecord(**{f: getattr(self._record, f) for f in ("host", "run", "name", "image")}, **done)  # type: ignore[arg-type]
        self._site.store.salvaged(record)
        text = f"salvaged {record.name} of the old system: {size / 1e6:.1f} MB"
        key = f"{record.run}/salvage/{record.name}"
        self._site.store.add_event(record.host, "salvage", text, run=record.run, data=done, key=key)

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # what was not written yet
            self._file.close()
        self._new.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._new.parent.rmdir()


def find(site: OpenSite, host: str, run: str | None = None) -> list[SalvageRecord]:
    """Of one run; without it of the newest that saved anything. Raises NotFound."""
    found = site.store.salvages(host=host, run=run)
    if not found:
        of = f" by {run}" if run else ""
        raise NotFound(f"nothing was salvaged of {host}{of}", hint="`metalimmu salvage list` shows what there is")
    return [r for r in found if r.run == found[0].run]


def files(site: OpenSite, record: SalvageRecord) -> Iterator[tarfile.TarInfo]:
    """What an archive holds. Raises NotFound, SalvageFailed."""
    with _opened(site, record) as tar:
        yield from tar


def take(site: OpenSite, record: SalvageRecord, out: Path) -> Path:
    """Copy the archive as it is. Raises UsageError when there is something in its place."""
    target = out / f"{record.host}-{record.name}.tar.zst" if out.is_dir() else out
    if target.exists():
        raise UsageError(f"{target} is there already", hint="name another --out")
    source = _there(site, record)
    shutil.copyfile(source, target)
    return target


def extract(site: OpenSite, record: SalvageRecord, out: Path) -> int:
    """The files themselves, below `out`, ours and 0600. Returns how many.

    An ill or wicked machine may have made this archive: no links are made, nothing is followed, and a name that leads
    outside is left out.
    """
    count = 0
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _opened(site, record) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or member.name.startswith("/") or ".." in member.name.split("/"):
                continue
            target = out / member.name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                shutil.copyfileobj(content, file)
            count += 1
    return count


def remove(site: OpenSite, record: SalvageRecord) -> None:
    path(site, record).unlink(missing_ok=True)
    site.store.forget_salvage(record.run, record.name)
    with contextlib.suppress(OSError):
        path(site, record).parent.rmdir()


def _there(site: OpenSite, record: SalvageRecord) -> Path:
    found = path(site, record)
    if not found.is_file():
        raise NotFound(f"{found} is gone", hint="it was removed by hand; `metalimmu salvage rm` forgets it")
    return found


@contextlib.contextmanager
def _opened(site: OpenSite, record: SalvageRecord) -> Iterator[tarfile.TarFile]:
    import zstandard

    raw: IO[bytes]
    with _there(site, record).open("rb") as raw:
        try:
            with (
                zstandard.ZstdDecompressor().stream_reader(raw) as reader,
                tarfile.open(fileobj=reader, mode="r|") as tar,
            ):
                yield tar
        except (tarfile.ReadError, zstandard.ZstdError) as exc:
            raise SalvageFailed(
                f"{record.name} of {record.run} is damaged: {exc}", hint="the machine that sent it may have been ill"
            ) from exc
