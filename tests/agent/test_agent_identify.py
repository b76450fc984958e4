"""Is this the machine? Serial, UUID in both byte orders, NICs; and what vendors put there instead."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agent_rig import MAC, SERIAL, UUID, FakeRoot, put
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.agent import identify
from metalimmu.errors import IdentityMismatch
from metalimmu.wire.messages import Assignment, Identity, Nic, RootDisk

HERE = Identity(SERIAL, UUID, nics=(Nic("eth0", MAC), Nic("eth1", "b8:ca:3a:00:00:02")))
SWAPPED = "44454c4c-5800-104b-8032-b7c04f503133"


def wanted(serial: str = SERIAL, uuid: str = UUID, nics: tuple[str, ...] = (MAC,)) -> Assignment:
    return Assignment("d", 1, "write", "i@1", "sha256:0", "", serial, uuid, nics, RootDisk())


@pytest.mark.parametrize(
    "want",
    [
        wanted(),
        wanted(serial=SERIAL.lower()),
        wanted(uuid=UUID.upper()),
        wanted(uuid=SWAPPED),
        wanted(serial="", uuid=""),
        wanted(serial="", nics=()),
        wanted(uuid="", nics=()),
        wanted(nics=("B8-CA-3A-00-00-02", MAC)),
        wanted(serial="To Be Filled By O.E.M."),
    ],
)
def test_this_is_the_machine(want):
    assert identify.confirm(HERE, want)


@pytest.mark.parametrize(
    ("want", "words"),
    [
        (wanted(serial="OTHER"), ("OTHER", SERIAL)),
        (wanted(uuid="4c4c4544-0058-4b10-8032-b7c04f503134"), ("503134", UUID, SWAPPED)),
        (wanted(nics=(MAC, "00:11:22:33:44:55")), ("lacks NIC 00:11:22:33:44:55", MAC)),
        (wanted(serial="OTHER", uuid=UUID), ("OTHER",)),
        (wanted(serial="", uuid="", nics=()), ("nothing tells this machine",)),
        (wanted(serial="Not Specified", uuid="0" * 8 + "-0000-0000-0000-" + "0" * 12, nics=()), ("nothing tells",)),
    ],
)
def test_this_is_another_machine(want, words):
    with pytest.raises(IdentityMismatch) as caught:
        identify.confirm(HERE, want)
    assert all(word in caught.value.message for word in words), caught.value.message


@pytest.mark.parametrize(
    "rubbish",
    ["", " ", "0", "00000000", "None", "N/A", "To Be Filled By O.E.M.", "Not Specified", "System Serial Number",
     "Default string", "0123456789", "xxxxxxxx", "not  specified", "............"],
)  # fmt: skip
def test_rubbish_counts_as_unknown(rubbish):
    assert identify.known_serial(rubbish) == ""
    board = replace(HERE, serial=rubbish)
    assert identify.confirm(board, wanted())
    with pytest.raises(IdentityMismatch, match="nothing tells"):
        identify.confirm(replace(board, uuid=""), wanted(nics=()))


@pytest.mark.parametrize(
    "rubbish", ["", "junk", "ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009"]
)
def test_uuids_that_many_boards_share(rubbish):
    assert identify.known_uuid(rubbish) == ""


@given(st.uuids())
def test_swapping_twice_is_the_same(value):
    text = str(value)
    assert identify.other_byte_order(identify.other_byte_order(text)) == text
    assert bytes.fromhex(identify.other_byte_order(text).replace("-", "")) == value.bytes_le


def test_reads_sysfs(tmp_path):
    root = FakeRoot(tmp_path / "r")
    root.nic("bond0", "b8:ca:3a:00:00:09", physical=False)
    root.nic("ib0", "80:00:02:08:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:50:5f:51")
    (tmp_path / "drivers/ixgbe").mkdir(parents=True)
    (root.root / "sys/class/net/eth0/device/driver").symlink_to(tmp_path / "drivers/ixgbe")
    seen = identify.identity(root.root)
    assert (seen.serial, seen.uuid, seen.vendor, seen.product) == (SERIAL, UUID, "Dell Inc.", "PowerEdge R750")
    assert seen.nics == (Nic("eth0", MAC, link=True, driver="ixgbe", speed=10000),)
    assert identify.memory(root.root) == 1_024_000_000
    assert identify.boot_id(root.root).startswith("5f1f2ab1")


@pytest.mark.parametrize(
    ("value", "answer"), [(b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False), (b"\6", None), (None, None)]
)
def test_secure_boot(tmp_path, value, answer):
    root = FakeRoot(tmp_path / "r")
    if value is not None:
        put(root.root / f"sys/firmware/efi/efivars/SecureBoot-{identify.GLOBAL_VARIABLE}", value)
    assert identify.secure_boot(root.root) is answer


def test_firmware_that_writes_any_bytes(tmp_path):
    root = FakeRoot(tmp_path / "r")
    put(root.root / "sys/class/dmi/id/product_serial", b"\xff\xfeA\0B\n")
    assert identify.identity(root.root).serial.endswith("AB")
