"""The file: one tar (POSIX pax) that any tar can list, its manifest first.

::

    manifest.json                          see Manifest; in the clear, so that a backup can be told without its key
    store.sqlite.zst   engine.sqlite.zst   sealed
    tls/site.key  tls/controller.key  tls/controller.pem      sealed
    documents/images.lock  holds.yaml  waivers.yaml
    catalogue/NAME/VERSION/manifest.json, provenance.json, …
    chunks.txt.zst                         `SHA-256 size` of every chunk that the manifests name
    chunks/ab/abcdef….zst                  only when they are included: each is checked by its own name
    ramdisk/FLAVOUR/…                      only then

Large members are compressed one by one, before they are sealed: what is encrypted does not compress, and chunks are
zstd frames already. So the tar itself is not compressed, and its manifest can be read from the first kilobytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from metalimmu import structs
from metalimmu.errors import BackupError

FORMAT = 1
KIND = "metalimmu backup"
MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 256 << 20
_BLOCK = 1 << 20


class Member(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size: int
    sha256: str  # of the bytes in the tar
    sealed: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = KIND
    format: int
    metalimmu: str  # version that made it
    site: str
    at: float  # the moment of both databases, seconds since 1970
    hostname: str
    key_id: str  # of the site key: says nothing about it
    pin: str  # of the controller's certificate
    migrations: list[str]  # of the store
    engine: dict[str, str] = {}  # versions
    counts: dict[str, int] = {}
    under_way: list[dict[str, str]] = []  # runs at that moment
    documents: dict[str, str] = {}  # file of the site -> SHA-256
    chunks: str = "reference"  # or included
    ramdisks: dict[str, str] = {}  # flavour -> SHA-256 of its ISO
    encryption: dict[str, Any] | None = None
    members: list[Member] = []
    mac: str = ""  # of all of the above, by the backup's key

    def signed_part(self) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(self, mac=""), order="deterministic")


@contextmanager
def written(path: Path) -> Iterator[tuple[tarfile.TarFile, Path]]:
    """A new archive and a private folder for its parts, beside it. The archive gets its name, whole and on disk, at the end
    of the block; when that raises, nothing is left. Raises BackupError when the disk is full or the folder not ours.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            scratch = Path(folder) / "archive"
            fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w+b") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    yield tar, Path(folder)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
            _sync(path.parent)
    except OSError as exc:
        raise BackupError(
            f"the backup {path} cannot be written: {exc.strerror or exc}",
            hint=f"look at the space (`df {path.parent}`) and the permissions of its folder; nothing was left behind",
        ) from exc


def put_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = _info(name, len(data))
    tar.addfile(info, io.BytesIO(data))


def put_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as file:
        tar.addfile(_info(name, os.fstat(file.fileno()).st_size), file)


def described(name: str, path: Path, *, sealed: bool = False) -> Member:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Member(name=name, size=path.stat().st_size, sha256=digest, sealed=sealed)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


class Reader:
    """A backup, read from its beginning to its end, once."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Raises BackupError: no backup, cut short in its manifest, of a newer format."""
        self.name = name
        self._file = file
        try:
            self._tar = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115  # closed with the file
            first = self._tar.next()
        except (tarfile.TarError, OSError, EOFError) as exc:
            raise BackupError(f"{name} is no backup, or not all of it: {exc}") from exc
        if first is None or first.name != MANIFEST:
            raise BackupError(f"{name} is no backup of metalimmu: it begins with {first.name if first else 'nothing'}")
        self.manifest = _manifest(self._read(first, _LARGEST_MANIFEST), name)

    def members(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """Name and entry of each, in the order of the file. Raises BackupError where it is cut short."""
        while True:
            try:
                info = self._tar.next()
            except (tarfile.TarError, OSError, EOFError) as exc:
                raise cut_short(self.name, str(exc)) from exc
            if info is None:
                return
            if not info.isreg() or not _plain(info.name):
                raise BackupError(f"{self.name} has a member {info.name!r}, which no backup of ours has")
            yield info.name, info

    def copy(self, info: tarfile.TarInfo, target: IO[bytes]) -> str:
        """Its bytes into `target`; returns their SHA-256. Raises BackupError."""
        digest, left = hashlib.sha256(), info.size
        try:
            source = self._tar.extractfile(info)
            while source is not None and (block := source.read(_BLOCK)):
                digest.update(block)
                target.write(block)
                left -= len(block)
        except (tarfile.TarError, EOFError) as exc:
            raise cut_short(self.name, f"{info.name}: {exc}") from exc
        if left:
            raise cut_short(self.name, f"{info.name} is {left} bytes short")
        return digest.hexdigest()

    def _read(self, info: tarfile.TarInfo, most: int) -> bytes:
        if info.size > most:
            raise BackupError(f"{self.name}: its manifest has {info.size} bytes")
        target = io.BytesIO()
        self.copy(info, target)
        return target.getvalue()


def cut_short(name: str, detail: str) -> BackupError:
    return BackupError(
        f"{name} is damaged or cut short: {detail}",
        hint="copy it again from where it was made, or use an older backup; nothing was changed",
    )


def _manifest(data: bytes, name: str) -> Manifest:
    try:
        raw = msgspec.json.decode(data)
        kind, number = (raw.get("kind"), raw.get("format")) if isinstance(raw, dict) else (None, None)
    except msgspec.MsgspecError as exc:
        raise BackupError(f"{name}: its manifest cannot be read: {exc}") from exc
    if kind != KIND or not isinstance(number, int):
        raise BackupError(f"{name} is no backup of metalimmu")
    if number > FORMAT:
        raise newer(name, raw.get("metalimmu"), f"format {number}, this program reads {FORMAT}")
    try:
        return structs.convert(raw, Manifest)
    except msgspec.MsgspecError as exc:
        raise BackupError(f"{name}: its manifest cannot be read: {exc}") from exc


def newer(name: str, version: Any, what: str) -> BackupError:
    import metalimmu

    return BackupError(
        f"{name} was made by metalimmu {version}, which is newer than this {metalimmu.__version__}: {what}",
        hint=f"install metalimmu {version} or newer (`pip install 'metalimmu>={version}'`) and restore with that; nothing was changed",
    )


def _plain(name: str) -> bool:
    """A relative path without tricks."""
    parts = name.split("/")
    return not name.startswith("/") and "\0" not in name and all(p not in ("", ".", "..") for p in parts)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def compress(source: Path, target: IO[bytes]) -> None:
    import zstandard

    with source.open("rb") as file:
        zstandard.ZstdCompressor(level=3, threads=-1).copy_stream(file, target)


def decompress(source: IO[bytes], target: IO[bytes]) -> None:
    """Raises BackupError."""
    import zstandard

    try:
        zstandard.ZstdDecompressor().copy_stream(source, target)
    except zstandard.ZstdError as exc:
        raise BackupError(f"a member of the backup cannot be unpacked: {exc}") from exc


def move_beside(path: Path, folder: Path) -> None:
    """Within one file system or not."""
    if path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.move(path, folder / path.name)
