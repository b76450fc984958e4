"""What a lab server's BMC has in its IPMI repositories: a FRU with the server's identity, one sensor record, no events. Pure."""

from __future__ import annotations

import struct

from metalimmu_emulator.machine import ServerSpec


def fru(spec: ServerSpec, serial: str) -> bytes:
    """FRU data with a product area (IPMI Platform Management FRU Information Storage Definition 1.0)."""
    fields = (
        spec.manufacturer,
        spec.product,
        "lab",
        "1",
        serial,
        "",
        "",
    )  # maker, name, part, version, serial, tag, file
    body = b"\x01\x00\x19" + b"".join(_text(f) for f in fields) + b"\xc1"
    size = -(-(len(body) + 1) // 8)
    area = bytes((body[0], size)) + body[2:]
    area += bytes(size * 8 - 1 - len(area))
    header = b"\x01\x00\x00\x00\x01\x00\x00"
    return header + _sum(header) + area + _sum(area)


def _text(value: str) -> bytes:
    data = value.encode("latin-1", "replace")[:63]
    if len(data) == 1:
        data += b" "  # a length of one is the end mark
    return bytes((0xC0 | len(data),)) + data


def _sum(data: bytes) -> bytes:
    return bytes((-sum(data) & 0xFF,))


def sdr(name: str) -> bytes:
    """The only record: a management controller device locator (43.9). A repository without any is read as broken."""
    text = name.encode("latin-1", "replace")[:16]
    body = struct.pack("<BBBB3xBBB", 0x20, 0, 0, 0x8F, 0x06, 1, 0) + bytes((0xC0 | len(text),)) + text
    return struct.pack("<HBBB", 1, 0x51, 0x12, len(body)) + body
