"""Who may have an installer, and by which names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from metalimmu.boot.onie import asker, misfit, named, names
from metalimmu.boot.onie_api import reported

HEADERS = {
    "ONIE-SERIAL-NUMBER": "S1",
    "ONIE-ETH-ADDR": "52:54:00:AA:00:01",
    "ONIE-MACHINE": "accton_as7726_32x",
    "ONIE-MACHINE-REV": "0",
    "ONIE-ARCH": "x86_64",
    "ONIE-OPERATION": "os-install",
}
KEY = f"ssh-ed25519 {'A' * 68}"
PLATFORM = "x86_64-accton_as7726_32x-r0"


@dataclass(frozen=True)
class Assigned:
    serial: str = "s1"
    base_mac: str = "52:54:00:aa:00:01"
    platform: str = PLATFORM


def test_the_switch_itself() -> None:
    assert misfit(asker(HEADERS), Assigned()) == ""


@pytest.mark.parametrize(
    ("header", "value", "why"),
    [
        ("ONIE-SERIAL-NUMBER", "S2", "its serial is S2, not s1"),
        ("ONIE-SERIAL-NUMBER", "", "its serial is not said"),
        ("ONIE-ETH-ADDR", "52:54:00:AA:00:02", "its base MAC is 52:54:00:aa:00:02"),
        ("ONIE-ETH-ADDR", "nonsense", "its base MAC is not said"),
        ("ONIE-MACHINE", "accton_as7712_32x", "its platform is x86_64-accton_as7712_32x-r0"),
        ("ONIE-MACHINE-REV", "1", "its platform is x86_64-accton_as7726_32x-r1"),
        ("ONIE-ARCH", "arm64", "its platform is arm64-"),
        ("ONIE-OPERATION", "onie-update", "it asks for onie-update"),
        ("ONIE-OPERATION", "", "it asks for nothing"),
    ],
)
def test_anybody_else(header: str, value: str, why: str) -> None:
    assert why in misfit(asker({**HEADERS, header: value}), Assigned())


def test_no_serial_fits_none() -> None:
    empty = dict.fromkeys(HEADERS, "")
    assert misfit(asker(empty), replace(Assigned(), serial="", base_mac="", platform="")) != ""


def test_the_names_of_the_waterfall() -> None:
    plain = [n for n in names(PLATFORM) if not n.endswith(".bin")]
    assert plain == [
        "onie-installer-x86_64-accton_as7726_32x-r0",
        "onie-installer-x86_64-accton_as7726_32x",
        "onie-installer-accton_as7726_32x",
        "onie-installer-x86_64",
        "onie-installer",
    ]
    assert all(named(n, PLATFORM) and named(f"{n}.bin", PLATFORM) for n in plain)
    assert named("onie-installer-x86_64-bcm", PLATFORM)


@pytest.mark.parametrize(
    "name",
    [
        "onie-installer-x86_64-accton_as7712_32x-r0",
        "onie-installer-x86_64-accton_as7726_32x-r1",
        "onie-installer-arm64",
        "onie-updater",
        "onie-updater-x86_64-accton_as7726_32x-r0",
        "onie-installer.bin.bin",
        "onie-installer-x86_64-accton_as7726_32x-r0.sig",
        "",
    ],
)
def test_names_that_are_none(name: str) -> None:
    assert not named(name, PLATFORM)


def test_ztp_says_who_it_is_otherwise() -> None:
    who = asker(
        {
            "User-Agent": "SONiC-ZTP/0.1",
            "SERIAL-NUMBER": "S1",
            "BASE-MAC-ADDRESS": "52:54:00:AA:00:01",
            "PRODUCT-NAME": PLATFORM,
        }
    )
    assert who.ztp
    assert misfit(who, Assigned()) == ""


def test_no_control_characters_of_a_stranger() -> None:
    who = asker({"ONIE-SERIAL-NUMBER": "S1\x1b[2J\udcff", "ONIE-VERSION": "2\r\nroot"})
    assert (who.serial.isprintable(), who.version.isprintable()) == (True, True)
    assert misfit(who, Assigned()).isprintable()
    said = reported("serial=S1\x1b[2J\nversion=2\x07\n")
    assert said["serial"] == "S1\N{REPLACEMENT CHARACTER}[2J"
    assert said["version"] == "2\N{REPLACEMENT CHARACTER}"


def test_only_host_keys_are_kept_and_whole() -> None:
    large = f"ssh-rsa {'A' * 716}"  # of 4096 bits
    lines = ["host_key=a b", f"host_key={KEY}\x1b[2J", "host_key=ssh-ed25519 short", f"host_key={large} root@x"]
    assert reported("\n".join(lines)) == {"host_keys": [large]}


def test_a_report_is_read_and_bounded() -> None:
    said = reported(f"serial=S1\nversion=2\nhost_key={KEY} root@x\nhost_key={KEY}\nrm=-rf\nnothing\n")
    assert said == {"serial": "S1", "version": "2", "host_keys": [KEY]}
    assert len(reported(f"host_key={KEY}\n" * 5000)["host_keys"]) == 1
    assert reported("") == {"host_keys": []}
