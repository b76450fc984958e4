"""What a lab's switch is, beside the machine that any server is; and QEMU's options for it. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

PLATFORM = "x86_64-kvm_x86_64-r0"  # ONIE's own name of a virtual machine
ASIC = "qemu"
MEMORY = 256  # MiB
DISK_SIZE = 512 << 20  # bytes; the factory's disk
LINKS = (1, 2)  # eth1 between the two of a pair, eth2 as the backup
UPLINKS = ("Ethernet0=spine-1/Ethernet{}", "Ethernet8=spine-2/Ethernet{}")


@dataclass(frozen=True)
class SwitchSpec:
    base_mac: str  # the EEPROM's; the management port has another, as on many real switches
    ssh_port: int  # without an address: of this host's loopback, leads to the switch's port 22
    bootfile: str  # the URL that QEMU's DHCP server hands out
    key: str = ""  # of who may log in as root, OpenSSH's public form
    password: str = ""  # for the same and for admin
    platform: str = PLATFORM
    address: str = ""  # ADDRESS/PREFIX of its management port, once it is configured: on a real network
    peer: str = ""  # name of the other one of its pair
    place: int = 0  # 1 or 2 in that pair
    cables: tuple[str, ...] = ()  # what LLDP tells: "Ethernet0=spine-1/Ethernet4"
    loop: int = 3  # seconds between two rounds of discovery; ONIE's own is 20

    @property
    def ssh(self) -> str:
        """ADDRESS:PORT"""
        return f"{self.address.partition('/')[0] or '127.0.0.1'}:{self.ssh_port}"


def anonymous(switch: SwitchSpec) -> SwitchSpec:
    """Without what differs between two labs that are alike."""
    return replace(switch, base_mac="", ssh_port=0, bootfile="", address="", key="", password="")


def cables(number: int) -> tuple[str, ...]:
    return tuple(uplink.format(4 * number) for uplink in UPLINKS)


def pair(number: int, count: int) -> tuple[str, int]:
    """Name of the peer and place, 1 or 2; ("", 0) for the last of an odd number. Pairs are 1 and 2, 3 and 4, ..."""
    place = 2 - number % 2
    other = number + 1 if place == 1 else number - 1
    return (f"sw-{other}", place) if other <= count else ("", 0)


def smbios(switch: SwitchSpec) -> str:
    """The EEPROM's content as OEM strings (SMBIOS type 11), where the lab's ONIE and NOS read it."""
    values = {
        "platform": switch.platform,
        "asic": ASIC,
        "base_mac": switch.base_mac,
        "loop": str(switch.loop),
        "pair": str(switch.place or ""),
        "password": switch.password,
        "ssh_key": switch.key,
        "cables": " ".join(switch.cables),
    }
    # A comma ends a value for QEMU unless it stands twice.
    strings = [f"value=metalimmu.{key}={value}".replace(",", ",,") for key, value in values.items() if value]
    return ",".join(["type=11", *strings])


def user_network(switch: SwitchSpec) -> str:
    """Options for QEMU's user network, with a leading comma: its DHCP server names one file to all who ask, so one URL answers ONIE and ZTP."""
    return f",bootfile={switch.bootfile},hostfwd=tcp:127.0.0.1:{switch.ssh_port}-:22"


def links(switch: SwitchSpec) -> list[str]:
    """The cables of a pair, as datagrams between two sockets: either end may come and go. Paths as seen from the server's folder."""
    if not switch.peer:
        return []
    options: list[str] = []
    for link in LINKS:
        ends = (
            f"local.type=unix,local.path=link{link}.sock,remote.type=unix,remote.path=../{switch.peer}/link{link}.sock"
        )
        options += ["-netdev", f"dgram,id=link{link},{ends}"]
        options += ["-device", f"virtio-net-pci,netdev=link{link},id=port{link},romfile="]
    return options
