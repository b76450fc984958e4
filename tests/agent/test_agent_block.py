"""The disk's edge: alignment, zeroing, errors."""

from __future__ import annotations

import errno
import os

import pytest
from agent_rig import MIB
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.agent import block
from metalimmu.agent.block import Buffer, Device
from metalimmu.errors import DiskUnsuitable


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(4 * MIB))
    return path


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4 * MIB - 1), st.integers(0, 100_000), st.sampled_from([512, 4096]))
def test_reads_any_bytes(tmp_path_factory, offset, length, sector):
    path = tmp_path_factory.mktemp("d") / "disk"
    data = bytes(range(256)) * (4 * MIB // 256)
    path.write_bytes(data)
    length = max(1, min(length, 4 * MIB - offset))
    with Device(str(path), sector) as device:
        assert device.read(offset, length) == data[offset : offset + length]


def test_reading_past_the_page_cache_sees_what_is_on_the_disk(file):
    with Device(str(file)) as device:
        device.write(MIB, b"n" * 512)
        device.flush()
        assert device.read(MIB, 512) == b"n" * 512
        assert device.size == 4 * MIB


@pytest.mark.parametrize(("offset", "length"), [(0, 511), (1, 512), (512, 513)])
def test_writes_only_whole_sectors(file, offset, length):
    with Device(str(file)) as device, pytest.raises(ValueError, match="whole sectors"):
        device.write(offset, b"x" * length)


@pytest.mark.parametrize("fallocate", [True, False])
@pytest.mark.parametrize(("offset", "length"), [(0, 4 * MIB), (512, 512), (MIB, 2 * MIB + 512), (0, 0)])
def test_zeroes_exactly_that(file, monkeypatch, fallocate, offset, length):
    if not fallocate:  # a file system without it

        class Libc:
            @staticmethod
            def fallocate(*_args):
                return -1

        monkeypatch.setattr(block, "_libc", Libc)
    before = file.read_bytes()
    with Device(str(file)) as device:
        device.zero(offset, length)
        device.flush()
    assert file.read_bytes() == before[:offset] + bytes(length) + before[offset + length :]


@given(st.integers(1, MIB), st.integers(0, MIB - 1), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_is_zero(length, at, value):
    buffer = Buffer(MIB)
    assert buffer.is_zero(length)
    buffer.view[at] = value
    assert buffer.is_zero(length) is (at >= length)


def test_without_o_direct(file, monkeypatch):
    """As tmpfs before Linux 6.6."""
    real = os.open

    def no_direct(path, flags, *more):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *more)

    monkeypatch.setattr(block.os, "open", no_direct)
    with Device(str(file)) as device:
        assert device.direct is False
        device.write(0, b"n" * 512)
        device.flush()
        assert device.read(0, 512) == b"n" * 512


@pytest.mark.parametrize(("error", "hint"), [(errno.EBUSY, "something in the ramdisk uses"), (errno.ENOENT, "")])
def test_a_disk_that_cannot_be_opened(file, monkeypatch, error, hint):
    def refuse(*_args):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(block.os, "open", refuse)
    with pytest.raises(DiskUnsuitable, match="cannot be opened") as caught:
        Device(str(file))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("call", "act", "words"),
    [
        ("pwritev", lambda d: d.write(512, b"x" * 512), "writing at byte 512"),
        ("preadv", lambda d: d.read(1024, 10), "reading at byte 1024"),
        ("fsync", lambda d: d.flush(), "flushing"),
    ],
)
def test_a_disk_that_breaks_is_named(file, monkeypatch, call, act, words):
    def broken(*_args):
        raise OSError(errno.EIO, "Input/output error")

    with Device(str(file)) as device:
        monkeypatch.setattr(block.os, call, broken)
        with pytest.raises(DiskUnsuitable, match=f"{words}.*Input/output error") as caught:
            act(device)
        assert "SMART" in caught.value.hint


def test_a_disk_that_is_shorter_than_it_says(file):
    with Device(str(file)) as device:
        os.truncate(file, MIB)
        with pytest.raises(DiskUnsuitable, match="ends at byte"):
            device.read(2 * MIB, 512)
