"""A simulated machine's boot from the network: DHCP has said whom to ask, iPXE asks, and fetches what it is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from metalimmu.observed.machine import Machine
from metalimmu.wire.messages import Boot
from metalimmu_emulator import simulated_media
from metalimmu_emulator.simulated_agent import find_boot
from metalimmu_emulator.simulated_http import Connection

_FETCH = re.compile(r"^(?:kernel|initrd) --name (\S+) (http://\S+)", re.MULTILINE)


def fetch(machine: Machine, say: Callable[[str], None]) -> Boot | simulated_media.Media | None:
    """What the agent is started with, or what is booted that has no agent; None: the machine is told to boot its disk.

    Raises one of BROKEN.
    """
    if not machine.netboot:
        raise OSError("nobody answers DHCP")
    mac = machine.nics[0] if machine.nics else ""
    asked = urlencode({"mac": mac, "uuid": machine.uuid, "serial": machine.serial, "platform": "efi"})
    script = _get(f"{machine.netboot}/boot/ipxe?{asked}").decode()
    found = dict(_FETCH.findall(script))
    if not found:
        say("the network says: boot from disk")
        return None
    say(f"from the network: {' '.join(found)}")
    files = {name: _get(url) for name, url in found.items()}
    second = files.get("slot.cpio", b"")
    boot = find_boot([second]) if second else None
    if boot is not None:
        return boot
    words = re.findall(r"^kernel --name \S+ \S+ (.*) \|\| goto", script, re.MULTILINE)
    arguments = tuple(w for line in words for w in line.split() if not w.startswith("initrd="))
    return simulated_media.Media(arguments, simulated_media.seed_of(second))


def _get(url: str) -> bytes:
    parts = urlsplit(url)
    connection = Connection(url)
    try:
        answer = connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{parts.path.rpartition('/')[2]} is answered with {answer.status}")
    return answer.data
