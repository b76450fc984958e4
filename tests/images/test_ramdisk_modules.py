"""Which modules and firmware files a ramdisk carries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.errors import ToolError
from metalimmu.images.ramdisk_modules import Modules, find_firmware, module_name, parse, parse_modinfo, select

DEP = """\
kernel/drivers/scsi/sr_mod.ko: kernel/drivers/cdrom/cdrom.ko kernel/drivers/scsi/scsi_mod.ko
kernel/drivers/cdrom/cdrom.ko:
kernel/drivers/scsi/scsi_mod.ko:
kernel/drivers/net/bnx2x.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/drivers/usb/usb-storage.ko: kernel/drivers/scsi/scsi_mod.ko
"""
BUILTIN = "kernel/drivers/nvme/host/nvme.ko\nkernel/drivers/rtc/rtc-cmos.ko\n"
SOFTDEP = "# comment\nsoftdep libcrc32c pre: crc32c\n"
ALIAS = "alias crc32c crc32c_generic\nalias crc32c crc32c_intel\nalias pci:v000014E4d* bnx2x\n"

HAVE = parse(DEP, BUILTIN, SOFTDEP, ALIAS)


def test_names_do_not_care_about_dashes_or_compression():
    assert module_name("kernel/drivers/usb/usb-storage.ko.xz") == "usb_storage"
    assert select(HAVE, ["usb-storage"]).modules == select(HAVE, ["usb_storage"]).modules


def test_dependencies_come_along():
    chosen = select(HAVE, ["sr_mod"])
    assert chosen.modules == {"sr_mod", "cdrom", "scsi_mod"}
    assert HAVE.paths["sr_mod"] == "kernel/drivers/scsi/sr_mod.ko"


def test_a_softdep_is_followed_through_its_alias():
    # bnx2x asks libcrc32c, which asks the crypto layer for "crc32c" at run time: no symbol says so.
    assert select(HAVE, ["bnx2x"]).modules == {"bnx2x", "libcrc32c", "crc32c_generic", "crc32c_intel"}


def test_what_is_compiled_in_is_noted_not_missed():
    chosen = select(HAVE, ["nvme"], ["rtc-cmos"])
    assert chosen.builtin == {"nvme", "rtc_cmos"}
    assert not chosen.modules
    assert not chosen.missing


def test_every_missing_module_is_named():
    with pytest.raises(ToolError, match="no module megaraid_sas, mpt3sas"):
        select(HAVE, ["mpt3sas", "sr_mod", "megaraid_sas"])


def test_a_wish_that_is_missing_is_only_noted():
    chosen = select(HAVE, ["cdrom"], ["ionic"])
    assert chosen.missing == {"ionic"}
    assert chosen.modules == {"cdrom"}


NAMES = [f"m{i}" for i in range(8)]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=4)),
    st.lists(st.sampled_from(NAMES), max_size=4),
)
def test_a_selection_is_closed_and_has_no_more_than_needed(graph, asked):
    """Also with cycles, which depmod allows for softdeps."""
    have = Modules({n: f"{n}.ko" for n in NAMES}, {n: tuple(graph.get(n, ())) for n in NAMES}, frozenset())
    chosen = select(have, asked).modules
    assert set(asked) <= chosen
    assert all(set(have.depends[n]) <= chosen for n in chosen)
    assert all(n in asked or any(n in have.depends[other] for other in chosen) for n in chosen)


MODINFO = """\
filename:       /x/lib/modules/6.1/kernel/drivers/net/bnx2x.ko
firmware:       bnx2x/bnx2x-e2-7.13.21.0.fw
firmware:       bnx2x/bnx2x-e2-7.13.15.0.fw
license:        GPL
description:    filename: firmware: no
filename:       /x/lib/modules/6.1/kernel/drivers/net/r8169.ko
firmware:       rtl_nic/rtl8168*.fw
"""
OWNERS = {
    "lib/firmware/bnx2x/bnx2x-e2-7.13.21.0.fw": ["firmware-bnx2x"],
    "lib/firmware/rtl_nic/rtl8168d-1.fw": ["firmware-realtek"],
    "lib/firmware/rtl_nic/rtl8168e-3.fw": ["firmware-realtek"],
    "usr/share/doc/firmware-realtek/copyright": ["firmware-realtek"],
}


def test_modinfo_of_several_files():
    assert parse_modinfo(MODINFO) == {
        "bnx2x": ("bnx2x/bnx2x-e2-7.13.21.0.fw", "bnx2x/bnx2x-e2-7.13.15.0.fw"),
        "r8169": ("rtl_nic/rtl8168*.fw",),
    }


def test_firmware_is_found_by_name_and_pattern_and_a_missing_file_is_named():
    found = find_firmware(parse_modinfo(MODINFO), [], OWNERS)
    assert found.files == {
        "bnx2x/bnx2x-e2-7.13.21.0.fw": "firmware-bnx2x",
        "rtl_nic/rtl8168d-1.fw": "firmware-realtek",
        "rtl_nic/rtl8168e-3.fw": "firmware-realtek",
    }
    assert found.missing == {"bnx2x/bnx2x-e2-7.13.15.0.fw": "bnx2x"}


def test_the_operators_folder_wins_over_debian():
    found = find_firmware({"bnx2x": ("bnx2x/bnx2x-e2-7.13.21.0.fw",)}, ["bnx2x/bnx2x-e2-7.13.21.0.fw"], OWNERS)
    assert found.files == {"bnx2x/bnx2x-e2-7.13.21.0.fw": ""}
