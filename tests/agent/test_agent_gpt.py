"""Partition tables: against sfdisk, and as properties."""

from __future__ import annotations

import json
import struct
import subprocess
import uuid
import zlib

import pytest
from agent_rig import MIB, partitioned
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.agent import gpt, mbr
from metalimmu.errors import DiskUnsuitable


def sfdisk(file) -> dict:
    """What another program thinks of the table; its warnings are faults here."""
    done = subprocess.run(["sfdisk", "--json", file], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    check = subprocess.run(["sfdisk", "--verify", file], capture_output=True, text=True, check=True, timeout=60)
    assert "No errors detected" in check.stdout + check.stderr
    return json.loads(done.stdout)["partitiontable"]


def test_moves_the_backup_and_adds_the_seed_as_sfdisk_sees_it(tmp_path):
    data = bytes(partitioned(tmp_path, 24 * MIB))
    table = gpt.parse(data[:MIB], 512)
    sectors = 100 * MIB // 512
    moved = gpt.move_backup(table, sectors)
    seed = gpt.Partition(gpt.free_index(moved), gpt.BASIC_DATA, uuid.uuid4(), 170000, 180000, name="cidata")
    wanted = gpt.add(moved, seed)
    disk = bytearray(data.ljust(100 * MIB, b"\0"))
    for at, piece in (gpt.primary(wanted) | gpt.backup(wanted)).items():
        disk[at : at + len(piece)] = piece
    disk[:512] = gpt.protective_mbr(bytes(disk[:512]), sectors)
    file = tmp_path / "disk.img"
    file.write_bytes(disk)
    seen = sfdisk(file)
    assert seen["id"].lower() == str(table.disk_guid)
    assert seen["lastlba"] == sectors - 34
    assert [p["uuid"].lower() for p in seen["partitions"]] == [str(p.guid) for p in wanted.partitions()]
    assert seen["partitions"][2]["name"] == "cidata"
    assert (seen["partitions"][2]["start"], seen["partitions"][2]["size"]) == (170000, 10001)
    assert gpt.parse(bytes(disk[:MIB]), 512) == wanted


def test_a_table_written_unchanged_is_the_same_bytes(tmp_path):
    data = bytes(partitioned(tmp_path, 24 * MIB))
    table = gpt.parse(data[:MIB], 512)
    assert gpt.move_backup(table, 24 * MIB // 512) == table
    for at, piece in (gpt.primary(table) | gpt.backup(table)).items():
        assert data[at : at + len(piece)] == piece


def test_a_protective_mbr_keeps_boot_code_and_ends_at_its_field(tmp_path):
    data = bytearray(partitioned(tmp_path, 24 * MIB))
    data[:440] = b"\x90" * 440
    record = gpt.protective_mbr(bytes(data[:512]), 1 << 40)
    assert record[:446] == bytes(data[:446])
    assert struct.unpack_from("<I", record, 446 + 12)[0] == 0xFFFFFFFF


partitions = st.lists(
    st.tuples(
        st.integers(0, 4000),
        st.integers(1, 300),
        st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc"]), max_size=36),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(partitions, st.sampled_from([512, 4096]), st.sampled_from([128, 256]), st.integers(4, 128))
def test_what_is_written_is_what_is_read(wanted, sector, entry_size, count):
    usable = 20_000
    table = gpt.Table(sector, uuid.uuid4(), 0, 1100, usable, 2, entry_size, bytes(entry_size * count))
    table = gpt.move_backup(table, usable + 2000)
    made: list[gpt.Partition] = []
    for first, length, name in wanted:
        p = gpt.Partition(len(made), gpt.ESP, uuid.uuid4(), 1100 + first, 1100 + first + length - 1, 5, name)
        clash = any(p.first <= o.last and o.first <= p.last for o in made)
        if len(made) >= count:
            with pytest.raises(gpt.GptError):
                gpt.free_index(table)
            break
        if clash:
            with pytest.raises(gpt.GptError, match="overlaps"):
                gpt.add(table, p)
            continue
        table = gpt.add(table, p)
        made.append(p)
    head = bytearray(sector * 1100)
    for at, piece in gpt.primary(table).items():
        head[at : at + len(piece)] = piece
    read = gpt.parse(bytes(head), sector)
    assert read == table
    assert list(read.partitions()) == made
    for header, at in ((gpt.backup(table)[table.alternate * sector], table.alternate),):
        fields = struct.unpack_from("<8sIIIIQQ", header)
        assert (fields[5], fields[6]) == (at, 1)
        assert zlib.crc32(header[:16] + bytes(4) + header[20:92]) == fields[3]


@settings(max_examples=100, deadline=None)
@given(st.integers(512, 512 + 92 - 1), st.integers(1, 255))
def test_a_changed_byte_of_the_header_is_found(at, mask):
    table = gpt.Table(512, uuid.uuid4(), 9999, 34, 9000, 2, 128, bytes(128 * 128))
    head = bytearray(512 * 64)
    for place, piece in gpt.primary(table).items():
        head[place : place + len(piece)] = piece
    gpt.parse(bytes(head), 512)
    head[at] ^= mask
    with pytest.raises(gpt.GptError):
        gpt.parse(bytes(head), 512)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=4096))
def test_garbage_is_an_error_and_nothing_else(noise):
    head = (bytes(512) + b"EFI PART" + noise).ljust(8192, b"\0")
    with pytest.raises(DiskUnsuitable):
        gpt.parse(head, 512)
    assert isinstance(mbr.partitions(noise.ljust(512, b"\1")), tuple)


def test_a_disk_that_is_too_small():
    table = gpt.Table(512, uuid.uuid4(), 9999, 34, 9000, 2, 128, bytes(128 * 128))
    table = gpt.add(table, gpt.Partition(0, gpt.ESP, uuid.uuid4(), 34, 8999))
    with pytest.raises(gpt.GptError, match="ends at sector 8999"):
        gpt.move_backup(table, 9010)


def test_an_mbr_partition_is_added_as_sfdisk_sees_it(tmp_path):
    file = tmp_path / "mbr.img"
    file.write_bytes(bytes(40 * MIB))
    script = "label: dos\nlabel-id: 0x12345678\nstart=2048, size=20480, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", file], input=script, text=True, check=True, capture_output=True, timeout=60)
    data = bytearray(file.read_bytes())
    assert mbr.partitions(bytes(data[:512])) == (mbr.MbrPartition(0, 0x83, 2048, 20480),)
    data[:512] = mbr.add(bytes(data[:512]), 32768, 32768)
    file.write_bytes(data)
    seen = sfdisk(file)["partitions"]
    assert [(p["start"], p["size"], p["type"]) for p in seen] == [(2048, 20480, "83"), (32768, 32768, "e")]
    assert seen[0]["bootable"]


def test_an_mbr_without_room():
    record = bytearray(512)
    record[510:] = b"\x55\xaa"
    for at in range(446, 510, 16):
        record[at + 4] = 0x83
        struct.pack_into("<II", record, at + 8, 2048, 10)
    with pytest.raises(DiskUnsuitable, match="four primary"):
        mbr.add(bytes(record), 4096, 10)
    with pytest.raises(DiskUnsuitable, match="32"):
        mbr.add(bytes(record), (1 << 32) - 5, 10)
    with pytest.raises(DiskUnsuitable, match="lies inside"):
        mbr.add(bytes(record), 2050, 10)
