"""Boot options in words that are the same on a twin of the machine."""

from __future__ import annotations

import pytest

from metalimmu.bmc import passwords, stable
from metalimmu.bmc.snapshot_boot import named


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("Slot 1 Port 1 : Mellanox Network Adapter - 88:E9:A4:4E:71:F4 (PXE IPv4)", "Slot 1 Port 1 : Mellanox Network Adapter (PXE IPv4)"),
        ("(B26/D0/F0) UEFI PXE IPv4 Nvidia Network Adapter - 94:6D:AE:1C:B0:1E - 946DAE1CB01E", "(B26/D0/F0) UEFI PXE IPv4 Nvidia Network Adapter"),
        ("UEFI PXEv4 (MAC:EEA3AB6B5303)", "UEFI PXEv4"),
        ("UEFI SAMSUNG MZ1L21T9HCLS-00A07 S834RD5C117645 1", "UEFI SAMSUNG MZ1L21T9HCLS-00A07 1"),
        ("UEFI Samsung Flash Drive 0339422080005045", "UEFI Samsung Flash Drive"),
        ("INTEL SSDPE2KX010T8", "INTEL SSDPE2KX010T8"),
        ("HPE SR416i-a Gen10+ - 447.1 GiB, RAID1 Logical Drive 1(Target:379, Lun:0)", "HPE SR416i-a Gen10+ - 447.1 GiB, RAID1 Logical Drive 1(Target:379, Lun:0)"),
        ("Red Hat Enterprise Linux", "Red Hat Enterprise Linux"),
        ("", ""),
    ],
)  # fmt: skip
def test_names_without_what_is_the_machines_own(said: str, word: str) -> None:
    assert stable.name(said) == word


def test_equal_names_are_told_apart_by_where_they_are() -> None:
    found = named(
        [
            ("Boot0003", "UEFI PXEv4 (MAC:EEA3AB6B5303)", "PciRoot(0x5)/Pci(0x0,0x0)/MAC(EEA3AB6B5303,0x1)/IPv4(0.0.0.0)", True),
            ("Boot0001", "UEFI PXEv4 (MAC:D0F405439504)", "PciRoot(0x5)/Pci(0x6,0x0)/MAC(D0F405439504,0x1)/IPv4(0.0.0.0)", None),
            ("Boot0002", "Debian", "HD(1,GPT,6634D938-1211-4F7A-89C6-A35A60BE1E4A,0x800,0x219800)/\\EFI\\debian", False),
        ]
    )  # fmt: skip
    assert found == {
        "Boot0001": "UEFI PXEv4 at PciRoot(0x5)/Pci(0x6,0x0)",
        "Boot0002": "Debian (disabled)",
        "Boot0003": "UEFI PXEv4 at PciRoot(0x5)/Pci(0x0,0x0)",
    }


def test_those_that_nothing_tells_apart_are_numbered() -> None:
    found = named(
        [("Boot0004", "ubuntu", "", True), ("Boot0001", "Unavailable: ubuntu", "", True), ("Boot0002", "", "", True)]
    )
    assert found == {"Boot0001": "ubuntu", "Boot0002": "Boot0002", "Boot0004": "ubuntu #2"}


@pytest.mark.parametrize(
    "name",
    ["SetupPassword", "SysPassword", "SHA256SystemPasswordSalt", "AdministratorPassword_0117", "PrivateKeyPassword_294E",
     "IscsiDev1Con1ChapSecret", "MellanoxNetworkAdapter_A088C227218F__Slot15_CHAPSecret", "Wifi_PSK_Key"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert passwords.is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["PasswordStatus", "PasswordCheck_0119", "LoadAuthentication_Key_010A", "PuttyKeyPad_0095", "TpmPpiBypassClear", "KeySplit",
     "EqualizationBypassToHighestRate_00B3", "SgxLePublicKeyHash0", "Processors_MultikeyTotalMemoryEncryption",
     "SystemSecurity_MinimumPasswordLength"],
)  # fmt: skip
def test_names_that_only_sound_so(name: str) -> None:
    assert not passwords.is_secret(name)
