"""The manifest: what an image's bytes are. Content only, so its SHA-256 names the content and nothing else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from metalimmu.wire import codec
from metalimmu.wire.codec import WireError

CHUNK = 1 << 20  # bytes; the last chunk of an image may be shorter

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_LATER: dict[str, object] = {"nos": None, "boots": None}  # fields of Manifest that are not written while they are this

_TO_MEMORY = {"toram", "copytoram", "rd.live.ram", "rd.live.ram=1"}  # live-boot and casper, archiso, dracut


def read_back_digest(chunks: Iterable[str | None]) -> str:
    """SHA-256 (hex) over the chunks' own digests in order: one line each, hex, or `-` for a chunk of zeros.

    What an agent reports of a disk it has read back, and what the controller computes from the manifest; so nobody
    hashes an image twice.
    """
    return hashlib.sha256("".join(f"{c or '-'}\n" for c in chunks).encode()).hexdigest()


@dataclass(frozen=True)
class Extent:
    """Bytes [offset, offset + length) of the image."""

    offset: int
    length: int


@dataclass(frozen=True)
class Nos:
    """Of kind `nos`: what a switch must be, and what it says of itself when it runs this image."""

    nos: str  # sonic | cumulus | lab: which commands it understands
    version: str  # as the NOS says it
    sha256: str  # of the installer's bytes, hex
    platforms: tuple[str, ...]  # globs over ONIE's platform names
    min_ram: int = 0  # bytes; ONIE keeps installer and unpacked image in memory


@dataclass(frozen=True)
class Part:
    """A file inside of the image."""

    name: str  # kernel | initrd | squashfs | slot.cfg | slot.cpio; of ESXi boot.cfg: the empty room in such a file
    offset: int
    length: int


@dataclass(frozen=True)
class Bootable:
    """Of kinds `installer` and `live`: the image is a bootable ISO, and these are what it boots.

    The two slots are empty: what one deployment brings is spliced in while they are served.
    """

    parts: tuple[Part, ...]
    label: str  # of the ISO
    arguments: str = ""  # kernel command line; a Jinja2 template
    answers: str = ""  # what the installer asks for: preseed | kickstart | autoinstall | esxi; empty: nothing

    def part(self, name: str) -> Part | None:
        return next((p for p in self.parts if p.name == name), None)

    @property
    def from_media(self) -> bool:
        """Does what was booted go on reading the media? A squashfs that is not copied to memory is read all the time."""
        if self.answers == "esxi":
            return True
        return self.part("squashfs") is not None and not _TO_MEMORY & set(self.arguments.split())


@dataclass(frozen=True)
class Manifest:
    """One image's content.

    `chunks[i]` is the SHA-256 (hex) of bytes [i * 1 MiB, (i + 1) * 1 MiB), or None where all of them are zero.
    Each chunk is stored and sent as one zstd frame (RFC 8878), named by the SHA-256 of what it unpacks to.
    """

    kind: str  # disk | live | installer | iso | nos | firmware
    architecture: str  # x86_64 | aarch64
    size: int  # bytes
    chunks: tuple[str | None, ...]
    sector_size: int = 512  # logical, bytes
    partition_table: str = "none"  # gpt | mbr | none
    firmware: tuple[str, ...] = ("uefi", "bios")  # what can boot it
    config_extents: tuple[Extent, ...] = ()  # where run-time config may be written; not part of what is verified
    seed: Extent | None = None  # the seed partition (NoCloud), if the image brings one
    efi_loader: str = "\\EFI\\BOOT\\BOOTX64.EFI"
    build_id: str = ""
    version: int = 1  # of this format
    nos: Nos | None = None
    boots: Bootable | None = None

    def encode(self) -> bytes:
        """A field that came after the first release is left out where it says nothing: digests stay what they were."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return codec.encode({k: v for k, v in said.items() if k not in _LATER or v != _LATER[k]})

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits."""
        return "sha256:" + hashlib.sha256(self.encode()).hexdigest()

    def chunk_extent(self, index: int) -> Extent:
        offset = index * CHUNK
        return Extent(offset, min(CHUNK, self.size - offset))

    def distinct(self) -> set[str]:
        """Chunks to keep or fetch; equal chunks count once."""
        return {c for c in self.chunks if c is not None}

    def zero_extents(self) -> Iterator[Extent]:
        """Runs of all-zero chunks, as long as possible."""
        start: int | None = None
        for i, chunk in enumerate((*self.chunks, "")):
            if chunk is None and start is None:
                start = i * CHUNK
            elif chunk is not None and start is not None:
                yield Extent(start, min(i * CHUNK, self.size) - start)
                start = None

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Raises WireError when the bytes are no manifest, or one that contradicts itself."""
        m = codec.decode(cls, data)
        if m.version != 1:
            raise WireError(f"manifest version {m.version}: this program reads version 1")
        if m.size <= 0 or len(m.chunks) != -(-m.size // CHUNK):
            raise WireError(f"manifest: {len(m.chunks)} chunks cannot make {m.size} bytes")
        if m.sector_size not in (512, 4096) or (m.kind == "disk" and m.size % m.sector_size):
            raise WireError(f"manifest: size {m.size} is not whole sectors of {m.sector_size}")
        bad = next((c for c in m.chunks if c is not None and not _SHA256.match(c)), None)
        if bad is not None:
            raise WireError(f"manifest: {bad[:80]!r} is no SHA-256")
        parts = m.boots.parts if m.boots else ()
        for e in (*m.config_extents, *((m.seed,) if m.seed else ()), *parts):
            if e.offset < 0 or e.length <= 0 or e.offset + e.length > m.size:
                raise WireError(f"manifest: extent {e.offset}+{e.length} lies outside of the image")
        return m
