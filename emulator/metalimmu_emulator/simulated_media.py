"""What a simulated machine does that boots media other than our ramdisk: an installer, a live system, a vendor's ISO.

Which it is, is read from the media themselves: GRUB's commands in their slot, and the seed in their second initrd.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from metalimmu_emulator.simulated_http import BROKEN, Answer, Connection

_LINUX = re.compile(rb"linux /boot/vmlinuz((?: '[^'\n]*')*)\n")
_ASKS = re.compile(r"(?:url|inst\.ks|ks)=(\S+)|ds=nocloud(?:-net)?;s=(\S+)")
_SEED = b"metalimmu/seed/metalimmu.json\0"


class Machinery(Protocol):
    """The machine around it."""

    def pause(self, seconds: float) -> None: ...

    def fault(self, word: str) -> str | None: ...


@dataclass(frozen=True)
class Media:
    arguments: tuple[str, ...]  # of the kernel; none: a vendor's ISO
    seed: dict[str, Any] | None  # of a live system

    @property
    def answers(self) -> str:
        """The address that an installer asks first; empty: it is none."""
        found = next((m for a in self.arguments if (m := _ASKS.fullmatch(a))), None)
        if found is None:
            return ""
        return found[1] or f"{found[2]}user-data"

    def argument(self, name: str) -> str:
        return next((a.partition("=")[2] for a in self.arguments if a.startswith(f"{name}=")), "")


def read(data: bytes) -> Media:
    line = _LINUX.search(data)
    arguments = tuple(re.findall(r"'([^']*)'", line[1].decode())) if line else ()
    return Media(arguments, seed_of(data))


def seed_of(data: bytes) -> dict[str, Any] | None:
    """What the proof unit of a live system finds in its second initrd."""
    at = data.find(_SEED)
    if at < 0:
        return None
    start = data.index(b"{", at)
    found: dict[str, Any] = json.JSONDecoder().raw_decode(data[start : start + (64 << 10)].decode("utf-8", "replace"))[
        0
    ]
    return found


class SimulatedInstaller:
    """`run` installs; it returns what the new system runs at its first boot, or None when it never came so far."""

    def __init__(self, around: Machinery, answers: str, serial: str, say: Callable[[str], None]) -> None:
        self._around = around
        self._serial = serial
        self._say = say
        self._base, _, self._main = answers.rpartition("/")

    def run(self) -> str | None:
        if self._around.fault("installer-dumb") is not None:
            self._say("the installer has no network")
            return None
        self._until(self._main)
        serial = self._around.fault("wrong-serial") or self._serial
        self._until("begin")
        self._until(f"say/begin?serial={quote(serial)}")
        self._until("root-disk")
        why = self._around.fault("installer-fails")
        if why is not None:
            self._until(f"say/failed?why={quote(why)}")
            return None
        self._until("say/partitioning")
        if self._around.fault("installer-hangs") is not None:
            self._say("the installer asks something at its console")
            return None
        self._around.pause(1)
        program = self._until("phone-home").data.decode()
        self._until("say/finished")
        self._say("installed")
        return program

    def _until(self, what: str) -> Answer:
        while True:
            answer = get(f"{self._base}/{what}")
            if answer is not None and answer.status == 200:
                return answer
            self._say(f"{what}: {answer.status if answer else 'no answer'}")
            self._around.pause(2)


def phone_home(around: Machinery, program: str, hostname: str, serial: str) -> None:
    """As pxe/install/phone-home.sh does it; `program` is its text."""
    url, instance = (re.findall(rf"^{name}='([^']*)'$", program, re.MULTILINE)[0] for name in ("url", "instance"))
    serial = around.fault("phone-home-serial") or serial
    body = urlencode({"instance_id": instance, "hostname": hostname, "serial": serial}).encode()
    while True:
        answer = get(url, body)
        if answer is not None and answer.status == 200:
            return
        around.pause(2)


def get(url: str, body: bytes | None = None) -> Answer | None:
    """None when there is no answer."""
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
    connection = Connection(url)
    try:
        return connection.request("POST" if body is not None else "GET", path, body=body, headers=headers)
    except BROKEN:
        return None
    finally:
        connection.close()
