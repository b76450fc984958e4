"""Disk image files as a stream of bytes: raw, qcow2, vmdk, vhdx, and gz, xz, zst of them, told apart by content.

A disk image is untrusted: a qcow2 or vmdk can name other files of this machine (CVE-2024-32498), so whatever is not
self-contained is refused before qemu-img opens it, and qemu-img is told the format instead of guessing it.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from metalimmu.errors import ImageError, ToolError
from metalimmu.images.chunks import full
from metalimmu.images.debian import run_tool
from metalimmu.wire.manifest import CHUNK

MAX_SIZE = 256 << 30  # bytes of an unpacked image: a bomb ends here

_COMPRESSED = {b"\x1f\x8b": "gz", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_CONTAINERS = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx"}
_REFUSED = {
    b"# Disk DescriptorFile": "a vmdk descriptor that names other files; convert it to one monolithic file first",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"BZh": "compressed with bzip2; unpack it, or use gz, xz or zst",
    b"<<< ": "a VirtualBox disk; convert it to raw or qcow2 first",
}
_HEAD = 4096


def kind_of(head: bytes) -> str:
    """Which format: raw | qcow2 | vmdk | vhdx | gz | xz | zst, from the first bytes. Raises ImageError for what we do not take."""
    for magic, kind in {**_COMPRESSED, **_CONTAINERS}.items():
        if head.startswith(magic):
            return kind
    for magic, what in _REFUSED.items():
        if head.startswith(magic):
            raise ImageError(f"this file is {what}", hint="raw, qcow2, vmdk, vhdx and gz, xz, zst of them can be added")
    if head[257:262] == b"ustar":
        raise ImageError("this file is a tar archive (an OVA?)", hint="unpack it and add the disk image inside")
    return "raw"


@contextlib.contextmanager
def opened(file: Path, work: Path, *, max_size: int = MAX_SIZE) -> Iterator[tuple[BinaryIO, str]]:
    """The image's raw bytes and what the file was ("raw", "qcow2", "raw.gz", ...).

    The stream is a real file (so holes can be skipped) except for compressed raw images. `work` takes the temporary
    raw copy of the other formats. Raises ImageError.
    """
    if not file.is_file():
        raise ImageError(f"{file} is no file", hint="name a disk image")
    with file.open("rb") as raw:
        kind = kind_of(raw.read(_HEAD))
        raw.seek(0)
        if kind == "raw":
            yield raw, kind
            return
        if kind in _CONTAINERS.values():
            with _converted(file, kind, work, max_size) as stream:
                yield stream, kind
            return
        with _unpacked(raw, kind, file, max_size) as stream:
            inner = kind_of(stream.peek(_HEAD)[:_HEAD])
            if inner == "raw":
                yield stream, f"raw.{kind}"
            elif inner in _CONTAINERS.values():
                plain = work / f"unpacked.{inner}"
                _copy(stream, plain)
                with _converted(plain, inner, work, max_size) as converted:
                    yield converted, f"{inner}.{kind}"
            else:
                raise ImageError(f"{file} is compressed twice", hint="unpack it once, then add it")


class _Checked(io.RawIOBase):
    """A decompressor with foreign errors translated and the size bounded."""

    def __init__(self, inner: Any, name: Path, limit: int) -> None:
        self.inner, self.name, self.limit, self.count = inner, name, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.inner.read(len(buffer))
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as exc:
            raise ImageError(
                f"{self.name} is damaged or cut short: {exc} (after {self.count} bytes)", hint="fetch the file again"
            ) from exc
        self.count += len(data)
        if self.count > self.limit:
            raise ImageError(f"{self.name} unpacks to more than {self.limit >> 30} GiB", hint="is this the right file?")
        buffer[: len(data)] = data
        return len(data)


class _Zstd:
    """zstandard's own stream reader ends silently where a file was cut; this one says so."""

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._decompressor = zstandard.ZstdDecompressor()
        self._error = zstandard.ZstdError
        self._raw, self._ready, self._fed = raw, b"", False
        self._now: Any = None

    def read(self, size: int) -> bytes:
        while not self._ready:
            rest = self._now.unused_data if self._now is not None and self._now.eof else b""
            more = rest or self._raw.read(128 << 10)
            if not more:
                if self._fed and not (self._now is not None and self._now.eof):
                    raise EOFError("the last zstd frame is not complete")
                return b""
            if self._now is None or self._now.eof:
                self._now = self._decompressor.decompressobj()
            self._fed = True
            try:
                self._ready = self._now.decompress(more)
            except self._error as exc:
                raise EOFError(str(exc)) from exc
        part, self._ready = self._ready[:size], self._ready[size:]
        return part


@contextlib.contextmanager
def _unpacked(raw: BinaryIO, kind: str, name: Path, limit: int) -> Iterator[Any]:
    openers: dict[str, Callable[[BinaryIO], Any]] = {
        "gz": lambda f: gzip.GzipFile(fileobj=f),
        "xz": lzma.LZMAFile,
        "zst": _Zstd,
    }
    inner = openers[kind](raw)
    with io.BufferedReader(_Checked(inner, name, limit), CHUNK) as stream:
        yield stream


@contextlib.contextmanager
def _converted(file: Path, kind: str, work: Path, max_size: int) -> Iterator[BinaryIO]:
    _refuse_outside(file, kind)
    path = file.resolve()  # absolute: qemu-img takes `json:` or `nbd:` at the start of a name for a protocol
    info = json.loads(_qemu_img(file, ["info", "--output=json", "-f", kind, path], timeout=60).stdout)
    _refuse_outside_info(info, file, kind)
    size = int(info["virtual-size"])
    if not 0 < size <= max_size:
        raise ImageError(
            f"{file} is {size} bytes when unpacked; at most {max_size >> 30} GiB are taken",
            hint="is this the right file?",
        )
    _refuse_cut_short(file, kind, path)
    raw = work / "converted.raw"
    _qemu_img(file, ["convert", "-f", kind, "-O", "raw", "-S", "4k", path, raw], timeout=3600)
    with raw.open("rb") as stream:
        yield stream
    raw.unlink()


def _qemu_img(
    file: Path, arguments: list[str | Path], *, timeout: float = 600, ok: tuple[int, ...] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    """qemu-img's complaints are about the file, so they become ImageError."""
    try:
        return run_tool(["qemu-img", *arguments], timeout=timeout, ok=ok)
    except ToolError as exc:
        if "No space left" in exc.output:
            raise full(OSError(errno.ENOSPC, exc.message), file) from exc
        if exc.output:
            raise ImageError(f"{file} cannot be read: {exc.message}", hint="fetch the file again") from exc
        raise


def _refuse_cut_short(file: Path, kind: str, path: Path) -> None:
    """QEMU reads what lies past the end of a file as zeros, so a half download would become an image."""
    checked = _qemu_img(file, ["check", "-f", kind, path], ok=(0, 1, 2, 3, 63))
    if checked.returncode in (1, 2):  # 3 are leaked clusters, harmless; 63: this format cannot be checked
        said = (checked.stderr or checked.stdout).decode(errors="replace").strip().splitlines()
        raise ImageError(f"{file} is damaged: {said[0] if said else 'qemu-img check'}", hint="fetch the file again")
    mapped = json.loads(_qemu_img(file, ["map", "--output=json", "-f", kind, path]).stdout)
    end = max((e["offset"] + e["length"] for e in mapped if e.get("data") and "offset" in e), default=0)
    if end > path.stat().st_size:
        raise ImageError(
            f"{file} is cut short: it has {path.stat().st_size} bytes of at least {end}", hint="fetch the file again"
        )


def _refuse_outside(file: Path, kind: str) -> None:
    """From the header itself, before any tool follows it (qcow2: docs/interop/qcow2.txt of QEMU)."""
    with file.open("rb") as raw:
        head = raw.read(_HEAD)
    if kind == "qcow2":
        version, backing = struct.unpack_from(">IQ", head, 4)
        features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
        crypt = struct.unpack_from(">I", head, 32)[0]
        if backing:
            raise _outside(file, "a backing file")
        if features & 4:
            raise _outside(file, "an external data file")
        if crypt:
            raise ImageError(f"{file} is encrypted", hint="add a decrypted copy")
    elif kind == "vmdk":
        _refuse_outside_vmdk(file, head)


def _refuse_outside_vmdk(file: Path, head: bytes) -> None:
    """The descriptor inside may name a parent or extents; QEMU follows it when the header has no capacity."""
    capacity = struct.unpack_from("<Q", head, 12)[0]
    offset = struct.unpack_from("<Q", head, 28)[0] * 512
    with file.open("rb") as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(min(offset, size))
        text = raw.read(1 << 20).split(b"\0")[0].decode("latin-1")
    words = [line.split() for line in text.splitlines()]
    extents = [w for w in words if w and w[0].upper() in {"RW", "RDONLY", "NOACCESS"}]
    alone = len(extents) <= 1 and all(len(w) > 2 and w[2].upper() == "SPARSE" for w in extents)
    if capacity == 0 or not alone or "parentFileNameHint" in text:
        raise _outside(file, "other files (a parent, or extents outside)")


def _refuse_outside_info(info: dict[str, Any], file: Path, kind: str) -> None:
    data = info.get("format-specific", {}).get("data", {})
    if info.get("backing-filename") or info.get("full-backing-filename"):
        raise _outside(file, "a backing file")
    if data.get("data-file"):
        raise _outside(file, "an external data file")
    if info.get("encrypted"):
        raise ImageError(f"{file} is encrypted", hint="add a decrypted copy")
    own = os.fspath(file.resolve())
    if kind == "vmdk" and any(e.get("filename") != own for e in data.get("extents", [])):
        raise _outside(file, "extents in other files")


def _outside(file: Path, what: str) -> ImageError:
    return ImageError(
        f"{file} refers to {what}; a disk image must stand alone",
        hint="flatten it where you trust its parts: qemu-img convert -O qcow2 IN OUT",
    )


def _copy(stream: BinaryIO, to: Path) -> None:
    try:
        with to.open("wb") as out:
            while data := stream.read(CHUNK):
                out.write(data)
    except OSError as exc:
        raise full(exc, to) from exc
