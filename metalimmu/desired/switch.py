"""What a host document says of a switch, and what a role asks of one."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from metalimmu.desired.base import Document, Name

METHODS = ("onie", "two-slot")  # how a switch is reimaged

HostKey = Annotated[
    str,
    Meta(
        pattern=r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/=]{20,2000}$",
        description="a public SSH host key, as `ssh-keyscan` prints it behind the address",
        examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA…"],
    ),
]
_Mac = Annotated[
    str,
    Meta(
        pattern=r"^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$",
        description="a MAC address, quoted",
        examples=["b8:ca:3a:00:00:01"],
    ),
]


class Switch(Document, frozen=True, kw_only=True):
    """`switch:` of a host whose kind is switch."""

    platform: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9_]+-[A-Za-z0-9_.]+-r[0-9]+$",
            description="ONIE's platform, as `onie-sysinfo -p` says it",
            examples=["x86_64-accton_as7726_32x-r0"],
        ),
    ]
    base_mac: _Mac  # of the EEPROM: what ONIE and ZTP say who they are
    mgmt_mac: _Mac | None = None  # of the management port, where it is another: what DHCP sees
    peer: Name | None = None  # the other switch of its MLAG pair
    ssh: (
        Annotated[
            str, Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s@/]+)(:[0-9]{1,5})?$", description="ADDRESS or ADDRESS:PORT")
        ]
        | None
    ) = None  # where its NOS listens; without it the host's `bmc: ssh://ADDRESS`
    user: str | None = None  # of its NOS; without it the credentials' user name
    key: str | None = None  # private key file, relative to the site; without it the credentials' password
    host_keys: list[HostKey] = []  # pinned; without them the first one seen is, and each reimage brings a new one


class SwitchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one switch, combined: part of HostSpec. MACs are lower case with colons, times seconds."""

    platform: str
    base_mac: str
    mgmt_mac: str
    peer: str | None
    address: str
    port: int
    user: str | None
    key: str | None  # absolute path
    host_keys: tuple[str, ...]
    soak: float
    installs: int


def no_bmc(address: str) -> bool:
    """Is this `bmc:` that of a switch which has none?"""
    return address.startswith("ssh://")


def ssh_address(bmc: str, given: str | None) -> tuple[str, int]:
    """Host and port of the NOS; an empty host where neither says any."""
    try:
        parts = urlsplit(f"ssh://{given}" if given else bmc)
        port = parts.port or 22
    except ValueError:
        return "", 0
    return (parts.hostname or "", port) if parts.scheme == "ssh" else ("", 0)
